"""One SQLite file, one connection, one thread that owns it."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Literal, TypeVar

from tidegate.errors import SettingsError
from tidegate.store.clock import Clock, SystemClock

_Result = TypeVar("_Result")

BUSY_TIMEOUT = 30.0
"""Seconds that a transaction waits for another process to finish its own."""


class Database:
    """A SQLite file in WAL mode, safe to use from any event loop and any thread, and by several processes.

    SQL reads the time of the injected clock as `tidegate_now()`, seconds since 1970, and as `tidegate_ticks()`, seconds
    that only grow and that are the same for all processes until the machine restarts.
    """

    def __init__(
        self,
        path: str | Path,
        migrations: Sequence[str],
        *,
        synchronous: Literal["FULL", "NORMAL"] = "FULL",
        clock: Clock | None = None,
    ) -> None:
        """Name the file, which is opened by the first use or by `open()`: building a graph costs no I/O.

        `path` may be `:memory:`. `migrations` is the schema's history: each script leads to the next version.
        """
        self.path = str(path)
        self._migrations = migrations
        self._synchronous = synchronous
        self._clock = clock or SystemClock()
        self._connection: sqlite3.Connection | None = None
        self._closing: Future[None] | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"tidegate {Path(self.path).name}")

    async def open(self) -> None:
        """Open the file now, creating it if need be, and bring its schema up to date.

        Raises:
            SettingsError: the folder is missing, the file cannot be written, is not a database, or is from newer code.
                `read` and `write` raise it too when they are the first use.
        """
        await asyncio.wrap_future(self._thread.submit(self._connected))

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = self._open()
        return self._connection

    def _open(self) -> sqlite3.Connection:
        if self.path != ":memory:" and not Path(self.path).absolute().parent.is_dir():
            raise SettingsError(f"cannot open {self.path}: its folder does not exist; create it or name another")
        try:
            connection = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT, isolation_level=None)
        except sqlite3.Error as error:
            raise SettingsError(f"cannot open {self.path}: {error}; check permissions or name another file") from error
        try:
            connection.create_function("tidegate_now", 0, self._clock.now)
            connection.create_function("tidegate_ticks", 0, self._clock.monotonic)
            _write_ahead(connection)
            connection.execute(f"PRAGMA synchronous = {self._synchronous}")
            connection.execute("PRAGMA foreign_keys = ON")
            self._migrate(connection)
        except sqlite3.Error as error:
            connection.close()
            raise SettingsError(f"cannot use {self.path}: {error}; move it away or name another file") from error
        except BaseException:
            connection.close()
            raise
        return connection

    def _migrate(self, connection: sqlite3.Connection) -> None:
        if _version(connection) == len(self._migrations):
            return  # without waiting for whoever writes
        connection.execute("BEGIN IMMEDIATE")  # two processes may open a new file at once
        version = _version(connection)
        if version > len(self._migrations):
            raise SettingsError(
                f"{self.path} has schema version {version}, this code knows {len(self._migrations)}; upgrade tidegate"
            )
        for script in self._migrations[version:]:
            for statement in script.split(";"):
                if statement.strip():
                    connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(self._migrations)}")
        connection.execute("COMMIT")

    def _transaction(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        connection = self._connected()
        connection.execute("BEGIN IMMEDIATE")
        try:
            result = work(connection)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:  # SQLite has ended it already after some errors, a full disk for one
                connection.execute("ROLLBACK")
            raise
        return result

    async def write(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """Run `work` in one transaction, durable when this returns; a cancelled caller leaves it whole or undone."""
        return await asyncio.wrap_future(self.submit(work))

    def submit(self, work: Callable[[sqlite3.Connection], _Result]) -> Future[_Result]:
        """Queue what `write` does and return at once: for callers that cannot wait, as one that was cancelled."""
        return self._thread.submit(self._transaction, work)

    async def read(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """Run `work`, which must not write, outside a transaction."""
        return await asyncio.wrap_future(self._thread.submit(lambda: work(self._connected())))

    async def close(self) -> None:
        """Finish what was begun and close the file, even if the caller is cancelled; once closed, it stays closed."""
        if self._closing is None:
            self._closing = self._thread.submit(self._disconnect)
            self._thread.shutdown(wait=False)
        await asyncio.shield(asyncio.wrap_future(self._closing))

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _write_ahead(connection: sqlite3.Connection) -> None:
    # SQLite does not wait by itself while another process does the same, or closes the file: of 600 openings, four
    # processes at a time on one new file, one failed with "database is locked".
    for _ in range(int(BUSY_TIMEOUT / 0.01)):
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            time.sleep(0.01)
        else:
            return
    connection.execute("PRAGMA journal_mode = WAL")
