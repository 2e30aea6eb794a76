"""Executions: bring one thread as far as it gets, from its checkpoints."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import zip_longest
from typing import Any, NamedTuple, TypedDict, cast
from weakref import WeakValueDictionary

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.errors import GraphDrained
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import StateSnapshot

from tidegate.checkpointers.saving import Fenced
from tidegate.errors import (
    CheckpointDamaged,
    CircuitOpen,
    DocumentMismatch,
    IncompatibleThread,
    ServiceError,
    SettingsError,
    StateInvalid,
    StoreError,
    StoreUnavailable,
    ThreadError,
    ThreadNotFound,
    TidegateError,
)
from tidegate.graph import compatibility
from tidegate.graph.drain import Drain
from tidegate.graph.lacks import asked_from, lacked, models_wanted, pause_left
from tidegate.graph.progress import task_event, token_event
from tidegate.graph.result import Event, HistoryEntry, Result, Status
from tidegate.graph.services import Services
from tidegate.graph.unattended import Unattended
from tidegate.settings import Policy
from tidegate.state import EXECUTION, WHEN_OPEN, Input, Output, State, hash_of
from tidegate.store.leases import Lease, Leases
from tidegate.store.outbox import Outbox
from tidegate.store.registry import (
    ASKS_NOTHING,
    UNFINISHED,
    Registry,
    Service,
    ThreadRecord,
    ThreadStatus,
    thread_id_of,
)
from tidegate.telemetry import names, spans

_log = logging.getLogger(__name__)
Emit = Callable[[Event], None]
_LONGEST_THREAD_ID = 200
_RECURSION_LIMIT = 200  # supersteps in one execution; the gates bound their rounds long before


class _Watching(NamedTuple):
    """Who is told what an execution does, and who can stop it."""

    emit: Emit | None
    tokens: bool
    control: Drain | None


@dataclass(slots=True, eq=False)
class _Stoppable:
    """An execution of this process that nobody waits for; `is_cancelled` once somebody cancels its thread."""

    task: asyncio.Task[Any]
    over: asyncio.Event = field(default_factory=asyncio.Event)
    is_cancelled: bool = False
    is_recorded: bool = False


class Executions:
    """Runs the threads of one compiled graph, and keeps the registry of them."""

    def __init__(
        self,
        graph: CompiledStateGraph[State, None, Input, Output],
        services: Services,
        registry: Registry,
        leases: Leases,
        outbox: Outbox | None = None,
    ) -> None:
        self._graph = graph
        self._services = services
        self._registry = registry
        self._leases = leases
        self._outbox = outbox
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._stoppable: dict[str, _Stoppable] = {}

    async def advance(
        self,
        thread_id: str,
        start: Input | None,
        *,
        when_open: Policy | None = None,
        emit: Emit | None = None,
        tokens: bool = False,
        control: Drain | None = None,
        unattended: Unattended | None = None,
    ) -> Result:
        """Bring a thread as far as it gets now; `start` creates it, and is never sent to one that exists.

        One execution of a thread at a time, under its lease. In this process a second caller waits, and finds what the
        first one did. Once `control` is told to drain, it stops after the superstep, and the result is unfinished. An
        `unattended` one changes nothing if the thread is not as it was seen, and returns how far it is.

        Raises:
            ThreadNotFound, DocumentMismatch, IncompatibleThread, CheckpointDamaged, DocumentError, ServiceError;
            ThreadBusy: another process runs the thread.
            LeaseLost: another process took it over meanwhile, and goes on with it.
            SettingsError: this cannot be a thread ID.
        """
        check_thread_id(thread_id)
        if emit is not None:
            emit(Event(kind="thread", text=thread_id))
        watching = _Watching(emit, tokens, control)
        async with self._turns.setdefault(thread_id, asyncio.Lock()):
            if unattended is not None:
                return await self._advance_unattended(thread_id, when_open, watching, unattended)
            async with self._hold(thread_id) as lease:
                return await self._advance(lease, start, when_open, watching)

    @asynccontextmanager
    async def _hold(self, thread_id: str) -> AsyncIterator[Lease]:
        async with self._leases.hold(thread_id) as lease:
            if isinstance(self._graph.checkpointer, Fenced):
                await self._graph.checkpointer.afence(thread_id)
            yield lease

    def is_executing(self, thread_id: str) -> bool:
        """Whether an unattended execution of a thread goes on in this process, which `cancel` can stop."""
        return thread_id in self._stoppable

    async def cancel(self, thread_id: str) -> bool:
        """Stop the unattended execution of a thread in this process, and record that the thread is cancelled.

        False if there is none, or it ended before it could be stopped.
        """
        stoppable = self._stoppable.get(thread_id)
        if stoppable is None:
            return False
        stoppable.is_cancelled = True
        stoppable.task.cancel()
        await stoppable.over.wait()
        return stoppable.is_recorded

    async def _advance_unattended(
        self, thread_id: str, when_open: Policy | None, watching: _Watching, unattended: Unattended
    ) -> Result:
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        cancelling = task.cancelling()
        stoppable = _Stoppable(task)
        self._stoppable[thread_id] = stoppable
        try:
            async with self._hold(thread_id) as lease:
                try:
                    return await self._advance_as_seen(lease, when_open, watching, unattended)
                except asyncio.CancelledError:
                    await self._stopped(lease, stoppable)
                    raise
        except asyncio.CancelledError:
            if not stoppable.is_cancelled or task.uncancel() > cancelling:  # somebody else cancels it, too
                raise
        finally:
            del self._stoppable[thread_id]
            stoppable.over.set()
        return await self.inspect(thread_id)

    async def _advance_as_seen(
        self, lease: Lease, when_open: Policy | None, watching: _Watching, unattended: Unattended
    ) -> Result:
        record = await self._registry.get(lease.thread_id)
        if record is None or not unattended.is_of(record):
            return await self.inspect(lease.thread_id)
        try:
            return await self._advance(lease, None, when_open, watching, unattended)
        except Exception as error:
            # What ails it may be found before the execution was counted, as where its checkpoint cannot be read.
            if unattended.judge is not None and unattended.is_of(await self._registry.get(lease.thread_id)):
                await self._failed(replace(record, attempts=record.attempts + 1), error, lease, unattended)
            raise

    async def _stopped(self, lease: Lease, stoppable: _Stoppable) -> None:
        """Record that an execution was cancelled, with its thread or with this process, which is no attempt."""
        # A lease that was lost, and a store that is away: then it is counted, and the next execution goes on all the
        # same. The caller's cancellation is not to get lost over it.
        with contextlib.suppress(TidegateError):
            if stoppable.is_cancelled:
                seen = UNFINISHED
                stoppable.is_recorded = await self._registry.rule(
                    lease.thread_id, seen=seen, status="cancelled", lease=lease, error=None, **ASKS_NOTHING
                )
            else:
                await self._registry.uncount(lease.thread_id, lease)

    async def _advance(
        self,
        lease: Lease,
        start: Input | None,
        when_open: Policy | None,
        watching: _Watching,
        unattended: Unattended | None = None,
    ) -> Result:
        thread_id = lease.thread_id
        config = _config(thread_id, when_open, lease)
        snapshot = await self._snapshot(thread_id, config)
        record = await self._registry.get(thread_id)
        known = (snapshot and snapshot.values.get("document_sha256")) or (record and record.document_id)
        if start is not None and known not in (None, start.get("document_sha256")):
            raise DocumentMismatch(
                thread_id, f"belongs to another document, {str(known)[:12]}…; choose another thread ID for this one"
            )
        if snapshot is None:
            check_unpublished(record)
        if snapshot is not None:
            stored = await self._result(thread_id, snapshot, record)
            if stored.status in ("complete", "degraded"):
                record = record or self._new_record(thread_id, cast("Input", snapshot.values))
                summed_up = self._summed_up(record, stored, cast("State", snapshot.values))
                # Written where a crash came between checkpoint and registry, or what it lacks was not kept before.
                if _standing(record) != _standing(summed_up):
                    await self._publish(summed_up, stored, lease)
                if stored.status == "complete" or stored.retry_in != 0.0:
                    return stored
            start = None
        elif start is None:
            if record is None:
                raise not_found(thread_id)
            start = Input(source=record.source, document_sha256=record.document_id, media_type=record.media_type)
        if record is not None and record.fingerprint not in ("", self._fingerprint):
            _log.info("thread %s was last run by a graph of other steps or edges", thread_id)
        record = replace(
            record or self._new_record(thread_id, start or cast("Input", snapshot.values if snapshot else {})),
            fingerprint=self._fingerprint,
            status="running",
            error=None,
            when_open=when_open,
            **_attempt(record, snapshot),
        )
        await self._registry.put(record, lease)
        try:
            try:
                result, values = await self._execute(thread_id, start, snapshot, config, watching)
            except StateInvalid as error:
                raise IncompatibleThread(thread_id, f"does not fit this version of the code: {error}") from error
        except Exception as error:
            await self._failed(record, error, lease, unattended)
            raise
        await self._publish(self._summed_up(record, result, values), result, lease)
        return result

    async def _failed(
        self, record: ThreadRecord, error: Exception, lease: Lease, unattended: Unattended | None = None
    ) -> None:
        """Record an error, and with it what becomes of the thread.

        Raises:
            LeaseLost: to be raised in place of the error, since that is why: what becomes of the thread is the other
                process's to record.
        """
        failed = replace(record, status="failed", error=_told(error), next_at=None)
        pause = _pause_after(error)
        if unattended is None or unattended.judge is None:
            if not _is_for_a_sweep(error, record):
                failed = replace(failed, extraction_at=None, enrichment_at=None, summary_at=None)
        else:
            failed = await self._counted_where_it_ended(failed)
            sentence = unattended.judge(failed, error)
            attempts = failed.attempts if sentence.counts else failed.attempts - 1
            # The engine tries it again, and no sweep beside it.
            failed = replace(failed, attempts=attempts, extraction_at=None, enrichment_at=None, summary_at=None)
            if (pause := sentence.pause) is None:
                failed = replace(failed, status="dead")
        await self._registry.put(failed, lease, pause=pause)

    async def _counted_where_it_ended(self, record: ThreadRecord) -> ThreadRecord:
        """Return the record with the count of executions that ended where this one did, which may have got further."""
        saver = cast("BaseCheckpointSaver[Any]", self._graph.checkpointer)
        try:
            saved = await saver.aget_tuple(_config(record.thread_id))
        except TidegateError:  # as where it cannot be read, which may be what ails the thread
            return record
        at = None if saved is None else saved.checkpoint["id"]
        return record if at == record.attempted_at else replace(record, attempts=1, attempted_at=at)

    async def _publish(self, record: ThreadRecord, result: Result, lease: Lease) -> None:
        """Record how far a thread is, and with it what is to be delivered of a revision that it published."""
        finished = result.status in ("complete", "degraded")
        also = None
        if finished and self._outbox is not None:
            also = await self._outbox.writing(record.thread_id, result.revision, result.to_dict())
        await self._registry.put(record, lease, also=also)
        if also is not None and self._outbox is not None:
            self._outbox.told()

    async def _execute(
        self,
        thread_id: str,
        start: Input | None,
        snapshot: StateSnapshot | None,
        config: RunnableConfig,
        watching: _Watching,
    ) -> tuple[Result, State]:
        earlier = cast("str | None", (snapshot.metadata or {}).get(names.TRACEPARENT)) if snapshot else None
        with spans.run(thread_id, resumed=snapshot is not None, resumed_from=earlier) as span:
            if span.traceparent is not None:
                config.setdefault("configurable", {})[names.TRACEPARENT] = span.traceparent
            if (
                snapshot is not None and not snapshot.next and not snapshot.tasks
            ):  # backfill: the gates run what is missing
                lacks_names = snapshot.values.get("extraction_failure") is not None
                span.backfill()
                await self._graph.aupdate_state(config, {}, as_node="ingest" if lacks_names else "extract")
            with contextlib.suppress(GraphDrained):
                await self._drive(start, config, watching)
            after = await self._snapshot(thread_id)
            if after is None:
                raise ThreadError(thread_id, "has no checkpoint after its execution; check the checkpointer")
            result = await self._result(thread_id, after, None)
            span.outcome(result.status, revision=result.revision, missing=len(result.missing))
        return result, cast("State", after.values)

    async def _drive(self, start: Input | None, config: RunnableConfig, watching: _Watching) -> None:
        emit, control = watching.emit, watching.control
        if emit is None:
            await self._graph.ainvoke(start, config, durability="sync", control=control)
            return
        modes: list[Any] = ["tasks", "messages"] if watching.tokens else ["tasks"]
        stream = self._graph.astream(start, config, stream_mode=modes, durability="sync", control=control)
        async with contextlib.aclosing(cast("Any", stream)) as items:
            async for mode, item in items:
                event = token_event(*item) if mode == "messages" else task_event(item)
                if event is not None:
                    emit(event)

    async def inspect(self, thread_id: str) -> Result:
        """Return how far a thread is."""
        check_thread_id(thread_id)
        snapshot = await self._snapshot(thread_id)
        record = await self._registry.get(thread_id)
        if snapshot is None:
            check_unpublished(record)
        if snapshot is not None:
            return await self._result(thread_id, snapshot, record)
        if record is None:
            raise not_found(thread_id)
        reason = record.error or ""
        return Result(thread_id=thread_id, status="unfinished", source=record.source, retry_in=0.0, reason=reason)

    async def history(self, thread_id: str, limit: int | None) -> list[HistoryEntry]:
        """Return a thread's checkpoints, the newest first."""
        check_thread_id(thread_id)
        config = _config(thread_id)
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

    async def _snapshot(self, thread_id: str, execution: RunnableConfig | None = None) -> StateSnapshot | None:
        """Return the newest checkpoint's state, None if there is none; refuse one that this code cannot go on with.

        For an execution, whose config is given, a state of an older schema is migrated first.
        """
        config = execution or _config(thread_id)
        saver = cast("BaseCheckpointSaver[Any]", self._graph.checkpointer)
        saved = await saver.aget_tuple(config)
        if saved is None:
            return None
        compatibility.check(thread_id, saved, self._graph.nodes)
        if execution is not None:
            await compatibility.migrate(saver, execution, saved)
        return await self._graph.aget_state(config)

    async def _result(self, thread_id: str, snapshot: StateSnapshot, record: ThreadRecord | None) -> Result:
        status: Status | None = None
        if (
            snapshot.next or snapshot.tasks
        ):  # `next` alone is empty after a kill between a task's writes and a checkpoint
            status = "waiting" if snapshot.interrupts else "unfinished"
        try:
            values = cast("State", compatibility.migrated(snapshot.values))
            result = Result.of(thread_id, values, status=status, next_=snapshot.next)
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

    def _summed_up(self, record: ThreadRecord, result: Result, values: State) -> ThreadRecord:
        finished = result.status in ("complete", "degraded")
        status: ThreadStatus = "running" if result.status == "unfinished" else result.status
        now = self._services.clock.now()
        asks = asked_from(result, values, now)
        return replace(
            record,
            status=status,
            outcome=result.status if finished else None,
            error=None,
            attempts=0,
            attempted_at=None,
            revision=result.revision,
            retryable_missing=sum(item.retryable for item in result.missing),
            next_at=None if result.retry_in is None else now + result.retry_in,
            extraction_at=asks.get("extraction"),
            enrichment_at=asks.get("enrichment"),
            summary_at=asks.get("summary"),
        )

    def _new_record(self, thread_id: str, start: Input) -> ThreadRecord:
        return ThreadRecord(
            thread_id=thread_id,
            document_id=start.get("document_sha256") or "",
            source=start.get("source") or "",
            media_type=start.get("media_type"),
            status="running",
            fingerprint=self._fingerprint,
        )

    @cached_property
    def _fingerprint(self) -> str:
        """A hash of the graph's steps and edges: a thread with another one was run by other code."""
        drawn = self._graph.get_graph()
        return hash_of(sorted(drawn.nodes), sorted([edge.source, edge.target] for edge in drawn.edges))


