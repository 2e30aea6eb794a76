"""Many rows with few statements."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import cache
from itertools import chain
from typing import Any

_SIZES = (64, 32, 16, 8, 7, 6, 5, 4, 3, 2, 1)
"""Statements come in these sizes, as SQLite keeps those that it has seen before."""


def insert(
    connection: sqlite3.Connection,
    into: str,
    values: Sequence[tuple[Any, ...]],
    after: str = "",
    *,
    row: str | None = None,
) -> list[tuple[Any, ...]]:
    """Insert rows; `into` and `after` are what stands around VALUES. Returns what it RETURNS.

    `row` is what stands for each row, a question mark for each of its values by default.

    A statement takes up to 64 rows, so that what 50 tasks wrote is three: after each, and with `executemany` after each
    row, other threads may run, which costs two switches between threads while an event loop is busy in one.
    """
    returned: list[tuple[Any, ...]] = []
    start = 0
    for size in _SIZES:
        while len(values) - start >= size:
            some = values[start : start + size]
            sql = _statement(into, row or _marks(len(some[0])), size, after)
            returned += connection.execute(sql, list(chain.from_iterable(some)))
            start += size
    return returned


@cache
def _statement(into: str, row: str, size: int, after: str) -> str:
    return f"{into} VALUES {', '.join([row] * size)} {after}"


def join(
    connection: sqlite3.Connection, select: str, keys: Sequence[tuple[Any, ...]], to: str
) -> list[tuple[Any, ...]]:
    """Return the rows that belong to these keys of several columns; `to` joins them, as `key.column1` and so on.

    By `(a, b) IN (VALUES ...)` SQLite looks at all rows, as soon as there are two keys.
    """
    return insert(connection, f"{select} FROM (", keys, f") AS key {to}")


def select(connection: sqlite3.Connection, where: str, keys: Sequence[bytes]) -> list[tuple[Any, ...]]:
    """Return the rows whose column is one of these; `where` is what stands before IN."""
    found: list[tuple[Any, ...]] = []
    start = 0
    for size in _SIZES:
        while len(keys) - start >= size:
            found += connection.execute(f"{where} IN {_marks(size)}", keys[start : start + size])
            start += size
    return found


@cache
def _marks(count: int) -> str:
    return f"({', '.join('?' * count)})"
