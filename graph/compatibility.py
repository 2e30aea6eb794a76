"""Can this code go on with a stored thread, and what has to change in it first?"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from typing import Any, TypeAlias

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple, create_checkpoint
from langgraph.checkpoint.serde.types import TASKS
from langgraph.graph import StateGraph

from tidegate.errors import IncompatibleThread
from tidegate.state import SCHEMA_VERSION

Migration: TypeAlias = Callable[[dict[str, Any]], dict[str, Any]]
"""Channel values of one schema version -> those of the next; changes nothing in what it is given."""


def _by_circuit(values: dict[str, Any]) -> dict[str, Any]:
    """Schema 1 to 2: why a model did not summarize is kept for each of several, by circuit."""
    failure = values.get("summary_failure")
    kept = {name: value for name, value in values.items() if name != "summary_failure"}
    return {**kept, "summary_failures": None if failure is None else {"model": failure}}


MIGRATIONS: Mapping[int, Migration] = {1: _by_circuit}
"""By the version that each starts from. Threads of a version without one cannot be resumed."""

_BRANCH = "branch:to:"


def check(thread_id: str, saved: CheckpointTuple, nodes: Container[str]) -> None:
    """Refuse a checkpoint that waits before a step this graph does not have, or whose schema cannot be migrated.

    It also waits for what its finished tasks lead to, where their process ended before the checkpoint after them.

    LangGraph 1.2.22 would return from such a thread as if it were finished, without running the step.

    Raises:
        IncompatibleThread: with what differs.
    """
    values: dict[str, Any] = saved.checkpoint["channel_values"]
    written = [(channel, value) for _, channel, value in saved.pending_writes or ()]
    channels = [*values, *(channel for channel, _ in written)]
    sends = [*(values.get(TASKS) or ()), *(value for channel, value in written if channel == TASKS)]
    waiting_for = {name.removeprefix(_BRANCH) for name in channels if name.startswith(_BRANCH)}
    waiting_for |= {str(getattr(send, "node", "something that is no step")) for send in sends}
    unknown = sorted(name for name in waiting_for if name not in nodes)
    if unknown:
        raise IncompatibleThread(
            thread_id,
            f"waits for {', '.join(unknown)}, which this version of the code does not have; "
            "resume it with the version that started it, or register the step under its old name too",
        )
    version = values.get("schema_version", SCHEMA_VERSION)
    while type(version) is int and version in MIGRATIONS:
        version += 1
    if version != SCHEMA_VERSION:
        raise IncompatibleThread(
            thread_id,
            f"was stored under schema version {values['schema_version']!r}, this code reads {SCHEMA_VERSION}; "
            "upgrade or roll back",
        )


def migrated(values: dict[str, Any]) -> dict[str, Any]:
    """Return the channel values in the form that this code reads."""
    while (version := values.get("schema_version", SCHEMA_VERSION)) != SCHEMA_VERSION:
        values = {**MIGRATIONS[version](values), "schema_version": version + 1}
    return values


async def migrate(saver: BaseCheckpointSaver[Any], config: RunnableConfig, saved: CheckpointTuple) -> None:
    """Write a thread's newest checkpoint anew in the form that this code reads, after it, if it is in an older one.

    What single tasks wrote after it is in the old form and stays behind: those steps run again.
    """
    values = migrated(saved.checkpoint["channel_values"])
    if values is saved.checkpoint["channel_values"]:
        return
    old, versions = saved.checkpoint["channel_values"], saved.checkpoint["channel_versions"]
    changed = {
        name: saver.get_next_version(versions.get(name), None)
        for name, value in values.items()
        if name not in old or old[name] != value
    }
    step = saved.metadata.get("step", 0) + 1
    checkpoint = create_checkpoint(saved.checkpoint, None, step)
    checkpoint["channel_values"] = values
    checkpoint["channel_versions"] = {**versions, **changed}
    parent: RunnableConfig = {**config, "configurable": {**config.get("configurable", {}), **_address(saved)}}
    await saver.aput(parent, checkpoint, {"source": "update", "step": step, "parents": {}}, changed)


def _address(saved: CheckpointTuple) -> dict[str, str]:
    return {"checkpoint_ns": "", "checkpoint_id": saved.checkpoint["id"]}


def register_aliases(graph: StateGraph[Any, Any, Any, Any], aliases: Mapping[str, str]) -> None:
    """Register steps under former names too, `{former: present}`, so that threads that wait for those go on.

    A former name leads wherever the present one does; nothing new leads to it.
    """
    for former, present in aliases.items():
        graph.nodes[former] = graph.nodes[present]
        graph.branches[former].update(graph.branches[present])
        for start, end in [*graph.edges]:
            if start == present:
                graph.add_edge(former, end)
        for starts, end in [*graph.waiting_edges]:
            if present in starts:
                graph.add_edge([former if start == present else start for start in starts], end)
