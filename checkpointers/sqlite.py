"""Checkpoints in a SQLite file."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import aiosqlite
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata, CheckpointTuple
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from tidegate.checkpointers.saving import StrictSerializer, put_span, serialized_bytes, uninterrupted
from tidegate.errors import CheckpointDamaged, SettingsError

BUSY_TIMEOUT = 30.0
"""Seconds that a transaction waits for another process to finish its own."""

_TRIES = 600


class SqliteSaver(AsyncSqliteSaver):
    """LangGraph's SQLite saver, strict about types, with spans, and safe to cancel and to read while listing."""

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path) -> AsyncIterator[Self]:
        """Open the file, creating it if need be.

        Raises:
            SettingsError: the folder is missing, the file cannot be written, or it is not a database.
        """
        if not await asyncio.to_thread(_has_folder, path):
            raise SettingsError(f"cannot open {path}: its folder does not exist; create it or name another")
        connection = aiosqlite.connect(path, timeout=BUSY_TIMEOUT)
        try:
            await connection
        except sqlite3.Error as error:
            raise SettingsError(f"cannot open {path}: {error}; check its permissions or name another file") from error
        try:
            saver = cls(connection, serde=StrictSerializer())
            try:
                await _make_wal(connection)
                await connection.execute("PRAGMA synchronous = FULL")
                await saver.setup()
                await connection.execute("BEGIN IMMEDIATE")
                await connection.execute("PRAGMA user_version = 1")  # fails here, not mid-run, if it cannot be written
                await connection.rollback()
            except sqlite3.Error as error:
                way_out = "make it writable, move it away or name another file"
                raise SettingsError(f"cannot use {path}: {error}; {way_out}") from error
            yield saver
        finally:
            await connection.close()

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return the checkpoint that `config` names, or the newest of its thread.

        Raises:
            CheckpointDamaged: its bytes cannot be read.
        """
        try:
            return await super().aget_tuple(config)
        except sqlite3.OperationalError:
            raise
        except (sqlite3.DatabaseError, ValueError, TypeError, KeyError) as error:
            thread_id = str(config.get("configurable", {}).get("thread_id"))
            problem = f"has a checkpoint that cannot be read ({type(error).__name__}); restore the file from a copy"
            raise CheckpointDamaged(thread_id, problem) from error

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint."""
        with put_span(config, checkpoint, metadata) as span:
            stored, size = await uninterrupted(self._put(config, checkpoint, metadata, new_versions))
            span.size(size)
        return stored

    async def _put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> tuple[RunnableConfig, int]:
        before = serialized_bytes()
        stored = await super().aput(config, checkpoint, metadata, new_versions)
        return stored, serialized_bytes() - before

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Store what a task wrote."""
        await uninterrupted(super().aput_writes(config, writes, task_id, task_path))

    async def adelete_thread(self, thread_id: str) -> None:
        """Delete a thread."""
        await self.setup()
        await uninterrupted(super().adelete_thread(thread_id))

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - LangGraph's name for it
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """List checkpoints, newest first."""
        # The saver's lock is held while its generator is suspended: a reader inside the loop waits for ever (#8558).
        found = [each async for each in super().alist(config, filter=filter, before=before, limit=limit)]
        for each in found:
            yield each


async def _make_wal(connection: aiosqlite.Connection) -> None:
    # SQLite does not wait here while another process makes the same file: the busy timeout does not count for this.
    for _ in range(_TRIES):
        try:
            await connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise
            await asyncio.sleep(BUSY_TIMEOUT / _TRIES)
        else:
            return


def _has_folder(path: Path) -> bool:
    return path.absolute().parent.is_dir()
