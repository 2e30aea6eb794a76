"""The guard: every call to a service goes through its budget, retries, limits, breaker and timeout, in this order."""

from __future__ import annotations

import asyncio
import random as randomness
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeAlias, TypeVar

from tenacity import AsyncRetrying, RetryCallState

from tidegate.errors import BudgetExceeded, CircuitOpen, NotFound, RateLimited, ServiceError, Transient
from tidegate.resilience.breaker import Breaker, CircuitReport, Permit
from tidegate.resilience.failures import Classify, failure_of
from tidegate.settings import ServiceSettings
from tidegate.store.clock import Clock, SystemClock
from tidegate.telemetry import events

T = TypeVar("T")

Keep: TypeAlias = Callable[[T | None, int], Awaitable[None]]
"""Records an answer, None for NotFound, and the attempts that it took."""


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """What a service answered; `attempts` counts the requests that were started, the first included."""

    value: T
    attempts: int


@dataclass(slots=True)
class _Progress:
    """How far one call has come. `deadline` is in the clock's monotonic time."""

    deadline: float
    cancelling: int
    attempts: int = 0
    failure: ServiceError | None = None


class Guard:
    """Calls one service: retries with backoff and jitter, limits concurrency, asks the breaker, cuts off slow attempts.

    One guard serves a whole process. A pause that the service asked for (`Retry-After`) holds all calls of the guard;
    other processes learn of it from the service. The limit on concurrency counts each event loop by itself.
    """

    def __init__(
        self,
        breaker: Breaker,
        *,
        settings: ServiceSettings,
        classify: Classify,
        clock: Clock | None = None,
        random: randomness.Random | None = None,
    ) -> None:
        """Guard the service of `breaker`. `classify` says which failure of the service an exception is, None for a bug.

        A `ServiceError` that names this service is its own verdict, and `classify` is not asked.
        """
        if breaker.probe_timeout < settings.attempt_timeout:
            raise ValueError(
                f"circuit {breaker.name!r}: probes are given up after {breaker.probe_timeout:g} s, but an attempt may "
                f"take {settings.attempt_timeout:g} s; give the breaker a longer probe_timeout"
            )
        self.name = breaker.name
        self.breaker = breaker
        self._settings = settings
        self._classify = classify
        self._clock = clock or SystemClock()
        self._random = random or randomness.Random()  # noqa: S311 - jitter
        self._held_until = 0.0  # no longer than a budget: a pause of a year must not outlast whoever asked for it
        self._asked_until = 0.0
        self._slots: dict[asyncio.AbstractEventLoop, asyncio.Semaphore] = {}
        self._lock = threading.Lock()

    async def call(self, attempt: Callable[[int], Awaitable[T]], *, keep: Keep[T] | None = None) -> Answer[T]:
        """Call the service; `attempt` makes one request and is given its number, 1 for the first.

        `keep` records the answer, or None for NotFound, with the attempts so far, before the next call may take this
        one's place: so no more answers are unrecorded at any moment than calls may be in flight.

        Raises:
            Transient, RateLimited: the last of `settings.attempts` attempts came to this.
            Refused, Permanent, NotFound: what the service answered; not tried again.
            BudgetExceeded: `settings.budget` seconds are used up, or the next pause would overrun them.
            CircuitOpen: no request, or no further one, was started; the cause is the failure before, if there was one.

        All of them carry `attempts`. What is no failure of the service passes through unchanged.
        """
        task = asyncio.current_task()
        progress = _Progress(
            deadline=self._clock.monotonic() + self._settings.budget,
            cancelling=task.cancelling() if task else 0,
        )
        budget = asyncio.timeout(self._settings.budget)
        try:
            async with budget:
                retrying = AsyncRetrying(
                    retry=partial(self._worth_repeating, progress),
                    wait=partial(self._pause, progress),
                    stop=lambda _: progress.attempts >= self._settings.attempts,
                    before_sleep=partial(self._schedule, progress),
                    sleep=self._clock.sleep,
                    reraise=True,
                )
                value: T = await retrying(self._attempt, attempt, progress, keep)
        except TimeoutError:
            if not budget.expired():
                raise
            raise self._over_budget(progress) from progress.failure
        return Answer(value, progress.attempts)

    async def _attempt(self, attempt: Callable[[int], Awaitable[T]], progress: _Progress, keep: Keep[T] | None) -> T:
        while True:
            await self._sit_out(progress)
            slots = self._slots_here()
            if slots.locked():  # an open circuit refuses at once, not when the queue has been waited for
                report = await self.breaker.report()
                if not report.admits:
                    raise self._shut(report, progress) from progress.failure
            async with slots:
                if self._held() > 0.0:  # asked for while this call was queueing
                    continue
                try:
                    permit = await self.breaker.permit()
                except CircuitOpen as refusal:
                    refusal.attempts = progress.attempts
                    raise refusal from progress.failure
                try:
                    value = await self._request(attempt, progress, permit)
                except NotFound:
                    if keep is not None:
                        await keep(None, progress.attempts)
                    raise
                finally:
                    await permit.released()
                if keep is not None:
                    await keep(value, progress.attempts)
                return value

    async def _request(self, attempt: Callable[[int], Awaitable[T]], progress: _Progress, permit: Permit) -> T:
        progress.attempts += 1
        timer = asyncio.timeout(self._settings.attempt_timeout)
        try:
            async with timer:
                value = await attempt(progress.attempts)
        except Exception as error:
            task = asyncio.current_task()
            if task and task.cancelling() > progress.cancelling:  # the attempt turned its cancellation into this
                raise asyncio.CancelledError from error
            failure = self._failure(error, timed_out=timer.expired())
            if failure is None:
                raise
            failure.attempts = progress.attempts
            progress.failure = failure
            if isinstance(failure, RateLimited) and failure.retry_after is not None:
                self._hold(failure.retry_after)
            await permit.failed(failure)
            if failure is error:
                raise
            raise failure from error
        await permit.succeeded()
        return value

    def _failure(self, error: Exception, *, timed_out: bool) -> ServiceError | None:
        if timed_out and not isinstance(error, ServiceError):
            return Transient(self.name, f"no answer within {self._settings.attempt_timeout:g} s")
        return failure_of(error, self.name, self._classify)

    def _worth_repeating(self, progress: _Progress, state: RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        return error is not None and error is progress.failure and isinstance(error, (Transient, RateLimited))

    def _pause(self, progress: _Progress, _: RetryCallState) -> float:
        if isinstance(progress.failure, RateLimited) and progress.failure.retry_after:
            return self._held()
        settings = self._settings
        longest = min(settings.backoff_max, settings.backoff_initial * 2.0 ** min(progress.attempts - 1, 64))
        return self._random.uniform(0.0, longest)  # full jitter: callers that failed together come back apart

    async def _schedule(self, progress: _Progress, state: RetryCallState) -> None:
        """Give up here, rather than after the pause, when it is known that no attempt can follow it."""
        delay = state.upcoming_sleep
        if self._clock.monotonic() + delay >= progress.deadline:
            raise self._over_budget(progress) from progress.failure
        report = await self.breaker.report()
        if report.state == "open" and report.retry_in > delay:
            raise self._shut(report, progress) from progress.failure
        events.retry_scheduled(attempt=progress.attempts, delay=delay, error_type=type(progress.failure).__name__)

    def _hold(self, seconds: float) -> None:
        now = self._clock.monotonic()
        with self._lock:
            self._asked_until = max(self._asked_until, now + seconds)
            self._held_until = max(self._held_until, now + min(seconds, self._settings.budget))

    def _held(self) -> float:
        return max(0.0, self._held_until - self._clock.monotonic())

    async def _sit_out(self, progress: _Progress) -> None:
        """Wait until the pause that the service asked for is over."""
        while (pause := self._held()) > 0.0:
            if self._clock.monotonic() + pause >= progress.deadline:
                asked = RateLimited(self.name, "asked for a pause", retry_after=pause, attempts=progress.attempts)
                raise self._over_budget(progress) from progress.failure or asked
            await self._clock.sleep(pause)

    def _slots_here(self) -> asyncio.Semaphore:
        loop = asyncio.get_running_loop()  # a semaphore belongs to the loop that it first waited on, and keeps it
        with self._lock:
            if loop not in self._slots:
                self._slots = {other: slots for other, slots in self._slots.items() if not other.is_closed()}
                self._slots[loop] = asyncio.Semaphore(self._settings.concurrency)
            return self._slots[loop]

    def _shut(self, report: CircuitReport, progress: _Progress) -> CircuitOpen:
        return CircuitOpen(self.name, retry_in=report.retry_in, reason=report.reason or "", attempts=progress.attempts)

    def _over_budget(self, progress: _Progress) -> BudgetExceeded:
        budget = f"{self._settings.budget:g} s"
        pause = self._asked_until - self._clock.monotonic()
        if pause > 0.0:
            problem = f"the service asks for a pause of {pause:,.0f} s, and a call may take {budget}"
            return BudgetExceeded(self.name, problem, retry_after=pause, attempts=progress.attempts)
        return BudgetExceeded(self.name, f"no success within {budget}, pauses included", attempts=progress.attempts)
