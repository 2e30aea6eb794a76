"""Reading and resuming in a file with many checkpoints, against one with few."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, empty_checkpoint

from tests.benchmarks.fan_out import Graph, compile_graph
from tests.benchmarks.prose import prose
from tests.benchmarks.ratios import turns
from tests.benchmarks.savers import FILLERS, Saver

A_THREAD = 10
"""Checkpoints a thread that fills the file."""

_AT_ONCE = 64
_CALLS = 10
_BRANCHES = 10

Seconds = dict[str, float]
"""What each operation took, by its name, in one round."""


@dataclass(frozen=True, slots=True)
class Store:
    """A saver's file with so many checkpoints."""

    saver: Saver
    checkpoints: int


async def measure(stores: list[Store], rounds: int, folder: Path, chance: random.Random) -> list[dict[Store, Seconds]]:
    """Fill a file for every store, then take turns reading them; returns what each took, a dictionary a round.

    Every file also holds a thread a round that was stopped before its last step, to be resumed.
    """
    async with AsyncExitStack() as opened:
        ready: dict[Store, tuple[BaseCheckpointSaver[Any], Graph]] = {}
        for number, store in enumerate(stores):
            place = folder / f"history-{number}"
            place.mkdir()
            async with FILLERS[store.saver.name](place) as filler:
                assert filler is not None
                await _fill(filler, store.checkpoints)
            saver = await opened.enter_async_context(store.saver.open(place))
            assert saver is not None
            documents = {f"stopped-{i}": prose(10_000, i) for i in range(rounds)}
            graph = compile_graph(documents, _BRANCHES, saver, interrupt_before=["summarize"])
            for source in documents:
                await graph.ainvoke({"source": source}, _thread(source), durability="sync")
            ready[store] = saver, graph
        return [
            {store: await _operations(*ready[store], store.checkpoints, number, chance) for store in order}
            for number, order in enumerate(turns(stores, rounds, chance))
        ]


async def _fill(saver: BaseCheckpointSaver[Any], checkpoints: int) -> None:
    threads = iter(range(checkpoints // A_THREAD))

    async def fill() -> None:
        for thread in threads:
            config: RunnableConfig = {"configurable": {"thread_id": f"thread-{thread}", "checkpoint_ns": ""}}
            for step in range(A_THREAD):
                checkpoint = empty_checkpoint()
                checkpoint["channel_values"] = {"document": {"id": f"report-{thread}.txt"}, "entities": {"step": step}}
                checkpoint["channel_versions"] = {"document": 1, "entities": step + 1}
                new = {"entities": step + 1} if step else checkpoint["channel_versions"]
                metadata: Any = {"source": "loop", "step": step, "parents": {}}
                config = await _put(saver, config, checkpoint, metadata, new)

    await asyncio.gather(*(fill() for _ in range(_AT_ONCE)))


async def _put(saver: BaseCheckpointSaver[Any], config: RunnableConfig, *rest: Any) -> RunnableConfig:
    try:
        return await saver.aput(config, *rest)
    except NotImplementedError:  # the official sync saver
        return saver.put(config, *rest)


async def _operations(
    saver: BaseCheckpointSaver[Any], graph: Graph, checkpoints: int, number: int, chance: random.Random
) -> Seconds:
    threads = checkpoints // A_THREAD

    async def get() -> None:
        assert await saver.aget_tuple(_thread(f"thread-{chance.randrange(threads)}"))

    async def list_thread() -> None:
        config = _thread(f"thread-{chance.randrange(threads)}")
        assert len([found async for found in saver.alist(config, limit=10)]) == min(10, A_THREAD)

    async def list_all() -> None:
        assert len([found async for found in saver.alist(None, limit=10)]) == 10

    async def resume() -> None:
        assert "summary" in await graph.ainvoke(None, _thread(f"stopped-{number}"), durability="sync")

    return {
        "resume": await _seconds(resume),
        "get_tuple": await _median(get),
        "list(limit=10) of a thread": await _median(list_thread),
        "list(limit=10) of all": await _median(list_all),
    }


async def _seconds(work: Callable[[], Awaitable[None]]) -> float:
    began = time.perf_counter()
    await work()
    return time.perf_counter() - began


async def _median(work: Callable[[], Awaitable[None]]) -> float:
    return statistics.median([await _seconds(work) for _ in range(_CALLS)])


def _thread(thread_id: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id}}
