"""Inserting many rows with few statements."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

_AT_ONCE = (64, 8, 1)


def insert(connection: sqlite3.Connection, into: str, values: Sequence[tuple[Any, ...]], after: str = "") -> None:
    """Insert rows by statements of 64, 8 and 1 of them; `into` and `after` are what stands around VALUES.

    `executemany` lets other threads run after every row. While an event loop is busy in one, each time costs two
    switches between threads: what 1000 tasks wrote would pay for that one by one.
    """
    done = 0
    for size in _AT_ONCE:
        while len(values) - done >= size:
            some = values[done : done + size]
            marks = "(" + ", ".join("?" * len(some[0])) + ")"
            statement = f"{into} VALUES {', '.join([marks] * size)} {after}"
            connection.execute(statement, [item for row in some for item in row])
            done += size
