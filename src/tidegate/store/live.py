"""The file for what must not cost an fsync a call and may be lost: circuits and rates."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from tidegate.errors import SettingsError
from tidegate.store.clock import Clock
from tidegate.store.connection import BUSY_TIMEOUT
from tidegate.store.database import Database

LIVE_BUSY_TIMEOUT = 2.0
"""Seconds that a call waits for another process's transaction, which takes microseconds unless that process hangs."""

CIRCUITS = """
    CREATE TABLE circuits (
        name TEXT PRIMARY KEY,
        generation INTEGER NOT NULL DEFAULT 0,
        open INTEGER NOT NULL DEFAULT 0,
        failures INTEGER NOT NULL DEFAULT 0,
        reason TEXT,
        failed_at REAL NOT NULL DEFAULT 0,
        failed_tick REAL NOT NULL DEFAULT 0,
        reset_timeout REAL NOT NULL DEFAULT 0,
        probes INTEGER NOT NULL DEFAULT 0,
        probing INTEGER NOT NULL DEFAULT 0,
        probe_at REAL NOT NULL DEFAULT 0,
        probe_tick REAL NOT NULL DEFAULT 0,
        probe_timeout REAL NOT NULL DEFAULT 0
    ) STRICT
"""

FORCED_AND_WINDOWS = """
    ALTER TABLE circuits ADD COLUMN forced TEXT;
    ALTER TABLE circuits ADD COLUMN calls INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE circuit_calls (
        name TEXT NOT NULL,
        place INTEGER NOT NULL,
        number INTEGER NOT NULL,
        generation INTEGER NOT NULL,
        called_at REAL NOT NULL,
        called_tick REAL NOT NULL,
        failed INTEGER NOT NULL,
        PRIMARY KEY (name, place)
    ) STRICT, WITHOUT ROWID
"""
"""Circuits that are held open or closed, and the last calls of those with a failure window."""

RATES = """
    CREATE TABLE rates (
        name TEXT PRIMARY KEY,
        full_at REAL NOT NULL
    ) STRICT
"""
"""The token bucket of each service that has a rate: when it is full again."""

PROBLEMS = "ALTER TABLE circuits ADD COLUMN problem TEXT"
"""What was said of the last failure."""

LIVE = (CIRCUITS, FORCED_AND_WINDOWS, RATES, PROBLEMS)
"""The schema's history, for a file of its own or beside the store in PostgreSQL."""


class LiveDatabase(Database):
    """`tidegate-live.db`. Nothing in it is worth more than going on, so a damaged file makes way for an empty one.

    It is kept as `*.damaged`, since it may be a file of somebody else's that happens to have the name.
    """

    _busy_timeout = LIVE_BUSY_TIMEOUT
    _reads_in_turn = True

    def __init__(self, path: str | Path, *, clock: Clock | None = None) -> None:
        """Name the file, opened by the first use; `path` may be `:memory:`."""
        super().__init__(path, LIVE, synchronous="NORMAL", clock=clock)

    def _open(self) -> sqlite3.Connection:
        if _is_damaged(self.path):
            self._make_way()
        connection = super()._open()
        connection.execute(f"PRAGMA busy_timeout = {self._busy_timeout * 1000:.0f}")
        return connection

    def _make_way(self) -> None:
        # One at a time, each looking again: a second one would take the first one's new file for the damaged one. A
        # lock of SQLite's own works on every system and ends with its process. Its empty file stays: those who wait for
        # a lock on one that is removed get a "disk I/O error".
        with closing(sqlite3.connect(f"{self.path}-opening", timeout=BUSY_TIMEOUT, isolation_level=None)) as lock:
            try:
                lock.execute("BEGIN EXCLUSIVE")
            except sqlite3.Error as error:
                raise SettingsError(
                    f"cannot open {self.path}: {error}; check permissions or name another file"
                ) from error
            if _is_damaged(self.path):
                for part in (f"{self.path}-wal", f"{self.path}-shm"):
                    Path(part).unlink(missing_ok=True)
                Path(self.path).replace(f"{self.path}.damaged")


def _is_damaged(path: str) -> bool:
    if path == ":memory:" or not Path(path).exists():
        return False
    # Read only: where another process replaces the file meanwhile, the new one's rollback journal lies beside the old
    # one that is open here, and SQLite would roll it back, which empties what is to be kept as `*.damaged`.
    uri = f"{Path(path).absolute().as_uri()}?mode=ro"
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT, isolation_level=None)) as connection:
            return bool(connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok")
    except sqlite3.OperationalError:  # locked or unreadable, which is another trouble
        return False
    except (sqlite3.DatabaseError, UnicodeDecodeError):
        return True
