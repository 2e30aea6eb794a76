"""Where breakers keep what they know: in memory, or in SQLite for all processes of a machine."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, TypeAlias, TypeVar

from tidegate.errors import SettingsError, StoreError, TidegateError
from tidegate.store.clock import Clock
from tidegate.store.database import Database

CircuitState: TypeAlias = Literal["closed", "open", "half_open"]
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class CircuitReport:
    """One circuit at one moment.

    `failures` counts consecutive ones. `opened_at` is in seconds since 1970, None while closed. `retry_in` is in how
    many seconds a call may be let through, 0.0 if one may be now; while a probe is out, that is when its lease ends,
    though the probe may end sooner. `reason` is the kind of the last failure. `generation` counts changes of state.
    """

    name: str
    state: CircuitState = "closed"
    failures: int = 0
    opened_at: float | None = None
    retry_in: float = 0.0
    reason: str | None = None
    generation: int = 0

    @property
    def admits(self) -> bool:
        """Whether a permit would be given now: closed, or half-open with no probe out."""
        return self.state == "closed" or (self.state == "half_open" and self.retry_in <= 0.0)


class CircuitsUnavailable(TidegateError):
    """The place where circuits are kept cannot be read or written; breakers go on with one of their own."""


class Circuits(Protocol):
    """Keeps circuits by name. One that never failed is closed, of generation 0, and need not be kept.

    Every change names the generation that it was decided in, and changes nothing in another: that alone makes
    late news harmless and lets one prober win. All methods but `release` raise `CircuitsUnavailable`.
    """

    async def read(self, name: str) -> CircuitReport:
        """Return a circuit as it is now, without writing."""
        ...

    async def read_all(self) -> list[CircuitReport]:
        """Return the circuits that ever failed, by name."""
        ...

    async def probe(self, name: str, generation: int, *, lease: float) -> int:
        """Lease the probe for `lease` seconds, in the next generation.

        Returns how many probes there were since the circuit opened, this one included; 0 if another was faster.
        A caller that is cancelled meanwhile has not got it.
        """
        ...

    async def fail(self, name: str, generation: int, *, reason: str, threshold: int, reset_timeout: float) -> bool:
        """Count a failure; open, in the next generation, at `threshold` or if a probe failed.

        Returns whether this opened it.
        """
        ...

    async def clear(self, name: str, generation: int) -> bool:
        """Forget the failures; close, in the next generation, if a probe succeeded.

        Returns whether the generation was still this one.
        """
        ...

    def release(self, name: str, generation: int) -> None:
        """Give a probe back with no verdict; never waits, and says nothing if it fails (the lease ends by itself)."""
        ...


@dataclass(slots=True)
class _Circuit:
    """What is kept of a circuit. The failure that opened it is its last, so `failed_at` is when it opened."""

    name: str
    generation: int = 0
    open: bool = False
    failures: int = 0
    reason: str | None = None
    failed_at: float = 0.0
    reset_timeout: float = 0.0
    probes: int = 0
    probing: bool = False
    probe_timeout: float = 0.0
    failed_tick: float = 0.0
    probe_tick: float = 0.0

    def report(self, since_failure: float, since_probe: float) -> CircuitReport:
        state: CircuitState = "closed"
        retry_in = 0.0
        if self.open:
            retry_in = _remaining(self.reset_timeout, since_failure)
            state = "half_open" if self.probes or not retry_in else "open"
            if self.probes:
                retry_in = _remaining(self.probe_timeout, since_probe) if self.probing else 0.0
        opened_at = self.failed_at if self.open else None
        return CircuitReport(self.name, state, self.failures, opened_at, retry_in, self.reason, self.generation)


def _remaining(timeout: float, elapsed: float) -> float:
    """Return what is left; an elapsed time below zero comes of a clock that was set back, and must not add to it."""
    return timeout - elapsed if 0.0 <= elapsed < timeout else 0.0


class MemoryCircuits:
    """Circuits of this process alone, safe to use from several event loops and threads."""

    def __init__(self, clock: Clock) -> None:
        """Measure by the clock's monotonic time."""
        self._clock = clock
        self._lock = threading.Lock()
        self._circuits: dict[str, _Circuit] = {}

    async def read(self, name: str) -> CircuitReport:
        """Return a circuit as it is now."""
        with self._lock:
            return self._report(name)

    async def read_all(self) -> list[CircuitReport]:
        """Return the circuits that ever failed, by name."""
        with self._lock:
            return [self._report(name) for name in sorted(self._circuits)]

    def _report(self, name: str) -> CircuitReport:
        circuit = self._circuits.get(name)
        if circuit is None:
            return CircuitReport(name)
        now = self._clock.monotonic()
        return circuit.report(now - circuit.failed_tick, now - circuit.probe_tick)

    async def probe(self, name: str, generation: int, *, lease: float) -> int:
        """Lease the probe."""
        with self._lock:
            circuit = self._circuits.get(name)
            if circuit is None or circuit.generation != generation:
                return 0
            circuit.generation += 1
            circuit.probes += 1
            circuit.probing = True
            circuit.probe_timeout = lease
            circuit.probe_tick = self._clock.monotonic()
            return circuit.probes

    async def fail(self, name: str, generation: int, *, reason: str, threshold: int, reset_timeout: float) -> bool:
        """Count a failure."""
        with self._lock:
            circuit = self._circuits.setdefault(name, _Circuit(name))
            if circuit.generation != generation:
                return False
            opens = circuit.open or circuit.failures + 1 >= threshold
            circuit.generation += opens
            circuit.open = opens
            circuit.failures += 1
            circuit.reason = reason
            circuit.failed_at = self._clock.now()
            circuit.failed_tick = self._clock.monotonic()
            circuit.reset_timeout = reset_timeout
            circuit.probes = 0
            return opens

    async def clear(self, name: str, generation: int) -> bool:
        """Forget the failures."""
        with self._lock:
            circuit = self._circuits.get(name)
            if circuit is None or circuit.generation != generation:
                return False
            circuit.generation += circuit.open
            circuit.open = False
            circuit.failures = 0
            circuit.reason = None
            return True

    def release(self, name: str, generation: int) -> None:
        """Give a probe back."""
        with self._lock:
            circuit = self._circuits.get(name)
            if circuit is not None and circuit.generation == generation:
                circuit.probing = False