def _config(thread_id: str, when_open: Policy | None = None, lease: Lease | None = None) -> RunnableConfig:
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


def _reason(snapshot: StateSnapshot, older: StateSnapshot | None) -> str:
    """Return why the gate that ran before this checkpoint decided as it did."""
    gates = [name.removeprefix("gate_") for name in (older.next if older else ()) if name.startswith("gate_")]
    return str(snapshot.values.get("routes", {}).get(gates[0], {}).get("reason", "")) if gates else ""


class _Attempt(TypedDict):
    attempts: int
    attempted_at: str | None


def _attempt(record: ThreadRecord | None, snapshot: StateSnapshot | None) -> _Attempt:
    """Return the count of executions that ended here, this one included, and where that is."""
    at = snapshot.config.get("configurable", {}).get("checkpoint_id") if snapshot else None
    before = 0
    if record is not None and record.attempted_at == at:
        before = record.attempts
    elif record is not None and record.status == "running" and record.attempts:
        before = 1  # its process ended: after it had got further, so here
    return {"attempts": before + 1, "attempted_at": at}


def _standing(record: ThreadRecord) -> tuple[ThreadStatus, bool, bool, bool]:
    """Return what a sweep chooses threads by."""
    return record.status, record.extraction_at is None, record.enrichment_at is None, record.summary_at is None


