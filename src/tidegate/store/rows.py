"""Many rows with few statements."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import cache
from itertools import chain
from typing import Any

_SIZES = (64, 32, 16, 8, 4, 2, 1)
"""Statements come in these sizes, as SQLite keeps those that it has seen before."""


def insert(
    connection: sqlite3.Connection, into: str, values: Sequence[tuple[Any, ...]], after: str = ""
) -> list[tuple[Any, ...]]:
    """Insert rows; `into` and `after` are what stands around VALUES. Returns what it RETURNS.

    A statement takes up to 64 rows, so that what 50 tasks wrote is three: after each, and with `executemany` after each
    row, other threads may run, which costs two switches between threads while an event loop is busy in one.
    """
    returned: list[tuple[Any, ...]] = []
    start = 0
    for size in _SIZES:
        while len(values) - start >= size:
            some = values[start : start + size]
            sql = _statement(into, len(some[0]), size, after)
            returned += connection.execute(sql, list(chain.from_iterable(some)))
            start += size
    return returned


@cache
def _statement(into: str, columns: int, size: int, after: str) -> str:
    return f"{into} VALUES {', '.join([_marks(columns)] * size)} {after}"


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
