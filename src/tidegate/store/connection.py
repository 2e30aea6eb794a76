"""Opening a SQLite file: is it ours, is it whole, is its schema up to date."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from tidegate.errors import SettingsError, StoreDamaged, StoreError
from tidegate.store.clock import Clock
from tidegate.store.codec import Codec

BUSY_TIMEOUT = 30.0
"""Seconds that a transaction waits for another process to finish its own."""

APPLICATION_ID = 0x54696465
"""What marks a SQLite file as Tidegate's: `Tide`."""

WAL_LIMIT = 64 * 1024 * 1024
"""Bytes that the write-ahead log is cut to when it grew beyond."""

_CODES = {
    sqlite3.SQLITE_FULL: ("there is no space left on its disk", "free some and try again"),
    sqlite3.SQLITE_READONLY: ("it cannot be written", "check the permissions of file and folder"),
    sqlite3.SQLITE_BUSY: ("another process held it for too long", "see what that process does"),
    sqlite3.SQLITE_CANTOPEN: ("it cannot be opened", "check that file and folder are there, and their permissions"),
    sqlite3.SQLITE_IOERR: ("its disk failed, or has no space left", "check the disk and try again"),
}
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_NO_TEXT = "Could not decode to UTF-8"


def connect(path: str, clock: Clock) -> sqlite3.Connection:
    """Open a connection that any one thread at a time may use."""
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
    connection.create_function("tidegate_now", 0, clock.now)
    connection.create_function("tidegate_ticks", 0, clock.monotonic)
    connection.execute("PRAGMA foreign_keys = ON")  # reads nothing of the file
    return connection


def connect_reader(path: str, clock: Clock) -> sqlite3.Connection:
    """Open a connection to a file that is open for writing already."""
    connection = connect(path, clock)
    connection.execute("PRAGMA query_only = ON")
    return connection


def connect_writer(
    path: str, migrations: Sequence[str], synchronous: Literal["FULL", "NORMAL"], clock: Clock
) -> sqlite3.Connection:
    """Open the file, creating it if need be, and bring its schema up to date.

    Raises:
        SettingsError: it cannot be used; the message says why and what to do.
        StoreError: it is ours, and damaged; or its disk is full or fails.
    """
    if path != ":memory:" and not Path(path).absolute().parent.is_dir():
        raise SettingsError(f"cannot open {path}: its folder does not exist; create it or name another")
    try:
        connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
        connection.close()  # creates nothing yet, and tells a folder from a file
        connection = connect(path, clock)
    except sqlite3.Error as error:
        raise SettingsError(f"cannot open {path}: {error}; check its permissions or name another file") from error
    try:
        if not _is_ours(connection, path):
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # of effect only before the first table
        _write_ahead(connection)
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.execute("PRAGMA secure_delete = ON")  # what is forgotten is overwritten; not every SQLite does so
        connection.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT}")
        _refuse_read_only(connection)
        _migrate(connection, path, migrations)
    except (sqlite3.Error, UnicodeDecodeError) as error:
        connection.close()
        if (trouble := _told_at_opening(path, error)) is not None:
            raise trouble from error
        foreign = getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_NOTADB
        way_out = f"{'' if foreign else 'make it writable, '}move it away or name another file"
        raise SettingsError(f"cannot use {path}: {error}; {way_out}") from error
    except BaseException:
        connection.close()
        raise
    return connection


def told(path: str, error: sqlite3.Error | UnicodeDecodeError) -> StoreError | None:
    """Return what an error of SQLite's means to the file's owner, None if it is a fault of the statement.

    Where SQLite's own message quotes a damaged name, Python cannot decode it.
    """
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in _DAMAGED:
        return StoreDamaged(path, f"it is damaged ({error})", "restore it from a copy")
    if isinstance(error, UnicodeDecodeError) or str(error).startswith(
        _NO_TEXT
    ):  # Python's own, without a code; it quotes what is stored
        return StoreDamaged(path, "it is damaged (text in it is not UTF-8)", "restore it from a copy")
    if code not in _CODES:
        return None
    problem, way_out = _CODES[code]
    return StoreError(path, f"{problem} ({error})", way_out)


def _told_at_opening(path: str, error: sqlite3.Error | UnicodeDecodeError) -> StoreError | None:
    """Return what an error means to the file's owner, None if they named what is none of ours, or gave no right to."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOTADB):
        return None
    if code == sqlite3.SQLITE_CORRUPT or isinstance(error, UnicodeDecodeError):
        with Path(path).open("rb") as file:
            if int.from_bytes(file.read(72)[68:], "big") != APPLICATION_ID:  # where SQLite keeps it
                return None
    return told(path, error)


def _is_ours(connection: sqlite3.Connection, path: str) -> bool:
    """Whether the file is Tidegate's already; False if it is new."""
    connection.execute("BEGIN")  # both questions of one state: another process may be making the file
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    connection.execute("COMMIT")
    if not tables or application_id == APPLICATION_ID:
        return bool(tables)
    if {"checkpoints", "writes"} <= tables:
        raise SettingsError(
            f"{path} is a langgraph-checkpoint-sqlite database; name another file, which "
            f"`tidegate import {path}` takes it over into"
        )
    raise SettingsError(f"{path} is the database of another application; name another file")


def _write_ahead(connection: sqlite3.Connection) -> None:
    # SQLite does not wait by itself while another process does the same, or closes the file: of 600 openings, four
    # processes at a time on one new file, one failed with "database is locked".
    for _ in range(int(BUSY_TIMEOUT / 0.01)):
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            time.sleep(0.01)
        else:
            return
    connection.execute("PRAGMA journal_mode = WAL")


def _refuse_read_only(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA busy_timeout = 0")
    try:
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.execute(f"PRAGMA user_version = {_version(connection)}")  # BEGIN alone only reads such a file
        finally:
            connection.execute("ROLLBACK")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:  # whoever holds it could write
            raise
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT * 1000:.0f}")


def _migrate(connection: sqlite3.Connection, path: str, migrations: Sequence[str]) -> None:
    if _version(connection) == len(migrations) > 0:
        return  # without waiting for whoever writes
    connection.create_function("tidegate_pack", 1, Codec().pack)
    connection.execute("BEGIN IMMEDIATE")  # two processes may open a new file at once
    version = _version(connection)
    if version > len(migrations):
        raise SettingsError(f"{path} has schema version {version}, this code knows {len(migrations)}; upgrade tidegate")
    for script in migrations[version:]:
        for statement in script.split(";"):
            if statement.strip():
                connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {len(migrations)}")
    connection.execute("COMMIT")


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
