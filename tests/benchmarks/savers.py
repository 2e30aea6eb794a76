"""The savers that are compared, each in a folder of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from tidegate.checkpointers import open_checkpointer

Opened = AbstractAsyncContextManager[BaseCheckpointSaver[Any] | None]


@dataclass(frozen=True, slots=True)
class Saver:
    """A saver, and what it is measured against: the same run with none, sync where it is sync."""

    name: str
    open: Callable[[Path], Opened]
    blocking: bool = False
    """Whether the graph is run by `invoke`, in a thread, as a saver without async methods needs it."""


@asynccontextmanager
async def _nothing(_: Path) -> AsyncIterator[None]:
    yield None


@asynccontextmanager
async def _in_memory(_: Path) -> AsyncIterator[InMemorySaver]:
    yield InMemorySaver()


@asynccontextmanager
async def _sqlite(folder: Path) -> AsyncIterator[AsyncSqliteSaver]:
    # In WAL mode too, synchronous is FULL by default.
    async with AsyncSqliteSaver.from_conn_string(str(folder / "checkpoints.db")) as saver:
        await saver.setup()  # it would make its tables in the first run, at the cost of 8 fsyncs
        yield saver


@asynccontextmanager
async def _sync_sqlite(folder: Path) -> AsyncIterator[SqliteSaver]:
    with SqliteSaver.from_conn_string(str(folder / "checkpoints.db")) as saver:
        saver.setup()
        yield saver


@asynccontextmanager
async def _hurried_sqlite(folder: Path) -> AsyncIterator[SqliteSaver]:
    with SqliteSaver.from_conn_string(str(folder / "checkpoints.db")) as saver:
        saver.conn.execute("PRAGMA synchronous = OFF")
        yield saver


OURS = Saver("tidegate SQLite", lambda folder: open_checkpointer(f"sqlite:///{folder}/tidegate.db"))
OFFICIAL = Saver("AsyncSqliteSaver", _sqlite)
NONE = Saver("no checkpointer", _nothing)
NONE_SYNC = Saver("no checkpointer, sync", _nothing, blocking=True)
OTHERS = (
    Saver("SqliteSaver, sync", _sync_sqlite, blocking=True),
    Saver("InMemorySaver", _in_memory),
    Saver("tidegate JSON files", lambda folder: open_checkpointer(f"file:///{folder}/threads")),
)
FILLERS: Mapping[str, Callable[[Path], Opened]] = {OURS.name: OURS.open, OFFICIAL.name: _hurried_sqlite}
"""How to fill a saver's file fast: the official ones share a format, and need not wait for the disk then."""

BY_NAME = {saver.name: saver for saver in (OURS, OFFICIAL, NONE, NONE_SYNC, *OTHERS)}
