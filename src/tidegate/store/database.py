"""One SQLite file, one connection, one thread that owns it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, TypeVar

from tidegate.errors import SettingsError
from tidegate.store.clock import Clock, SystemClock

_Result = TypeVar("_Result")

BUSY_TIMEOUT = 30.0
"""Seconds that a transaction waits for another process to finish its own."""


class Database:
    """A SQLite file in WAL mode, safe to use from any event loop and any thread, and by several processes.

    SQL reads the time as `tidegate_now()`: seconds since 1970 by the injected clock.
    """

    def __init__(
        self,
        path: str | Path,
        migrations: Sequence[str],
        *,
        synchronous: Literal["FULL", "NORMAL"] = "FULL",
        clock: Clock | None = None,
    ) -> None:
        """Open the file, creating it if need be, and bring its schema up to date.

        `path` may be `:memory:`. `migrations` is the schema's history: each script leads to the next version.

        Raises:
            SettingsError: the folder is missing, the file cannot be written, is not a database, or is from newer code.
        """
        self.path = str(path)
        self._clock = clock or SystemClock()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"tidegate {Path(self.path).name}")
        try:
            self._connection = self._thread.submit(self._open, migrations, synchronous).result()
        except BaseException:
            self._thread.shutdown(wait=False)
            raise

    def _open(self, migrations: Sequence[str], synchronous: str) -> sqlite3.Connection:
        if self.path != ":memory:" and not Path(self.path).absolute().parent.is_dir():
            raise SettingsError(f"cannot open {self.path}: its folder does not exist; create it or name another")
        try:
            connection = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT, isolation_level=None)
        except sqlite3.Error as error:
            raise SettingsError(f"cannot open {self.path}: {error}; check its permissions or name another file") from error
        try:
            connection.create_function("tidegate_now", 0, self._clock.now)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {synchronous}")
            connection.execute("PRAGMA foreign_keys = ON")
            self._migrate(connection, migrations)
        except sqlite3.Error as error:
            connection.close()
            raise SettingsError(f"cannot use {self.path}: {error}; move it away or name another file") from error
        except BaseException:
            connection.close()
            raise
        return connection

    def _migrate(self, connection: sqlite3.Connection, migrations: Sequence[str]) -> None:
        connection.execute("BEGIN IMMEDIATE")  # two processes may open a new file at once
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if version > len(migrations):
            connection.execute("ROLLBACK")
            raise SettingsError(
                f"{self.path} has schema version {version}, this code knows {len(migrations)}; install a newer tidegate"
            )
        for script in migrations[version:]:
            for statement in script.split(";"):
                if statement.strip():
                    connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(migrations)}")
        connection.execute("COMMIT")

    def _transaction(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            result = work(self._connection)
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")
        return result

    async def write(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """Run `work` in one transaction, durable when this returns; a cancelled caller leaves it whole or undone."""
        return await asyncio.wrap_future(self._thread.submit(self._transaction, work))

    async def read(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """Run `work`, which must not write, outside a transaction."""
        return await asyncio.wrap_future(self._thread.submit(lambda: work(self._connection)))

    def close(self) -> None:
        """Finish what was begun and close the file."""
        self._thread.submit(self._connection.close)
        self._thread.shutdown(wait=True)