_READ: Final = """
    SELECT name, generation, open, failures, reason, failed_at, reset_timeout, probes, probing, probe_timeout,
        max(tidegate_now() - failed_at, tidegate_ticks() - failed_tick),
        max(tidegate_now() - probe_at, tidegate_ticks() - probe_tick)
    FROM circuits
"""
_PROBE: Final = """
    UPDATE circuits SET generation = generation + 1, probes = probes + 1, probing = 1,
        probe_at = tidegate_now(), probe_tick = tidegate_ticks(), probe_timeout = :lease
    WHERE name = :name AND generation = :generation RETURNING probes
"""
_FAIL: Final = """
    UPDATE circuits SET generation = generation + (open OR failures + 1 >= :threshold),
        open = (open OR failures + 1 >= :threshold), failures = failures + 1, reason = :reason,
        failed_at = tidegate_now(), failed_tick = tidegate_ticks(), reset_timeout = :reset_timeout,
        probes = 0
    WHERE name = :name AND generation = :generation RETURNING open
"""
_CLEAR: Final = """
    UPDATE circuits SET generation = generation + open, open = 0, failures = 0, reason = NULL
    WHERE name = :name AND generation = :generation RETURNING 1
"""
_RELEASE: Final = "UPDATE circuits SET probing = 0 WHERE name = :name AND generation = :generation"


class SqliteCircuits:
    """Circuits shared by the processes of one machine, in a database with the schema of `store.live`.

    Two clocks tell how long a circuit has been open, the wall clock and the machine's monotonic one, and the larger
    time counts: a wall clock set back does not keep it open for longer, a restart of the machine does not either.
    """

    def __init__(self, database: Database) -> None:
        """Use the database, which stays the caller's to close."""
        self._database = database

    async def read(self, name: str) -> CircuitReport:
        """Return a circuit as it is now: one SELECT."""

        def select(connection: sqlite3.Connection) -> tuple[Any, ...] | None:
            row: tuple[Any, ...] | None = connection.execute(f"{_READ} WHERE name = ?", (name,)).fetchone()
            return row

        row = await self._run(self._database.read(select))
        return CircuitReport(name) if row is None else _report(row)

    async def read_all(self) -> list[CircuitReport]:
        """Return the circuits that ever failed, by name."""

        def select(connection: sqlite3.Connection) -> list[tuple[Any, ...]]:
            return connection.execute(f"{_READ} ORDER BY name").fetchall()

        return [_report(row) for row in await self._run(self._database.read(select))]

    async def probe(self, name: str, generation: int, *, lease: float) -> int:
        """Lease the probe."""

        def update(connection: sqlite3.Connection) -> int:
            row = connection.execute(_PROBE, {"name": name, "generation": generation, "lease": lease}).fetchone()
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

    async def fail(self, name: str, generation: int, *, reason: str, threshold: int, reset_timeout: float) -> bool:
        """Count a failure."""
        values = {
            "name": name,
            "generation": generation,
            "reason": reason,
            "threshold": threshold,
            "reset_timeout": reset_timeout,
        }

        def update(connection: sqlite3.Connection) -> bool:
            connection.execute("INSERT INTO circuits (name) VALUES (?) ON CONFLICT DO NOTHING", (name,))
            row = connection.execute(_FAIL, values).fetchone()
            return row is not None and bool(row[0])

        return await self._run(asyncio.wrap_future(self._submit(update)))

    async def clear(self, name: str, generation: int) -> bool:
        """Forget the failures."""

        def update(connection: sqlite3.Connection) -> bool:
            return connection.execute(_CLEAR, {"name": name, "generation": generation}).fetchone() is not None

        return await self._run(asyncio.wrap_future(self._submit(update)))

    def release(self, name: str, generation: int) -> None:
        """Give a probe back."""

        def update(connection: sqlite3.Connection) -> None:
            connection.execute(_RELEASE, {"name": name, "generation": generation})

        with contextlib.suppress(CircuitsUnavailable):
            self._submit(update)

    def _submit(self, work: Callable[[sqlite3.Connection], _Result]) -> Future[_Result]:
        try:
            return self._database.submit(work)
        except RuntimeError as error:  # the database was closed
            raise CircuitsUnavailable(f"cannot use {self._database.path}: {error}") from error

    async def _run(self, work: Awaitable[_Result]) -> _Result:
        try:
            return await work
        except SettingsError as error:  # which names the file, as it could not be opened
            raise CircuitsUnavailable(str(error)) from error
        except (StoreError, sqlite3.Error, RuntimeError) as error:  # RuntimeError: the database was closed
            raise CircuitsUnavailable(f"cannot use {self._database.path}: {error}") from error


def _report(row: tuple[Any, ...]) -> CircuitReport:
    circuit = _Circuit(*row[:10])
    return circuit.report(*row[10:])
