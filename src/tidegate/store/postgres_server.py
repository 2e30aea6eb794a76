"""The way to a PostgreSQL server: connections set up for our schema, its versions, and which failures pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from psycopg.adapt import AdaptersMap
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.string import StrDumperUnknown, TextLoader

from tidegate.errors import SettingsError, StoreDamaged, StoreError, StoreUnavailable
from tidegate.store.postgres_url import PostgresUrl

PATIENCE = 30.0
"""Seconds that an operation tries again while the server restarts or connections are lost."""

IDLE_IN_TRANSACTION = 30.0
"""Seconds after which the server ends the transaction of a process that hangs, or of a machine that is gone: what it
has locked, a lease for one, is free again."""

_DEFAULTS: Final[dict[str, Any]] = {
    "connect_timeout": 10,
    "fallback_application_name": "tidegate",
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}
_HAS_TABLE: Final = """
    SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = %s
"""
_PASSING = {"40001", "40P01", "53300", "57P01", "57P02", "57P03", "25P03", "25P04"}
# serialization, deadlock, too many connections, shutdowns, starting up, idle too long, transaction too long
_DAMAGED = {"XX001", "XX002"}  # data, index


def conninfo(url: PostgresUrl) -> dict[str, Any]:
    """Return what psycopg connects by.

    Raises:
        SettingsError: an option of the URL is unknown or malformed.
    """
    try:
        given = conninfo_to_dict(url.conninfo)
    except psycopg.Error as error:
        raise SettingsError(f"cannot read the options of {url.shown}: {url.hide(error)}") from None
    return {**_DEFAULTS, **given, "client_encoding": "UTF8"}


def session(url: PostgresUrl) -> bytes:
    """Return the statement that sets a connection up: our schema and no other."""
    timeout = f"SET idle_in_transaction_session_timeout = '{IDLE_IN_TRANSACTION}s'"
    return f"SET search_path = {url.schema}; {timeout}".encode()


def connect(url: PostgresUrl) -> psycopg.Connection[tuple[Any, ...]]:
    """Connect, in autocommit mode.

    Raises:
        psycopg.Error: the server cannot be reached or refuses.
    """
    connection = psycopg.connect(**conninfo(url), autocommit=True)
    try:
        keep_nul(connection.adapters)
        connection.execute(session(url))
    except BaseException:
        connection.close()
        raise
    return connection


def passes(error: psycopg.Error) -> bool:
    """Whether the same may succeed later: the connection was lost, or another transaction was in the way."""
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError)
    return error.sqlstate in _PASSING or error.sqlstate.startswith("08")


def told(url: PostgresUrl, error: psycopg.Error) -> StoreUnavailable | StoreError:
    """Return what an error of psycopg's means to the database's owner."""
    too_long = isinstance(error, psycopg.errors.ProgramLimitExceeded)  # a name of 10 kB fits no index
    if passes(error) or (isinstance(error, psycopg.OperationalError) and not too_long):
        return StoreUnavailable(
            f"{url.shown} cannot be used: {url.hide(error)}; resume the thread once the server is back"
        )
    problem = error.diag.message_primary or type(error).__name__  # without the details, which may quote a document
    if error.sqlstate in _DAMAGED:
        return StoreDamaged(url.shown, f"it is damaged ({problem})", "restore it from a copy")
    if too_long:
        return StoreError(url.shown, f"the server refuses ({problem})", "choose shorter names")
    way_out = f"check that the schema {url.schema} is whole and that this role may use it"
    return StoreError(url.shown, f"the server refuses ({problem})", way_out)


def prepare(url: PostgresUrl, table: str, scripts: Sequence[str]) -> None:
    """Create the schema if need be and run the scripts that were not run yet; `table` keeps which those are.

    Several processes may do this at once.

    Raises:
        SettingsError: the server cannot be reached, refuses, does not store UTF-8, or its schema is from newer code.
    """
    with _opened(url) as connection:
        encoding = connection.info.parameter_status("server_encoding")
        if encoding != "UTF8":
            raise SettingsError(f"{url.shown} stores text as {encoding}; use a database with the encoding UTF8")
        if _version(connection, url, table) != len(scripts):
            with connection.transaction():
                _upgrade(connection, url, table, scripts)


def is_prepared(url: PostgresUrl, *tables: str) -> bool:
    """Whether `prepare` was ever called with one of these tables; creates nothing.

    Raises:
        SettingsError: the server cannot be reached or refuses.
    """
    with _opened(url) as connection:
        return any(connection.execute(_HAS_TABLE, (url.schema, table)).fetchone() for table in tables)


@contextmanager
def _opened(url: PostgresUrl) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    try:
        with connect(url) as connection:
            yield connection
    except psycopg.errors.InsufficientPrivilege as error:
        way_out = f"let this role own the schema {url.schema}, or name another with ?schema="
        raise SettingsError(f"cannot use {url.shown}: {url.hide(error)}; {way_out}") from None
    except psycopg.Error as error:
        way_out = "check that the server runs, and the host, database, user and password"
        raise SettingsError(f"cannot use {url.shown}: {url.hide(error)}; {way_out}") from None


def _upgrade(
    connection: psycopg.Connection[tuple[Any, ...]], url: PostgresUrl, table: str, scripts: Sequence[str]
) -> None:
    connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"tidegate migrates {url.schema}",))
    version = _version(connection, url, table)
    if version > len(scripts):
        raise SettingsError(
            f"{url.shown} has version {version} of {url.schema}.{table}, this code knows {len(scripts)}; "
            "upgrade tidegate"
        )
    # Not CREATE ... IF NOT EXISTS, which asks for the right to create a schema even where there is one.
    if not connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (url.schema,)).fetchone():
        connection.execute(f"CREATE SCHEMA {url.schema}".encode())
    connection.execute(f"CREATE TABLE IF NOT EXISTS {table} (v INTEGER PRIMARY KEY)".encode())
    for number, script in list(enumerate(scripts))[version:]:
        connection.execute(script.encode())
        connection.execute(f"INSERT INTO {table} (v) VALUES (%s)".encode(), (number,))  # noqa: S608 - our name


def _version(connection: psycopg.Connection[tuple[Any, ...]], url: PostgresUrl, table: str) -> int:
    # Not to_regclass, which still said that there was no such table when the lock's last holder had just made it.
    if not connection.execute(_HAS_TABLE, (url.schema, table)).fetchone():
        return 0
    row = connection.execute(f"SELECT coalesce(max(v) + 1, 0) FROM {table}".encode()).fetchone()  # noqa: S608
    return int(row[0]) if row else 0


# PostgreSQL's text cannot hold U+0000. A noncharacter, which Unicode leaves to programs, marks it, and marks itself.
_MARK = "\ufdd0"


class _NulDumper(StrDumperUnknown):
    def dump(self, obj: str) -> Any:
        if "\0" in obj or _MARK in obj:
            obj = obj.replace(_MARK, f"{_MARK}1").replace("\0", f"{_MARK}0")
        return super().dump(obj)


class _NulLoader(TextLoader):
    def load(self, data: Any) -> str:
        text = str(super().load(data))
        if _MARK in text:
            text = text.replace(f"{_MARK}0", "\0").replace(f"{_MARK}1", _MARK)
        return text


def keep_nul(adapters: AdaptersMap) -> None:
    """Let text hold U+0000 on its way to the server and back."""
    adapters.register_dumper(str, _NulDumper)
    adapters.register_loader("text", _NulLoader)
