"""The guard's limits: places, rates and retries, of a service and for whoever calls it."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator
from functools import partial, wraps
from typing import Any

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.servers.enrichment import EnrichmentServer, Reply
from tidegate.errors import BudgetExceeded, CircuitOpen, RateLimited, Transient
from tidegate.resilience.guard import Guard
from tidegate.resilience.rates import MemoryRates
from tidegate.resilience.retry_budget import RESERVE
from tidegate.settings import ServiceOptions, ServiceSettings
from tidegate.telemetry import names
from tidegate.testing import ManualClock


def transient() -> Transient:
    return Transient("api", "down")


class Calls:
    """Attempts at a service, and when each was started."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.started: list[float] = []

    async def attempt(self, number: int) -> int:
        self.started.append(round(self.clock.monotonic(), 6))
        return number


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(auto=True)


@pytest.fixture
def calls(clock: ManualClock) -> Calls:
    return Calls(clock)


# places


@pytest.mark.slow
async def test_of_a_thousand_calls_the_server_never_sees_an_eleventh_at_once() -> None:
    async with EnrichmentServer(then=Reply(body=b"12", every=0.0005)) as server:
        guard = Guard.for_service("api", concurrency=10)
        async with httpx.AsyncClient(trust_env=False, timeout=30.0) as client:

            async def ask(_: int) -> int:
                return (await client.get(server.url)).raise_for_status().status_code

            answers = await asyncio.gather(*(guard.call(ask) for _ in range(1000)))
        assert {answer.attempts for answer in answers} == {1}
        assert len(server.requests) == 1000
        assert 5 < server.most_at_once <= 10  # how many of ten are on their way at once is for the machine to say


