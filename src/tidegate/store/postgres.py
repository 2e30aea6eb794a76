"""The store in a PostgreSQL database, shared by any number of machines."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, TypeVar

import psycopg
from psycopg.pq import TransactionStatus

from tidegate.errors import StoreUnavailable
from tidegate.store import dialect
from tidegate.store.clock import Clock, SystemClock
from tidegate.store.codec import Codec
from tidegate.store.postgres_server import PATIENCE, connect, passes, prepare, told
from tidegate.store.postgres_url import PostgresUrl
from tidegate.store.transactions import Connection, Cursor

_Result = TypeVar("_Result")

CONNECTIONS = 4
"""Transactions at once, each in a thread that owns its connection. Measured on two cores: four take half the time of
one, eight gain nothing, and works grouped into one transaction, each in a savepoint, take as long as one after
another: the server flushes the commits of several connections together by itself."""

_TIME: Final = """
    CREATE OR REPLACE FUNCTION tidegate_now() RETURNS double precision LANGUAGE sql VOLATILE AS $$
        SELECT coalesce(nullif(current_setting('tidegate.now', true), '')::double precision,
            extract(epoch FROM clock_timestamp())::double precision) $$;
    CREATE OR REPLACE FUNCTION tidegate_ticks() RETURNS double precision LANGUAGE sql VOLATILE AS $$
        SELECT coalesce(nullif(current_setting('tidegate.ticks', true), '')::double precision,
            extract(epoch FROM clock_timestamp())::double precision) $$
