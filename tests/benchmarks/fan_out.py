"""A four-step graph that fans out, and what a run of it costs under a saver."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Executor
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


def merged(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
    return left | right


class State(TypedDict, total=False):
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

    def ingest(state: State) -> State:
        source = state["source"]
        return {"document": {"id": source, "source": source, "text": documents[source]}}

    def extract(state: State) -> State:
        words = state["document"]["text"].split()
        found = {f"entity-{i}": {"text": words[i % len(words)], "mentions": [i, i + 9]} for i in range(branches)}
        return {"entities": found}

    def fan_out(state: State) -> list[Send]:
        return [Send("enrich", {"id": id_, "text": entity["text"]}) for id_, entity in state["entities"].items()]

    def enrich(entity: dict[str, str]) -> State:
        data = {"name": entity["text"], "country": "Norway", "population": 294_029}
        return {"enrichments": {entity["id"]: {"status": "enriched", "data": data, "attempts": 1}}}

    def summarize(state: State) -> State:
        return {"summary": {"text": state["document"]["text"][:500], "enriched": len(state["enrichments"])}}

    graph = StateGraph(State)
    steps: tuple[Callable[..., State], ...] = (ingest, extract, enrich, summarize)
    for step in steps:
        action: Any = step if blocking else _asynchronous(step)
        graph.add_node(step.__name__, action)
    graph.add_edge(START, "ingest")
    graph.add_edge("ingest", "extract")
    graph.add_conditional_edges("extract", fan_out, ["enrich"])
    graph.add_edge("enrich", "summarize")
    graph.add_edge("summarize", END)
    return graph.compile(checkpointer=saver, interrupt_before=list(interrupt_before))


def _asynchronous(step: Callable[..., State]) -> Callable[..., Awaitable[State]]:
    async def run(state: Any) -> State:
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

    `disk` is how many bytes the store's files grew by, from closed to closed. `used` is until the store was closed, WAL
    checkpoint included; but its fsyncs are those until the run returned, since all is durable by then, and `closing`
    are those after it: a store is closed once in a process's life. `seconds` is wall time until the last run returned,
    `durable` the seconds of every call that stored what a branch returned.
    """

    disk: float
    used: Usage
    closing: float | None
    seconds: float
    durable: tuple[float, ...]


def measure(saver: Saver, work: Workload, seed: int, store: Path, workers: Sequence[Executor]) -> Sample:
    """Run the workload on the store in this folder; in `workers`, one a process, if it takes several processes.

    A store that is new shows how much room its empty tables have, so the first sample on one tells little.
    """
    store.mkdir(parents=True, exist_ok=True)
    before = _size(store)
    seeds = [seed + process * work.runs for process in range(work.processes)]
    if work.processes == 1:
        parts = [_share(saver.name, work, seed, store)]
    else:
        pairs = zip(workers, seeds, strict=False)
        shares = [worker.submit(_share, saver.name, work, first, store) for worker, first in pairs]
        parts = [share.result() for share in shares]
    runs = work.runs * work.processes
    return Sample(
        disk=(_size(store) - before) / runs,
        used=sum((part.used for part in parts[1:]), parts[0].used) / runs,
        closing=None if parts[0].closing is None else sum(part.closing or 0 for part in parts) / runs,
        seconds=max(part.seconds for part in parts),
        durable=tuple(seconds for part in parts for seconds in part.durable),
    )


def _share(saver: str, work: Workload, seed: int, folder: Path) -> Sample:
    """Do one process's share; takes the saver by name, since functions within it cannot be sent to a process."""
    return asyncio.run(_run_all(BY_NAME[saver], work, seed, folder))


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


async def _run_all(saver: Saver, work: Workload, seed: int, folder: Path) -> Sample:
    sources = [f"report-{seed + i}.txt" for i in range(work.runs)]
    documents = {source: prose(work.size, seed + i) for i, source in enumerate(sources)}
    durable: list[float] = []
    async with saver.open(folder) as opened:
        if opened is not None:
            _watch(opened, durable, blocking=saver.blocking)
        graph = compile_graph(documents, work.branches, opened, blocking=saver.blocking)
        gc.collect()  # nobody pays for what the one before left
        before, began = usage(), time.perf_counter()
        await asyncio.gather(*(_run(graph, source, saver, stored=opened is not None) for source in sources))
        returned, seconds = usage(), time.perf_counter() - began
    closed = usage()
    used = Usage((closed - before).cpu, (closed - before).written, (returned - before).fsyncs)
    return Sample(0, used, (closed - returned).fsyncs, seconds, tuple(durable))


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
