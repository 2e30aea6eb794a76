"""The guard: retries, pauses, limits and timeouts around the breaker."""

from __future__ import annotations

import asyncio
import gc
import random
import weakref
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tidegate.errors import (
    BudgetExceeded,
    CircuitOpen,
    NotFound,
    Permanent,
    RateLimited,
    Refused,
    ServiceError,
    Transient,
)
from tidegate.resilience.breaker import Breaker, CircuitChange, CircuitReport
from tidegate.resilience.circuits import MemoryCircuits
from tidegate.resilience.guard import Answer, Guard
from tidegate.settings import ServiceSettings
from tidegate.telemetry import names
from tidegate.testing import ManualClock

T = TypeVar("T")


def classify(error: BaseException) -> ServiceError | None:
    return Transient("api", "no connection") if isinstance(error, ConnectionError) else None


def transient() -> Transient:
    return Transient("api", "down")


def dice() -> random.Random:
    return random.Random(7)  # noqa: S311 - jitter


class World:
    """A guard with its clock, and what came of it."""

    def __init__(self, *, auto: bool = True, **values: object) -> None:
        self.clock = ManualClock(auto=auto)
        self.changes: list[CircuitChange] = []
        self.settings = ServiceSettings.model_validate({"failure_threshold": 100, **values})
        self.breaker = Breaker(
            "api",
            MemoryCircuits(self.clock),
            failure_threshold=self.settings.failure_threshold,
            reset_timeout=self.settings.reset_timeout,
            clock=self.clock,
            listeners=[self.changes.append],
        )
        self.guard = Guard(self.breaker, settings=self.settings, classify=classify, clock=self.clock, random=dice())
        self.started: list[tuple[int, float]] = []

    def attempt(self, outcomes: Iterable[BaseException | T]) -> Callable[[int], Awaitable[T]]:
        """Return an attempt that comes to one outcome after another."""
        coming = iter(outcomes)

        async def attempt(number: int) -> T:
            self.started.append((number, self.clock.monotonic()))
            outcome = next(coming)
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome

        return attempt

    async def call(self, *outcomes: BaseException | T) -> Answer[T]:
        return await self.guard.call(self.attempt(outcomes))

    async def open_circuit(self) -> None:
        while (await self.breaker.report()).state == "closed":
            await (await self.breaker.permit()).failed(Refused("api", "no"))


async def test_an_answer_says_how_many_requests_were_started() -> None:
    world = World()
    assert await world.call("yes") == Answer("yes", 1)
    assert await world.call(transient(), ConnectionError(), "yes") == Answer("yes", 3)
    assert [number for number, _ in world.started] == [1, 1, 2, 3]


async def test_pauses_double_up_to_a_limit_and_are_drawn_from_nothing_to_all_of_it() -> None:
    world = World(attempts=7, backoff_initial=0.5, backoff_max=6.0, budget=1000.0)
    with pytest.raises(Transient) as failure:
        await world.call(*(transient() for _ in range(7)))
    assert failure.value.attempts == 7
    expected = dice()
    assert world.clock.slept == [expected.uniform(0.0, longest) for longest in (0.5, 1.0, 2.0, 4.0, 6.0, 6.0)]


async def test_pauses_of_nothing_are_possible() -> None:
    world = World(attempts=3, backoff_initial=0.0)
    with pytest.raises(Transient):
        await world.call(*(transient() for _ in range(3)))
    assert world.clock.monotonic() == 0.0


async def test_very_many_attempts_do_not_overflow_the_pause() -> None:
    world = World(attempts=1200, backoff_max=0.001, retry_ratio=1200.0)
    world.breaker = Breaker("api", MemoryCircuits(world.clock), failure_threshold=10_000, clock=world.clock)
    world.guard = Guard(world.breaker, settings=world.settings, classify=classify, clock=world.clock)
    with pytest.raises(Transient) as failure:
        await world.call(*(transient() for _ in range(1200)))
    assert failure.value.attempts == 1200


@pytest.mark.parametrize("kind", [Refused, Permanent, NotFound])
async def test_what_would_fail_again_is_not_tried_again(kind: type[ServiceError]) -> None:
    world = World()
    with pytest.raises(kind) as failure:
        await world.call(kind("api", "no"))
    assert failure.value.attempts == 1
    assert world.clock.slept == []


