"""Where threads live: one saver a file, all behind `open_checkpointer`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, cast

from tidegate.checkpointers.url import Location, locate
from tidegate.errors import SettingsError

if TYPE_CHECKING:  # each saver is imported when it is opened: LangGraph alone takes half a second
    from tidegate.checkpointers.saving import Saver
    from tidegate.store.codec import Key
    from tidegate.store.database import Database, Synchronous
    from tidegate.store.transactions import Store

__all__ = ["Location", "locate", "open_checkpointer", "open_checkpointer_sync"]


@asynccontextmanager
async def open_checkpointer(
    url: str,
    *,
    store: Store | None = None,
    key: Key | None = None,
    synchronous: Synchronous = "FULL",
) -> AsyncIterator[Saver]:
    """Open the saver that `url` names: `sqlite:///tidegate.db`, `file:///folder`, `postgresql://host/db` or `memory:`.

    The file, the last folder of the path, or the schema in the database is created if need be.

    What follows is for SQLite alone. With `synchronous="FULL"` what was stored outlasts a power cut; with `"NORMAL"` it
    outlasts a crash, and a power cut may take the last commits. `key` encrypts what is stored, with 16, 24 or 32 bytes;
    without one, that in the variable TIDEGATE_ENCRYPTION_KEY does. `store` is the open database of that file, where its
    owner keeps more in it: it is used as it is, with the key that it was opened with, and left open.

    Raises:
        SettingsError: no saver has this URL, or its file or server cannot be used; the message says what to change.
    """
    location = _located(url, synchronous)
    if location.kind == "sqlite" and store is None:
        database = await asyncio.to_thread(_database, location, key, synchronous)
        try:
            await database.open()
            yield _sqlite(database)
        finally:
            await database.close()
    elif location.server is not None:
        _refuse_key(store, key, "in PostgreSQL")
        from tidegate.checkpointers.postgres import PostgresSaver

        async with PostgresSaver.open(location.server) as saver:
            yield saver
    else:
        yield await asyncio.to_thread(_other, location, store, key)


@contextmanager
def open_checkpointer_sync(
    url: str,
    *,
    store: Store | None = None,
    key: Key | None = None,
    synchronous: Synchronous = "FULL",
) -> Iterator[Saver]:
    """Do what `open_checkpointer` does for blocking code. An event loop may use the saver all the same."""
    location = _located(url, synchronous)
    if location.kind == "sqlite" and store is None:
        database = _database(location, key, synchronous)
        try:
            database.open_sync()
            yield _sqlite(database)
        finally:
            database.close_sync()
    elif location.server is not None:
        from anyio.from_thread import start_blocking_portal

        opened = open_checkpointer(url, store=store, key=key)
        with start_blocking_portal() as portal, portal.wrap_async_context_manager(opened) as saver:
            yield saver
    else:
        yield _other(location, store, key)


def _located(url: str, synchronous: Synchronous) -> Location:
    location = locate(url)
    if synchronous not in ("FULL", "NORMAL"):  # SQLite takes any other word for one of its own
        raise SettingsError(f"synchronous is FULL or NORMAL, not {synchronous!r}")
    if synchronous != "FULL" and location.kind != "sqlite":
        raise SettingsError("synchronous is for sqlite:///FILE alone; take it away")
    return location


def _database(location: Location, key: Key | None, synchronous: Synchronous) -> Database:
    from tidegate.store.opening import store_at

    return store_at(location.store, key=key, synchronous=synchronous)


def _sqlite(database: Database) -> Saver:
    from tidegate.checkpointers.sqlite import SqliteSaver

    return SqliteSaver(database)


def _other(location: Location, store: Store | None, key: Key | None) -> Saver:
    if location.kind == "sqlite" and store is not None:
        if key is not None:
            raise SettingsError("a key was given beside an open store; open the store with it instead")
        return _sqlite(cast("Database", store))
    if location.checkpoints is None:
        from tidegate.checkpointers.memory import MemorySaver

        return MemorySaver()
    _refuse_key(store, key, "as JSON files")
    from tidegate.checkpointers.json_file import JsonFileSaver

    return JsonFileSaver(location.checkpoints)


def _refuse_key(store: Store | None, key: Key | None, where: str) -> None:
    from tidegate.store.codec import key_from_environment

    if key is not None or (store is not None and store.codec.encrypts) or key_from_environment() is not None:
        raise SettingsError(f"checkpoints {where} are not encrypted; use sqlite:///FILE, or take the key away")
