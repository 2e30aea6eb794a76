"""The engine of one process: a bounded pool of executions over the thread registry, which is the queue."""

from __future__ import annotations

import asyncio
import logging
import math
import random as randomness
from contextlib import aclosing

from opentelemetry import context, trace

from tidegate.engine.patience import AWAY, POLL, Patience, pause_after
from tidegate.engine.port import Stats, Unreadable
from tidegate.errors import (
    CheckpointDamaged,
    DocumentError,
    DocumentMismatch,
    LeaseLost,
    ServiceError,
    StateInvalid,
    StoreDamaged,
    StoreUnavailable,
    ThreadBusy,
    ThreadNotFound,
    TidegateError,
)
from tidegate.graph.drain import Drain
from tidegate.graph.runner import Pipeline
from tidegate.graph.unattended import Sentence, Unattended
from tidegate.graph.waiting import end, first_of
from tidegate.settings.service import ServeSettings
from tidegate.store.clock import Clock, SystemClock
from tidegate.store.inbox import Envelope, Receipt
from tidegate.store.registry import SUSPECT, ThreadRecord
from tidegate.telemetry import metrics, traceparent

_log = logging.getLogger(__name__)

_LEAST_PAUSE = 0.001  # a remainder of 1e-15 s is lost in the clock's float, and would be slept for again and again
_MEASURE = 5.0  # seconds between two looks at how much waits

_FINAL = (DocumentError, DocumentMismatch, CheckpointDamaged, StateInvalid, StoreDamaged)
"""What is the same however often a thread is tried. A thread that does not fit this code is not among them: while a
deploy is under way, another process may have the code that it fits."""


