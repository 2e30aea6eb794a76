"""How many calls a second a service gets: a token bucket, in memory or shared by all who use one database."""

from __future__ import annotations

import logging
import sqlite3
import threading
from dataclasses import dataclass
from typing import Final, Protocol

from tidegate.errors import TidegateError
from tidegate.store.clock import Clock, SystemClock
from tidegate.store.transactions import STORE_PAUSE, WARNING_PAUSE, Connection, Store

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rate:
    """`per_second` calls a second, after `burst` at once; nobody waits for longer than `longest` seconds."""

    per_second: float
    burst: int
    longest: float

    @property
    def interval(self) -> float:
        """Seconds from one call to the next."""
        return 1.0 / self.per_second

    @property
    def span(self) -> float:
        """Seconds in which an empty bucket fills."""
        return self.burst * self.interval

    def wait(self, ahead: int) -> float:
        """Return the seconds that a call waits at least, when `ahead` others come before it."""
        return max(0.0, (ahead + 1) * self.interval - self.span)


class Rates(Protocol):
    """Token buckets by the name of their service.

    Tokens are given out ahead of their time, in the order in which they are asked for: nobody is overtaken, and nobody
    asks twice. A token that is not used is lost.
    """

    async def take(self, name: str, rate: Rate, *, patience: float) -> float | None:
        """Take the next token, and return in how many seconds it is good.

        None if that is `patience` seconds or more: nothing is taken then.
        """
        ...

    def hold(self, name: str, rate: Rate, seconds: float) -> None:
        """Give out no token for so many seconds, and then one at a time. Never waits, and says nothing if it fails."""
        ...


class MemoryRates:
    """Buckets of this process alone, safe to use from several event loops and threads."""

    def __init__(self, clock: Clock) -> None:
        """Measure by the clock's monotonic time."""
        self._clock = clock
        self._full_at: dict[str, float] = {}
        self._lock = threading.Lock()

    async def take(self, name: str, rate: Rate, *, patience: float) -> float | None:
        """Take the next token."""
        with self._lock:
            now = self._clock.monotonic()
            full_at = max(now, self._full_at.get(name, now)) + rate.interval
            wait = full_at - rate.span - now
            if wait >= patience:
                return None
            self._full_at[name] = full_at
            return max(0.0, wait)

    def hold(self, name: str, rate: Rate, seconds: float) -> None:
        """Give out no token for so many seconds."""
        with self._lock:
            held = self._clock.monotonic() + rate.span - rate.interval + seconds
            self._full_at[name] = max(held, self._full_at.get(name, held))


# GCRA (ITU-T I.371): a bucket is told by the one moment at which it will be full again, and a token moves that moment
# by one interval. One that lies further ahead than anybody waits was written before the machine's clock began anew.
_KNOWN: Final = """
    CASE WHEN rates.full_at > tidegate_ticks() AND rates.full_at <= tidegate_ticks() + ?
    THEN rates.full_at ELSE tidegate_ticks() END
"""
_TAKE: Final = f"""
    INSERT INTO rates (name, full_at) VALUES (?, tidegate_ticks() + ?)
    ON CONFLICT (name) DO UPDATE SET full_at = {_KNOWN} + ?
    WHERE {_KNOWN} + ? < tidegate_ticks() + ?
    RETURNING full_at - tidegate_ticks()
"""  # noqa: S608 - of constants
_HOLD: Final = f"""
    INSERT INTO rates (name, full_at) VALUES (?, tidegate_ticks() + ?)
    ON CONFLICT (name) DO UPDATE SET full_at = excluded.full_at WHERE excluded.full_at > {_KNOWN}
"""  # noqa: S608 - of constants


class SharedRates:
    """Buckets of all who use one database: the processes of a machine, or workers on several. One UPDATE a call.

    While the database cannot be used, this process keeps buckets of its own, and a warning says so.
    """

    def __init__(self, store: Store, *, clock: Clock | None = None) -> None:
        """Use the table `RATES` of a database, which stays the caller's to close."""
        self._store = store
        self._clock = clock or SystemClock()
        self._local = MemoryRates(self._clock)
        self._local_until = self._warned_until = self._clock.monotonic()

    async def take(self, name: str, rate: Rate, *, patience: float) -> float | None:
        """Take the next token."""
        if self._clock.monotonic() >= self._local_until:
            known, interval = rate.longest + rate.span, rate.interval
            values = (name, interval, known, interval, known, interval, patience + rate.span)

            def update(connection: Connection) -> float | None:
                row = connection.execute(_TAKE, values).fetchone()
                return None if row is None else max(0.0, row[0] - rate.span)

            try:
                return await self._store.write(update)
            except (TidegateError, sqlite3.Error, RuntimeError) as error:  # RuntimeError: the database was closed
                self._lost(name, error)
        return await self._local.take(name, rate, patience=patience)

    def hold(self, name: str, rate: Rate, seconds: float) -> None:
        """Give out no token for so many seconds."""
        self._local.hold(name, rate, seconds)
        values = (name, rate.span - rate.interval + seconds, rate.longest + rate.span)

        def update(connection: Connection) -> None:
            connection.execute(_HOLD, values)

        try:
            self._store.submit(update)
        except RuntimeError as error:  # the database was closed
            self._lost(name, error)

    def _lost(self, name: str, error: Exception) -> None:
        now = self._clock.monotonic()
        self._local_until = now + STORE_PAUSE
        if now < self._warned_until:
            return
        self._warned_until = now + WARNING_PAUSE
        _log.warning("the rate of %r is kept by this process alone for now: %s", name, error)
