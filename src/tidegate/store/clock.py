"""Time, injected: the only place that asks the system for it."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What tells the time. `tidegate.testing.ManualClock` is one that a test moves by hand."""

    def now(self) -> float:
        """Seconds since 1970-01-01 UTC; shared between processes, and may step."""
        ...

    def monotonic(self) -> float:
        """Seconds that only grow; the same for all processes of a machine until it restarts."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after this many seconds."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        """Seconds since 1970-01-01 UTC."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that only grow."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Sleep on the running event loop."""
        await asyncio.sleep(seconds)


def time_left(until: float | None, since: float | None, now: float) -> float:
    """Return the seconds until a time that was set at `since`; 0.0 if it is over, or there is none.

    A clock that was set back adds as much as there was to wait at first, at most.
    """
    if until is None or (since is not None and abs(now - since) >= until - since):
        return 0.0
    return max(0.0, until - now)


def timestamp(clock: Clock) -> str:
    """Return now as ISO 8601 in UTC, to the millisecond: `2026-03-01T09:30:00.000Z`."""
    moment = datetime.fromtimestamp(clock.now(), UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
