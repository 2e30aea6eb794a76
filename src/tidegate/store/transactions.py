"""What the tables are written against: transactions of plain SQL, in SQLite or PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

from tidegate.store.codec import Codec

_Result = TypeVar("_Result")

STORE_PAUSE = 5.0
"""Seconds for which one that could not be reached is left alone, by those that can go on without it."""

WARNING_PAUSE = 60.0
"""Seconds between two warnings that say so."""


class Cursor(Protocol):
    """What a statement gave; rows are tuples."""

    @property
    def rowcount(self) -> int:
        """How many rows an INSERT, UPDATE or DELETE touched."""
        ...

    def fetchone(self) -> Any:
        """Return the next row, None if there is none."""
        ...

    def fetchall(self) -> list[Any]:
        """Return the rows that are left."""
        ...

    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """A transaction that was begun. Work on one uses nothing but this."""

    def execute(self, sql: str, parameters: tuple[Any, ...] = ..., /) -> Cursor:
        """Run a statement in the dialect of `tidegate.store.dialect`."""
        ...


class Store(Protocol):
    """A database, safe to use from any event loop, any thread and several processes.

    `work` is called with a connection in a thread of the store. It may be called again, when its transaction met
    another one and was undone: all it does is SQL.
    """

    @property
    def path(self) -> str:
        """What to call it in messages; holds no password."""
        ...

    @property
    def codec(self) -> Codec:
        """How values are kept in it."""
        ...

    async def open(self) -> None:
        """Open it now, and bring its schema up to date."""
        ...

    async def write(self, work: Callable[[Connection], _Result]) -> _Result:
        """Run `work` in one transaction, durable when this returns; a cancelled caller leaves it whole or undone."""
        ...

    def queue(self, work: Callable[[Connection], _Result]) -> asyncio.Future[_Result]:
        """Queue what `write` does and return at once; it is done even if whoever awaits it is cancelled."""
        ...

    def submit(self, work: Callable[[Connection], _Result]) -> Future[_Result]:
        """Queue what `write` does and return at once."""
        ...

    async def read(self, work: Callable[[Connection], _Result]) -> _Result:
        """Run `work`, which must not write."""
        ...

    async def close(self) -> None:
        """Finish what was begun and close it."""
        ...