def _pause_after(error: Exception) -> float | None:
    """Return for how many seconds a service is not to be asked after an error, None where that is not known."""
    if isinstance(error, CircuitOpen):
        return error.retry_in
    return error.retry_after if isinstance(error, ServiceError) else None


def _is_for_a_sweep(error: Exception, record: ThreadRecord) -> bool:
    """Say whether a sweep is to try again, and not just whoever resumes the thread.

    What was published is healed whatever went wrong in between, unless policy `fail` says that it went wrong.
    """
    if isinstance(error, ServiceError):
        return False
    return record.revision > 0 or isinstance(error, (StoreError, StoreUnavailable))


def _told(error: Exception) -> str:
    """Return what the registry keeps of an error: words that stay true, and of others' errors the name alone."""
    if isinstance(error, ServiceError):
        return error.why
    return f"{type(error).__name__}: {error}" if isinstance(error, TidegateError) else type(error).__name__


def check_thread_id(thread_id: str) -> None:
    """Refuse what cannot be a thread ID.

    Raises:
        SettingsError: it is empty, too long, or not printable.
    """
    if not thread_id or len(thread_id) > _LONGEST_THREAD_ID or not thread_id.isprintable():
        raise SettingsError(
            f"{thread_id[:40]!r} cannot be a thread ID; use 1 to {_LONGEST_THREAD_ID} printable characters"
        )


def check_unpublished(record: ThreadRecord | None) -> None:
    """Make sure that a thread which has no checkpoint never got far.

    Raises:
        CheckpointDamaged: it published a result.
    """
    if record is not None and record.revision > 0:
        problem = f"has published revision {record.revision}, and its checkpoints are gone; restore them from a copy"
        raise CheckpointDamaged(record.thread_id, f"{problem}, or delete the thread and run its document again")


def not_found(thread_id: str) -> ThreadNotFound:
    """Return the error for a thread that there is not."""
    return ThreadNotFound(thread_id, "does not exist; `tidegate threads` lists those that do")


def default_thread_id(input_: Input) -> str:
    """Return the thread ID of a document: its name, made safe to type, and the beginning of its SHA-256."""
    return thread_id_of(input_.get("source") or "", str(input_.get("document_sha256"))[:10])