def test_calls_from_several_event_loops_are_counted_together() -> None:
    guard = Guard.for_service("api", concurrency=2)
    lock = threading.Lock()
    inside = most = 0

    async def attempt(_: int) -> None:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        await asyncio.sleep(0.001)
        with lock:
            inside -= 1

    async def main() -> None:
        await asyncio.gather(*(guard.call(attempt) for _ in range(20)))

    threads = [threading.Thread(target=lambda: asyncio.run(main())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert (most, inside) == (2, 0)


# rates


async def test_calls_start_at_the_rate_in_the_order_in_which_they_came(clock: ManualClock) -> None:
    guard = Guard.for_service("api", concurrency=3, rate=10.0, burst=2, clock=clock)
    order: list[int] = []
    calls = Calls(clock)

    async def attempt(caller: int) -> None:
        order.append(caller)
        await calls.attempt(1)

    await asyncio.gather(*(guard.call(lambda _, caller=caller: attempt(caller)) for caller in range(7)))  # type: ignore[misc]
    assert calls.started == [0.0, 0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    assert order == list(range(7))


async def test_a_retry_needs_a_token_too(clock: ManualClock) -> None:
    guard = Guard.for_service("api", rate=1.0, backoff_initial=0.0, clock=clock)
    calls = Calls(clock)

    async def fail_twice(number: int) -> int:
        await calls.attempt(number)
        if number < 3:
            raise transient()
        return number

    await guard.call(fail_twice)
    assert calls.started == [0.0, 1.0, 2.0]


async def test_without_a_rate_nothing_is_counted(clock: ManualClock, calls: Calls) -> None:
    rates = MemoryRates(clock)
    guard = Guard.for_service("api", concurrency=100, rates=rates, clock=clock)
    await asyncio.gather(*(guard.call(calls.attempt) for _ in range(100)))
    assert set(calls.started) == {0.0}
    assert rates._full_at == {}


async def test_a_call_that_the_rate_leaves_no_time_for_is_refused_at_once(clock: ManualClock, calls: Calls) -> None:
    guard = Guard.for_service("api", concurrency=50, rate=1.0, budget=10.0, clock=clock)
    outcomes = await asyncio.gather(*(guard.call(calls.attempt) for _ in range(15)), return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, BudgetExceeded)]
    assert calls.started == [float(second) for second in range(10)]
    assert len(refused) == 5
    assert refused[0].attempts == 0
    assert refused[0].retryable
    assert "1 requests a second" in str(refused[0])


async def test_a_call_in_the_queue_is_refused_when_too_many_are_ahead_of_it() -> None:
    clock = ManualClock()
    calls = Calls(clock)
    guard = Guard.for_service("api", concurrency=1, rate=1.0, budget=10.0, clock=clock)
    waiting = [asyncio.create_task(guard.call(calls.attempt)) for _ in range(30)]
    for _ in range(20):
        await asyncio.sleep(0)
    refused = [task for task in waiting if task.done() and isinstance(task.exception(), BudgetExceeded)]
    assert len(refused) >= 15  # though no time has passed
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_call_cancelled_while_it_waits_for_a_token_keeps_neither_that_nor_a_place() -> None:
    clock = ManualClock()
    calls = Calls(clock)
    guard = Guard.for_service("api", concurrency=1, rate=1.0, clock=clock)
    await guard.call(calls.attempt)
    waiting = asyncio.create_task(guard.call(calls.attempt))
    await clock.until_sleeping()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    clock.auto = True
    await guard.call(calls.attempt)
    assert calls.started == [0.0, 1.0]


async def test_an_open_circuit_refuses_a_call_that_would_wait_for_a_token() -> None:
    clock = ManualClock()
    calls = Calls(clock)
    guard = Guard.for_service("api", rate=1.0, failure_threshold=1, attempts=1, clock=clock)

    async def fail(_: int) -> None:
        raise transient()

    with pytest.raises(Transient):
        await guard.call(fail)
    with pytest.raises(CircuitOpen):
        await guard.call(calls.attempt)
    assert clock.slept == []


async def test_calls_that_an_open_circuit_refuses_take_no_token() -> None:
    clock = ManualClock(auto=True)
    calls = Calls(clock)
    rates = MemoryRates(clock)
    guard = Guard.for_service("api", rate=1.0, failure_threshold=1, attempts=1, rates=rates, clock=clock)

    async def fail(_: int) -> None:
        raise transient()

    with pytest.raises(Transient):
        await guard.call(fail)
    before = dict(rates._full_at)
    for _ in range(200):
        with pytest.raises(CircuitOpen):
            await guard.call(calls.attempt)
    assert rates._full_at == before
    clock.advance(30.0)
    await guard.call(calls.attempt)
    assert calls.started == [30.0]


async def test_a_pause_that_one_guard_was_asked_for_holds_another_with_the_same_rates(clock: ManualClock) -> None:
    rates = MemoryRates(clock)
    here, there = (Guard.for_service("api", rate=10.0, rates=rates, attempts=1, clock=clock) for _ in range(2))
    calls = Calls(clock)

    async def limited(_: int) -> None:
        raise RateLimited("api", "slower", retry_after=20.0)

    with pytest.raises(RateLimited):
        await here.call(limited)
    await asyncio.gather(*(there.call(calls.attempt) for _ in range(3)))
    assert calls.started == [20.0, 20.1, 20.2]


# retries


async def storm(guard: Guard, calls: int) -> tuple[int, int]:
    """Make calls of which every request fails; return how many requests were made, and how many calls failed."""
    requests = 0

    async def fail(_: int) -> None:
        nonlocal requests
        requests += 1
        raise transient()

    outcomes = await asyncio.gather(*(guard.call(fail) for _ in range(calls)), return_exceptions=True)
    return requests, sum(type(outcome) is Transient for outcome in outcomes)


async def test_a_storm_of_retries_is_held_to_the_budget(clock: ManualClock) -> None:
    guard = Guard.for_service("api", failure_threshold=10**6, backoff_initial=0.0, attempts=4, clock=clock)
    requests, failed = await storm(guard, 1000)
    assert failed == 1000
    assert 1000 + RESERVE <= requests <= 1000 + RESERVE + 0.2 * 1000


async def test_a_small_run_does_not_notice_the_budget(clock: ManualClock) -> None:
    guard = Guard.for_service("api", failure_threshold=10**6, attempts=4, clock=clock)
    assert await storm(guard, 33) == (4 * 33, 33)


async def test_a_retry_at_the_time_that_the_service_named_costs_nothing(clock: ManualClock) -> None:
    guard = Guard.for_service("api", attempts=200, retry_ratio=0.0, budget=1000.0, clock=clock)

    async def limited(number: int) -> int:
        if number < 200:
            raise RateLimited("api", "slower", retry_after=1.0)
        return number

    assert (await guard.call(limited)).attempts == 200


async def test_a_retry_that_is_refused_is_an_event_that_says_why(clock: ManualClock) -> None:
    guard = Guard.for_service("api", failure_threshold=10**6, attempts=500, retry_ratio=0.0, clock=clock)
    guard._random = random.Random(1)  # noqa: S311 - jitter
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with trace.use_span(provider.get_tracer("test").start_span("call"), end_on_exit=True, record_exception=False):
        await storm(guard, 50)
    (finished,) = exporter.get_finished_spans()
    refused = [event for event in finished.events if event.name == names.RETRY_REFUSED]
    assert refused
    attributes = dict(refused[-1].attributes or {})
    assert attributes.pop(names.RETRY_ATTEMPT)
    assert attributes.pop(names.CALL_SERVICE) == "api"
    assert attributes == {names.RETRY_REASON: "retry budget spent", names.ERROR_TYPE: "Transient"}


# alone


async def test_a_guard_decorates_a_function_and_knows_what_httpx_raises(clock: ManualClock) -> None:
    crm = Guard.for_service("crm", attempts=4, clock=clock)

    @crm
    async def customer(number: str, *, at: str) -> object:
        """Look one up."""
        async with httpx.AsyncClient(trust_env=False) as client:
            return (await client.post(at, json={"text": number})).raise_for_status().json()

    assert (customer.__name__, customer.__doc__) == ("customer", "Look one up.")
    async with EnrichmentServer([503, 429, 200]) as server:
        assert await customer("4711", at=server.url) == {"name": "4711", "about": "what the API knows of 4711"}
        assert len(server.requests) == 3
        server.down(503)
        with pytest.raises(CircuitOpen) as refusal:
            await customer("4711", at=server.url)
        assert (refusal.value.attempts, refusal.value.retry_in) == (3, 30.0)


async def test_a_bug_in_a_guarded_function_passes_through() -> None:
    @Guard.for_service("crm")
    async def broken() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await broken()


def test_what_is_no_async_function_is_refused_before_it_runs() -> None:
    def blocking() -> int:
        raise NotImplementedError

    async def generator() -> AsyncIterator[int]:
        yield 1

    crm: Any = Guard.for_service("crm")
    with pytest.raises(TypeError, match="blocking is no async function; write `async def`"):
        crm(blocking)
    with pytest.raises(TypeError, match="generator is an async generator"):
        crm(generator)


async def test_what_returns_no_awaitable_is_told_in_words_and_what_does_is_guarded() -> None:
    async def one() -> int:
        return 1

    crm: Any = Guard.for_service("crm")
    assert await crm(lambda: one())() == 1
    assert await crm(partial(one))() == 1
    assert await crm(wraps(one)(lambda: one()))() == 1
    with pytest.raises(TypeError, match=r"lambda.* returned int, not an awaitable"):
        await crm(lambda: 1)()
    assert (await crm.breaker.report()).failures == 0


async def test_a_call_inside_a_call_of_the_same_service_is_refused(clock: ManualClock) -> None:
    crm, erp = (Guard.for_service(name, concurrency=1, clock=clock) for name in ("crm", "erp"))

    @crm
    async def inner() -> int:
        return 1

    @crm
    async def outer() -> int:
        return await inner()

    @erp
    async def elsewhere() -> int:
        return await inner()

    for _ in range(2):
        with pytest.raises(RuntimeError, match="a call of 'crm' is made inside another one"):
            await outer()
    assert await elsewhere() == await inner() == 1
    assert clock.slept == []


async def test_a_task_that_outlives_the_call_it_was_begun_in_may_call_too() -> None:
    crm = Guard.for_service("crm", concurrency=1)
    may_go = asyncio.Event()

    @crm
    async def inner() -> int:
        return 1

    async def later() -> int:
        await may_go.wait()
        return await inner()

    @crm
    async def outer() -> asyncio.Task[int]:
        return asyncio.create_task(later())

    task = await outer()
    may_go.set()
    assert await task == 1


@pytest.mark.parametrize(
    ("name", "value"), [("attempts", 0), ("burst", 10**400), ("rate", 1e-320), ("rate", float("inf"))]
)
def test_an_option_out_of_its_range_is_named(name: Any, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        Guard.for_service("crm", **{name: value})


def test_the_options_of_a_guard_are_the_settings_of_a_service() -> None:
    fields = {name: field.annotation for name, field in ServiceSettings.model_fields.items() if name != "when_open"}
    assert ServiceOptions.__annotations__.keys() == fields.keys()
    for name, value in ServiceOptions.__annotations__.items():
        assert eval(value.__forward_arg__) == fields[name]  # noqa: S307 - the words of our own annotation
