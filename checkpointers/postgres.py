"""Checkpoints in PostgreSQL: LangGraph's own saver, and what it lacks."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Self, TypeAlias, TypeVar, cast

import psycopg
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
)
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from psycopg import AsyncConnection, AsyncCursor
from psycopg.rows import DictRow, dict_row
from psycopg.types.json import set_json_dumps
from psycopg_pool import AsyncConnectionPool, PoolClosed

from tidegate.checkpointers import postgres_threads as threads
from tidegate.checkpointers.retention import Rule
from tidegate.checkpointers.saving import Saver, StrictSerializer, put_span, uninterrupted
from tidegate.errors import CheckpointDamaged, WrongThread
from tidegate.store import dialect
from tidegate.store.leases import CHECK, Lease, lease_in, lost
from tidegate.store.postgres_server import PATIENCE, conninfo, passes, prepare, session, told
from tidegate.store.postgres_url import PostgresUrl

_Value = TypeVar("_Value")
_Blobs: TypeAlias = list[tuple[str, str, str, str, str, bytes | None]]  # in the class `list` is the method

CONNECTIONS = 8
"""Operations at once, each on a connection of its own."""

INLINE = 1024
"""Characters of the longest string that is stored in each checkpoint; longer ones are stored once a version."""


_NOT_IN_JSONB = re.compile("[\0\ud800-\udfff]")
_DAMAGE = (
    *(ValueError, TypeError, KeyError, AttributeError, RecursionError, NotImplementedError),
    *(psycopg.errors.InvalidParameterValue, psycopg.errors.InvalidDatetimeFormat),  # in the server's own functions
)


@dataclass(slots=True)
class _Operation:
    """What the parts of one operation tell each other, though LangGraph's code is between them."""

    leases: Sequence[Lease] = ()
    bytes: int = 0


_operation: ContextVar[_Operation | None] = ContextVar("tidegate-postgres-operation", default=None)


@dataclass(frozen=True, slots=True)
class _Apart:
    """A value that LangGraph's saver would write into the checkpoint, and shall store as it does a list."""

    value: Any


