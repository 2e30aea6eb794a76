"""Patience: how long what works on the store without end pauses, and when it tries again what failed."""

from __future__ import annotations

import random as randomness

from tidegate.errors import StoreError, StoreUnavailable
from tidegate.settings.service import ServeSettings

POLL = 2.0
"""Seconds after which the store is looked at for what other processes put in or left, if nothing wakes before."""

LONGEST_POLL = 60.0
"""The same while the store is away, or full: each time twice as many, up to this."""

AWAY = (StoreUnavailable, StoreError)
"""The store is away, or full: that passes."""


class Patience:
    """Pauses while the store is away, each twice as long as the one before."""

    def __init__(self) -> None:
        self._pause = 0.0

    def longer(self) -> float:
        """Return for how many seconds the store is left alone now."""
        self._pause = min(max(POLL, 2.0 * self._pause), LONGEST_POLL)
        return self._pause

    def over(self) -> None:
        """Begin anew: the store is back."""
        self._pause = 0.0


def pause_after(attempts: int, settings: ServeSettings, random: randomness.Random) -> float:
    """Return the seconds before that is tried again which failed this many times in a row."""
    doublings = min(max(attempts - 1, 0), 64)
    pause = min(settings.retry_initial * 2.0**doublings, settings.retry_max)
    return pause * random.uniform(0.5, 1.0)  # those that failed together do not come back together
