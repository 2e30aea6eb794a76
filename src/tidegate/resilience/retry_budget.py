"""How many retries a service can be expected to bear, beside the calls that it is asked for anyway."""

from __future__ import annotations

import threading

from tidegate.store.clock import Clock

RESERVE = 100.0
"""Retries that are there from the start, and that come back within `REFILL`: small runs never notice a budget."""

REFILL = 60.0
"""Seconds in which an empty reserve is full again."""


class RetryBudget:
    """A purse: every call pays in `ratio` retries, every retry takes one out, and the reserve refills with time.

    In any `t` seconds with `n` calls there are at most `RESERVE * (1 + t / REFILL) + ratio * n` retries. Attempts alone
    do not bound that: while every second request of many calls fails, four attempts each nearly double the load of a
    service that is failing of its load. The rule is that of Finagle's RetryBudget and of the AWS SDKs' retry quota.
    """

    def __init__(self, ratio: float, clock: Clock) -> None:
        """Begin with a full reserve; it is measured by the clock's monotonic time."""
        self._ratio = ratio
        self._clock = clock
        self._most = max(RESERVE, ratio)
        self._left = self._most
        self._at = clock.monotonic()
        self._lock = threading.Lock()

    def earn(self) -> None:
        """Count a call."""
        with self._lock:
            self._left = min(self._most, self._left + self._ratio)

    def spend(self) -> bool:
        """Take one retry out; False if there is none."""
        with self._lock:
            now = self._clock.monotonic()
            self._left = min(self._most, self._left + (now - self._at) * RESERVE / REFILL)
            self._at = now
            if self._left < 1.0:
                return False
            self._left -= 1.0
            return True
