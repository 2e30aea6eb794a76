"""Circuits shared by processes: one row each, in SQLite or PostgreSQL, every transition one statement."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, ClassVar, Final, TypeVar
from weakref import WeakKeyDictionary

from tidegate.errors import SettingsError, StoreError, StoreUnavailable
from tidegate.resilience.circuits import Circuit, CircuitReport, CircuitsUnavailable, FailureWindow, Forced
from tidegate.store.transactions import Connection, Store

_Result = TypeVar("_Result")

_READ: Final = """
    SELECT name, generation, open, failures, reason, problem, failed_at, reset_timeout, probes, probing, probe_timeout,
        forced, tidegate_now() - failed_at, tidegate_ticks() - failed_tick,
        tidegate_now() - probe_at, tidegate_ticks() - probe_tick
    FROM circuits
"""
_KEEP: Final = "INSERT INTO circuits (name) VALUES (?) ON CONFLICT DO NOTHING"
_PROBE: Final = """
    UPDATE circuits SET generation = generation + 1, probes = probes + 1, probing = 1,
        probe_at = tidegate_now(), probe_tick = tidegate_ticks(), probe_timeout = ?
    WHERE name = ? AND generation = ? AND forced IS NULL RETURNING probes
"""
_FAIL: Final = """
    UPDATE circuits SET generation = generation + CASE WHEN open = 1 OR failures + 1 >= ? THEN 1 ELSE 0 END,
        open = CASE WHEN open = 1 OR failures + 1 >= ? THEN 1 ELSE 0 END, failures = failures + 1, reason = ?,
        problem = ?, failed_at = tidegate_now(), failed_tick = tidegate_ticks(), reset_timeout = ?, probes = 0
    WHERE name = ? AND generation = ? AND forced IS NULL RETURNING open
"""
_CLEAR: Final = """
    UPDATE circuits SET generation = generation + open, open = 0, failures = 0, reason = NULL, problem = NULL,
        calls = calls + 1
    WHERE name = ? AND generation = ? AND forced IS NULL RETURNING calls
"""
_RELEASE: Final = "UPDATE circuits SET probing = 0 WHERE name = ? AND generation = ? AND forced IS NULL"
_FORCE: Final = """
    INSERT INTO circuits (name, generation, open, forced, failed_at, failed_tick, reset_timeout)
    VALUES (?, 1, ?, ?, tidegate_now(), tidegate_ticks(), ?)
    ON CONFLICT (name) DO UPDATE SET generation = circuits.generation + 1, open = excluded.open,
        forced = excluded.forced, failures = 0, reason = NULL, problem = NULL,
        failed_at = excluded.failed_at, failed_tick = excluded.failed_tick, reset_timeout = excluded.reset_timeout,
        probes = 0, probing = 0
"""

# The window: a ring of the last calls. A call takes the next number, and the place of the one that left the window.
_NUMBER: Final = """
    UPDATE circuits SET calls = calls + 1
    WHERE name = ? AND generation = ? AND open = 0 AND forced IS NULL RETURNING calls
"""
_RECORD: Final = """
    INSERT INTO circuit_calls (name, place, number, generation, called_at, called_tick, failed)
    VALUES (?, ?, ?, ?, tidegate_now(), tidegate_ticks(), ?)
    ON CONFLICT (name, place) DO UPDATE SET number = excluded.number, generation = excluded.generation,
        called_at = excluded.called_at, called_tick = excluded.called_tick, failed = excluded.failed
    WHERE circuit_calls.number < excluded.number
"""
_JUDGE: Final = """
    SELECT count(*), count(CASE WHEN failed = 1 THEN 1 END) FROM circuit_calls
    WHERE name = ? AND generation = ? AND number > ?
"""
_RECENT: Final = """
    AND tidegate_now() - called_at < ? AND tidegate_ticks() - called_tick < ?
    AND (tidegate_now() >= called_at OR tidegate_ticks() >= called_tick)