"""
_SET_TIME: Final = "SELECT set_config('tidegate.now', %s, %s), set_config('tidegate.ticks', %s, %s)"

_IDLE: Final = "25P03"  # the server ended a transaction that was idle for too long: nothing of it was committed


class PostgresDatabase:
    """What `tidegate.store.database.Database` is for a SQLite file: a `tidegate.store.transactions.Store`.

    Transactions are serializable, so that work which reads and then writes means the same here as in SQLite, where
    writers take turns. Works run side by side, in no fixed order. One that met another's is run again; so is one
    whose connection was lost before it was committed.
    `tidegate_now()` and `tidegate_ticks()` tell the server's time, the same on all machines, unless a clock other than
    the system's is injected: then they tell what that said when the transaction began.
    """

    _connections_at_most = CONNECTIONS
    _migrations_table = "tidegate_migrations"

    def __init__(
        self, url: PostgresUrl, migrations: Sequence[str], *, clock: Clock | None = None, patience: float = PATIENCE
    ) -> None:
        """Name the database, connected to by the first use or by `open()`. `migrations` are written for SQLite.

        `patience` is for how many seconds a transaction is tried again before it fails.
        """
        self._url = url
        self._scripts = [_TIME, *map(dialect.schema, migrations)]
        self._clock = None if clock is None or isinstance(clock, SystemClock) else clock
        self._patience = patience
        self.codec = Codec()
        self._threads = ThreadPoolExecutor(
            max_workers=self._connections_at_most, thread_name_prefix=f"tidegate {url.schema}"
        )
        self._own = threading.local()
        self._lock = threading.Lock()
        self._connections: list[psycopg.Connection[tuple[Any, ...]]] = []
        self._prepared = False

    @property
    def path(self) -> str:
        """The URL without user, password and options."""
        return self._url.shown

    async def open(self) -> None:
        """Connect now, and bring the schema up to date.

        Raises:
            SettingsError: the server cannot be reached or refuses, or the schema is from newer code. `read` and `write`
                raise it too when they are the first use.
        """
        await asyncio.wrap_future(self._threads.submit(self._prepare))

    def _prepare(self) -> None:
        with self._lock:
            if not self._prepared:
                prepare(self._url, self._migrations_table, self._scripts)
                self._prepared = True

    async def write(self, work: Callable[[Connection], _Result]) -> _Result:
        """Run `work` in one transaction, durable when this returns; a cancelled caller leaves it whole or undone.

        Raises:
            StoreUnavailable: the server cannot be reached, or was lost in the middle.
            StoreError: it refuses a statement, as where a table is gone or a right was taken away.
        """
        return await asyncio.wrap_future(self.submit(work))

    def queue(self, work: Callable[[Connection], _Result]) -> asyncio.Future[_Result]:
        """Queue what `write` does and return at once; it is done even if whoever awaits it is cancelled."""
        return asyncio.wrap_future(self.submit(work))

    def submit(self, work: Callable[[Connection], _Result]) -> Future[_Result]:
        """Queue what `write` does and return at once: for callers that cannot wait, as one that was cancelled."""
        return self._threads.submit(self._run, work, psycopg.Connection.commit)

    async def read(self, work: Callable[[Connection], _Result]) -> _Result:
        """Run `work`, which must not write, in a transaction that is rolled back: it sees one moment."""
        return await asyncio.wrap_future(self._threads.submit(self._run, work, psycopg.Connection.rollback))

    async def close(self) -> None:
        """Finish what was begun and disconnect, even if the caller is cancelled; once closed, it stays closed."""
        self._threads.shutdown(wait=False)
        await asyncio.to_thread(self._disconnect)

    def _disconnect(self) -> None:
        self._threads.shutdown()
        while self._connections:
            self._connections.pop().close()

    def _run(self, work: Callable[[Connection], _Result], end: Callable[[psycopg.Connection[Any]], None]) -> _Result:
        self._prepare()
        for last in _attempts(self._patience):
            connection = None
            ending = False
            try:
                connection = self._connection()
                result = work(self._begun(connection))
                if connection.info.transaction_status is TransactionStatus.INERROR:
                    raise RuntimeError("work on a transaction went on after a statement of it had failed")
                ending = True
                end(connection)
            except psycopg.Error as error:
                committing = ending and end is psycopg.Connection.commit
                if committing and connection is not None and connection.closed and error.sqlstate != _IDLE:
                    raise StoreUnavailable(
                        f"{self.path} was lost while it stored something, and whether it did is not known; "
                        "resume the thread once the server is back"
                    ) from error
                if last or not passes(error):
                    raise told(self._url, error) from error
            else:
                return result
            finally:
                if connection is not None:
                    _reset(connection)
        raise AssertionError  # the last attempt returns or raises

    def _connection(self) -> psycopg.Connection[tuple[Any, ...]]:
        own: psycopg.Connection[tuple[Any, ...]] | None = getattr(self._own, "connection", None)
        if own is None or own.closed:
            if own is not None:
                self._connections.remove(own)
                self._own.connection = None
            self._own.connection = own = connect(self._url)
            self._connections.append(own)
            self._set_up(own)
        return own

    def _set_up(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        connection.autocommit = False
        connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE

    def _begun(self, connection: psycopg.Connection[tuple[Any, ...]]) -> Connection:
        if self._clock is not None:
            local = not connection.autocommit  # else there is no transaction for it to be local to
            connection.execute(_SET_TIME, (str(self._clock.now()), local, str(self._clock.monotonic()), local))
        return _Transaction(connection)


class _Transaction:
    """A psycopg connection as `tidegate.store.transactions.Connection`."""

    def __init__(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        self._connection = connection

    def execute(self, sql: str, parameters: tuple[Any, ...] = (), /) -> Cursor:
        values = [int(value) if isinstance(value, bool) else value for value in parameters]  # as SQLite has it
        return self._connection.execute(dialect.query(sql).encode(), values)


def _reset(connection: psycopg.Connection[Any]) -> None:
    try:
        if not connection.closed:
            connection.rollback()
    except psycopg.Error:  # it is lost, and with it the transaction
        connection.close()


def _attempts(patience: float) -> Iterator[bool]:
    """Yield at once, then after pauses that grow to a second; True for the last time, when `patience` is over."""
    deadline = time.monotonic() + patience
    pause = 0.001
    while (left := deadline - time.monotonic()) > 0:
        yield False
        time.sleep(min(pause, max(left, 0)))
        pause = min(pause * 2, 1.0)
    yield True
