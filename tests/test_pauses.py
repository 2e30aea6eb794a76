"""A service that goes on asking for pauses is believed after a while: nobody sits out one after another."""

from __future__ import annotations

import asyncio
import logging

import pytest

from tidegate.errors import NotFound, RateLimited
from tidegate.resilience.guard import Answer, Guard
from tidegate.testing import ManualClock


class Busy:
    """A service that asks for a pause of five seconds, until it is free."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.free = False
        self.asked: list[float] = []

    async def answer(self, _: int) -> str:
        self.asked.append(self.clock.monotonic())
        await asyncio.sleep(0)
        if not self.free:
            raise RateLimited("api", "HTTP 429", retry_after=5.0)
        return "here"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(auto=True)


@pytest.fixture
def busy(clock: ManualClock) -> Busy:
    return Busy(clock)


@pytest.fixture
def guard(clock: ManualClock) -> Guard:
    return Guard.for_service("api", concurrency=8, attempts=4, clock=clock)


async def all_of(guard: Guard, busy: Busy, number: int) -> list[Answer[str] | BaseException]:
    return await asyncio.gather(*(guard.call(busy.answer) for _ in range(number)), return_exceptions=True)


async def test_after_as_many_pauses_as_a_call_has_attempts_nobody_waits_for_another(
    guard: Guard, busy: Busy, clock: ManualClock
) -> None:
    began = clock.monotonic()
    outcomes = await all_of(guard, busy, 39)
    assert clock.monotonic() - began == pytest.approx(15.0)
    assert len(busy.asked) <= 4 * 8
    assert all(isinstance(outcome, RateLimited) and outcome.retry_after for outcome in outcomes)


async def test_one_call_makes_all_its_attempts(guard: Guard, busy: Busy) -> None:
    with pytest.raises(RateLimited) as caught:
        await guard.call(busy.answer)
    assert caught.value.attempts == len(busy.asked) == 4


async def test_during_the_last_pause_calls_are_told_when_to_come_again_and_make_no_request(
    guard: Guard, busy: Busy, clock: ManualClock
) -> None:
    await all_of(guard, busy, 8)
    asked, now = len(busy.asked), clock.monotonic()
    with pytest.raises(RateLimited, match="4 pauses in a row") as caught:
        await guard.call(busy.answer)
    assert (caught.value.attempts, len(busy.asked), clock.monotonic()) == (0, asked, now)
    assert caught.value.retry_after == pytest.approx(5.0)


async def test_after_the_pause_one_request_a_call_finds_out_whether_it_is_over(
    guard: Guard, busy: Busy, clock: ManualClock
) -> None:
    await all_of(guard, busy, 8)
    asked = len(busy.asked)
    clock.advance(5.0)
    now = clock.monotonic()
    await all_of(guard, busy, 39)
    assert (clock.monotonic(), len(busy.asked) - asked) == (now, 8)
    clock.advance(5.0)
    busy.free = True
    assert all(isinstance(outcome, Answer) for outcome in await all_of(guard, busy, 39))


async def test_an_answer_between_pauses_counts_anew(guard: Guard, busy: Busy, clock: ManualClock) -> None:
    async def unknown(_: int) -> str:
        raise NotFound("api", "HTTP 404")

    await all_of(guard, busy, 1)
    clock.advance(5.0)
    with pytest.raises(NotFound):
        await guard.call(unknown)
    asked = len(busy.asked)
    await all_of(guard, busy, 1)
    assert len(busy.asked) - asked == 4


async def test_each_pause_is_told_once(guard: Guard, busy: Busy, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        await all_of(guard, busy, 8)
    assert caplog.messages == ["api asked for a pause of 5 s"] * 4


async def test_a_retry_is_told_with_its_service(guard: Guard, busy: Busy, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        await all_of(guard, busy, 1)
    assert caplog.messages.count("api: attempt 1 failed (RateLimited), the next one starts in 5.0 s") == 1