class InProcessEngine:
    """Runs the threads of one pipeline, `settings.concurrency` at once.

    Any number of processes may work on one store: the leases of threads decide who runs which. A thread that fails is
    tried again after a pause, which doubles; one that ended `max_attempts` times at the same step, with an error or
    with its process, is dead, and so is at once one whose error will not pass. What says nothing about the thread does
    not count: an open circuit, a pause that a service asked for, a refused key, a store that was away, an execution
    that was cancelled with its process. Waiting and degraded threads go on when the circuits that they wait for admit
    calls, as `Pipeline.backfill` says, so many for each service at most.

    Of those that were interrupted more than once at the same step one is run at a time: if it is what kills the
    process, those beside it are not given up with it.
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
        self._suspects: set[str] = set()
        self._resting: dict[str, float] = {}
        self._patience = Patience()
        self._away_until = -math.inf
        self._measured_at = -math.inf

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
        return await self._pipeline.cancel(thread_id)

    async def stats(self) -> Stats:
        """See `Engine.stats`."""
        return Stats(threads=await self._pipeline.registry.count(), executing=len(self._running))

    async def _heal(self) -> None:
        concurrency = self._settings.concurrency
        sweep = self._pipeline.backfill(watch=True, control=self._drain, concurrency=concurrency, judge=self._judge)
        async with aclosing(sweep) as threads:
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
                except AWAY as error:
                    _log.warning("threads cannot be looked up now: %s", error)
                    pause = self._leave_store_alone()
                await self._wait(pause)
            if self._running:
                await asyncio.wait(self._running.values())
        finally:
            await end(self._running.values())

    async def _start(self) -> float:
        """Begin as many executions as there is room for; return in how many seconds there may be more."""
        now = self._clock.monotonic()
        if self._away_until > now:
            return self._away_until - now
        await self._measure()
        self._resting = {thread_id: until for thread_id, until in self._resting.items() if until > now}
        room = self._settings.concurrency - len(self._running)
        if room > 0:
            but_not = {*self._running, *self._resting}
            suspects = 0 if self._suspects else 1
            for record in await self._pipeline.registry.due(limit=room, but_not=but_not, suspects=suspects):
                if self._drain.drain_requested:
                    break
                if record.status == "running" and record.attempts >= SUSPECT:
                    self._suspects.add(record.thread_id)
                self._running[record.thread_id] = asyncio.create_task(self._bring(record))
        left = await self._pipeline.registry.pause_left()
        return POLL if left is None else min(POLL, left)

    async def _measure(self) -> None:
        now = self._clock.monotonic()
        if now - self._measured_at >= _MEASURE:
            counted = await self._pipeline.registry.count("queued", "dead")
            metrics.threads_queued.set(counted["queued"])
            metrics.threads_dead.set(counted["dead"])
            self._measured_at = now

    def _leave_store_alone(self) -> float:
        """Return for how many seconds the store is left alone that could not be read or written."""
        now = self._clock.monotonic()
        if self._away_until <= now:  # else it is one outage that several executions met
            self._away_until = now + self._patience.longer()
        return self._away_until - now

    async def _wait(self, pause: float) -> None:
        """Wait for a pause to be over, or to be woken: by a new thread, one that ended, or the end of the work."""
        waits = [self._clock.sleep(max(pause, _LEAST_PAUSE)), self._drain.wait()]
        await first_of(*waits, *([] if self._away_until > self._clock.monotonic() else [self._wake.wait()]))

    async def _bring(self, record: ThreadRecord) -> None:
        """Bring one thread forward. What ails it ends nothing but this execution."""
        thread_id = record.thread_id
        rest = POLL
        try:
            if record.attempts >= self._settings.max_attempts:
                await self._give_up(record)
            else:
                await self._execute(record)
            rest = 0.0
            self._patience.over()
        except (ThreadBusy, LeaseLost):
            _log.debug("thread %s is run by another process", thread_id)
        except AWAY as error:
            _log.warning("thread %s: %s", thread_id, error)
            self._leave_store_alone()
        except Exception as error:  # noqa: BLE001 - a bug: told, and the thread is not lost
            _log.error("thread %s could not be run: %s", thread_id, _told(error))
        finally:
            if rest:
                self._resting[thread_id] = self._clock.monotonic() + rest
            del self._running[thread_id]
            self._suspects.discard(thread_id)
            self._wake.set()

    async def _execute(self, record: ThreadRecord) -> None:
        thread_id = record.thread_id
        judged: list[tuple[Exception, Sentence]] = []

        def judge(failed: ThreadRecord, error: Exception) -> Sentence:
            sentence = self._judge(failed, error)
            judged.append((error, sentence))
            return sentence

        token = context.attach(await self._context(record))
        try:
            result = await self._pipeline.resume(
                thread_id,
                when_open=record.when_open,
                control=self._drain,
                unattended=Unattended(seen=record, judge=judge),
            )
            _log.info("thread %s is %s, revision %d", thread_id, result.status, result.revision)
        except ThreadNotFound:
            return  # it was deleted
        except Exception as error:
            if not judged or error is not judged[-1][0]:  # its sentence was not recorded
                raise
            _, sentence = judged[-1]
            if sentence.pause is None:
                _log.error("thread %s was given up: %s", thread_id, _told(error))
            else:
                _log.warning(
                    "thread %s failed, and is tried again in %.0f s: %s", thread_id, sentence.pause, _told(error)
                )
        finally:
            context.detach(token)

    async def _context(self, record: ThreadRecord) -> context.Context:
        """Return the context of a thread's first execution: the span that its event was sent in."""
        is_first = record.status == "queued" and not record.fingerprint
        origin = await self._pipeline.inbox.origin(record.thread_id) if is_first else None
        span = traceparent.read(origin.traceparent, origin.tracestate) if origin else None
        # The app's context but for its span: it may suppress instrumentation, and is no part of the thread's trace.
        return trace.set_span_in_context(trace.NonRecordingSpan(span) if span else trace.INVALID_SPAN)

    def _judge(self, record: ThreadRecord, error: Exception) -> Sentence:
        service = error if isinstance(error, ServiceError) else None
        if isinstance(error, _FINAL) or (service is not None and not service.retryable):
            return Sentence(pause=None)
        counts = not isinstance(error, StoreUnavailable) and (service is None or service.counts_as_visit)
        if counts and record.attempts >= self._settings.max_attempts:
            return Sentence(pause=None)
        pause = pause_after(record.attempts, self._settings, self._random)
        if service is not None:
            pause = max(pause, service.retry_after or 0.0, getattr(service, "retry_in", 0.0))
        return Sentence(pause=pause, counts=counts)

    async def _give_up(self, record: ThreadRecord) -> None:
        reason = record.error or f"its process ended {record.attempts} times at this step"
        if await self._pipeline.give_up(record, reason):
            _log.error("thread %s was given up: %s", record.thread_id, reason)


def _told(error: BaseException | None) -> str:
    """Return what to say of an error: of others' errors the name alone, since their words may quote a document."""
    return str(error) if isinstance(error, TidegateError) else type(error).__name__
