"""One SQLite file: a thread that writes what is waiting in one transaction, and connections that read meanwhile."""

from __future__ import annotations

import asyncio
import itertools
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

from tidegate.store import connection as connections
from tidegate.store.clock import Clock, SystemClock
from tidegate.store.codec import Codec
from tidegate.store.connection import BUSY_TIMEOUT, WAL_LIMIT

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_Told: TypeAlias = "tuple[_Operation, Any, BaseException | None]"
Synchronous: TypeAlias = Literal["FULL", "NORMAL"]

_GROUP = 256
"""Operations in one transaction at most, which bounds what a failing commit takes with it."""

_READERS = 4


class _Operation:
    """A piece of work that waits for its turn, and whoever waits for it: on an event loop, or in a thread."""

    __slots__ = ("after", "future", "item", "loop", "over", "work")

    def __init__(
        self,
        work: Callable[[sqlite3.Connection], Any] | Callable[[sqlite3.Connection, list[Any]], None],
        future: asyncio.Future[Any] | Future[Any],
        loop: asyncio.AbstractEventLoop | None = None,
        item: Any = None,
    ) -> None:
        self.work = work
        self.item = item
        self.future = future
        self.loop = loop
        self.over = False
        self.after: asyncio.Future[None] | None = None

    def settle(self, result: Any, error: BaseException | None) -> None:
        """Tell the caller; on its own loop, if it has one."""
        self.over = True
        if self.after is not None and not self.after.done():
            self.after.set_result(None)
        if self.future.done():  # cancelled
            return
        if error is None:
            self.future.set_result(result)
        else:
            self.future.set_exception(error)


