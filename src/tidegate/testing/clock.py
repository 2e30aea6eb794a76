"""A clock that tests move by hand."""

from __future__ import annotations

import asyncio
import heapq
import itertools

_LAPS = 10
"""How often the event loop comes round before an automatic clock jumps; a chain of awaits takes a lap for each."""


class ManualClock:
    """A `Clock` that stands still until it is moved, for use within one event loop at a time.

    With `auto`, sleepers move it: again and again it jumps to the earliest time that is slept for, after the event
    loop has come round a few times, so that whoever is ready runs first. Sleeps run side by side, and no test waits.
    """

    def __init__(self, now: float = 1_750_000_000.0, *, auto: bool = False) -> None:
        """Start at `now`, seconds since 1970; the monotonic time starts at 0."""
        self.auto = auto
        self.slept: list[float] = []
        """The seconds of every sleep that was begun, in order."""
        self._now = now
        self._ticks = 0.0
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._jumping: asyncio.AbstractEventLoop | None = None
        self._arrivals: list[tuple[int, asyncio.Future[None]]] = []

    def now(self) -> float:
        """Seconds since 1970-01-01 UTC."""
        return self._now

    def monotonic(self) -> float:
        """Seconds by which the clock was advanced so far."""
        return self._ticks

    def advance(self, seconds: float) -> None:
        """Let time pass; whoever slept until then wakes when the loop comes round, in order."""
        if seconds < 0:
            raise ValueError(
                f"time cannot pass backwards ({seconds} s); use set_back for a wall clock that is set back"
            )
        self._reach(self._ticks + seconds)

    def set_back(self, seconds: float) -> None:
        """Set the wall clock back, or forward if negative, as an administrator does; no time passes."""
        self._now -= seconds

    async def sleep(self, seconds: float) -> None:
        """Return once the clock was advanced by this many seconds."""
        self.slept.append(seconds)
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        loop = asyncio.get_running_loop()
        awake: asyncio.Future[None] = loop.create_future()
        heapq.heappush(self._sleepers, (self._ticks + seconds, next(self._order), awake))
        for count, arrival in self._arrivals:
            if count <= self.sleeping and not arrival.done():
                arrival.set_result(None)
        self._arrivals = [(count, arrival) for count, arrival in self._arrivals if not arrival.done()]
        if self.auto and self._jumping is not loop:
            self._jumping = loop
            loop.call_soon(self._jump, loop, _LAPS)
        await awake

    @property
    def sleeping(self) -> int:
        """How many sleep now."""
        return sum(not awake.done() for _, _, awake in self._sleepers)

    async def until_sleeping(self, count: int = 1) -> None:
        """Return once at least `count` sleep."""
        if self.sleeping < count:
            arrival: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._arrivals.append((count, arrival))
            await arrival

    def _jump(self, loop: asyncio.AbstractEventLoop, laps: int) -> None:
        if laps == 0:
            while self._sleepers and self._sleepers[0][2].done():
                heapq.heappop(self._sleepers)
            if self._sleepers:
                self._reach(max(self._ticks, self._sleepers[0][0]))
            laps = _LAPS
        if not self._sleepers:
            self._jumping = None
        elif self._jumping is loop:
            loop.call_soon(self._jump, loop, laps - 1)

    def _reach(self, ticks: float) -> None:
        self._now += ticks - self._ticks
        self._ticks = ticks
        while self._sleepers and self._sleepers[0][0] <= ticks:
            awake = heapq.heappop(self._sleepers)[2]
            if not awake.done():
                awake.set_result(None)
