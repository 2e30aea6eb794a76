"""Looking: how far a thread is, and what its checkpoints hold."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace
from itertools import zip_longest
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import StateSnapshot

from tidegate.errors import CheckpointDamaged, IncompatibleThread, StateInvalid
from tidegate.graph import compatibility
from tidegate.graph.lacks import lacked, models_wanted, pause_left
from tidegate.graph.result import HistoryEntry, Result, Status
from tidegate.graph.services import Services
from tidegate.graph.thread_ids import check_thread_id, not_found
from tidegate.settings import Policy
from tidegate.state import EXECUTION, WHEN_OPEN, Input, Output, State
from tidegate.store.leases import Lease
from tidegate.store.registry import Registry, Service, ThreadRecord

_RECURSION_LIMIT = 200  # supersteps in one execution; the gates bound their rounds long before


class Looks:
    """Reads the threads of one compiled graph."""

    def __init__(
        self, graph: CompiledStateGraph[State, None, Input, Output], services: Services, registry: Registry
    ) -> None:
        self._graph = graph
        self._services = services
        self._registry = registry

    async def inspect(self, thread_id: str) -> Result:
        """Return how far a thread is."""
        check_thread_id(thread_id)
        snapshot = await self.snapshot(thread_id)
        record = await self._registry.get(thread_id)
        if snapshot is None:
            check_unpublished(record)
        if snapshot is not None:
            return await self.result(thread_id, snapshot, record)
        if record is None:
            raise not_found(thread_id)
        reason = record.error or ""
        return Result(thread_id=thread_id, status="unfinished", source=record.source, retry_in=0.0, reason=reason)

    async def history(self, thread_id: str, limit: int | None) -> list[HistoryEntry]:
        """Return a thread's checkpoints, the newest first."""
        check_thread_id(thread_id)
        config = config_of(thread_id)
        # One more than asked for: what ran before a checkpoint is what the older one says comes next.
        more = None if limit is None else limit + 1
        snapshots = [snapshot async for snapshot in self._graph.aget_state_history(config, limit=more)]
        entries = [
            HistoryEntry(
                checkpoint_id=str(snapshot.config.get("configurable", {}).get("checkpoint_id")),
                step=int((snapshot.metadata or {}).get("step", 0)),
                at=snapshot.created_at or "",
                source=str((snapshot.metadata or {}).get("source", "")),
                ran=older.next if older else (),
                reason=_reason(snapshot, older),
                next=snapshot.next,
                revision=snapshot.values.get("revision", 0),
                status=(snapshot.values.get("outcome") or {}).get("status"),
            )
            for snapshot, older in list(zip_longest(snapshots, snapshots[1:]))[:limit]
        ]
        if not entries and await self._registry.get(thread_id) is None:
            raise not_found(thread_id)
        return entries

    async def snapshot(self, thread_id: str, execution: RunnableConfig | None = None) -> StateSnapshot | None:
        """Return the newest checkpoint's state, None if there is none; refuse one that this code cannot go on with.

        For an execution, whose config is given, a state of an older schema is migrated first.
        """
        config = execution or config_of(thread_id)
        saver = cast("BaseCheckpointSaver[Any]", self._graph.checkpointer)
        saved = await saver.aget_tuple(config)
        if saved is None:
            return None
        compatibility.check(thread_id, saved, self._graph.nodes)
        if execution is not None:
            await compatibility.migrate(saver, execution, saved)
        return await self._graph.aget_state(config)

    async def result(self, thread_id: str, snapshot: StateSnapshot, record: ThreadRecord | None) -> Result:
        """Return how far a thread is by this checkpoint; its record, if there is one, knows of errors."""
        status: Status | None = None
        if (
            snapshot.next or snapshot.tasks
        ):  # `next` alone is empty after a kill between a task's writes and a checkpoint
            status = "waiting" if snapshot.interrupts else "unfinished"
        try:
            values = cast("State", compatibility.migrated(snapshot.values))
            # In a thread: a long document has tens of thousands of entities, which took 3 s to check.
            result = await asyncio.to_thread(Result.of, thread_id, values, status=status, next_=snapshot.next)
        except StateInvalid as error:
            raise IncompatibleThread(thread_id, f"does not fit this version of the code: {error}") from error
        reason = ""
        if result.status == "waiting":
            [service] = lacked(result)
            reason = f"{service}: {snapshot.values['routes'][service]['reason']}"
        elif result.status == "unfinished" and record is not None:
            reason = record.error or ""
        failed = record is not None and record.status == "failed"
        retry_in, held_open = await self._retry_in(result, values, failed=failed)
        return replace(result, reason=reason, retry_in=retry_in, held_open=held_open)

    async def _retry_in(self, result: Result, values: State, *, failed: bool) -> tuple[float | None, tuple[str, ...]]:
        """Return the seconds until resuming may bring the thread further, and the circuits that are held against it."""
        if result.status == "complete":
            return None, ()
        lacking: set[Service] = lacked(result)
        if result.status == "unfinished":
            lacking = {service for service in self._services.circuits if f"gate_{service}" in result.next}
            if not failed or not lacking:
                return 0.0, ()
            # Policy `fail` stopped it there.
        times: list[float] = []
        held: list[str] = []
        for what in sorted(lacking):
            circuit = self._services.circuits[what]
            if what == "summary":
                circuit = self._services.summary_circuit(models_wanted(result, values))
            report = await circuit.report()
            pause = pause_left(what, result, values, self._services.clock.now())
            times.append(max(0.0 if report.admits else report.retry_in, pause))
            held += [report.name] if report.forced == "open" else []
        return min(times, default=None), tuple(held) if len(held) == len(times) else ()


def config_of(thread_id: str, when_open: Policy | None = None, lease: Lease | None = None) -> RunnableConfig:
    """Return the config of one execution. The constant `run_id` makes sending input again a re-entry, not a new run."""
    configurable: dict[str, Any] = {"thread_id": thread_id, EXECUTION: uuid.uuid4().hex}
    if lease is not None:
        configurable |= lease.configurable()
    if when_open is not None:
        configurable[WHEN_OPEN] = when_open
    return {
        "configurable": configurable,
        "metadata": {"run_id": f"tidegate:{thread_id}"},
        "recursion_limit": _RECURSION_LIMIT,
    }


def check_unpublished(record: ThreadRecord | None) -> None:
    """Make sure that a thread which has no checkpoint never got far.

    Raises:
        CheckpointDamaged: it published a result.
    """
    if record is not None and record.revision > 0:
        problem = f"has published revision {record.revision}, and its checkpoints are gone; restore them from a copy"
        raise CheckpointDamaged(record.thread_id, f"{problem}, or delete the thread and run its document again")


def _reason(snapshot: StateSnapshot, older: StateSnapshot | None) -> str:
    """Return why the gate that ran before this checkpoint decided as it did."""
    gates = [name.removeprefix("gate_") for name in (older.next if older else ()) if name.startswith("gate_")]
    return str(snapshot.values.get("routes", {}).get(gates[0], {}).get("reason", "")) if gates else ""
