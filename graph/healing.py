"""Healing: a sweep over the threads that lack something, which resumes those that can be brought forward."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tidegate.errors import LeaseLost, StoreError, StoreUnavailable, ThreadBusy, ThreadNotFound
from tidegate.graph.drain import Drain
from tidegate.graph.execution import Executions
from tidegate.graph.lacks import lacked
from tidegate.graph.result import Event, Result
from tidegate.graph.unattended import Judge, Unattended
from tidegate.nodes.gate import Circuit
from tidegate.resilience.breaker import CircuitReport
from tidegate.store.clock import Clock
from tidegate.store.registry import Registry, Service, ThreadRecord
from tidegate.telemetry import metrics, names

_log = logging.getLogger(__name__)

POLL = 5.0
"""Seconds after which a watching sweep looks what other processes left or finished, if nothing wakes it before."""

REST = 1.0
"""Seconds for which it leaves a thread alone at least that it visited, so that none can keep it busy."""

FAILED_REST = 3600.0
"""Seconds for which it leaves a thread alone that raised an error."""

_LEAST_PAUSE = 0.001  # a remainder of 1e-15 s is lost in the clock's float, and would be slept for again and again


@dataclass(frozen=True, slots=True, kw_only=True)
class Healed:
    """What a sweep made of one thread: its `result`, complete or not, or the `error` that it ended with."""

    thread_id: str
    result: Result | None = None
    error: Exception | None = None


class SlowStart:
    """How many resumes may ask a service at once: 1 when its circuit opened or closed, twice as many at each success.

    Ten thousand threads may wait for a service that just came back.
    """

    def __init__(self, limit: int) -> None:
        """Allow `limit` of them at most, however well it goes."""
        self._limit = limit
        self._allowed = 1
        self._generation = 0
        self.running = 0

    @property
    def room(self) -> int:
        """How many more may start."""
        return max(0, self._allowed - self.running)

    def look(self, report: CircuitReport) -> None:
        """Begin anew if the circuit opened or closed since the last look, whichever process made it."""
        if report.generation != self._generation:
            self._generation, self._allowed = report.generation, 1

    def succeeded(self) -> None:
        """Allow twice as many."""
        self._allowed = min(self._limit, 2 * self._allowed)


class Sweep:
    """One sweep. Threads that another process runs are passed over, and one that fails does not stop it.

    A thread is resumed for a service when its pause is over and the circuit admits a call, half-open included: so the
    first one brings the probe. Any number of processes may sweep at once: the leases of threads decide.
    """

    def __init__(
        self,
        executions: Executions,
        registry: Registry,
        circuits: Mapping[Service, Circuit],
        *,
        limits: Mapping[Service, int],
        clock: Clock,
        watch: bool,
        control: Drain | None = None,
        judge: Judge | None = None,
    ) -> None:
        """`limits` is how many threads are resumed at once for each service. `watch` goes on until cancelled.

        Once `control` is told to drain, no thread is resumed any more, those that are stop after their supersteps, and
        the sweep ends. `judge` says what becomes of threads that fail, which are no sweep's business then.
        """
        self._executions = executions
        self._registry = registry
        self._circuits = circuits
        self._clock = clock
        self._watch = watch
        self._control = control
        self._judge = judge
        self._starts = {service: SlowStart(limits[service]) for service in circuits}
        self._running: dict[asyncio.Task[None], str] = {}
        self._resting: dict[str, float] = {}
        self._measured_at = -math.inf

    async def run(self, emit: Callable[[Healed], None]) -> None:
        """Resume each thread that can be brought forward now, once; when watching, all that can be, from now on.

        Cancelling it cancels the executions, which can be resumed.

        Raises:
            StoreUnavailable: the threads cannot be looked up; when watching, they are looked up later.
        """
        try:
            while True:
                try:
                    pause = POLL if self._is_draining else await self._start(emit)
                except (StoreUnavailable, StoreError) as error:
                    if not self._watch:
                        raise
                    _log.warning("threads cannot be looked up now: %s", error)
                    pause = POLL
                if not self._running and (not self._watch or self._is_draining):
                    return
                await self._wait(pause)
        finally:
            for task in self._running:
                task.cancel()
            if self._running:
                await asyncio.wait(self._running)

    @property
    def _is_draining(self) -> bool:
        return self._control is not None and self._control.drain_requested

    async def _start(self, emit: Callable[[Healed], None]) -> float:
        """Start all that may start now; return in how many seconds there may be more."""
        if self._watch:
            await self._measure()
        pause = POLL
        admitting: list[Service] = []
        for service, circuit in self._circuits.items():
            report = await circuit.report()
            self._starts[service].look(report)
            if report.admits:
                admitting.append(service)
            else:
                pause = min(pause, report.retry_in)
        now = self._clock.monotonic()
        self._resting = {thread_id: until for thread_id, until in self._resting.items() if until > now}
        for service in admitting:
            pause = min(pause, await self._start_for(service, admitting, emit))
        return pause

    async def _measure(self) -> None:
        """Tell the meter, once a poll, of the thread that nobody brings forward."""
        now = self._clock.monotonic()
        if now - self._measured_at >= POLL:
            self._measured_at = now
            metrics.unfinished_oldest.set(await self._registry.silence())

    async def _start_for(self, service: Service, admitting: list[Service], emit: Callable[[Healed], None]) -> float:
        pause = POLL
        room = self._starts[service].room
        running = set(self._running.values())
        if not room:
            return pause
        # Those that are passed over are still in the list, and perhaps first.
        records = await self._registry.lacking(service, limit=room + len(running) + len(self._resting) + 1)
        for record in records:
            asked_in = (record.asks(service) or 0.0) - self._clock.now()
            rest = self._resting.get(record.thread_id, 0.0) - self._clock.monotonic()
            if asked_in > 0.0:
                return min(pause, asked_in)
            if rest > 0.0:
                pause = min(pause, rest)
            elif record.thread_id not in running:
                asking: list[Service] = [each for each in admitting if record.asks(each) is not None]
                if all(self._starts[each].room for each in asking):
                    for each in asking:
                        self._starts[each].running += 1
                    self._running[asyncio.create_task(self._bring(record, asking, emit))] = record.thread_id
        return pause

    async def _bring(self, record: ThreadRecord, asking: list[Service], emit: Callable[[Healed], None]) -> None:
        """Resume one thread, under the policy it had."""
        events: list[Event] = []
        rest: float | None = REST
        healed: Healed | None = None
        try:
            result = await self._executions.advance(
                record.thread_id,
                None,
                when_open=record.when_open,
                emit=events.append,
                control=self._control,
                unattended=Unattended(seen=record, judge=self._judge),
            )
            # Its circuit may be open though another model's, which cannot help this thread, is closed.
            rest = max(REST, result.retry_in or 0.0) if lacked(result) else None
            if any(event.kind == "started" for event in events):  # else another process has brought it forward
                healed = Healed(thread_id=record.thread_id, result=result)
                await self._learn(result, asking)
        except (ThreadBusy, LeaseLost):
            rest = POLL
        except ThreadNotFound:
            rest = None  # it was deleted
        except Exception as error:  # noqa: BLE001 - whatever ails one thread, all others go on
            # What a judge has ruled on comes back to the sweep as soon as it lacks something again.
            rest = POLL if self._judge is not None or isinstance(error, StoreUnavailable) else FAILED_REST
            healed = Healed(thread_id=record.thread_id, error=error)
        finally:
            for service in asking:
                self._starts[service].running -= 1
        if rest is not None:  # else it is in no list any more
            self._resting[record.thread_id] = self._clock.monotonic() + rest if self._watch else math.inf
        if healed is not None:
            metrics.backfills.add(1, {names.OUTCOME: healed.result.status if healed.result else "failed"})
            emit(healed)

    async def _learn(self, result: Result, asked: list[Service]) -> None:
        still_lacked = lacked(result)
        for service in asked:
            try:
                report = await self._circuits[service].report()
            except Exception as error:  # noqa: BLE001 - the thread was brought forward, whatever ails the circuits
                _log.warning("the circuit of %s cannot be looked at now: %s", service, error)
                continue
            self._starts[service].look(report)
            if report.state == "closed" and service not in still_lacked:
                self._starts[service].succeeded()

    async def _wait(self, pause: float) -> None:
        others = {asyncio.create_task(self._clock.sleep(max(pause, _LEAST_PAUSE)))}
        if self._control is not None and not self._is_draining:
            others.add(asyncio.create_task(self._control.wait()))
        try:
            done, _ = await asyncio.wait({*others, *self._running}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for other in others:
                other.cancel()
        for task in done - others:
            del self._running[task]
            task.result()
