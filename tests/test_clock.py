"""The clock that tests move."""

from __future__ import annotations

import asyncio
import time

import pytest

from tidegate.store.clock import Clock, SystemClock, time_left
from tidegate.testing import ManualClock


async def test_a_sleeper_wakes_when_its_time_has_come_and_not_before() -> None:
    clock = ManualClock()
    sleeper = asyncio.create_task(clock.sleep(10.0))
    await clock.until_sleeping()
    clock.advance(9.0)
    await asyncio.sleep(0)
    assert not sleeper.done()
    clock.advance(1.0)
    await sleeper
    assert clock.monotonic() == 10.0
    assert clock.slept == [10.0]
    assert clock.sleeping == 0


async def test_sleepers_wake_in_the_order_of_their_times() -> None:
    clock = ManualClock()
    woken: list[float] = []

    async def sleeper(seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append(seconds)

    async with asyncio.TaskGroup() as group:
        for seconds in (3.0, 1.0, 2.0):
            group.create_task(sleeper(seconds))
        await clock.until_sleeping(3)
        clock.advance(3.0)
    assert woken == [1.0, 2.0, 3.0]


async def test_sleeps_that_begin_together_run_side_by_side_on_an_automatic_clock() -> None:
    clock = ManualClock(auto=True)
    moments: list[float] = []

    async def sleeper(seconds: float) -> None:
        await clock.sleep(seconds)
        moments.append(clock.monotonic())

    await asyncio.gather(sleeper(30.0), sleeper(10.0), sleeper(20.0))
    assert moments == [10.0, 20.0, 30.0]


async def test_an_automatic_clock_jumps_when_those_who_were_ready_have_run() -> None:
    clock = ManualClock(auto=True)

    async def late_sleeper() -> float:
        for _ in range(5):
            await asyncio.sleep(0)
        await clock.sleep(1.0)
        return clock.monotonic()

    moments = await asyncio.gather(late_sleeper(), clock.sleep(100.0))
    assert moments[0] == 1.0


async def test_a_cancelled_sleeper_is_forgotten() -> None:
    clock = ManualClock(auto=True)
    sleeper = asyncio.create_task(clock.sleep(1000.0))
    await asyncio.sleep(0)
    sleeper.cancel()
    await clock.sleep(1.0)
    for _ in range(50):
        await asyncio.sleep(0)
    assert clock.monotonic() == 1.0
    assert clock.sleeping == 0


@pytest.mark.parametrize(
    ("now", "left"), [(100, 10), (109, 1), (110, 0), (200, 0), (95, 15), (91, 19), (90, 0), (-9e9, 0)]
)
def test_a_clock_that_was_set_back_adds_no_more_than_there_was_to_wait(now: float, left: float) -> None:
    assert time_left(110.0, 100.0, now) == left


def test_what_was_stored_without_the_moment_at_which_it_was_set_is_kept() -> None:
    assert (time_left(110.0, None, 10.0), time_left(110.0, None, 111.0), time_left(None, None, 10.0)) == (100, 0, 0)


async def test_no_time_passes_while_the_wall_clock_is_set_back() -> None:
    clock = ManualClock(1000.0)
    clock.advance(5.0)
    clock.set_back(100.0)
    assert (clock.now(), clock.monotonic()) == (905.0, 5.0)
    with pytest.raises(ValueError, match="backwards"):
        clock.advance(-1.0)


async def test_a_sleep_of_nothing_lets_others_run() -> None:
    clock = ManualClock()
    for seconds in (0.0, -1.0):
        other = asyncio.create_task(asyncio.sleep(0))
        await clock.sleep(seconds)
        await clock.sleep(seconds)
        assert other.done()
    assert clock.monotonic() == 0.0


async def test_the_system_clock_tells_the_machines_time() -> None:
    clock: Clock = SystemClock()
    assert abs(clock.now() - time.time()) < 1.0
    before = clock.monotonic()
    await clock.sleep(0.001)
    assert clock.monotonic() > before