async def test_a_classified_exception_is_the_cause_of_its_failure() -> None:
    world = World(attempts=1)
    error = ConnectionError()
    with pytest.raises(Transient, match="api: no connection") as failure:
        await world.call(error)
    assert failure.value.__cause__ is error
    assert (await world.breaker.report()).failures == 1


@pytest.mark.parametrize(
    "bug", [KeyError("x"), TimeoutError(), Transient("another service", "x"), ExceptionGroup("x", [KeyError()])]
)
async def test_what_is_no_failure_of_the_service_passes_through_and_gives_the_permit_back(bug: Exception) -> None:
    world = World()
    await world.open_circuit()
    world.clock.advance(30.0)
    with pytest.raises(type(bug)) as raised:
        await world.call(bug)
    assert raised.value is bug
    assert (await world.breaker.report()).admits
    assert world.clock.slept == []


async def test_failures_in_a_group_count() -> None:
    world = World()
    group = ExceptionGroup("", [ConnectionError(), RateLimited("api", "slower", retry_after=9.0)])
    assert (await world.call(group, "yes")).attempts == 2
    assert world.clock.slept == [9.0]


async def test_the_third_failure_ends_the_call_with_no_further_attempt_and_no_further_pause() -> None:
    world = World(failure_threshold=3, attempts=10)
    with pytest.raises(CircuitOpen) as refusal:
        await world.call(*(transient() for _ in range(10)))
    assert (refusal.value.attempts, refusal.value.retry_in, refusal.value.reason) == (3, 30.0, "transient")
    assert isinstance(refusal.value.__cause__, Transient)
    assert len(world.started) == 3
    assert len(world.clock.slept) == 2


async def test_an_open_circuit_is_not_tried_again() -> None:
    world = World()
    await world.open_circuit()
    with pytest.raises(CircuitOpen) as refusal:
        await world.call("yes")
    assert (refusal.value.attempts, refusal.value.__cause__) == (0, None)
    assert world.clock.slept == []


async def test_a_pause_that_outlasts_the_open_circuit_leads_to_the_probe() -> None:
    world = World(failure_threshold=1, reset_timeout=0.1, backoff_initial=10.0)
    assert (await world.call(transient(), "yes")).attempts == 2
    assert [change.to for change in world.changes] == ["open", "half_open", "closed"]


async def test_a_circuit_opened_by_others_during_a_pause_ends_the_call() -> None:
    world = World(auto=False)
    calling = asyncio.create_task(world.call(transient(), "yes"))
    await world.clock.until_sleeping()
    await world.open_circuit()
    world.clock.advance(1.0)
    with pytest.raises(CircuitOpen) as refusal:
        await calling
    assert refusal.value.attempts == 1
    assert isinstance(refusal.value.__cause__, Transient)


async def test_the_pause_that_a_service_asks_for_holds_every_call() -> None:
    world = World()
    limited = RateLimited("api", "slower", retry_after=20.0)
    first = asyncio.create_task(world.call(limited, "first"))
    await asyncio.sleep(0)
    assert world.started
    answers = await asyncio.gather(world.call("second"), world.call("third"), first)
    assert [answer.attempts for answer in answers] == [1, 1, 2]
    assert [moment for _, moment in world.started] == [0.0, 20.0, 20.0, 20.0]


async def test_the_pause_holds_a_call_that_waits_for_its_turn() -> None:
    world = World(concurrency=1)

    async def limited_once(number: int) -> str:
        await world.clock.sleep(1.0)
        if number == 1:
            raise RateLimited("api", "slower", retry_after=20.0)
        return "first"

    await asyncio.gather(world.guard.call(limited_once), world.call("second"))
    assert [moment for _, moment in world.started] == [pytest.approx(22.0)]


async def test_of_two_pauses_the_longer_holds() -> None:
    world = World()
    moments: list[float] = []

    async def limited_once(number: int, after: float, retry_after: float) -> None:
        await world.clock.sleep(after)
        moments.append(world.clock.monotonic())
        if number == 1:
            raise RateLimited("api", "slower", retry_after=retry_after)

    await asyncio.gather(
        world.guard.call(lambda number: limited_once(number, 1.0, 20.0)),
        world.guard.call(lambda number: limited_once(number, 2.0, 5.0)),
    )
    assert moments == [1.0, 2.0, 22.0, 23.0]


