"""The engine of one process: a bounded pool of executions over the thread registry, which is the queue."""

from __future__ import annotations

import asyncio
import logging
import random as randomness
from collections.abc import Coroutine
from contextlib import aclosing
from typing import Any

from opentelemetry import context, trace

from tidegate.engine.port import Stats, Unreadable
from tidegate.errors import (
    CheckpointDamaged,
    DocumentError,
    DocumentMismatch,
    IncompatibleThread,
    LeaseLost,
    ServiceError,
    StateInvalid,
    StoreError,
    StoreUnavailable,
    ThreadBusy,
    ThreadNotFound,
)
from tidegate.graph.drain import Drain
from tidegate.graph.runner import Pipeline
from tidegate.settings.service import ServeSettings
from tidegate.store.clock import Clock, SystemClock
from tidegate.store.inbox import Envelope, Receipt
from tidegate.store.registry import ThreadRecord
from tidegate.telemetry import traceparent

_log = logging.getLogger(__name__)

POLL = 2.0
"""Seconds after which a worker looks for what other processes queued or left, if nothing wakes it before."""

_FINAL = (DocumentError, DocumentMismatch, IncompatibleThread, CheckpointDamaged, StateInvalid)
"""What is the same however often a thread is tried."""

_AWAY = (StoreUnavailable, StoreError)
"""What says nothing about the thread."""


