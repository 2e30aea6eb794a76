"""Places for a limited number at once: in the whole process, in order, and never lost."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.resilience.slots import Slots


class Crowd:
    """Callers of one `Slots`, by number: who is in, in the order in which they came in."""

    def __init__(self, count: int) -> None:
        self.slots = Slots(count)
        self.entered: list[int] = []
        self.inside: set[int] = set()
        self.callers: dict[int, tuple[asyncio.Task[None], asyncio.Event]] = {}

    async def come(self) -> int:
        number = len(self.callers)
        leave = asyncio.Event()

        async def stay() -> None:
            async with self.slots:
                self.entered.append(number)
                self.inside.add(number)
                try:
                    await leave.wait()
                finally:
                    self.inside.remove(number)

        self.callers[number] = (asyncio.create_task(stay()), leave)
        await settled()
        return number

    async def go(self, number: int, *others: int) -> None:
        for each in (number, *others):
            self.callers[each][1].set()
        await settled()

    async def cancel(self, number: int) -> None:
        self.callers[number][0].cancel()
        await settled()


async def settled() -> None:
    for _ in range(40):  # a place that is handed on from one to the next takes some rounds each time
        await asyncio.sleep(0)


async def test_whoever_has_waited_longest_comes_next() -> None:
    crowd = Crowd(2)
    for _ in range(6):
        await crowd.come()
    assert (crowd.entered, crowd.slots.waiting) == ([0, 1], 4)
    await crowd.go(1)
    await crowd.go(0, 2)
    await crowd.go(3, 4, 5)
    assert crowd.entered == [0, 1, 2, 3, 4, 5]
    assert not crowd.slots.full


async def test_a_latecomer_does_not_take_the_place_that_was_handed_on() -> None:
    crowd = Crowd(1)
    await crowd.come()
    await crowd.come()
    crowd.callers[0][1].set()
    await asyncio.sleep(0)  # the first has left, and the second does not know yet
    late = asyncio.create_task(crowd.come())
    await late
    assert crowd.entered == [0, 1]


async def test_a_caller_cancelled_in_the_queue_leaves_it() -> None:
    crowd = Crowd(1)
    for _ in range(3):
        await crowd.come()
    await crowd.cancel(1)
    assert crowd.slots.waiting == 1
    await crowd.go(0)
    assert crowd.entered == [0, 2]


async def test_a_caller_cancelled_when_its_turn_had_come_hands_the_place_on() -> None:
    crowd = Crowd(1)
    for _ in range(3):
        await crowd.come()
    crowd.callers[0][1].set()
    await asyncio.sleep(0)
    crowd.callers[1][0].cancel()
    await settled()
    assert crowd.entered == [0, 2]


@settings(max_examples=150, deadline=None)
@given(count=st.integers(1, 3), moves=st.lists(st.tuples(st.sampled_from(["come", "go", "cancel"]), st.integers(0, 9))))
def test_no_place_is_given_twice_or_lost(count: int, moves: list[tuple[str, int]]) -> None:
    async def main() -> None:
        crowd = Crowd(count)
        alive: list[int] = []
        for move, number in moves:
            if move == "come":
                alive.append(await crowd.come())
            elif alive:
                await (crowd.go if move == "go" else crowd.cancel)(alive.pop(number % len(alive)))
            assert len(crowd.inside) == min(count, len(crowd.inside) + crowd.slots.waiting)
        assert crowd.entered == sorted(crowd.entered)
        if alive:
            await crowd.go(*alive)
        assert not crowd.slots.full

    asyncio.run(main())


def in_threads(*functions: Callable[[], None]) -> None:
    threads = [threading.Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)


def test_event_loops_of_several_threads_share_the_places() -> None:
    slots = Slots(3)
    lock = threading.Lock()
    inside = most = done = 0

    async def call() -> None:
        nonlocal inside, most, done
        async with slots:
            with lock:
                inside += 1
                most = max(most, inside)
            await asyncio.sleep(0.0001)
            with lock:
                inside -= 1
                done += 1

    async def main() -> None:
        await asyncio.gather(*(call() for _ in range(100)))

    in_threads(*(lambda: asyncio.run(main()) for _ in range(4)))
    assert (most, done, slots.full) == (3, 400, False)


async def test_a_place_handed_to_a_loop_that_was_closed_goes_to_the_next() -> None:
    crowd = Crowd(1)
    await crowd.come()
    gone = asyncio.new_event_loop()

    async def wait() -> None:
        async with crowd.slots:
            raise AssertionError("nobody is there")

    waiting = wait()

    def begin_and_close() -> None:
        async def begin() -> None:
            waiting.send(None)

        gone.run_until_complete(begin())
        gone.close()

    await asyncio.to_thread(begin_and_close)
    await crowd.come()
    assert crowd.slots.waiting == 2
    await crowd.go(0)
    assert crowd.entered == [0, 1]
    waiting.close()
    await crowd.go(1)
    assert not crowd.slots.full
    async with crowd.slots:
        assert crowd.slots.full  # one place, not two


async def test_a_caller_that_is_forgotten_leaves_its_place() -> None:
    slots = Slots(1)

    async def hold() -> None:
        async with slots:
            await asyncio.Event().wait()

    held = hold()
    held.send(None)
    assert slots.full
    del held
    gc.collect()
    assert not slots.full
