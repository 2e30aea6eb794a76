"""The guard: every call to a service goes through its budget, retries, limits, breaker and timeout, in this order."""

from __future__ import annotations

import asyncio
import random as randomness
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial, wraps
from inspect import isasyncgenfunction, isawaitable, iscoroutinefunction, isfunction, unwrap
from typing import Any, Generic, ParamSpec, TypeAlias, TypeVar, Unpack

from tenacity import AsyncRetrying, RetryCallState

from tidegate.errors import BudgetExceeded, CircuitOpen, NotFound, Permanent, RateLimited, ServiceError, Transient
from tidegate.resilience.breaker import Breaker, CircuitChange, CircuitReport, Permit
from tidegate.resilience.circuits import Circuits, FailureWindow, MemoryCircuits
from tidegate.resilience.classification import classify_clients
from tidegate.resilience.failures import Classify, failure_of
from tidegate.resilience.rates import MemoryRates, Rate, Rates
from tidegate.resilience.retry_budget import RetryBudget
from tidegate.resilience.slots import Slots
from tidegate.settings import ServiceOptions, ServiceSettings
from tidegate.store.clock import Clock, SystemClock
from tidegate.telemetry import events
from tidegate.telemetry.spans import Operation

P = ParamSpec("P")
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
    """How far one call has come. `deadline` is in the clock's monotonic time, `budget` in the event loop's."""

    name: str
    deadline: float
    budget: asyncio.Timeout
    cancelling: int
    attempts: int = 0
    timer: asyncio.Timeout | None = None  # of the attempt that is being made
    failure: ServiceError | None = None
    is_over: bool = False  # tasks that outlive the call inherit `_calls` of it


_calls: ContextVar[tuple[_Progress, ...]] = ContextVar("tidegate-calls", default=())
"""The calls that the running code is part of."""


@contextmanager
def telling(span: Operation) -> Iterator[None]:
    """Mark the span of an attempt that a guard cuts off as timed out: inside, it looks like any cancellation."""
    try:
        yield
    except asyncio.CancelledError:
        if any(each.budget.expired() or (each.timer and each.timer.expired()) for each in _calls.get()):
            span.failed("timeout")
        raise