class PostgresSaver(Saver, AsyncPostgresSaver):
    """LangGraph's saver for PostgreSQL, strict about types, with spans, leases and retention, in a schema of its own.

    It stores in one transaction what one call stores, and runs calls side by side: LangGraph's waits for one at a time.
    An operation whose connection was lost is tried again.
    A config may carry a lease; then a checkpoint is stored only while the lease is held, else `LeaseLost` is raised.
    The methods of the synchronous interface are for other threads than that of the event loop it was opened on.
    """

    conn: AsyncConnectionPool[AsyncConnection[DictRow]]

    # LangGraph's leaves a checkpoint that is stored again its old parent.
    UPSERT_CHECKPOINTS_SQL = """
        INSERT INTO checkpoints (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, checkpoint, metadata)
        VALUES (%s, %s, %s, %s, %s, %s)
        ON CONFLICT (thread_id, checkpoint_ns, checkpoint_id) DO UPDATE SET
            parent_checkpoint_id = EXCLUDED.parent_checkpoint_id,
            checkpoint = EXCLUDED.checkpoint,
            metadata = EXCLUDED.metadata
    """
    # What a task wrote stays, and only marks such as its error or its resume value (negative indexes) are replaced.
    # LangGraph's leaves those too if they come together with others.
    UPSERT_CHECKPOINT_WRITES_SQL = INSERT_CHECKPOINT_WRITES_SQL = """
        INSERT INTO checkpoint_writes
            (thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
        ON CONFLICT (thread_id, checkpoint_ns, checkpoint_id, task_id, idx) DO UPDATE SET
            task_path = EXCLUDED.task_path, channel = EXCLUDED.channel, type = EXCLUDED.type, blob = EXCLUDED.blob
        WHERE EXCLUDED.idx < 0
    """

    def __init__(
        self, pool: AsyncConnectionPool[AsyncConnection[DictRow]], url: PostgresUrl, *, patience: float = PATIENCE
    ) -> None:
        """Use `open`, which makes the pool and the tables."""
        super().__init__(pool, serde=StrictSerializer())
        self._url = url
        self._patience = patience

    @classmethod
    @asynccontextmanager
    async def open(cls, url: PostgresUrl, *, patience: float = PATIENCE) -> AsyncIterator[Self]:
        """Connect, and bring the tables up to date.

        `patience` is for how many seconds an operation is tried again while the server is away.

        Raises:
            SettingsError: the server cannot be reached or refuses, or the tables are from a newer version.
        """
        await asyncio.to_thread(_set_up, url)

        async def configure(connection: AsyncConnection[DictRow]) -> None:
            set_json_dumps(_dump, connection)
            await connection.execute(session(url), prepare=False)  # several statements

        pool = AsyncConnectionPool(
            kwargs={**conninfo(url), "autocommit": True, "row_factory": dict_row, "prepare_threshold": 0},
            connection_class=AsyncConnection[DictRow],
            min_size=1,
            max_size=CONNECTIONS,
            timeout=patience,
            configure=configure,
            name=f"tidegate {url.schema}",
            open=False,
        )
        async with pool:
            yield cls(pool, url, patience=patience)

    async def setup(self) -> None:
        """Bring the tables up to date, which `open` has done already."""
        await asyncio.to_thread(_set_up, self._url)

    # reading

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return the checkpoint that `config` names, or the newest of its thread.

        Raises:
            CheckpointDamaged: its bytes cannot be read.
            StoreUnavailable: the server cannot be reached.
        """
        with _readable(config):
            return await self._persistent(lambda: super(PostgresSaver, self).aget_tuple(config))

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - LangGraph's name for it
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """List checkpoints, newest first."""

        async def listed() -> Sequence[CheckpointTuple]:
            found = super(PostgresSaver, self).alist(config, filter=filter, before=before, limit=limit)
            return [each async for each in found]

        with _readable(config):
            found = await self._persistent(listed)
        for each in found:  # with no connection held: the caller may want to write, or never come back
            yield each

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Return what channels that are stored as changes are made of."""
        history = super().aget_delta_channel_history
        with _readable(config):
            return await self._persistent(lambda: history(config=config, channels=channels))

    # writing

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint, whole or not at all.

        Raises:
            LeaseLost: the config carries a lease that another process has taken over.
            StoreUnavailable: the server cannot be reached.
        """
        prepared, versions = _apart(checkpoint, new_versions)
        put = super().aput
        with put_span(config, checkpoint, metadata) as span, _begun(_leases_in(config)) as operation:

            async def once() -> RunnableConfig:
                operation.bytes = 0
                return await put(config, prepared, metadata, versions)

            stored = await uninterrupted(self._persistent(once))
            span.size(operation.bytes)
        return stored

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Store what a task wrote, all of it or nothing.

        Raises:
            LeaseLost, StoreUnavailable: as `aput`.
        """
        put_writes = super().aput_writes
        with _begun(_leases_in(config)):
            await uninterrupted(self._persistent(lambda: put_writes(config, writes, task_id, task_path)))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str, *, leases: Sequence[Lease] = ()) -> None:
        """Copy a thread to an ID that has none, all of it or nothing; a source that does not exist is nothing.

        Raises:
            ThreadError: there is a thread under the target ID; after a lost connection it may be the copy.
            LeaseLost: another process has taken over one of the leases.
            StoreUnavailable: the server cannot be reached.
        """
        await self._stored(lambda cursor: threads.copy(cursor, str(source_thread_id), str(target_thread_id)), leases)

    # removing

    async def adelete_thread(self, thread_id: str, *, leases: Sequence[Lease] = ()) -> None:
        """Delete a thread; `LeaseLost` if another process has taken over one of the leases."""
        await self._stored(lambda cursor: threads.delete(cursor, str(thread_id)), leases)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints that these runs made."""
        await self._stored(lambda cursor: threads.delete_for_runs(cursor, run_ids))

    async def _athread_ids(self) -> Sequence[str]:
        async def thread_ids() -> Sequence[str]:
            async with self._cursor() as cursor:
                await cursor.execute("SELECT DISTINCT thread_id FROM checkpoints ORDER BY thread_id")
                return [row["thread_id"] for row in await cursor.fetchall()]

        return await self._persistent(thread_ids)

    async def _aprune_thread(self, thread_id: str, rule: Rule) -> int:
        with _readable({"configurable": {"thread_id": thread_id}}):
            return await self._stored(lambda cursor: threads.prune(cursor, thread_id, rule))

    async def _stored(
        self, work: Callable[[AsyncCursor[DictRow]], Awaitable[_Value]], leases: Sequence[Lease] = ()
    ) -> _Value:
        async def once() -> _Value:
            async with self._cursor(pipeline=True) as cursor:
                return await work(cursor)

        with _begun(leases):
            return await uninterrupted(self._persistent(once))

    # the same for callers in other threads

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """As `aput`."""
        return self._wait(self.aput(config, checkpoint, metadata, new_versions))

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """As `aput_writes`."""
        self._wait(self.aput_writes(config, writes, task_id, task_path))

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """As `aget_tuple`."""
        return self._wait(self.aget_tuple(config))

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - LangGraph's name for it
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """As `alist`."""

        async def listed() -> Sequence[CheckpointTuple]:
            return [each async for each in self.alist(config, filter=filter, before=before, limit=limit)]

        yield from self._wait(listed())

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """As `aget_delta_channel_history`."""
        return self._wait(self.aget_delta_channel_history(config=config, channels=channels))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """As `acopy_thread`."""
        self._wait(self.acopy_thread(source_thread_id, target_thread_id))

    def delete_thread(self, thread_id: str) -> None:
        """As `adelete_thread`."""
        self._wait(self.adelete_thread(thread_id))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """As `adelete_for_runs`."""
        self._wait(self.adelete_for_runs(run_ids))

    def _thread_ids(self) -> Sequence[str]:
        return self._wait(self._athread_ids())

    def _prune_thread(self, thread_id: str, rule: Rule) -> int:
        return self._wait(self._aprune_thread(thread_id, rule))

    def _wait(self, work: Coroutine[Any, Any, _Value]) -> _Value:
        try:
            here = asyncio.get_running_loop() is self.loop
        except RuntimeError:
            here = False
        if here:
            work.close()
            raise WrongThread(
                "this would block the event loop that it needs; await the method with `a` before its name"
            )
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    # how LangGraph's saver gets its connections

    @asynccontextmanager
    async def _cursor(self, *, pipeline: bool = False) -> AsyncIterator[AsyncCursor[DictRow]]:
        """Yield a cursor; with `pipeline`, which LangGraph's saver asks for when it writes, in a transaction.

        Under a lease the transaction begins by reading the lease's row and locking it against changes: whoever takes
        the lease over waits for us, or we see that it did. To look without the lock lets a stale write through.
        """
        operation = _operation.get()
        leases = operation.leases if operation else ()
        async with self.conn.connection() as connection, connection.cursor(binary=True) as cursor:
            if not pipeline and not leases:
                yield cursor
                return
            async with connection.transaction():
                for lease in leases:
                    await _check(cursor, lease)
                yield cursor

    def _dump_blobs(
        self, thread_id: str, checkpoint_ns: str, values: dict[str, Any], versions: ChannelVersions
    ) -> _Blobs:
        plain = {channel: each.value if isinstance(each, _Apart) else each for channel, each in values.items()}
        blobs = super()._dump_blobs(thread_id, checkpoint_ns, plain, versions)
        _count(sum(len(blob[-1] or b"") for blob in blobs))
        return blobs

    async def _persistent(self, work: Callable[[], Awaitable[_Value]]) -> _Value:
        """Do work that may be done twice, and do it again while the server is away, for as long as patience lasts."""
        deadline = self.loop.time() + self._patience
        pause = 0.01
        while True:
            try:
                return await work()
            except psycopg.Error as error:
                if isinstance(error, PoolClosed | psycopg.DataError):  # the caller's fault, no trouble of the server's
                    raise
                if self.loop.time() > deadline or not passes(error):
                    raise told(self._url, error) from error
            await self.conn.check()  # connections that wait in the pool were lost with this one
            await asyncio.sleep(pause)
            pause = min(2 * pause, 1.0)


@contextmanager
def _begun(leases: Sequence[Lease]) -> Iterator[_Operation]:
    token = _operation.set(operation := _Operation(leases))
    try:
        yield operation
    finally:
        _operation.reset(token)


def _leases_in(config: RunnableConfig) -> Sequence[Lease]:
    lease = lease_in(config)
    return () if lease is None else (lease,)


@contextmanager
def _readable(config: RunnableConfig | None) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        thread_id = str((config or {}).get("configurable", {}).get("thread_id"))
        problem = f"has a checkpoint that cannot be read ({type(error).__name__}); restore the database from a copy"
        raise CheckpointDamaged(thread_id, problem) from error


def _dump(value: Any) -> str:
    text = json.dumps(value)
    _count(len(text))
    return text


def _count(size: int) -> None:
    operation = _operation.get()
    if operation is not None:
        operation.bytes += size


def _apart(checkpoint: Checkpoint, new_versions: ChannelVersions) -> tuple[Checkpoint, ChannelVersions]:
    """Mark what LangGraph's saver would write into each checkpoint as JSON and should store once, or cannot as JSON."""
    versions = checkpoint["channel_versions"]
    apart = {
        channel: _Apart(value)
        for channel, value in checkpoint["channel_values"].items()
        if channel in versions and _is_no_json(value)
    }
    values = {**checkpoint["channel_values"], **apart}
    # A version that is stored already is left as it is, and one that is not would be lost.
    return (
        cast("Checkpoint", {**checkpoint, "channel_values": values}),
        {**new_versions, **{channel: versions[channel] for channel in apart}},
    )


def _is_no_json(value: Any) -> bool:
    """Whether a value is too large to repeat, or is none to jsonb: it takes 1e16 for an integer, and not all text."""
    return isinstance(value, float) or (
        isinstance(value, str) and (len(value) > INLINE or _NOT_IN_JSONB.search(value) is not None)
    )


async def _check(cursor: AsyncCursor[DictRow], lease: Lease) -> None:
    await cursor.execute(dialect.query(CHECK).encode(), (lease.thread_id, lease.epoch))
    if await cursor.fetchone() is None:
        raise lost(lease.thread_id)


def _set_up(url: PostgresUrl) -> None:
    # CONCURRENTLY spares the writers of a large table, cannot be in a transaction, and waits for all others in the
    # database. These tables are new.
    scripts = [script.replace("CONCURRENTLY ", "") for script in AsyncPostgresSaver.MIGRATIONS]
    prepare(url, "checkpoint_migrations", scripts)
