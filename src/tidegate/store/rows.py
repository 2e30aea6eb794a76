"""Many rows with few statements."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

_SIZES = (1, 4, 16, 64)
"""Statements come in these sizes, filled up with NULL, as SQLite keeps those that it has seen before."""


def insert(
    connection: sqlite3.Connection, into: str, values: Sequence[tuple[Any, ...]], after: str = ""
) -> list[tuple[Any, ...]]:
    """Insert rows; `into` and `after` are what stands around VALUES. No row begins with None. Returns what it RETURNS.

    A statement takes up to 64 rows, so that what 50 tasks wrote is one or two: after each, and with `executemany` after
    each row, other threads may run, which costs two switches between threads while an event loop is busy in one.
    """
    returned: list[tuple[Any, ...]] = []
    for some, size in _portions(values):
        marks = ", ".join([f"({', '.join('?' * len(some[0]))})"] * size)
        items = [item for row in some for item in row]
        items += [None] * ((size - len(some)) * len(some[0]))
        source = f"SELECT * FROM (VALUES {marks}) WHERE column1 IS NOT NULL"  # noqa: S608 - marks alone
        returned += connection.execute(f"{into} {source} {after}", items)
    return returned


def select(connection: sqlite3.Connection, where: str, keys: Sequence[bytes]) -> list[tuple[Any, ...]]:
    """Return the rows whose column is one of these; `where` is what stands before IN."""
    found: list[tuple[Any, ...]] = []
    for some, size in _portions(keys):
        marks = ", ".join("?" * size)
        found += connection.execute(f"{where} IN ({marks})", [*some, *[None] * (size - len(some))])
    return found


def _portions(values: Sequence[Any]) -> Iterator[tuple[Sequence[Any], int]]:
    for start in range(0, len(values), _SIZES[-1]):
        some = values[start : start + _SIZES[-1]]
        yield some, next(size for size in _SIZES if size >= len(some))
