"""How many calls a second a service gets: a token bucket, in memory or shared by all who use one database."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
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

    @property
    def slack(self) -> float:
        """Seconds by which two moments may differ that are the same but for rounding; tokens are an interval apart."""
        return self.interval / 4

    def wait(self, ahead: int) -> float:
        """Return the seconds that a call waits at least, when `ahead` others come before it."""
        return max(0.0, (ahead + 1) * self.interval - self.span)


@dataclass(frozen=True, slots=True)
class Token:
    """Leave for one call, `wait` seconds after it was taken: at `due` of the clock's monotonic time.

    `full_at` is the moment to which it moved its bucket, by the clock that the bucket goes by.
    """

    wait: float
    due: float
    full_at: float
    shared: bool = False


class Rates(Protocol):
    """Token buckets by the name of their service.

    Tokens are given out ahead of their time, in the order in which they are asked for, and nobody asks twice.
    """

    async def take(self, name: str, rate: Rate, *, patience: float) -> Token | None:
        """Take the next token, or one that was given back.

        None if it is good in `patience` seconds or more: nothing is taken then.
        """
        ...

    def give_back(self, name: str, rate: Rate, token: Token) -> None:
        """Give back a token that is not used. Never waits, and says nothing if it fails: the token is lost then.

        It is as if it had never been taken, unless tokens after it are out: until they are back too, the next caller of
        this process has it, up to the time at which it is good.
        """
        ...

    def hold(self, name: str, rate: Rate, seconds: float) -> None:
        """Give out no token for so many seconds, and then one at a time. Never waits, and says nothing if it fails."""
        ...


class _GivenBack:
    """Tokens that were given back while later ones were out; safe to use from several threads."""

    def __init__(self) -> None:
        self._tokens: dict[str, list[Token]] = {}  # in the order of their time
        self._held_until: dict[str, float] = {}
        self._lock = threading.Lock()

    def add(self, name: str, tokens: list[Token]) -> None:
        with self._lock:
            self._tokens[name] = sorted([*self._tokens.get(name, []), *tokens], key=lambda token: token.full_at)

    def take(self, name: str, now: float, *, patience: float) -> Token | None:
        """Return the first whose time is still to come: with one whose time is over, two calls could go at once."""
        if name not in self._tokens:
            return None
        with self._lock:
            earliest = max(now, self._held_until.get(name, now))
            tokens = [token for token in self._tokens.pop(name, []) if token.due >= earliest]
            first = tokens.pop(0) if tokens and tokens[0].due - now < patience else None
            if tokens:
                self._tokens[name] = tokens
        return None if first is None else replace(first, wait=first.due - now)

    def claim(self, name: str, rate: Rate, last: Token) -> list[Token]:
        """Take out `last` and all that come right before it; none, if somebody took it meanwhile."""
        run = list[Token]()
        with self._lock:
            tokens = self._tokens.get(name, [])
            for token in reversed(tokens):
                if token is last if not run else abs(run[-1].full_at - rate.interval - token.full_at) < rate.slack:
                    run.append(token)
            self._tokens[name] = [token for token in tokens if token not in run]
        return run

    def hold(self, name: str, until: float) -> None:
        """Return none that is good before this moment."""
        with self._lock:
            self._held_until[name] = max(until, self._held_until.get(name, until))


class MemoryRates:
    """Buckets of this process alone, safe to use from several event loops and threads."""

    def __init__(self, clock: Clock) -> None:
        """Measure by the clock's monotonic time."""
        self._clock = clock
        self._full_at: dict[str, float] = {}
        self._given_back = _GivenBack()
        self._lock = threading.Lock()

    async def take(self, name: str, rate: Rate, *, patience: float) -> Token | None:
        """Take the next token."""
        with self._lock:
            now = self._clock.monotonic()
            if token := self._given_back.take(name, now, patience=patience):
                return token
            full_at = max(now, self._full_at.get(name, now)) + rate.interval
            wait = full_at - rate.span - now
            if wait >= patience:
                return None
            self._full_at[name] = full_at
            return Token(max(0.0, wait), now + max(0.0, wait), full_at)

    def give_back(self, name: str, rate: Rate, token: Token) -> None:
        """Give back a token that is not used."""
        with self._lock:
            self._given_back.add(name, [token])
            if abs(self._full_at[name] - token.full_at) < rate.slack:
                self._full_at[name] -= len(self._given_back.claim(name, rate, token)) * rate.interval

    def hold(self, name: str, rate: Rate, seconds: float) -> None:
        """Give out no token for so many seconds."""
        with self._lock:
            now = self._clock.monotonic()
            self._given_back.hold(name, now + seconds)
            held = now + rate.span - rate.interval + seconds
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
    RETURNING full_at - tidegate_ticks(), full_at