@pytest.mark.parametrize("retry_after", [None, 0.0])
async def test_a_pause_of_unknown_length_is_a_backoff_of_the_one_call(retry_after: float | None) -> None:
    world = World()
    limited = RateLimited("api", "slower", retry_after=retry_after)
    assert (await world.call(limited, "yes")).attempts == 2
    assert world.clock.slept == [dice().uniform(0.0, 0.5)]


async def test_a_pause_longer_than_the_budget_is_not_begun_and_ends_with_the_budget() -> None:
    world = World(budget=60.0)
    with pytest.raises(BudgetExceeded) as failure:
        await world.call(RateLimited("api", "slower", retry_after=1e7))
    assert failure.value.attempts == 1
    assert isinstance(failure.value.__cause__, RateLimited)
    with pytest.raises(BudgetExceeded) as failure:
        await world.call("not asked")
    assert failure.value.attempts == 0
    assert isinstance(failure.value.__cause__, RateLimited)
    assert world.clock.monotonic() == 0.0
    world.clock.advance(0.5)
    assert (await world.call("yes")).attempts == 1
    assert [moment for _, moment in world.started] == [0.0, 60.0]


async def test_a_rate_limited_service_is_not_failing() -> None:
    world = World(failure_threshold=1, attempts=3)
    with pytest.raises(RateLimited) as failure:
        await world.call(*(RateLimited("api", "slower", retry_after=1.0) for _ in range(3)))
    assert failure.value.attempts == 3
    assert (await world.breaker.report()).state == "closed"


async def test_the_budget_ends_before_a_pause_that_would_overrun_it() -> None:
    world = World(attempts=100, attempt_timeout=3.0, budget=3.0, backoff_initial=2.0)
    with pytest.raises(BudgetExceeded, match="no success within 3 s, pauses included") as failure:
        await world.call(*(transient() for _ in range(100)))
    assert failure.value.attempts == len(world.started) > 1
    assert isinstance(failure.value.__cause__, Transient)
    assert world.clock.monotonic() < 3.0


@dataclass
class Silence:
    """An attempt that uses up a share of the budget before it fails, and then one that is not answered."""

    before: float

    async def __call__(self, number: int) -> None:
        if number == 1 and self.before:
            await asyncio.sleep(self.before)
            raise RateLimited("api", "slower", retry_after=0.0)
        await asyncio.Event().wait()


