"""The retry budget: small runs never notice it, a storm of retries does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tidegate.resilience.retry_budget import REFILL, RESERVE, RetryBudget
from tidegate.testing import ManualClock


def spent(budget: RetryBudget, wanted: int) -> int:
    return sum(budget.spend() for _ in range(wanted))


def test_the_reserve_is_there_from_the_start_and_comes_back_with_time() -> None:
    clock = ManualClock()
    budget = RetryBudget(0.0, clock)
    assert spent(budget, 1000) == RESERVE
    clock.advance(REFILL / 2)
    assert spent(budget, 1000) == RESERVE / 2
    clock.advance(100 * REFILL)
    assert spent(budget, 1000) == RESERVE


def test_calls_earn_retries() -> None:
    budget = RetryBudget(0.25, ManualClock())
    spent(budget, 1000)
    for _ in range(40):
        budget.earn()
    assert spent(budget, 1000) == 10


def test_a_quiet_time_saves_up_no_more_than_the_reserve() -> None:
    budget = RetryBudget(0.2, ManualClock())
    for _ in range(100_000):
        budget.earn()
    assert spent(budget, 1000) == RESERVE


@given(
    ratio=st.floats(0.0, 3.0),
    events=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 200), st.floats(0.0, 90.0)), max_size=30),
)
def test_retries_are_bounded_over_any_stretch_of_time(ratio: float, events: list[tuple[int, int, float]]) -> None:
    clock = ManualClock()
    budget = RetryBudget(ratio, clock)
    told: list[tuple[float, int, int]] = []
    for calls, retries, pause in events:
        for _ in range(calls):
            budget.earn()
        told.append((clock.monotonic(), calls, spent(budget, retries)))
        clock.advance(pause)
    for first, (begin, _, _) in enumerate(told):
        for last in range(first, len(told)):
            stretch = told[first : last + 1]
            calls, retries = sum(each[1] for each in stretch), sum(each[2] for each in stretch)
            seconds = told[last][0] - begin
            assert retries <= RESERVE * (1 + seconds / REFILL) + ratio * calls + 1e-6