"""  # noqa: S608 - of constants
_GIVE_BACK: Final = "UPDATE rates SET full_at = full_at - ? WHERE name = ? AND full_at > ? AND full_at < ?"
_HOLD: Final = f"""
    INSERT INTO rates (name, full_at) VALUES (?, tidegate_ticks() + ?)
    ON CONFLICT (name) DO UPDATE SET full_at = excluded.full_at WHERE excluded.full_at > {_KNOWN}
"""  # noqa: S608 - of constants


class SharedRates:
    """Buckets of all who use one database: the processes of a machine, or workers on several. One UPDATE a token.

    While the database cannot be used, this process keeps buckets of its own, and a warning says so.
    """

    def __init__(self, store: Store, *, clock: Clock | None = None) -> None:
        """Use the table `RATES` of a database, which stays the caller's to close."""
        self._store = store
        self._clock = clock or SystemClock()
        self._local = MemoryRates(self._clock)
        self._given_back = _GivenBack()
        self._local_until = self._warned_until = self._clock.monotonic()

    async def take(self, name: str, rate: Rate, *, patience: float) -> Token | None:
        """Take the next token."""
        now = self._clock.monotonic()
        if now >= self._local_until:
            if token := self._given_back.take(name, now, patience=patience):
                return token
            known, interval = rate.longest + rate.span, rate.interval
            values = (name, interval, known, interval, known, interval, patience + rate.span)

            def update(connection: Connection) -> Token | None:
                row = connection.execute(_TAKE, values).fetchone()
                if row is None:
                    return None
                wait = max(0.0, row[0] - rate.span)
                return Token(wait, self._clock.monotonic() + wait, row[1], shared=True)

            try:
                return await self._store.write(update)
            except (TidegateError, sqlite3.Error, RuntimeError) as error:  # RuntimeError: the database was closed
                self._lost(name, error)
        return await self._local.take(name, rate, patience=patience)

    def give_back(self, name: str, rate: Rate, token: Token) -> None:
        """Give back a token that is not used."""
        if not token.shared:
            self._local.give_back(name, rate, token)
            return
        self._given_back.add(name, [token])

        def update(connection: Connection) -> None:
            run = self._given_back.claim(name, rate, token)
            values = (len(run) * rate.interval, name, token.full_at - rate.slack, token.full_at + rate.slack)
            undone = False
            try:
                undone = bool(run) and connection.execute(_GIVE_BACK, values).rowcount > 0
            finally:
                if not undone:
                    self._given_back.add(name, run)

        self._submit(name, update)

    def hold(self, name: str, rate: Rate, seconds: float) -> None:
        """Give out no token for so many seconds."""
        self._local.hold(name, rate, seconds)
        self._given_back.hold(name, self._clock.monotonic() + seconds)
        values = (name, rate.span - rate.interval + seconds, rate.longest + rate.span)

        def update(connection: Connection) -> None:
            connection.execute(_HOLD, values)

        self._submit(name, update)

    def _submit(self, name: str, update: Callable[[Connection], None]) -> None:
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
