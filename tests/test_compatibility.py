"""Threads that other versions of the code left behind."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Send

from tests.worlds import World
from tidegate.errors import IncompatibleThread
from tidegate.graph import compatibility, execution
from tidegate.graph import pipeline as declaration
from tidegate.settings import EnrichmentSettings, Settings
from tidegate.state import SCHEMA_VERSION

TEXT = "Ada and Bob met Xenia in Cairo, then Dover, then Essen; Ada stayed."


@pytest.fixture
def world() -> World:
    return World(Settings(checkpoints="memory:", enrichment=EnrichmentSettings(when_open="wait")))


def renamed(monkeypatch: pytest.MonkeyPatch, former: str, present: str) -> None:
    """Let the thread have been stored by code in which a step had its former name."""
    monkeypatch.setattr(declaration, "ALIASES", {former: present})


@pytest.mark.parametrize("step", ["extract", "gate_enrichment", "enrich", "gate_summary"])
async def test_a_thread_that_waits_for_a_step_under_its_former_name_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    undisturbed = await world.executions().advance("u", await world.take_in(TEXT))
    world.places.asked.clear()
    executions = world.executions()
    executions._graph.interrupt_before_nodes = [step]
    stopped = await executions.advance("t", await world.take_in(TEXT))
    assert stopped.next[0] == step
    await under_its_former_name(world, step)
    with pytest.raises(IncompatibleThread, match="waits for former"):
        await world.executions().advance("t", None)
    renamed(monkeypatch, "former", step)
    done = await world.executions().advance("t", None)
    assert (done.status, done.text) == (undisturbed.status, undisturbed.text)
    assert done.enrichments.keys() == undisturbed.enrichments.keys()


async def under_its_former_name(world: World, step: str) -> None:
    config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    saved = await world.saver.aget_tuple(config)
    assert saved is not None
    checkpoint = saved.checkpoint
    values, versions = dict(checkpoint["channel_values"]), dict(checkpoint["channel_versions"])
    if f"branch:to:{step}" in values:
        values["branch:to:former"] = values.pop(f"branch:to:{step}")
        versions["branch:to:former"] = versions.pop(f"branch:to:{step}")
    for send in values.get("__pregel_tasks") or ():
        send.node = "former"
    updated = [name.replace(f":{step}", ":former") for name in checkpoint["updated_channels"] or ()]
    stored: Any = {
        **checkpoint,
        "channel_values": values,
        "channel_versions": versions,
        "updated_channels": updated,
    }
    await world.saver.aput(saved.parent_config or config, stored, saved.metadata, versions)


@pytest.mark.parametrize(
    ("channel", "value"), [("branch:to:gone", None), ("__pregel_tasks", Send("gone", {})), ("__pregel_tasks", {})]
)
async def test_a_thread_whose_last_task_led_to_a_step_that_is_gone_is_refused(channel: str, value: Any) -> None:
    saver = InMemorySaver()
    config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    stored = await saver.aput(config, empty_checkpoint(), {"step": 0}, {})
    await saver.aput_writes(stored, [(channel, value)], "task")
    saved = await saver.aget_tuple(config)
    assert saved is not None
    with pytest.raises(IncompatibleThread, match=r"waits for (gone|something that is no step)"):
        compatibility.check("t", saved, {"present"})


async def test_a_state_of_an_older_schema_is_migrated_before_the_thread_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.places.down = True
    await world.executions().advance("t", await world.take_in(TEXT))
    newer(monkeypatch, lambda values: {**values, "source": f"{values['source']}!"})
    shown = await world.executions().looks.inspect("t")
    assert (shown.status, shown.source) == ("waiting", "note.txt!")
    world.places.down = False
    world.clock.advance(31.0)
    done = await world.executions().advance("t", None)
    assert (done.status, done.source) == ("complete", "note.txt!")
    snapshot = await world.executions()._graph.aget_state({"configurable": {"thread_id": "t"}})
    assert snapshot.values["schema_version"] == SCHEMA_VERSION + 2
    assert (await world.executions().advance("t", None)).source == "note.txt!"  # once, not at every resume


async def test_a_migration_that_is_missing_refuses_the_thread(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.executions().advance("t", await world.take_in(TEXT))
    newer(monkeypatch, lambda values: values)
    monkeypatch.setattr(compatibility, "MIGRATIONS", {SCHEMA_VERSION + 1: lambda values: values})
    for attempt in (world.executions().advance("t", None), world.executions().looks.inspect("t")):
        with pytest.raises(
            IncompatibleThread, match=f"schema version {SCHEMA_VERSION}, this code reads {SCHEMA_VERSION + 2}"
        ):
            await attempt


async def test_a_state_of_a_newer_schema_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.executions().advance("t", await world.take_in(TEXT))
    monkeypatch.setattr(compatibility, "SCHEMA_VERSION", 0)
    with pytest.raises(IncompatibleThread, match=f"schema version {SCHEMA_VERSION}, this code reads 0"):
        await world.executions().advance("t", None)


def newer(monkeypatch: pytest.MonkeyPatch, first: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Let the code be two schema versions on."""
    monkeypatch.setattr(compatibility, "SCHEMA_VERSION", SCHEMA_VERSION + 2)
    migrations = {SCHEMA_VERSION: first, SCHEMA_VERSION + 1: lambda values: {**values, "media_type": "x/y"}}
    monkeypatch.setattr(compatibility, "MIGRATIONS", migrations)


async def test_a_thread_last_run_by_another_graph_is_told_of(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world.places.down = True
    await world.executions().advance("t", await world.take_in(TEXT))
    renamed(monkeypatch, "former", "extract")
    with caplog.at_level("INFO", execution.__name__):
        await world.executions().advance("t", None)
    assert "thread t was last run by a graph of other steps or edges" in caplog.text


@pytest.mark.parametrize("renamed", [("left",), ("left", "right")])
async def test_a_thread_that_waits_in_a_join_under_a_former_name_goes_on(renamed: tuple[str, ...]) -> None:
    class State(TypedDict):
        seen: Annotated[list[str], operator.add]

    def noting(name: str) -> Any:
        return lambda state: {"seen": [name]}

    def build(left: str, right: str, aliases: dict[str, str], stop: list[str]) -> Any:
        graph = StateGraph(State)
        for name in (left, right, "joined"):
            graph.add_node(name, noting(name))
        graph.add_edge(START, left)
        graph.add_edge(left, right)
        graph.add_edge([left, right], "joined")
        compatibility.register_aliases(graph, aliases)
        return graph.compile(checkpointer=saver, interrupt_before=stop)

    saver = InMemorySaver()
    config: Any = {"configurable": {"thread_id": "t"}}
    former = {"left": "left", "right": "right"} | {name: f"former_{name}" for name in renamed}
    await build(former["left"], former["right"], {}, [former["left"]]).ainvoke({"seen": []}, config)
    aliases = {former[name]: name for name in renamed}
    done = await build("left", "right", aliases, []).ainvoke(None, config)
    assert done["seen"][-1] == "joined"
    assert done["seen"].count("joined") == 1
    fresh = await build("left", "right", aliases, []).ainvoke({"seen": []}, {"configurable": {"thread_id": "u"}})
    assert fresh["seen"] == ["left", "right", "joined"]
