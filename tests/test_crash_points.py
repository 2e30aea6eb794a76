"""Crash points: in graphs of other people and with any saver, a process dies where it was told to."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any, TypedDict

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph

from tests.servers.enrichment import EnrichmentServer
from tests.worlds import NamesByCapital
from tidegate import Pipeline, Settings, open_checkpointer
from tidegate.checkpointers.sqlite import SqliteSaver
from tidegate.testing import crash_at, killed_at

CONFIG: Any = {"configurable": {"thread_id": "t"}}


class Killed(BaseException):
    """Stands for SIGKILL."""


@pytest.fixture
def spared(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process lives on, and the test hears of it."""

    def kill(pid: int, number: int) -> None:
        assert (pid, number) == (os.getpid(), signal.SIGKILL)
        raise Killed

    monkeypatch.setattr(os, "kill", kill)


class Steps(TypedDict, total=False):
    one: str
    two: str


def graph(saver: BaseCheckpointSaver[Any], done: list[str]) -> Any:
    """Two steps, one after the other."""

    async def one(state: Steps) -> Steps:
        done.append("one")
        return {"one": "done"}

    async def two(state: Steps) -> Steps:
        done.append("two")
        return {"two": "done"}

    builder = StateGraph(Steps)
    builder.add_node("first", one)
    builder.add_node("second", two)
    builder.add_edge(START, "first")
    builder.add_edge("first", "second")
    builder.add_edge("second", END)
    return builder.compile(checkpointer=saver)


async def run(url: str, data: Steps | None, done: list[str]) -> Steps:
    async with open_checkpointer(url) as saver:
        state: Steps = await graph(saver, done).ainvoke(data, CONFIG, durability="sync")
        return state


def begin(url: str) -> None:
    asyncio.run(run(url, {}, []))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("point", "again"),
    [
        ("checkpoint:before:2", ["one", "two"]),
        ("checkpoint:after:3", ["two"]),
        ("writes:before:2", ["one", "two"]),
        ("writes:after:2", ["two"]),
    ],
)
async def test_a_graph_killed_at_a_point_goes_on_from_its_last_checkpoint(
    tmp_path: Path, point: str, again: list[str]
) -> None:
    url = f"sqlite:///{tmp_path}/threads.db"
    await asyncio.to_thread(killed_at, point, begin, url)
    done: list[str] = []
    assert await run(url, None, done) == {"one": "done", "two": "done"}
    assert done == again


@pytest.mark.slow
def test_a_process_that_never_comes_to_the_point_fails_the_test(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"not killed at checkpoint:before:99: it ended with status 0"):
        killed_at("checkpoint:before:99", begin, f"sqlite:///{tmp_path}/threads.db")


@pytest.mark.parametrize("write", ["checkpoint", "writes"])
@pytest.mark.parametrize("side", ["before", "after"])
async def test_a_write_is_counted_once_with_any_saver(spared: None, write: str, side: str) -> None:
    """LangGraph's saver in memory awaits its own blocking twin."""
    writes = {"checkpoint": 4, "writes": 3}[write]  # of the input, and of two steps
    for point, dies in ((f"{write}:{side}:{writes}", True), (f"{write}:{side}:{writes + 1}", False)):
        with crash_at(point):
            compiled = graph(InMemorySaver(), [])
            if dies:
                with pytest.raises(Killed):
                    await compiled.ainvoke({}, CONFIG, durability="sync")
            else:
                await compiled.ainvoke({}, CONFIG, durability="sync")


async def test_a_saver_that_is_loaded_later_is_watched_too(spared: None) -> None:
    with crash_at("checkpoint:before:1"):

        class Late(InMemorySaver):
            async def aput(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
                return await super().aput(config, checkpoint, metadata, new_versions)

        with pytest.raises(Killed):
            await graph(Late(), []).ainvoke({}, CONFIG, durability="sync")
    assert Late.aput.__name__ == "aput"
    assert "__init_subclass__" not in BaseCheckpointSaver.__dict__


async def test_a_point_of_the_journal_can_be_of_one_service(spared: None) -> None:
    with EnrichmentServer() as server:
        enrichment: Any = {"adapter": "http", "url": server.url, "types": ["LOC"]}
        settings = Settings(checkpoints="memory:", enrichment=enrichment)
        for point, asked in (
            ("intent@enrichment:before:1", 0),
            ("answer@enrichment:before:1", 1),
            ("answer:after:1", 1),
        ):
            with crash_at(point):
                async with Pipeline.open(settings, recogniser=NamesByCapital()) as pipeline:
                    with pytest.raises(Killed):
                        await pipeline.run(text="it rained in Balan")
            assert len(server.requests) == asked, point
            server.requests.clear()
        with crash_at("intent@model:before:1"):
            async with Pipeline.open(settings, recogniser=NamesByCapital()) as pipeline:
                assert (await pipeline.run(text="it rained in Balan")).status == "complete"


def test_nothing_of_it_stays() -> None:
    before = (InMemorySaver.put, InMemorySaver.aput, SqliteSaver.aput)
    with crash_at("checkpoint:before:1"):
        assert SqliteSaver.aput is not before[2]
    assert (InMemorySaver.put, InMemorySaver.aput, SqliteSaver.aput) == before


@pytest.mark.parametrize(
    "point", ["", "checkpoint", "checkpoint:before:0", "checkpoint@model:before:1", "save:after:1"]
)
def test_a_point_that_there_is_not_is_refused(point: str) -> None:
    with pytest.raises(ValueError, match="no crash point"), crash_at(point):
        pass


def test_a_point_that_there_is_not_is_refused_before_a_process_is_begun() -> None:
    with pytest.raises(ValueError, match="'chekpoint:after:3' is no crash point"):
        killed_at("chekpoint:after:3", print)
