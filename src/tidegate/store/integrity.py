"""Integrity: reads all that a store's file holds, and says what is wrong with it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from itertools import islice

from tidegate.store.codec import Codec

_MOST = 20
"""Findings of one kind in one file: it is restored after the first."""

_PACKED = (
    ("documents", "data", "sha256"),
    ("blobs", "data", "id"),
    ("checkpoints", "body", "checkpoint_id || ' of thread ' || thread_id"),
    ("channel_values", "value", "channel"),
    ("writes", "value", "channel"),
    ("calls", "answer", "cache_key"),
    ("outbox", "result", "thread_id"),
)


def problems(connection: sqlite3.Connection, codec: Codec) -> list[str]:
    """Return what is wrong and what helps; nothing, if all of it can be read."""
    found = [str(row[0]) for row in connection.execute(f"PRAGMA integrity_check({_MOST})") if row[0] != "ok"]
    broken = connection.execute("PRAGMA foreign_key_check").fetchall()
    found += [f"a row of {row[0]} names one of {row[2]} that is gone" for row in broken[:_MOST]]
    if not found:  # else reading on may fail
        found = list(islice(_unreadable(connection, codec), _MOST))
    return [f"{problem}; restore the file from a copy" for problem in found]


def _unreadable(connection: sqlite3.Connection, codec: Codec) -> Iterator[str]:
    """Look for what SQLite cannot see: it has no checksums, and each packed value has one."""
    for table, column, name in _PACKED:
        rows = connection.execute(f"SELECT {name}, {column} FROM {table} WHERE {column} IS NOT NULL")  # noqa: S608 - ours
        for key, packed in rows:
            try:
                codec.unpack(packed)
            except ValueError as error:
                yield f"{table}: {key} {error}"
