"""The relay: takes results from the outbox to the sinks, each at least once."""

from __future__ import annotations

import asyncio
import logging
import random as randomness
from collections.abc import Sequence
from contextlib import suppress

from tidegate.engine.patience import AWAY, POLL, Patience, pause_after
from tidegate.errors import CircuitOpen, ServiceError, TidegateError, Transient
from tidegate.graph.drain import Drain
from tidegate.graph.runner import Pipeline
from tidegate.graph.waiting import end, first_of
from tidegate.resilience.guard import Guard
from tidegate.settings.delivery import SINK, circuit_of
from tidegate.settings.service import ServeSettings
from tidegate.sinks.port import Sink
from tidegate.store.clock import Clock, SystemClock
from tidegate.store.outbox import Delivery, Outbox
from tidegate.telemetry import metrics, names

_log = logging.getLogger(__name__)

CLAIM = 60.0
"""Seconds for which a claimed delivery is nobody else's: longer than it may take. One whose process was killed is made
again after them."""

_LEAST_PAUSE = 0.05  # what is due by one clock may not be by another, and is not to be looked for without end
_MEASURE = 5.0


class Relay:
    """Delivers results to sinks, to each by itself: one that is dead holds up no other.

    A delivery that fails is made again after a pause, which doubles. After `max_deliveries` it is given up: kept, shown
    by `tidegate doctor`, and brought back by `tidegate retry --results`. What says nothing about it does not count: an
    open circuit, a pause that the sink asked for, a refused key. Any number of processes may deliver from one outbox.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        sinks: Sequence[Sink],
        settings: ServeSettings | None = None,
        *,
        claim: float = CLAIM,
        clock: Clock | None = None,
        random: randomness.Random | None = None,
    ) -> None:
        """Deliver the results of this pipeline, which stays open as long. The sinks stay the caller's to close.

        `claim` is in seconds, and not to be less than a delivery may take.
        """
        settings = settings or pipeline.settings.serve
        clock, random = clock or SystemClock(), random or randomness.Random()  # noqa: S311 - jitter
        self._drain = Drain()
        self._queues = [
            _Queue(
                sink,
                pipeline.outbox,
                pipeline.guard(circuit_of(sink.name), SINK),
                self._drain,
                settings,
                claim=claim,
                clock=clock,
                random=random,
            )
            for sink in sinks
        ]
        pipeline.outbox.listen(self.wake)

    def wake(self) -> None:
        """Look at the outbox now: somebody put a result in, or made one due."""
        for queue in self._queues:
            queue.wake.set()

    def stop(self) -> None:
        """Have `run` end when the deliveries that go on have ended; to be called on its event loop."""
        self._drain.request_drain()

    async def run(self) -> None:
        """Deliver, until cancelled or told to stop. What a cancelled delivery was to deliver is due again at once."""
        async with asyncio.TaskGroup() as group:
            for queue in self._queues:
                group.create_task(queue.run())


class _Queue:
    """The deliveries to one sink."""

    def __init__(
        self,
        sink: Sink,
        outbox: Outbox,
        guard: Guard,
        drain: Drain,
        settings: ServeSettings,
        *,
        claim: float,
        clock: Clock,
        random: randomness.Random,
    ) -> None:
        self.wake = asyncio.Event()
        self._sink = sink
        self._name = sink.name
        self._outbox = outbox
        self._guard = guard
        self._drain = drain
        self._settings = settings
        self._claim = claim
        self._clock = clock
        self._random = random
        self._running: set[asyncio.Task[None]] = set()
        self._patience = Patience()
        self._measured_at: float | None = None

    async def run(self) -> None:
        try:
            while not self._drain.drain_requested:
                self.wake.clear()
                try:
                    pause = await self._start()
                    self._patience.over()
                except AWAY as error:
                    _log.warning("the results for sink %s cannot be looked up now: %s", self._name, error)
                    await self._wait(self._patience.longer(), wakes=False)
                else:
                    await self._wait(pause)
            if self._running:
                await asyncio.wait(self._running)
        finally:
            await end(self._running)

    async def _start(self) -> float:
        """Begin as many deliveries as there is room for; return in how many seconds there may be more."""
        await self._measure()
        report = await self._guard.breaker.report()
        if not report.admits:  # nothing is claimed to no end
            return max(report.retry_in, _LEAST_PAUSE)
        room = (1 if report.state == "half_open" else SINK.concurrency) - len(self._running)
        if room <= 0:
            return POLL
        claimed = await self._outbox.claim(self._name, limit=room, seconds=self._claim)
        for delivery in claimed:
            task = asyncio.create_task(self._deliver(delivery))
            self._running.add(task)
            task.add_done_callback(self._ended)
        left = await self._outbox.pause_left(self._name)
        if left is None or (left == 0.0 and not claimed):
            return POLL
        return min(POLL, max(left, _LEAST_PAUSE))

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self.wake.set()

    async def _measure(self) -> None:
        now = self._clock.monotonic()
        if self._measured_at is None or now - self._measured_at >= _MEASURE:
            self._measured_at = now
            waiting, given_up = await self._outbox.count(self._name)
            metrics.deliveries_waiting.set(waiting, {names.SINK: self._name})
            metrics.deliveries_given_up.set(given_up, {names.SINK: self._name})

    async def _wait(self, pause: float, *, wakes: bool = True) -> None:
        waits = [self._clock.sleep(pause), self._drain.wait()]
        await first_of(*waits, *([self.wake.wait()] if wakes else []))

    async def _deliver(self, delivery: Delivery) -> None:
        """Make one delivery. What ails it ends nothing but this delivery."""
        try:
            await self._attempt(delivery)
        except asyncio.CancelledError:
            # Not to be waited for until the claim is over; it is claimed all the same if the store is away.
            with suppress(*AWAY):
                await self._outbox.postponed(delivery, None, retry_in=0.0)
            raise
        except AWAY as error:  # it is due again when the claim is over
            _log.warning("what became of delivery %s to sink %s cannot be recorded: %s", delivery.id, self._name, error)

    async def _attempt(self, delivery: Delivery) -> None:
        try:
            await self._guard.call(lambda _: self._hand_over(delivery))
        except ServiceError as error:
            await self._failed(delivery, error, error.why, counts=error.counts_as_visit)
        except Exception as error:  # noqa: BLE001 - a bug of the sink's: others' words may quote a document
            await self._failed(delivery, error, type(error).__name__, counts=True)
        else:
            await self._outbox.delivered(delivery)
            self._count("delivered")
            _log.info("delivered %s to sink %s", delivery.id, self._name)

    async def _hand_over(self, delivery: Delivery) -> None:
        try:
            await self._sink.deliver(delivery)
        except ServiceError as error:
            error.service = self._guard.name  # whatever the sink calls itself, it is its circuit's verdict
            raise
        except TidegateError:
            raise
        except OSError as error:  # of a file, as where its disk is full; connections are known to the guard
            if isinstance(error, (ConnectionError, TimeoutError)) or error.strerror is None:
                raise
            raise Transient(self._guard.name, error.strerror) from error

    async def _failed(self, delivery: Delivery, error: Exception, why: str, *, counts: bool) -> None:
        pause = self._pause(delivery, error)
        if not counts:
            await self._outbox.postponed(delivery, why, retry_in=pause)
            if not isinstance(error, CircuitOpen):
                _log.warning("sink %s takes nothing for %.0f s: %s", self._name, pause, why)
            return
        gives_up = delivery.attempts >= self._settings.max_deliveries
        await self._outbox.failed(delivery, why, retry_in=None if gives_up else pause)
        self._count("given_up" if gives_up else "failed")
        if gives_up:
            _log.error("delivery %s to sink %s was given up: %s", delivery.id, self._name, why)
        else:
            _log.warning(
                "delivery %s to sink %s failed, and is made again in %.0f s: %s", delivery.id, self._name, pause, why
            )

    def _pause(self, delivery: Delivery, error: Exception) -> float:
        pause = pause_after(delivery.attempts, self._settings, self._random)
        if isinstance(error, CircuitOpen):
            return max(error.retry_in, _LEAST_PAUSE)
        return max(pause, error.retry_after or 0.0) if isinstance(error, ServiceError) else pause

    def _count(self, outcome: str) -> None:
        metrics.deliveries.add(1, {names.SINK: self._name, names.DELIVERY_OUTCOME: outcome})
