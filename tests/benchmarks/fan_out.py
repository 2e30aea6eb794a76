"""A four-step graph that fans out, and what a run of it costs under a saver."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Send

from tests.benchmarks.counters import Usage, usage
from tests.benchmarks.prose import prose
from tests.benchmarks.savers import BY_NAME, Saver

Graph = CompiledStateGraph[Any, Any, Any, Any]
Update = dict[str, Any]


def merged(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
    return left | right


class State(TypedDict):
    source: str
    document: dict[str, Any]
    entities: dict[str, Any]
    enrichments: Annotated[dict[str, Any], merged]
    summary: dict[str, Any]


def compile_graph(
    documents: Mapping[str, str],
    branches: int,
    saver: BaseCheckpointSaver[Any] | None,
    *,
    blocking: bool = False,
    interrupt_before: Sequence[str] = (),
) -> Graph:
    """Return ingest -> extract -> as many branches of enrich -> summarize; `documents` maps source to text."""

    def ingest(state: State) -> Update:
        source = state["source"]
        return {"document": {"id": source, "source": source, "text": documents[source]}}

    def extract(state: State) -> Update:
        words = state["document"]["text"].split()
        found = {f"entity-{i}": {"text": words[i % len(words)], "mentions": [i, i + 9]} for i in range(branches)}
        return {"entities": found}

    def fan_out(state: State) -> list[Send]:
        return [Send("enrich", {"id": id_, "text": entity["text"]}) for id_, entity in state["entities"].items()]

    def enrich(entity: dict[str, str]) -> Update:
        data = {"name": entity["text"], "country": "Norway", "population": 294_029}
        return {"enrichments": {entity["id"]: {"status": "enriched", "data": data, "attempts": 1}}}

    def summarize(state: State) -> Update:
        return {"summary": {"text": state["document"]["text"][:500], "enriched": len(state["enrichments"])}}

    graph = StateGraph(State)
    steps: tuple[Callable[..., Update], ...] = (ingest, extract, enrich, summarize)
    for step in steps:
        action: Any = step if blocking else _asynchronous(step)
        graph.add_node(step.__name__, action)
    graph.add_edge(START, "ingest")
    graph.add_edge("ingest", "extract")
    graph.add_conditional_edges("extract", fan_out, ["enrich"])
    graph.add_edge("enrich", "summarize")
    graph.add_edge("summarize", END)
    return graph.compile(checkpointer=saver, interrupt_before=list(interrupt_before))


def _asynchronous(step: Callable[..., Update]) -> Callable[..., Awaitable[Update]]:
    async def run(state: Any) -> Update:
        return step(state)

    return run


@dataclass(frozen=True, slots=True)
class Workload:
    """`runs` at once in each of `processes`, all on one file; every run has a document of `size` bytes of its own."""

    size: int
    branches: int
    runs: int = 1
    processes: int = 1

    def __str__(self) -> str:
        parts = [f"{self.size / 1000:g} KB" if self.size < 1_000_000 else f"{self.size / 1_000_000:g} MB"]
        parts += [f"{self.branches:,} branches"]
        parts += [f"{self.runs} runs at once"] if self.runs > 1 else []
        parts += [f"{self.processes} processes"] if self.processes > 1 else []
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Sample:
    """What one run cost; of several that ran side by side, the mean.

    `disk` is how many bytes the store's files grew by, each WAL written back. `used` is until the run returned, when
    all is durable; but CPU and bytes written include those of writing the WAL back, so that none leaves work to others.
    `seconds` is wall time until the last run returned, `durable` the seconds of every call that stored what a branch
    returned.
    """

    disk: float
    used: Usage
    seconds: float
    durable: tuple[float, ...]


class Household:
    """The stores that this process keeps open, on one event loop, as a service does.

    What is paid once in a process's life, opening and closing, is thus no part of a run. Nor is what is paid once in a
    store's life: the first sample on a new store shows how much room there is in its empty tables.
    """

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        self._open: dict[Path, BaseCheckpointSaver[Any] | None] = {}
        self._durable: list[float] = []

    def measure(self, saver: Saver, work: Workload, seed: int, store: Path) -> Sample:
        """Run one process's share of the workload on the store in this folder; the seeds of its documents follow."""
        return self._runner.run(self._measure(saver, work, seed, store))

    def close(self) -> None:
        """Close all stores."""
        self._runner.run(self._stack.aclose())
        self._runner.close()

    def open(self, saver: Saver, store: Path) -> None:
        """Open the store in this folder."""
        self._runner.run(self._opened(saver, store))

    async def _opened(self, saver: Saver, store: Path) -> BaseCheckpointSaver[Any] | None:
        if store not in self._open:
            opened = self._open[store] = await self._stack.enter_async_context(saver.open(store))
            if opened is not None:
                _watch(opened, self._durable, blocking=saver.blocking)
        return self._open[store]

    async def _measure(self, saver: Saver, work: Workload, seed: int, store: Path) -> Sample:
        opened = await self._opened(saver, store)
        sources = [f"report-{seed + i}.txt" for i in range(work.runs)]
        documents = {source: prose(work.size, seed + i) for i, source in enumerate(sources)}
        graph = compile_graph(documents, work.branches, opened, blocking=saver.blocking)
        self._durable.clear()
        size = _size(store)
        gc.collect()  # nobody pays for what the one before left
        before, began = usage(), time.perf_counter()
        await asyncio.gather(*(_run(graph, source, saver, stored=opened is not None) for source in sources))
        returned, seconds = usage(), time.perf_counter() - began
        _write_back(store)
        after = usage()
        used = Usage((after - before).cpu, (after - before).written, (returned - before).fsyncs)
        return Sample((_size(store) - size) / work.runs, used / work.runs, seconds, tuple(self._durable))


