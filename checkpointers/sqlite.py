"""Checkpoints in a SQLite file."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    get_checkpoint_id,
    get_checkpoint_metadata,
)

from tidegate.checkpointers import sqlite_import, sqlite_listing, sqlite_retention, sqlite_rows
from tidegate.checkpointers.retention import Rule
from tidegate.checkpointers.saving import TAKEN, Address, Saver, StrictSerializer, put_span
from tidegate.checkpointers.sqlite_rows import TaskWrites
from tidegate.errors import CheckpointDamaged, StoreDamaged, ThreadError
from tidegate.store.database import Database
from tidegate.store.leases import Lease, check, lease_in, stopping

_Result = TypeVar("_Result")
_Fenced: TypeAlias = tuple[Lease | None, sqlite_rows.Serialized | TaskWrites]


class SqliteSaver(Saver):
    """Threads in a `Database` of the schema `tidegate.store.schema.STORE`, which its owner opens and closes.

    Each value is stored once, however many versions, checkpoints and threads hold it. What is stored is durable when a
    method returns, as far as the database's `synchronous` says. A cancelled write is whole or not there, and none lands
    after its caller was cancelled. The methods without `a` block their thread, and may be called from any but one that
    runs an event loop. An encrypted file keeps names, times and metadata in plain text: see `STORE`.

    Every method raises `StoreError` where the disk or the file fails, and then changed nothing.
    """

    def __init__(self, database: Database) -> None:
        super().__init__(serde=StrictSerializer())
        self.database = database

    def get_next_version(self, current: Any, channel: None) -> Any:
        """Return a whole number, or in a thread that another saver began, text as that saver makes it."""
        if not isinstance(current, str):
            return super().get_next_version(current, channel)
        return f"{int(current.partition('.')[0]) + 1:032}.{random.random():016}"  # noqa: S311 - tells forks apart

    # reading

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return the checkpoint that `config` names, or the newest of its thread and namespace; None if there is none.

        Raises:
            CheckpointDamaged: it cannot be read.
        """
        with _Telling(config):
            return self.database.read_sync(self._getting(config))

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """As `get_tuple`."""
        with _Telling(config):
            return await self.database.read(self._getting(config))

    def _getting(self, config: RunnableConfig) -> Callable[[sqlite3.Connection], CheckpointTuple | None]:
        thread_id, checkpoint_ns, checkpoint_id = _place(config)

        def get(connection: sqlite3.Connection) -> CheckpointTuple | None:
            row = sqlite_rows.find(connection, thread_id, checkpoint_ns, checkpoint_id)
            return None if row is None else self._load(connection, [row])[0]

        return get

    def _load(self, connection: sqlite3.Connection, rows: Sequence[sqlite_rows.Row]) -> list[CheckpointTuple]:
        return sqlite_rows.load(connection, rows, self.database.codec, self.serde, self.database.path)

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - LangGraph's name for it
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """List checkpoints, newest first.

        They are read a page at a time, so that the caller may write, and stop, as it likes: one that is stored
        meanwhile is not listed, one that is deleted may be.

        Raises:
            CheckpointDamaged: when the page that it is on is read. `before` it, the listing can be taken up again.
        """
        listing = sqlite_listing.Listing(config, filter, before, limit)
        while listing.goes_on:
            with _Telling(config):
                page = self.database.read_sync(self._paging(listing))
            yield from page

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - LangGraph's name for it
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """As `list`."""
        listing = sqlite_listing.Listing(config, filter, before, limit)
        while listing.goes_on:
            with _Telling(config):
                page = await self.database.read(self._paging(listing))
            for each in page:
                yield each

    def _paging(self, listing: sqlite_listing.Listing) -> Callable[[sqlite3.Connection], Sequence[CheckpointTuple]]:
        return lambda connection: self._load(connection, listing.page(connection))

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Return what was written to each of these channels since the last checkpoint that holds its value.

        Raises:
            CheckpointDamaged: one of the checkpoints cannot be read.
        """
        with _Telling(config):
            return self.database.read_sync(self._tracing(config, channels))

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """As `get_delta_channel_history`."""
        with _Telling(config):
            return await self.database.read(self._tracing(config, channels))

    def _tracing(
        self, config: RunnableConfig, channels: Sequence[str]
    ) -> Callable[[sqlite3.Connection], Mapping[str, DeltaChannelHistory]]:
        thread_id, checkpoint_ns, checkpoint_id = _place(config)
        codec, path = self.database.codec, self.database.path

        def trace(connection: sqlite3.Connection) -> Mapping[str, DeltaChannelHistory]:
            row = sqlite_rows.find(connection, thread_id, checkpoint_ns, checkpoint_id)
            if row is None:
                return {channel: {"writes": []} for channel in channels}
            return sqlite_rows.delta_history(connection, row, channels, codec, self.serde, path)

        return trace

    # writing

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint."""
        with put_span(config, checkpoint, metadata) as span:
            made = self._serialize(config, checkpoint, metadata)
            self.database.write_sync(self._storing(config, made))
            span.size(made.size)
        return made.at.config()

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """As `put`."""
        with put_span(config, checkpoint, metadata) as span:
            made = self._serialize(config, checkpoint, metadata)
            with stopping():
                await self.database.write_item(self._store, (lease_in(config), made), settle=True)
            span.size(made.size)
        return made.at.config()

    def _serialize(
        self, config: RunnableConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata
    ) -> sqlite_rows.Serialized:
        thread_id, checkpoint_ns, parent_id = _place(config)
        at = Address(thread_id, checkpoint_ns, checkpoint["id"])
        metadata = get_checkpoint_metadata(config, metadata)
        return sqlite_rows.serialize(at, parent_id, checkpoint, metadata, self.serde, self.database.codec.texts)

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Store what a task wrote, all of it or nothing."""
        written = self._serialize_writes(config, writes, task_id, task_path)
        self.database.write_sync(self._storing(config, written))

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """As `put_writes`."""
        written = self._serialize_writes(config, writes, task_id, task_path)
        with stopping():
            await self.database.write_item(self._store, (lease_in(config), written), settle=True)

    def _serialize_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str
    ) -> TaskWrites:
        thread_id, checkpoint_ns, checkpoint_id = _place(config)
        at = Address(thread_id, checkpoint_ns, str(checkpoint_id))
        serialized = sqlite_rows.serialize_writes(writes, self.serde, self.database.codec.texts)
        return TaskWrites(at, serialized, task_id, task_path)

    def _storing(
        self, config: RunnableConfig, item: sqlite_rows.Serialized | TaskWrites
    ) -> Callable[[sqlite3.Connection], None]:
        return lambda connection: self._store(connection, [(lease_in(config), item)])

    def _store(self, connection: sqlite3.Connection, items: Sequence[_Fenced]) -> None:
        check(connection, *{lease for lease, _ in items if lease is not None})
        sqlite_rows.store(connection, [item for _, item in items], self.database.codec)

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy a thread to an ID that has none; a source that does not exist is nothing.

        Raises:
            ThreadError: there is a thread under the target ID.
        """
        self.database.write_sync(self._copying(source_thread_id, target_thread_id))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str, *, leases: Sequence[Lease] = ()) -> None:
        """As `copy_thread`; `LeaseLost` if one of the leases was lost."""
        await self.database.write(self._copying(source_thread_id, target_thread_id, leases), settle=True)

    def _copying(self, source: str, target: str, leases: Sequence[Lease] = ()) -> Callable[[sqlite3.Connection], None]:
        def copy(connection: sqlite3.Connection) -> None:
            check(connection, *leases)
            if not sqlite_rows.has_thread(connection, str(source)):
                return
            if sqlite_rows.has_thread(connection, str(target)):
                raise ThreadError(str(target), TAKEN)
            sqlite_rows.copy(connection, str(source), str(target))

        return copy

    # removing: in one transaction a thread, so that others can write in between

    def delete_thread(self, thread_id: str) -> None:
        """Delete a thread."""
        self.database.write_sync(self._deleting(thread_id))

    async def adelete_thread(self, thread_id: str, *, leases: Sequence[Lease] = ()) -> None:
        """As `delete_thread`; `LeaseLost` if one of the leases was lost."""
        await self.database.write(self._deleting(thread_id, leases), settle=True)

    def _deleting(self, thread_id: str, leases: Sequence[Lease] = ()) -> Callable[[sqlite3.Connection], None]:
        def delete(connection: sqlite3.Connection) -> None:
            check(connection, *leases)
            sqlite_retention.delete(connection, str(thread_id))

        return delete

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints that these runs made."""
        self.database.write_sync(lambda connection: sqlite_retention.remove_runs(connection, run_ids))

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """As `delete_for_runs`."""
        await self.database.write(lambda connection: sqlite_retention.remove_runs(connection, run_ids), settle=True)

    def _thread_ids(self) -> Sequence[str]:
        return self.database.read_sync(sqlite_retention.threads)

    async def _athread_ids(self) -> Sequence[str]:
        return await self.database.read(sqlite_retention.threads)

    def _prune_thread(self, thread_id: str, rule: Rule) -> int:
        return self.database.write_sync(self._pruning(thread_id, rule))

    async def _aprune_thread(self, thread_id: str, rule: Rule) -> int:
        return await self.database.write(self._pruning(thread_id, rule), settle=True)

    def _pruning(self, thread_id: str, rule: Rule) -> Callable[[sqlite3.Connection], int]:
        codec, path = self.database.codec, self.database.path

        def prune(connection: sqlite3.Connection) -> int:
            return sqlite_retention.prune(connection, thread_id, rule, codec, self.serde, path)

        return prune

    # taking over

    def import_from(self, path: str | Path) -> int:
        """Take over every thread of a database of `langgraph-checkpoint-sqlite`; return how many checkpoints were new.

        That file is only read. Checkpoints that are here already stay as they are, so a second time changes nothing. It
        may be interrupted and done again.

        Raises:
            SettingsError: it is no such database, cannot be read or is damaged; or it is encrypted with another key.
        """
        source = sqlite_import.Source(path, self.database.codec)
        return sum(self.database.write_sync(work) for work in source.works())

    async def aimport_from(self, path: str | Path) -> int:
        """As `import_from`."""
        works, count = sqlite_import.Source(path, self.database.codec).works(), 0
        while (work := await asyncio.to_thread(next, works, None)) is not None:  # taking values apart is work, too
            count += await self.database.write(work, settle=True)
        return count


class _Telling:
    """Tells damage to the file as damage to the thread that was asked for, if it was one."""

    def __init__(self, config: RunnableConfig | None) -> None:
        self._config = config

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, StoreDamaged) and self._config is not None:
            problem = f"has a checkpoint that cannot be read: {error}"
            raise CheckpointDamaged(str(_configurable(self._config)["thread_id"]), problem) from error


def _configurable(config: RunnableConfig) -> dict[str, Any]:
    return config.get("configurable", {})


def _place(config: RunnableConfig) -> tuple[str, str, str | None]:
    """Return thread, namespace and checkpoint ID."""
    found = _configurable(config)
    return str(found["thread_id"]), str(found.get("checkpoint_ns") or ""), get_checkpoint_id(config)