@pytest.mark.parametrize("before", [0.0, 0.1])
async def test_a_service_that_hangs_until_the_budget_ends_opens_the_circuit(before: float) -> None:
    world = World(budget=0.3, attempt_timeout=0.3, failure_threshold=3, backoff_initial=0.0)
    outcomes = await asyncio.gather(*(world.guard.call(Silence(before)) for _ in range(3)), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {BudgetExceeded}
    assert all(isinstance(outcome.__cause__, Transient) for outcome in outcomes if isinstance(outcome, BudgetExceeded))
    assert (await world.breaker.report()).state == "open"


async def test_the_budget_cuts_off_an_attempt_that_began_late_with_no_verdict() -> None:
    world = World(budget=0.2, attempt_timeout=0.2, failure_threshold=1, backoff_initial=0.0)
    with pytest.raises(BudgetExceeded) as failure:
        await world.guard.call(Silence(0.15))
    assert failure.value.attempts == 2
    assert isinstance(failure.value.__cause__, RateLimited)
    assert (await world.breaker.report()).failures == 0


async def test_a_probe_that_the_budget_cuts_off_has_failed_however_late_it_began() -> None:
    world = World(budget=0.2, attempt_timeout=0.2, backoff_initial=0.0)
    await world.open_circuit()
    world.clock.advance(30.0)
    with pytest.raises(BudgetExceeded) as failure:
        await world.guard.call(Silence(0.15))
    assert failure.value.attempts == 2
    report = await world.breaker.report()
    assert (report.state, report.reason) == ("open", "transient")


async def test_a_caller_that_gives_up_as_the_budget_ends_leaves_no_verdict() -> None:
    world = World(budget=0.05, attempt_timeout=0.05)

    async def cancelled(_: int) -> None:
        calling.cancel()
        await asyncio.Event().wait()

    async def call() -> None:
        await world.guard.call(cancelled)

    calling = asyncio.create_task(call())
    await asyncio.gather(calling, return_exceptions=True)
    assert calling.cancelled()
    assert (await world.breaker.report()).failures == 0


async def test_an_attempt_that_turns_its_cut_by_the_budget_into_an_error_was_silent_too() -> None:
    world = World(budget=0.02, attempt_timeout=0.02)

    async def stubborn(_: int) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise KeyError("half done") from None

    with pytest.raises(BudgetExceeded):
        await world.guard.call(stubborn)
    assert (await world.breaker.report()).failures == 1


async def test_the_budget_counts_the_time_in_the_queue() -> None:
    world = World(budget=0.02, concurrency=1, attempt_timeout=0.02)
    patient = Guard(world.breaker, settings=ServiceSettings(), classify=classify, clock=world.clock)

    async def hang(_: int) -> None:
        await asyncio.Event().wait()

    outcomes = await asyncio.gather(world.guard.call(hang), world.call("never"), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [BudgetExceeded, BudgetExceeded]
    assert world.started == []
    assert (await patient.call(world.attempt(["yes"]))).value == "yes"


async def test_a_slow_attempt_is_cut_off_and_is_a_failure() -> None:
    world = World(attempt_timeout=0.01, attempts=2)
    cut_off: list[int] = []

    async def hang(number: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cut_off.append(number)

    with pytest.raises(Transient, match=r"api: no answer within 0\.01 s") as failure:
        await world.guard.call(hang)
    assert failure.value.attempts == 2
    assert cut_off == [1, 2]
    assert (await world.breaker.report()).failures == 2


async def test_an_attempt_that_answers_its_cut_with_another_error_timed_out_all_the_same() -> None:
    world = World(attempt_timeout=0.01, attempts=1)

    async def hang(_: int) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise KeyError("half done") from None

    with pytest.raises(Transient, match="no answer within"):
        await world.guard.call(hang)


async def test_an_answer_that_came_while_the_attempt_was_cut_off_is_an_answer() -> None:
    world = World(attempt_timeout=0.01)

    async def late(_: int) -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "late"
        return "never"

    assert await world.guard.call(late) == Answer("late", 1)


async def test_a_cancelled_call_gives_its_permit_and_its_turn_back() -> None:
    world = World(concurrency=1)
    await world.open_circuit()
    world.clock.advance(30.0)
    begun = asyncio.Event()

    async def hang(_: int) -> None:
        begun.set()
        await asyncio.Event().wait()

    calling = asyncio.create_task(world.guard.call(hang))
    await begun.wait()
    assert not (await world.breaker.report()).admits
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert (await world.breaker.report()).admits
    assert (await world.call("yes")).value == "yes"


async def test_a_cancellation_that_an_attempt_turns_into_an_error_still_cancels_the_call() -> None:
    world = World()
    begun = asyncio.Event()

    async def stubborn(number: int) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ConnectionError(f"closed in attempt {number}") from None

    calling = asyncio.create_task(world.guard.call(stubborn))
    await begun.wait()
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert (await world.breaker.report()).failures == 0


async def test_a_call_can_be_cancelled_during_a_pause() -> None:
    world = World(auto=False)
    calling = asyncio.create_task(world.call(transient(), "never"))
    await world.clock.until_sleeping()
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert len(world.started) == 1


async def test_a_timeout_around_a_call_is_its_owners() -> None:
    world = World()

    async def hang(_: int) -> None:
        await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await world.guard.call(hang)
    assert (await world.breaker.report()).failures == 0


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit, GeneratorExit])
async def test_whatever_ends_an_attempt_gives_its_permit_back(end: type[BaseException]) -> None:
    world = World()
    await world.open_circuit()
    world.clock.advance(30.0)
    with pytest.raises(end):
        await world.call(end())
    assert (await world.breaker.report()).admits


async def test_a_call_that_is_closed_in_mid_flight_gives_its_permit_back() -> None:
    world = World()
    await world.open_circuit()
    world.clock.advance(30.0)

    async def hang(_: int) -> None:
        await asyncio.Event().wait()

    calling = world.guard.call(hang)
    calling.send(None)
    assert not (await world.breaker.report()).admits
    calling.close()
    assert (await world.breaker.report()).admits


async def test_a_classifier_that_fails_gives_the_permit_back() -> None:
    world = World()

    def broken(_: BaseException) -> ServiceError | None:
        raise ZeroDivisionError

    await world.open_circuit()
    world.clock.advance(30.0)
    guard = Guard(world.breaker, settings=world.settings, classify=broken, clock=world.clock)
    with pytest.raises(ZeroDivisionError):
        await guard.call(world.attempt([OSError()]))
    assert (await world.breaker.report()).admits


async def test_a_failure_after_the_lease_was_passed_on_changes_nothing() -> None:
    world = World(auto=False, attempts=1)
    await world.open_circuit()
    world.clock.advance(30.0)

    async def slow(_: int) -> None:
        await world.clock.sleep(90.0)
        raise transient()

    probing = asyncio.create_task(world.guard.call(slow))
    await world.clock.until_sleeping()
    world.clock.advance(60.0)
    assert (await world.call("yes")).value == "yes"
    world.clock.advance(30.0)
    with pytest.raises(Transient):
        await probing
    assert [change.to for change in world.changes] == ["open", "half_open", "closed"]
    assert (await world.breaker.report()).failures == 0


async def test_no_more_attempts_run_at_once_than_allowed_and_pauses_are_not_among_them() -> None:
    world = World(concurrency=3, attempts=2, backoff_initial=10.0)
    running = most = 0

    async def attempt(number: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await world.clock.sleep(1.0)
        running -= 1
        if number == 1:
            raise transient()
        return number

    answers = await asyncio.gather(*(world.guard.call(attempt) for _ in range(12)))
    assert {answer.attempts for answer in answers} == {2}
    assert most == 3
    assert world.clock.monotonic() < 12 * (1.0 + 1.0) + 10.0  # one by one, pauses included, it would be more


async def test_an_open_circuit_refuses_a_call_that_would_have_to_queue() -> None:
    world = World(concurrency=1)
    begun = asyncio.Event()

    async def hang(_: int) -> None:
        begun.set()
        await asyncio.Event().wait()

    await world.open_circuit()
    world.clock.advance(30.0)
    probing = asyncio.create_task(world.guard.call(hang))
    await begun.wait()
    outcomes = await asyncio.gather(*(world.call("no") for _ in range(49)), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {CircuitOpen}
    assert not probing.done()
    probing.cancel()
    await asyncio.gather(probing, return_exceptions=True)


async def test_of_fifty_calls_to_a_half_open_circuit_one_is_made() -> None:
    world = World(concurrency=50)
    await world.open_circuit()
    world.clock.advance(30.0)

    async def attempt(_: int) -> str:
        await world.clock.sleep(5.0)
        return "yes"

    outcomes = await asyncio.gather(*(world.guard.call(attempt) for _ in range(50)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes].count(Answer) == 1
    assert [type(outcome) for outcome in outcomes].count(CircuitOpen) == 49


def test_a_guard_goes_from_one_event_loop_to_the_next_and_keeps_none() -> None:
    world = World(concurrency=1)

    async def main() -> None:
        async def attempt(_: int) -> None:
            await asyncio.sleep(0)

        await asyncio.gather(*(world.guard.call(attempt) for _ in range(3)))
        loops.append(weakref.ref(asyncio.get_running_loop()))

    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []
    for _ in range(2):
        asyncio.run(main())
    gc.collect()
    assert loops[0]() is None  # what is over is not kept


async def test_a_guard_inside_a_guard_keeps_its_failures_to_itself() -> None:
    world = World()
    breaker = Breaker("inner", MemoryCircuits(world.clock), failure_threshold=2, clock=world.clock)
    inner = Guard(breaker, settings=world.settings, classify=classify, clock=world.clock)

    async def attempt(_: int) -> None:
        await inner.call(world.attempt([Transient("inner", "down"), Transient("inner", "down")]))

    with pytest.raises(CircuitOpen, match=r"^inner: ") as refusal:
        await world.guard.call(attempt)
    assert refusal.value.attempts == len(world.started) == 2
    assert (await world.breaker.report()).failures == 0


def test_a_budget_in_which_no_attempt_fits_is_refused() -> None:
    with pytest.raises(ValueError, match=r"budget \(0\.05 s\) is shorter than attempt_timeout \(10 s\)"):
        Guard.for_service("api", budget=0.05)


async def test_a_lease_shorter_than_an_attempt_is_refused() -> None:
    breaker = Breaker("api", MemoryCircuits(ManualClock()), probe_timeout=5.0)
    with pytest.raises(ValueError, match="'api': probes are given up after 5 s, but an attempt may take 10 s"):
        Guard(breaker, settings=ServiceSettings(), classify=classify)


async def test_each_retry_is_an_event_of_the_current_span() -> None:
    world = World(failure_threshold=3, attempts=10)
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    span = provider.get_tracer("test").start_span("call")
    with trace.use_span(span, end_on_exit=True, record_exception=False), pytest.raises(CircuitOpen):
        await world.call(*(transient() for _ in range(10)))
    (finished,) = exporter.get_finished_spans()
    assert [dict(event.attributes or {}) for event in finished.events] == [
        {
            names.CALL_SERVICE: "api",
            names.RETRY_ATTEMPT: number,
            names.RETRY_DELAY: pause,
            names.ERROR_TYPE: "Transient",
        }
        for number, pause in enumerate(world.clock.slept, 1)
    ]


@settings(max_examples=60, deadline=None)
@given(
    concurrency=st.integers(1, 6),
    calls=st.integers(1, 12),
    attempts=st.integers(1, 5),
    seconds=st.lists(st.sampled_from([0.0, 1.0, 2.5]), min_size=1, max_size=6),
)
def test_after_the_third_recorded_failure_no_attempt_starts(
    concurrency: int, calls: int, attempts: int, seconds: list[float]
) -> None:
    async def main() -> None:
        world = World(
            failure_threshold=3, reset_timeout=1e9, concurrency=concurrency, attempts=attempts, attempt_timeout=60.0
        )
        started = 0

        async def attempt(_: int) -> None:
            nonlocal started
            assert not world.changes, "an attempt started after the circuit had opened"
            duration = seconds[started % len(seconds)]
            started += 1
            await world.clock.sleep(duration)
            raise transient()

        outcomes = await asyncio.gather(*(world.guard.call(attempt) for _ in range(calls)), return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} <= {Transient, CircuitOpen}
        assert started == sum(outcome.attempts for outcome in outcomes if isinstance(outcome, ServiceError))
        assert started <= 3 + (concurrency - 1)
        assert started >= min(3, calls * attempts)
        if concurrency == 1:
            assert started == min(3, calls * attempts)

    asyncio.run(main())


@pytest.mark.parametrize("answer", ["found", None])
async def test_an_answer_is_kept_before_the_next_call_takes_its_place(answer: str | None) -> None:
    clock = ManualClock(auto=True)
    guard = Guard(
        Breaker("api", MemoryCircuits(clock), clock=clock),
        settings=ServiceSettings(concurrency=1),
        classify=lambda _: None,
    )
    began: list[int] = []
    go_on = asyncio.Event()
    kept: list[tuple[str | None, int]] = []

    async def attempt(_: int) -> str:
        began.append(len(kept))
        if answer is None:
            raise NotFound("api", "no such thing")
        return answer

    async def keep(value: str | None, attempts: int) -> None:
        await go_on.wait()
        kept.append((value, attempts))

    calls = [asyncio.create_task(guard.call(attempt, keep=keep)) for _ in range(3)]
    await asyncio.wait(calls, timeout=0.05)
    assert began == [0]
    go_on.set()
    await asyncio.wait(calls)
    assert began == [0, 1, 2]
    assert kept == [(answer, 1)] * 3
    assert all(isinstance(call.exception(), NotFound) for call in calls) == (answer is None)


@pytest.mark.parametrize("answer", ["found", None])
async def test_an_answer_is_kept_though_its_caller_is_cancelled_while_the_circuit_is_told(answer: str | None) -> None:
    class Cancelling(MemoryCircuits):
        async def read(self, name: str) -> CircuitReport:
            if answered:
                calling.cancel()
                await asyncio.sleep(0)
            return await super().read(name)

    clock = ManualClock()
    guard = Guard(
        Breaker("api", Cancelling(clock), clock=clock), settings=ServiceSettings(), classify=classify, clock=clock
    )
    answered = False
    kept: list[str | None] = []

    async def attempt(_: int) -> str:
        nonlocal answered
        answered = True
        if answer is None:
            raise NotFound("api", "no such thing")
        return answer

    async def keep(value: str | None, attempts: int) -> None:
        kept.append(value)

    calling = asyncio.create_task(guard.call(attempt, keep=keep))
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert kept == [answer]
