"""The file for what must not cost an fsync a call and may be lost: circuits."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from tidegate.store.clock import Clock
from tidegate.store.database import BUSY_TIMEOUT, Database

CIRCUITS = (
    """
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
    """,
)


class LiveDatabase(Database):
    """`tidegate-live.db`. Nothing in it is worth more than going on, so a damaged file is replaced by an empty one."""

    def __init__(self, path: str | Path, *, clock: Clock | None = None) -> None:
        """Name the file, opened by the first use; `path` may be `:memory:`."""
        super().__init__(path, CIRCUITS, synchronous="NORMAL", clock=clock)

    def _open(self) -> sqlite3.Connection:
        file = Path(self.path)
        if self.path == ":memory:" or not file.exists():
            return super()._open()
        # One opener at a time: a second one would take the first one's new file for the damaged one. A lock of
        # SQLite's own works on every system and ends with its process.
        with closing(sqlite3.connect(f"{self.path}-opening", timeout=BUSY_TIMEOUT, isolation_level=None)) as lock:
            lock.execute("BEGIN EXCLUSIVE")
            if _damaged(file):
                for part in (f"{self.path}-wal", f"{self.path}-shm", self.path):
                    Path(part).unlink(missing_ok=True)
            return super()._open()


def _damaged(file: Path) -> bool:
    try:
        with closing(sqlite3.connect(file, timeout=BUSY_TIMEOUT, isolation_level=None)) as connection:
            return bool(connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok")
    except sqlite3.DatabaseError as error:
        return not isinstance(
            error, sqlite3.OperationalError
        )  # which is a locked or unreadable file, not a damaged one
