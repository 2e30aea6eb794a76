"""Inserting many rows with few statements."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

_SIZES = (1, 4, 16, 64)


def insert(connection: sqlite3.Connection, into: str, values: Sequence[tuple[Any, ...]], after: str = "") -> None:
    """Insert rows; `into` and `after` are what stands around VALUES. No row begins with None.

    A statement takes up to 64 rows, so that what 50 tasks wrote is one or two: after each, and with `executemany` after
    each row, other threads may run, which costs two switches between threads while an event loop is busy in one.
    Statements come in four sizes, as SQLite keeps those that it has seen before, and are filled up with empty rows.
    """
    for start in range(0, len(values), _SIZES[-1]):
        some = values[start : start + _SIZES[-1]]
        width = len(some[0])
        size = next(size for size in _SIZES if size >= len(some))
        marks = ", ".join(["(" + ", ".join("?" * width) + ")"] * size)
        items = [item for row in some for item in row]
        items += [None] * ((size - len(some)) * width)
        connection.execute(f"{into} SELECT * FROM (VALUES {marks}) WHERE column1 IS NOT NULL {after}", items)