class InProcessEngine:
    """Runs the threads of one pipeline, `settings.concurrency` at once.

    Any number of processes may work on one store: the leases of threads decide who runs which. A thread that fails is
    tried again after a pause, which doubles; one that ended `max_attempts` times at the same step, with an error or
    with its process, is dead, and so is at once one whose error will not pass. Waiting and degraded threads go on when
    the circuits that they wait for admit calls, as `Pipeline.backfill` says.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        settings: ServeSettings | None = None,
        *,
        clock: Clock | None = None,
        random: randomness.Random | None = None,
    ) -> None:
        """Run threads of this pipeline, which stays open as long."""
        self._pipeline = pipeline
        self._settings = settings or pipeline.settings.serve
        self._clock = clock or SystemClock()
        self._random = random or randomness.Random()  # noqa: S311 - jitter
        self._drain = Drain()
        self._wake = asyncio.Event()
        self._running: dict[str, asyncio.Task[None]] = {}
        self._resting: dict[str, float] = {}

    async def submit(self, event: Envelope | Unreadable) -> Receipt:
        """See `Engine.submit`."""
        if isinstance(event, Unreadable):
            return await self._pipeline.inbox.refuse(event.source, event.id, event.error)
        receipt = await self._pipeline.inbox.accept(event)
        if receipt.is_new:
            self._wake.set()
        return receipt

    def wake(self) -> None:
        """Have the worker look for threads now: somebody made one due."""
        self._wake.set()

    def stop(self) -> None:
        """Have `run_worker` end when the executions that go on have ended their supersteps."""
        self._drain.request_drain()

    async def run_worker(self) -> None:
        """See `Engine.run_worker`. Cancelling it cancels the executions, which the next worker resumes."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._heal())
            group.create_task(self._work())

    async def cancel(self, thread_id: str) -> bool:
        """See `Engine.cancel`."""
        task = self._running.get(thread_id)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        return await self._pipeline.cancel(thread_id)

    async def stats(self) -> Stats:
        """See `Engine.stats`."""
        return Stats(threads=await self._pipeline.registry.count(), executing=len(self._running))

    async def _heal(self) -> None:
        async with aclosing(self._pipeline.backfill(watch=True, control=self._drain)) as threads:
            async for healed in threads:
                if healed.error is None and healed.result is not None:
                    _log.info("thread %s is %s now", healed.thread_id, healed.result.status)
                else:
                    _log.warning("thread %s could not be brought forward: %s", healed.thread_id, _told(healed.error))

    async def _work(self) -> None:
        try:
            while not self._drain.drain_requested:
                self._wake.clear()
                try:
                    pause = await self._start()
                except _AWAY as error:
                    _log.warning("threads cannot be looked up now: %s", error)
                    pause = POLL
                await self._wait(pause)
            if self._running:
                await asyncio.wait(self._running.values())
        finally:
            tasks = list(self._running.values())
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)

    async def _start(self) -> float:
        """Begin as many executions as there is room for; return in how many seconds there may be more."""
        now = self._clock.monotonic()
        self._resting = {thread_id: until for thread_id, until in self._resting.items() if until > now}
        room = self._settings.concurrency - len(self._running)
        if room > 0:
            for record in await self._pipeline.registry.due(limit=room, but_not=[*self._running, *self._resting]):
                self._running[record.thread_id] = asyncio.create_task(self._bring(record))
        left = await self._pipeline.registry.pause_left()
        return min([POLL, *([left] if left else [])])

    async def _wait(self, pause: float) -> None:
        """Wait for a pause to be over, or to be woken: by a new thread, one that ended, or the end of the work."""
        waiting = [asyncio.create_task(each) for each in self._waits(pause)]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()

    def _waits(self, pause: float) -> list[Coroutine[Any, Any, Any]]:
        return [self._clock.sleep(pause), self._wake.wait(), self._drain.wait()]

    async def _bring(self, record: ThreadRecord) -> None:
        thread_id = record.thread_id
        try:
            if record.attempts >= self._settings.max_attempts:
                await self._give_up(record, record.error or f"its process ended {record.attempts} times at this step")
            else:
                await self._execute(record)
        except (ThreadBusy, LeaseLost):  # another process has it
            self._resting[thread_id] = self._clock.monotonic() + POLL
        except _AWAY as error:
            self._resting[thread_id] = self._clock.monotonic() + POLL
            _log.warning("thread %s: %s", thread_id, error)
        finally:
            del self._running[thread_id]
            self._wake.set()

    async def _execute(self, record: ThreadRecord) -> None:
        thread_id = record.thread_id
        token = context.attach(await self._context(record))
        try:
            await self._pipeline.resume(thread_id, when_open=record.when_open, control=self._drain)
        except ThreadNotFound:
            return  # it was deleted
        except (ThreadBusy, LeaseLost, *_AWAY):
            raise
        except Exception as error:  # noqa: BLE001 - whatever ails one thread, all others go on
            _log.warning("thread %s failed: %s", thread_id, _told(error))
            await self._judge(thread_id, error)
        finally:
            context.detach(token)

    async def _context(self, record: ThreadRecord) -> context.Context:
        """Return the context of a thread's first execution: the span that its event was sent in."""
        origin = await self._pipeline.inbox.origin(record.thread_id) if record.status == "queued" else None
        span = traceparent.read(origin.traceparent) if origin else None
        return trace.set_span_in_context(trace.NonRecordingSpan(span)) if span else context.Context()

    async def _judge(self, thread_id: str, error: Exception) -> None:
        record = await self._pipeline.registry.get(thread_id)
        if record is None or record.status != "failed":
            return
        if isinstance(error, _FINAL) or record.attempts >= self._settings.max_attempts:
            await self._give_up(record, record.error or _told(error))
            return
        pause = min(self._settings.retry_initial * 2.0 ** (record.attempts - 1), self._settings.retry_max)
        pause *= self._random.uniform(0.5, 1.0)  # those that failed together do not come back together
        if isinstance(error, ServiceError):
            pause = max(pause, error.retry_after or 0.0, getattr(error, "retry_in", 0.0))
        at = self._clock.now() + pause
        await self._pipeline.registry.rule(thread_id, seen=["failed"], status="failed", next_at=at)

    async def _give_up(self, record: ThreadRecord, reason: str) -> None:
        if await self._pipeline.give_up(record.thread_id, reason):
            _log.error("thread %s was given up: %s", record.thread_id, reason)


def _told(error: Exception | None) -> str:
    """Return what to say of an error: of others' errors the name alone, since their words may quote a document."""
    return str(error) if isinstance(error, (DocumentError, ServiceError)) else type(error).__name__