class Database:
    """A SQLite file in WAL mode, safe to use from any event loop and any thread, and by several processes.

    Writes are grouped: whatever waits when the writer is free goes into one transaction, so that one fsync serves all
    of it. Every caller waits until its own write is durable, and the failure of one undoes that one alone.

    `synchronous` is `FULL`, a write that returned outlasts a power cut; or `NORMAL`, it outlasts a crash of the process
    but a power cut may take the last ones, without damaging the file.

    SQL reads the time of the injected clock as `tidegate_now()`, seconds since 1970, and as `tidegate_ticks()`, seconds
    that only grow and that are the same for all processes until the machine restarts.
    """

    _busy_timeout = BUSY_TIMEOUT
    _reads_in_turn = False  # where what was submitted must be seen by who reads next, at the price of waiting for it

    def __init__(
        self,
        path: str | Path,
        migrations: Sequence[str],
        *,
        synchronous: Synchronous = "FULL",
        clock: Clock | None = None,
        codec: Codec | None = None,
    ) -> None:
        """Name the file, which is opened by the first use or by `open()`: building a graph costs no I/O.

        `path` may be `:memory:`. `migrations` is the schema's history: each script leads to the next version. `codec`
        packs values; one with a key encrypts them.
        """
        self.path = str(path)
        self.codec = codec or Codec()
        self._migrations = migrations
        self._synchronous: Synchronous = synchronous
        self._clock = clock or SystemClock()
        self._reads_in_turn = self._reads_in_turn or self.path == ":memory:"
        self._connection: sqlite3.Connection | None = None
        self._wal_allowed = WAL_LIMIT
        self._closing: Future[None] | None = None
        self._lock = threading.Lock()
        self._waiting: deque[_Operation] = deque()
        self._writing = False
        self._idle_readers: list[sqlite3.Connection] = []
        name = f"tidegate {Path(self.path).name}"
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._readers = ThreadPoolExecutor(max_workers=_READERS, thread_name_prefix=f"{name} reader")

    # opening and closing

    async def open(self) -> None:
        """Open the file now, creating it if need be, and bring its schema up to date.

        Raises:
            SettingsError: the folder is missing, the file cannot be written, is not a database or not Tidegate's, is
                from newer code, or has another key. `read` and `write` raise it too when they are the first use.
            StoreError: it is damaged, or its disk is full or fails.
        """
        await asyncio.wrap_future(self._in_turn(self._connected))

    def open_sync(self) -> None:
        """Do what `open` does, blocking this thread."""
        self._in_turn(self._connected).result()

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            connection = self._open()
            try:
                self._prepare(connection)
            except BaseException as error:
                connection.close()
                if isinstance(error, sqlite3.Error) and (told := connections.told(self.path, error)) is not None:
                    raise told from error
                raise
            self._connection = connection
        return self._connection

    def _open(self) -> sqlite3.Connection:
        return connections.connect_writer(self.path, self._migrations, self._synchronous, self._clock)

    def _prepare(self, connection: sqlite3.Connection) -> None:
        if connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'encryption'").fetchone():
            self.codec.open(connection, self.path)

    async def close(self) -> None:
        """Finish what was begun and close the file, even if the caller is cancelled; once closed, it stays closed."""
        await asyncio.shield(asyncio.wrap_future(self._close()))

    def close_sync(self) -> None:
        """Do what `close` does, blocking this thread."""
        self._close().result()

    def _close(self) -> Future[None]:
        with self._lock:
            if self._closing is None:
                self._closing = self._writer.submit(self._disconnect)
                self._writer.shutdown(wait=False)
            return self._closing

    def _in_turn(self, work: Callable[[], _Result]) -> Future[_Result]:
        # Under the lock: what came between the last turn, which waits for the readers, and the end of the queue would
        # have a reader wait for a turn that never comes.
        with self._lock:
            self._refuse_if_closed()
            return self._writer.submit(work)

    def _refuse_if_closed(self) -> None:
        if self._closing is not None:
            raise RuntimeError(f"{self.path} was closed, and takes no work after its shutdown")

    def _disconnect(self) -> None:
        self._readers.shutdown(wait=True)
        with self._lock:
            idle, self._idle_readers = self._idle_readers, []
        for reader in idle:
            reader.close()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # writing

    async def write(self, work: Callable[[sqlite3.Connection], _Result], *, settle: bool = False) -> _Result:
        """Run `work` in a transaction, durable when this returns; a cancelled caller leaves it whole or undone.

        If the caller is cancelled before the turn of `work` came, it is not done. Else it is, and with `settle` the
        cancellation takes effect after it, so that nothing lands once the caller is gone; a second one at once.

        Raises:
            StoreError: the disk is full, or the file cannot be written; `work` is undone.
        """
        result: _Result = await self._carry_out(work, None, settle)
        return result

    def write_item(
        self, work: Callable[[sqlite3.Connection, list[_Item]], None], item: _Item, *, settle: bool = False
    ) -> Coroutine[Any, Any, None]:
        """Do what `write` does with `work(connection, [item])`, or with the items of several callers in one call.

        Items that wait one after the other for an equal `work` are given to it together, in order. If that fails it is
        undone, and `work` is called again with each alone, so that only the one that is to blame fails.
        """
        return self._carry_out(work, item, settle)

    async def _carry_out(self, work: Callable[..., Any], item: Any, settle: bool) -> Any:
        loop = asyncio.get_running_loop()
        operation = _Operation(work, loop.create_future(), loop, item)
        self._enqueue(operation)
        try:
            return await operation.future  # type: ignore[misc]
        except asyncio.CancelledError:
            if not self._withdraw(operation) and settle and not operation.over:
                operation.after = loop.create_future()
                await operation.after
            raise

    def submit(self, work: Callable[[sqlite3.Connection], _Result]) -> Future[_Result]:
        """Queue what `write` does and return at once: for callers that cannot wait, as one that was cancelled."""
        future: Future[_Result] = Future()
        self._enqueue(_Operation(work, future))
        return future

    def write_sync(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """Do what `write` does, blocking this thread."""
        return self.submit(work).result()

    def _enqueue(self, operation: _Operation) -> None:
        with self._lock:
            self._refuse_if_closed()
            self._waiting.append(operation)
            if self._writing:
                return
            self._writing = True
            self._writer.submit(self._write_waiting)

    def _withdraw(self, operation: _Operation) -> bool:
        """Take an operation back; False if its turn has come."""
        with self._lock:
            try:
                self._waiting.remove(operation)
            except ValueError:
                return False
            return True

    def _write_waiting(self) -> None:
        while True:
            with self._lock:
                group = [self._waiting.popleft() for _ in range(min(len(self._waiting), _GROUP))]
                if not group:
                    self._writing = False
                    return
            try:
                self._write_group(group)
            except BaseException as error:  # noqa: BLE001 - the callers are told, and the writer goes on
                _tell([(operation, None, error) for operation in group])

    def _write_group(self, group: list[_Operation]) -> None:
        group = [each for each in group if each.loop or each.future.set_running_or_notify_cancel()]  # type: ignore[union-attr]
        connection = self._connected()
        results: list[_Told] = []
        try:
            connection.execute("BEGIN IMMEDIATE")
            for run in _runs(group):
                results += _attempt_run(connection, run, alone=len(run) == len(group))
                if not connection.in_transaction:
                    # SQLite gave the whole transaction up, as it may on a full disk: what came before is undone too.
                    error = results[-1][2]
                    results = [(each, None, error) for each, _, _ in results]
                    connection.execute("BEGIN IMMEDIATE")
            connection.execute("COMMIT")
        except BaseException as error:  # noqa: BLE001 - it is handed to every caller
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            results = [(operation, None, error) for operation in group]
        _tell([(each, result, error and self._told(error)) for each, result, error in results])
        self._bound_wal(connection)

    def _bound_wal(self, connection: sqlite3.Connection) -> None:
        # SQLite starts the log anew only in a moment when nobody reads. Where there is no such moment, because readers
        # overlap for ever or one reads for long, wait for one a little; and not again until as much is added.
        try:
            size = os.stat(f"{self.path}-wal").st_size  # noqa: PTH116 - once a commit
        except OSError:
            return
        if size <= self._wal_allowed:
            return
        with suppress(sqlite3.Error):
            connection.execute("PRAGMA busy_timeout = 100")
            (busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            self._wal_allowed = size + WAL_LIMIT if busy else WAL_LIMIT
        connection.execute(f"PRAGMA busy_timeout = {self._busy_timeout * 1000:.0f}")

    def _told(self, error: BaseException) -> BaseException:
        if not isinstance(error, sqlite3.Error) or (told := connections.told(self.path, error)) is None:
            return error
        told.__cause__ = error
        return told

    # reading

    async def read(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """Run `work`, which must not write, on the state of one moment; it waits for no writer.

        Raises:
            StoreDamaged: what it reads is damaged.
            StoreError: the file cannot be read.
        """
        if self._reads_in_turn:
            return await asyncio.wrap_future(self._in_turn(lambda: self._read(work)))
        return await asyncio.wrap_future(self._readers.submit(self._read, work))

    def read_sync(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """Do what `read` does, in this thread."""
        if self._reads_in_turn:
            return self._in_turn(lambda: self._read(work)).result()
        return self._read(work)

    def _read(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        try:
            with self._reader() as connection:
                connection.execute("BEGIN")
                try:
                    return work(connection)
                finally:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            if (told := connections.told(self.path, error)) is None:
                raise
            raise told from error

    @contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        if self._reads_in_turn:
            yield self._connected()
            return
        with self._lock:
            connection = self._idle_readers.pop() if self._idle_readers else None
        if connection is None:
            self.open_sync()
            connection = self._open_reader()
        try:
            yield connection
        finally:
            with self._lock:
                keep = self._closing is None and len(self._idle_readers) < _READERS
                if keep:
                    self._idle_readers.append(connection)
            if not keep:
                connection.close()

    def _open_reader(self) -> sqlite3.Connection:
        return connections.connect_reader(self.path, self._clock)


def _runs(group: list[_Operation]) -> Iterator[list[_Operation]]:
    """Yield what is done together: each operation by itself, or items in a row for the same work."""
    for has_item, same in itertools.groupby(group, key=lambda each: each.item is not None and each.work):
        if has_item:
            yield list(same)
        else:
            yield from ([each] for each in same)


def _attempt_run(connection: sqlite3.Connection, run: list[_Operation], *, alone: bool) -> list[_Told]:
    """Do what is done together; if it fails, do each alone. `alone`: nothing else is done in this transaction."""
    told: list[_Told] = []
    if cancelled := {each for each in run if each.future.cancelled()}:  # asked once: it may be at any moment
        told = [(each, None, None) for each in run if each in cancelled]  # who may wait to hear of it
        run = [each for each in run if each not in cancelled]
    if alone and len(run) == 1:
        return [*told, (run[0], _work_of(run[0])(connection), None)]  # whoever began the transaction rolls it back
    if len(run) > 1:
        work: Any = run[0].work
        _, error = _attempt(connection, lambda c: work(c, [each.item for each in run]), alone=alone)
        if error is None or not connection.in_transaction:
            return told + [(each, None, error) for each in run]
    return told + [(each, *_attempt(connection, _work_of(each), alone=False)) for each in run]


def _work_of(operation: _Operation) -> Callable[[sqlite3.Connection], Any]:
    work: Any = operation.work
    return work if operation.item is None else lambda connection: work(connection, [operation.item])


def _attempt(
    connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], Any], *, alone: bool
) -> tuple[Any, BaseException | None]:
    """Do one piece of work of a transaction; if it fails, undo it and nothing else.

    What is `alone` in its transaction needs no savepoint: two statements less.
    """
    if not connection.in_transaction:
        connection.execute("BEGIN IMMEDIATE")
    if not alone:
        connection.execute("SAVEPOINT operation")
    try:
        result = work(connection)
        if not alone:
            connection.execute("RELEASE operation")
    except BaseException as error:  # noqa: BLE001 - it is handed to the caller
        if connection.in_transaction:
            for undo in ("ROLLBACK", "BEGIN IMMEDIATE") if alone else ("ROLLBACK TO operation", "RELEASE operation"):
                connection.execute(undo)
        return None, error
    return result, None


def _tell(results: list[_Told]) -> None:
    """Tell every caller, and wake each event loop once."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Told]] = {}
    for result in results:
        if (loop := result[0].loop) is None:
            result[0].settle(*result[1:])
        else:
            by_loop.setdefault(loop, []).append(result)
    for loop, told in by_loop.items():
        with suppress(RuntimeError):  # the loop was closed: nobody waits any more
            loop.call_soon_threadsafe(_settle, told)


def _settle(results: list[_Told]) -> None:
    for operation, result, error in results:
        operation.settle(result, error)