class Guard:
    """Calls one service: retries with backoff and jitter, keeps its limits, asks the breaker, cuts off slow attempts.

    One guard serves a whole process, from any event loop. A pause that the service asked for (`Retry-After`) holds all
    calls of the guard, and where `rates` are shared those of other processes; else they learn of it from the service.
    Once it asked for as many pauses in a row as a call has attempts, with no answer between them, nobody waits for the
    next one any more: calls end with `RateLimited` until one is answered. A document of 39 names waited for two minutes
    and made 156 requests before.

    Silence is a failure of the service when it lasted for `attempt_timeout`. An attempt that the call's budget cuts off
    sooner is one if it had half of that time, or was the probe of a half-open circuit; else it says nothing: the call
    had waited too long before.

    `await guard.call(...)` makes a call, `@guard` makes a function that does.
    """

    def __init__(
        self,
        breaker: Breaker,
        *,
        settings: ServiceSettings,
        classify: Classify,
        rates: Rates | None = None,
        clock: Clock | None = None,
        random: randomness.Random | None = None,
    ) -> None:
        """Guard the service of `breaker`. `classify` says which failure of the service an exception is, None for a bug.

        A `ServiceError` that names this service is its own verdict, and `classify` is not asked. `rates` keeps the
        count for `settings.rate`; without it, this guard counts for itself. Pauses are by `clock`, while what takes too
        long is cut off by real time.
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
        self._held_until = 0.0  # no longer than a budget: a pause of a day must not outlast whoever asked for it
        self._asked_until = 0.0
        self._pauses = 0  # asked for in a row
        self._lock = threading.Lock()
        self._slots = Slots(settings.concurrency)
        self._rates = rates or MemoryRates(self._clock)
        self._rate = Rate(settings.rate, settings.burst, longest=settings.budget) if settings.rate else None
        self._retries = RetryBudget(settings.retry_ratio, self._clock)

    @classmethod
    def for_service(
        cls,
        name: str,
        *,
        classify: Classify | None = None,
        circuits: Circuits | None = None,
        rates: Rates | None = None,
        clock: Clock | None = None,
        **options: Unpack[ServiceOptions],
    ) -> Guard:
        """Guard a service of your own; make one guard for each, and keep it.

        `options` are settings as `[enrichment]` has them, durations in seconds: among them `attempts` (4, the first
        included), `attempt_timeout` (10.0, little for a chat model), `budget` (120.0, for the call with its retries and
        pauses), `concurrency` (8), `rate` (requests a second; no limit), `failure_threshold` (3), `reset_timeout`
        (30.0). `classify` says which failure an exception is, None for a bug, which passes through; by default
        exceptions of httpx and of the clients of OpenAI, Anthropic and Ollama are known. `circuits` and `rates` are
        this process's own, unless they are given.

        Raises:
            ValueError: an option is out of its range.
        """
        clock = clock or SystemClock()
        settings = ServiceSettings(**options)
        return cls(
            breaker_for(name, settings, circuits or MemoryCircuits(clock), clock),
            settings=settings,
            classify=classify or classify_clients(name, clock),
            rates=rates,
            clock=clock,
        )

    def __call__(self, function: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """Decorate an async function, so that every call of it goes through `call`; it is called again after a failure.

        Raises:
            TypeError: it is no async function, or an async generator.
        """
        name = _name_of_async(function)

        def awaited(answer: Awaitable[T]) -> Awaitable[T]:
            if not isawaitable(answer):
                raise TypeError(f"{name} returned {type(answer).__name__}, not an awaitable; guard an async function")
            return answer

        @wraps(function)
        async def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            return (await self.call(lambda _: awaited(function(*args, **kwargs)))).value

        return guarded

    async def call(self, attempt: Callable[[int], Awaitable[T]], *, keep: Keep[T] | None = None) -> Answer[T]:
        """Call the service; `attempt` makes one request and is given its number, 1 for the first.

        `keep` records the answer, or None for NotFound, with the attempts so far, before the next call may take this
        one's place: so no more answers are unrecorded at any moment than calls may be in flight.

        Raises:
            Transient, RateLimited: the last of `settings.attempts` attempts came to this, or the last that the retry
                budget (`settings.retry_ratio`) had left; RateLimited with no attempt, too, where one pause has followed
                another.
            Refused, Permanent, NotFound: what the service answered; not tried again.
            BudgetExceeded: `settings.budget` seconds are used up, or would be by the next pause, or by the wait that
                `settings.rate` demands.
            CircuitOpen: no request, or no further one, was started; the cause is the failure before, if there was one.
            RuntimeError: a call of this service makes this one, which would hold two places and hide what the inner one
                comes to.

        All but the last carry `attempts`. What is no failure of the service passes through unchanged.
        """
        outer = _calls.get()
        if any(call.name == self.name and not call.is_over for call in outer):
            raise RuntimeError(
                f"a call of {self.name!r} is made inside another one, and would wait for its place; guard one of them"
            )
        task = asyncio.current_task()
        budget = asyncio.timeout(self._settings.budget)
        progress = _Progress(
            self.name,
            deadline=self._clock.monotonic() + self._settings.budget,
            budget=budget,
            cancelling=task.cancelling() if task else 0,
        )
        self._retries.earn()
        inside = _calls.set((*outer, progress))
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
        finally:
            progress.is_over = True
            with suppress(ValueError):  # a coroutine that is collected ends in a context of another's
                _calls.reset(inside)
        return Answer(value, progress.attempts)

    async def _attempt(self, attempt: Callable[[int], Awaitable[T]], progress: _Progress, keep: Keep[T] | None) -> T:
        while True:
            await self._sit_out(progress)
            if self._slots.full:  # an open circuit refuses at once, not when the queue has been waited for
                await self._refuse_if_shut(progress)
                self._refuse_if_too_many(progress)
            async with self._slots:
                if self._held() > 0.0:  # asked for while this call was queueing
                    continue
                if self._rate:
                    await self._await_token(self._rate, progress)
                    if self._held() > 0.0:
                        continue
                try:
                    permit = await self.breaker.permit()
                except CircuitOpen as refusal:
                    refusal.attempts = progress.attempts
                    raise refusal from progress.failure
                try:
                    return await self._request(attempt, progress, permit, keep)
                finally:
                    permit.released()

    async def _request(
        self, attempt: Callable[[int], Awaitable[T]], progress: _Progress, permit: Permit, keep: Keep[T] | None
    ) -> T:
        progress.attempts += 1
        began = self._clock.monotonic()
        progress.timer = timer = asyncio.timeout(self._settings.attempt_timeout)
        try:
            async with timer:
                value = await attempt(progress.attempts)
        except asyncio.CancelledError:
            await self._tell_of_silence(progress, permit, timer)
            raise
        except Exception as error:
            task = asyncio.current_task()
            if task and task.cancelling() > progress.cancelling:  # the attempt turned its cancellation into this
                await self._tell_of_silence(progress, permit, timer)
                raise asyncio.CancelledError from error
            failure = self._failure(error, timed_out=timer.expired())
            if failure is None:
                raise
            failure.attempts = progress.attempts
            progress.failure = failure
            if isinstance(failure, RateLimited) and failure.retry_after is not None:
                self._hold(failure.retry_after, began)
            elif isinstance(failure, (NotFound, Permanent)):
                self._pauses = 0
            try:
                if keep is not None and isinstance(failure, NotFound):
                    await keep(None, progress.attempts)
            finally:
                await permit.failed(failure)
            if failure is error:
                raise
            raise failure from error
        self._pauses = 0
        try:
            if keep is not None:  # first: cancelled while the circuit is told, the answer would be lost
                await keep(value, progress.attempts)
        finally:
            await permit.succeeded()
        return value

    async def _tell_of_silence(self, progress: _Progress, permit: Permit, timer: asyncio.Timeout) -> None:
        """Give the verdict on an attempt that the budget cut off, if there is one; none if its caller did."""
        task, cut_at, ends_at = asyncio.current_task(), progress.budget.when(), timer.when()
        if not task or task.cancelling() != progress.cancelling + 1 or not progress.budget.expired():
            return
        assert cut_at is not None and ends_at is not None  # noqa: S101, PT018 - both were given a time
        longest = self._settings.attempt_timeout
        left = min(longest, longest - (ends_at - cut_at))
        if permit.is_probe or left >= longest / 2:
            problem = f"no answer within {left:.3g} s, which the budget left"
            progress.failure = Transient(self.name, problem, attempts=progress.attempts)
            await permit.failed(progress.failure)

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
        asked = isinstance(progress.failure, RateLimited) and progress.failure.retry_after
        if asked and self._is_worn_out:
            assert progress.failure is not None  # noqa: S101 - it is what asked
            raise progress.failure
        if not asked and not self._retries.spend():  # a retry at the time that the service named is no storm
            failed = type(progress.failure).__name__
            events.retry_refused(service=self.name, attempt=progress.attempts, error_type=failed)
            assert progress.failure is not None  # noqa: S101 - it is what is to be repeated
            raise progress.failure
        failed = type(progress.failure).__name__
        events.retry_scheduled(service=self.name, attempt=progress.attempts, delay=delay, error_type=failed)

    @property
    def _is_worn_out(self) -> bool:
        return self._pauses >= self._settings.attempts

    def _hold(self, seconds: float, began: float) -> None:
        now = self._clock.monotonic()
        with self._lock:
            if seconds > 0.0 and began >= self._held_until:  # else it was on its way when the pause was asked for
                self._pauses += 1
                events.pause_asked(self.name, seconds)
            self._asked_until = max(self._asked_until, now + seconds)
            self._held_until = max(self._held_until, now + min(seconds, self._settings.budget))
        if self._rate:
            self._rates.hold(self.name, self._rate, min(seconds, self._settings.budget))

    def _held(self) -> float:
        return max(0.0, self._held_until - self._clock.monotonic())

    async def _sit_out(self, progress: _Progress) -> None:
        """Wait until the pause that the service asked for is over."""
        while (pause := self._held()) > 0.0:
            if self._is_worn_out:
                problem = f"asked for {self._pauses} pauses in a row, with no answer between them"
                left = max(pause, self._asked_until - self._clock.monotonic())
                raise RateLimited(self.name, problem, retry_after=left, attempts=progress.attempts)
            if self._clock.monotonic() + pause >= progress.deadline:
                asked = RateLimited(self.name, "asked for a pause", retry_after=pause, attempts=progress.attempts)
                raise self._over_budget(progress) from progress.failure or asked
            await self._clock.sleep(pause)

    async def _refuse_if_shut(self, progress: _Progress) -> None:
        report = await self.breaker.report()
        if not report.admits:
            raise self._shut(report, progress) from progress.failure

    def _refuse_if_too_many(self, progress: _Progress) -> None:
        """Give up at once if so many wait in this process that the rate leaves no place in time."""
        if self._rate and self._clock.monotonic() + self._rate.wait(self._slots.waiting) >= progress.deadline:
            raise self._over_rate(self._rate, progress) from progress.failure

    async def _await_token(self, rate: Rate, progress: _Progress) -> None:
        """Wait until the rate lets one more request start."""
        await self._refuse_if_shut(progress)  # first: a token that a refused call took would be lost
        patience = progress.deadline - self._clock.monotonic()
        token = await self._rates.take(self.name, rate, patience=patience)
        if token is None:
            raise self._over_rate(rate, progress) from progress.failure
        if token.wait > 0.0:
            try:
                await self._clock.sleep(token.wait)
            except BaseException:  # cancelled, most of all
                self._rates.give_back(self.name, rate, token)
                raise

    def _shut(self, report: CircuitReport, progress: _Progress) -> CircuitOpen:
        return CircuitOpen(self.name, retry_in=report.retry_in, reason=report.reason or "", attempts=progress.attempts)

    def _over_budget(self, progress: _Progress) -> BudgetExceeded:
        budget = f"{self._settings.budget:g} s"
        pause = self._asked_until - self._clock.monotonic()
        if pause > 0.0:
            problem = f"the service asks for a pause of {pause:,.0f} s, and a call may take {budget}"
            return BudgetExceeded(self.name, problem, retry_after=pause, attempts=progress.attempts)
        return BudgetExceeded(self.name, f"no success within {budget}, pauses included", attempts=progress.attempts)

    def _over_rate(self, rate: Rate, progress: _Progress) -> BudgetExceeded:
        problem = (
            f"{rate.per_second:g} requests a second, or a pause, leave no place within {self._settings.budget:g} s"
        )
        return BudgetExceeded(self.name, problem, attempts=progress.attempts)


def _name_of_async(function: Callable[..., object]) -> str:
    name = getattr(function, "__qualname__", repr(function))
    if isasyncgenfunction(function):
        raise TypeError(f"{name} is an async generator, of which half cannot be called again; return a list")
    if isfunction(function) and function.__name__ != "<lambda>" and not iscoroutinefunction(unwrap(function)):
        raise TypeError(f"{name} is no async function; write `async def`")
    return name


def breaker_for(name: str, settings: ServiceSettings, circuits: Circuits, clock: Clock) -> Breaker:
    """Return the breaker of a service as its settings have it; its changes are told to OpenTelemetry."""

    def tell(change: CircuitChange) -> None:
        events.circuit_changed(change.name, change.from_, change.to, change.reason)

    return Breaker(
        name,
        circuits,
        failure_threshold=settings.failure_threshold,
        reset_timeout=settings.reset_timeout,
        probe_timeout=settings.attempt_timeout + 5.0,  # a probe that is answered at the last moment is still its own
        window=_window(settings),
        clock=clock,
        listeners=[tell],
    )


def _window(settings: ServiceSettings) -> FailureWindow | None:
    if settings.failure_rate is None:
        return None
    return FailureWindow(
        settings.failure_rate,
        calls=settings.failure_rate_calls,
        seconds=settings.failure_rate_seconds,
        minimum=settings.failure_rate_minimum,
    )