"""


class SharedCircuits:
    """Circuits in a database with the schema of `store.live`.

    Two clocks tell how long a circuit has been open, the wall clock and a monotonic one, and the larger time counts: a
    wall clock set back does not keep it open for longer, a restart of the machine does not either.

    Statements need no transaction around them: each transition is one, and what comes before it in the same work, a
    call recorded in the window, may be there without it.
    """

    _errors: ClassVar[tuple[type[Exception], ...]] = ()

    def __init__(self, store: Store) -> None:
        """Use the database, which stays the caller's to close."""
        self._store = store
        self._waiting: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, asyncio.Task[CircuitReport]]]
        self._waiting = WeakKeyDictionary()

    async def read(self, name: str) -> CircuitReport:
        """Return a circuit as it is now: one SELECT, which serves all that asked before it began."""
        waiting = self._waiting.setdefault(asyncio.get_running_loop(), {})
        reading = waiting.get(name)
        if reading is None or reading.done():
            reading = waiting[name] = asyncio.create_task(self._select(name, waiting))
            reading.add_done_callback(partial(_ended, waiting, name))
        return await asyncio.shield(reading)  # whoever is cancelled leaves it to the others

    async def _select(self, name: str, waiting: dict[str, asyncio.Task[CircuitReport]]) -> CircuitReport:
        def select(connection: Connection) -> tuple[Any, ...] | None:
            waiting.pop(name, None)  # who asks from now on must see what is written from now on
            row: tuple[Any, ...] | None = connection.execute(f"{_READ} WHERE name = ?", (name,)).fetchone()
            return row

        row = await self._run(self._store.read(select))
        return CircuitReport(name) if row is None else self._report(row)

    async def read_all(self) -> list[CircuitReport]:
        """Return the circuits that are kept, by name."""

        def select(connection: Connection) -> list[tuple[Any, ...]]:
            return connection.execute(f"{_READ} ORDER BY name").fetchall()

        return [self._report(row) for row in await self._run(self._store.read(select))]

    def _report(self, row: tuple[Any, ...]) -> CircuitReport:
        return Circuit(*row[:12]).report(max(row[12:14]), max(row[14:16]))

    async def probe(self, name: str, generation: int, *, lease: float) -> int:
        """Lease the probe."""

        def update(connection: Connection) -> int:
            row = connection.execute(_PROBE, (lease, name, generation)).fetchone()
            return 0 if row is None else int(row[0])

        def give_back(leasing: Future[int]) -> None:
            if not leasing.cancelled() and leasing.exception() is None and leasing.result():
                self.release(name, generation + 1)

        leasing = self._submit(update)
        try:
            return await self._run(asyncio.wrap_future(leasing))
        except BaseException:  # cancelled: the lease may have been given, or may be yet
            leasing.add_done_callback(give_back)
            raise

    async def fail(
        self,
        name: str,
        generation: int,
        *,
        reason: str,
        problem: str | None = None,
        threshold: int,
        reset_timeout: float,
        window: FailureWindow | None = None,
    ) -> bool:
        """Count a failure."""

        def update(connection: Connection) -> bool:
            connection.execute(_KEEP, (name,))
            opens_at = threshold
            if window is not None:
                row = connection.execute(_NUMBER, (name, generation)).fetchone()
                if row is not None:
                    _record(connection, name, generation, row[0], window, failed=True)
                    if _is_exceeded(connection, name, generation, row[0], window):
                        opens_at = 1
            values = (opens_at, opens_at, reason, problem, reset_timeout, name, generation)
            row = connection.execute(_FAIL, values).fetchone()
            return row is not None and bool(row[0])

        return await self._run(asyncio.wrap_future(self._submit(update)))

    async def clear(self, name: str, generation: int, *, window: FailureWindow | None = None) -> bool:
        """Forget the failures in a row."""

        def update(connection: Connection) -> bool:
            row = connection.execute(_CLEAR, (name, generation)).fetchone()
            if window is not None:
                if row is None and generation == 0:  # perhaps the first call of all
                    connection.execute(_KEEP, (name,))
                    row = connection.execute(_CLEAR, (name, generation)).fetchone()
                if row is not None:
                    _record(connection, name, generation, row[0], window, failed=False)
            return row is not None

        return await self._run(asyncio.wrap_future(self._submit(update)))

    async def force(self, name: str, to: Forced | None, *, reset_timeout: float) -> None:
        """Hold a circuit open or closed, or let it go."""

        def upsert(connection: Connection) -> None:
            connection.execute(_FORCE, (name, int(to == "open"), to, reset_timeout))

        await self._run(asyncio.wrap_future(self._submit(upsert)))

    def release(self, name: str, generation: int) -> None:
        """Give a probe back."""

        def update(connection: Connection) -> None:
            connection.execute(_RELEASE, (name, generation))

        with contextlib.suppress(CircuitsUnavailable):
            self._submit(update)

    def _submit(self, work: Callable[[Connection], _Result]) -> Future[_Result]:
        try:
            return self._store.submit(work)
        except RuntimeError as error:  # the database was closed
            raise CircuitsUnavailable(f"cannot use {self._store.path}: {error}") from error

    async def _run(self, work: Awaitable[_Result]) -> _Result:
        errors: tuple[type[Exception], ...] = (
            StoreError,
            RuntimeError,
            *self._errors,
        )  # RuntimeError: the database was closed
        try:
            return await work
        except (SettingsError, StoreUnavailable) as error:  # which name the place
            raise CircuitsUnavailable(str(error)) from error
        except errors as error:
            raise CircuitsUnavailable(f"cannot use {self._store.path}: {error}") from error


def _ended(waiting: dict[str, asyncio.Task[CircuitReport]], name: str, reading: asyncio.Task[CircuitReport]) -> None:
    """Forget a read that never began, which holds its loop, and note how it ended, or asyncio would log that."""
    if waiting.get(name) is reading:
        waiting.pop(name, None)
    if not reading.cancelled():
        reading.exception()


class SqliteCircuits(SharedCircuits):
    """Circuits shared by the processes of one machine."""

    _errors = (sqlite3.Error,)


def _record(
    connection: Connection, name: str, generation: int, number: int, window: FailureWindow, *, failed: bool
) -> None:
    connection.execute(_RECORD, (name, number % window.calls, number, generation, int(failed)))


def _is_exceeded(connection: Connection, name: str, generation: int, number: int, window: FailureWindow) -> bool:
    values = (name, generation, number - window.calls)
    if window.seconds is None:
        row = connection.execute(_JUDGE, values).fetchone()
    else:
        row = connection.execute(_JUDGE + _RECENT, (*values, window.seconds, window.seconds)).fetchone()
    return window.is_exceeded(*row)