_household: Household | None = None


def worker_opens(saver: str, store: Path) -> None:
    """Open a store in this worker process; takes the saver by name, since a function cannot be sent to a process."""
    global _household
    _household = _household or Household()
    _household.open(BY_NAME[saver], store)


def in_worker(saver: str, work: Workload, seed: int, store: Path) -> Sample:
    """Do a worker process's share of the workload, on a store that it opened."""
    assert _household is not None
    return _household.measure(BY_NAME[saver], work, seed, store)


def worker_closes() -> None:
    """Close what `worker_opens` opened."""
    if _household is not None:
        _household.close()


def together(workers: Sequence[Executor], saver: Saver, work: Workload, seed: int, store: Path) -> Sample:
    """Have each worker do a process's share of the workload at once."""
    size = _size(store)
    shares = [
        worker.submit(in_worker, saver.name, work, seed + number * work.runs, store)
        for number, worker in enumerate(workers)
    ]
    parts = [share.result() for share in shares]
    return Sample(
        disk=(_size(store) - size) / (work.runs * len(parts)),
        used=sum((part.used for part in parts[1:]), parts[0].used) / len(parts),
        seconds=max(part.seconds for part in parts),
        durable=tuple(seconds for part in parts for seconds in part.durable),
    )


def _size(store: Path) -> int:
    """Return the bytes of a store's files, those aside that SQLite removes when the last connection closes."""
    files = (file for file in store.rglob("*") if file.is_file())
    return sum(file.stat().st_size for file in files if not file.name.endswith(("-wal", "-shm")))


def _write_back(store: Path) -> None:
    """Have every WAL written into its database, as happens now and then, and when the last connection closes."""
    for database in store.glob("*.db"):
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")


async def _run(graph: Graph, source: str, saver: Saver, *, stored: bool) -> None:
    config: RunnableConfig = {"configurable": {"thread_id": source}}
    state: Any = {"source": source}
    durability: Literal["sync"] | None = "sync" if stored else None
    if saver.blocking:
        result = await asyncio.to_thread(graph.invoke, state, config, durability=durability)
    else:
        result = await graph.ainvoke(state, config, durability=durability)
    assert result["summary"]["enriched"] == len(result["entities"])


def _watch(saver: BaseCheckpointSaver[Any], seconds: list[float], *, blocking: bool) -> None:
    """Time every call that stores what a branch returned."""
    put, aput = saver.put_writes, saver.aput_writes

    def put_writes(
        config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        began = time.perf_counter()
        put(config, writes, task_id, task_path)
        if writes[0][0] == "enrichments":
            seconds.append(time.perf_counter() - began)

    async def aput_writes(
        config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        began = time.perf_counter()
        await aput(config, writes, task_id, task_path)
        if writes[0][0] == "enrichments":
            seconds.append(time.perf_counter() - began)

    vars(saver).update({"put_writes": put_writes} if blocking else {"aput_writes": aput_writes})
