"""Executions: bring one thread as far as it gets, from its checkpoints."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple, cast
from weakref import WeakValueDictionary

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.errors import GraphDrained
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import StateSnapshot

from tidegate.checkpointers.saving import Fenced
from tidegate.errors import (
    DocumentMismatch,
    IncompatibleThread,
    StateInvalid,
    ThreadError,
    TidegateError,
)
from tidegate.graph.drain import Drain
from tidegate.graph.looking import Looks, check_unpublished, config_of
from tidegate.graph.progress import task_event, token_event
from tidegate.graph.result import Event, Result
from tidegate.graph.services import Services
from tidegate.graph.standing import attempt, is_for_a_sweep, pause_after, standing, summed_up, told
from tidegate.graph.thread_ids import check_thread_id, not_found
from tidegate.graph.unattended import Unattended
from tidegate.settings import Policy
from tidegate.state import Input, Output, State, hash_of
from tidegate.store.leases import Lease, Leases
from tidegate.store.outbox import Outbox
from tidegate.store.registry import (
    ASKS_NOTHING,
    UNFINISHED,
    Registry,
    ThreadRecord,
)
from tidegate.telemetry import names, spans

_log = logging.getLogger(__name__)
Emit = Callable[[Event], None]


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
        self.looks = Looks(graph, services, registry)
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
        `unattended` one changes nothing if the thread is not as it was seen, and returns how far it is; the policy for
        one that published a degraded result is `degrade`.

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
        return await self.looks.inspect(thread_id)

    async def _advance_as_seen(
        self, lease: Lease, when_open: Policy | None, watching: _Watching, unattended: Unattended
    ) -> Result:
        record = await self._registry.get(lease.thread_id)
        if record is None or not unattended.is_of(record):
            return await self.looks.inspect(lease.thread_id)
        if record.outcome == "degraded":  # it was published, and stays so, whatever the policy is now
            when_open = "degrade"
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
        config = config_of(thread_id, when_open, lease)
        snapshot = await self.looks.snapshot(thread_id, config)
        record = await self._registry.get(thread_id)
        known = (snapshot and snapshot.values.get("document_sha256")) or (record and record.document_id)
        if start is not None and known not in (None, start.get("document_sha256")):
            raise DocumentMismatch(
                thread_id, f"belongs to another document, {str(known)[:12]}…; choose another thread ID for this one"
            )
        if snapshot is None:
            check_unpublished(record)
        if snapshot is not None:
            stored = await self.looks.result(thread_id, snapshot, record)
            if stored.status in ("complete", "degraded"):
                record = record or self._new_record(thread_id, cast("Input", snapshot.values))
                known_as = summed_up(record, stored, cast("State", snapshot.values), self._services.clock.now())
                # Written where a crash came between checkpoint and registry, or what it lacks was not kept before.
                if standing(record) != standing(known_as):
                    await self._publish(known_as, stored, lease)
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
            **attempt(record, snapshot),
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
        await self._publish(summed_up(record, result, values, self._services.clock.now()), result, lease)
        return result

    async def _failed(
        self, record: ThreadRecord, error: Exception, lease: Lease, unattended: Unattended | None = None
    ) -> None:
        """Record an error, and with it what becomes of the thread.

        Raises:
            LeaseLost: to be raised in place of the error, since that is why: what becomes of the thread is the other
                process's to record.
        """
        failed = replace(record, status="failed", error=told(error), next_at=None)
        pause = pause_after(error)
        if unattended is None or unattended.judge is None:
            if not is_for_a_sweep(error, record):
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
            saved = await saver.aget_tuple(config_of(record.thread_id))
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
            after = await self.looks.snapshot(thread_id)
            if after is None:
                raise ThreadError(thread_id, "has no checkpoint after its execution; check the checkpointer")
            result = await self.looks.result(thread_id, after, None)
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
