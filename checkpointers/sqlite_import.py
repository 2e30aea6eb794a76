"""Threads of a `langgraph-checkpoint-sqlite` database -> ours, without that package and without loading any type."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import ormsgpack

from tidegate.checkpointers import sqlite_rows
from tidegate.checkpointers.saving import Address
from tidegate.checkpointers.sqlite_rows import TaskWrites
from tidegate.errors import SettingsError
from tidegate.store import blobs
from tidegate.store.codec import Codec

_Read = TypeVar("_Read")

_BATCH = 100
"""Checkpoints in one transaction."""

_KINDS = ("msgpack", "null", "bytes", "bytearray")
_OPTIONS = ormsgpack.OPT_NON_STR_KEYS


class Source:
    """The database to take over, which is only read.

    Values are taken apart and put together again without being loaded, so that a value of a type that this process does
    not know, or may not load, is the same in the end.
    """

    def __init__(self, path: str | Path, codec: Codec) -> None:
        self._path = str(path)
        self._codec = codec

    def works(self) -> Iterator[Callable[[sqlite3.Connection], int]]:
        """Yield what to do, a transaction each; each returns how many checkpoints were new.

        Raises:
            SettingsError: this is no such database, it cannot be read, or is damaged.
        """
        if not Path(self._path).is_file():
            raise SettingsError(f"cannot import {self._path}: there is no such file; name a langgraph database")
        try:
            uri = f"{Path(self._path).absolute().as_uri()}?mode=ro"
            with closing(sqlite3.connect(uri, uri=True, check_same_thread=False)) as source:
                yield from self._works(source)
        except sqlite3.Error as error:
            raise SettingsError(f"cannot import {self._path}: {error}; name a langgraph database") from error

    def _works(self, source: sqlite3.Connection) -> Iterator[Callable[[sqlite3.Connection], int]]:
        source.execute("BEGIN")  # one state, whatever is written there meanwhile
        columns = {name for (name,) in source.execute("SELECT name FROM pragma_table_info('writes')")}
        if not {"thread_id", "checkpoint_ns", "checkpoint_id", "task_id", "idx", "channel", "type", "value"} <= columns:
            raise SettingsError(f"cannot import {self._path}: it has no checkpoints of LangGraph's; name another file")
        task_path = "task_path" if "task_path" in columns else "''"  # which came with 3.1
        checkpoints = source.execute(
            """SELECT thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata
               FROM checkpoints ORDER BY thread_id, checkpoint_ns, checkpoint_id"""
        )
        while rows := checkpoints.fetchmany(_BATCH):
            yield self._putting([self._whole("checkpoint", self._checkpoint, row) for row in rows])
        writes = source.execute(
            f"""SELECT thread_id, checkpoint_ns, checkpoint_id, task_id, {task_path}, idx, channel, type, value
                FROM writes ORDER BY thread_id, checkpoint_ns, checkpoint_id, task_id, idx"""  # noqa: S608 - our names
        )
        while rows := writes.fetchmany(_BATCH):
            yield self._writing([self._whole("a write on checkpoint", self._write, row) for row in rows])

    def _whole(self, what: str, read: Callable[..., _Read], row: tuple[Any, ...]) -> _Read:
        try:
            return read(*row)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:  # it may hold anything
            raise SettingsError(
                f"cannot import {self._path}: {what} {row[2]} of thread {row[0]} is damaged; "
                "delete it there, or restore the file from a copy"
            ) from error

    def _putting(self, batch: list[sqlite_rows.Serialized]) -> Callable[[sqlite3.Connection], int]:
        def put(connection: sqlite3.Connection) -> int:
            new = [each for each in batch if sqlite_rows.find(connection, *each.at) is None]
            sqlite_rows.store(connection, new, self._codec)
            return len(new)

        return put

    def _writing(self, batch: list[TaskWrites]) -> Callable[[sqlite3.Connection], int]:
        def write(connection: sqlite3.Connection) -> int:
            sqlite_rows.store(connection, batch, self._codec, replace=False)
            return 0

        return write

    def _checkpoint(
        self,
        thread_id: str,
        checkpoint_ns: str,
        checkpoint_id: str,
        parent_id: str | None,
        kind: str,
        data: bytes,
        metadata: bytes | str | None,
    ) -> sqlite_rows.Serialized:
        _check_text(thread_id, checkpoint_ns, checkpoint_id, "" if parent_id is None else parent_id)
        kind, data = self._decrypted(kind, data)
        if kind != "msgpack":
            raise TypeError
        checkpoint = _MSGPACK.loads_typed((kind, data))
        return sqlite_rows.serialize(
            Address(thread_id, checkpoint_ns, checkpoint_id),
            parent_id,
            checkpoint,
            json.loads(metadata) if metadata else {},
            _MSGPACK,
            self._codec.texts,
            _seconds(checkpoint.get("ts")),
        )

    def _write(
        self,
        thread_id: str,
        checkpoint_ns: str,
        checkpoint_id: str,
        task_id: str,
        task_path: str,
        index: int,
        channel: str,
        kind: str,
        data: bytes,
    ) -> TaskWrites:
        _check_text(thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, channel)
        if type(index) is not int:
            raise TypeError
        value = self._value(kind, data)
        return TaskWrites(
            Address(thread_id, checkpoint_ns, checkpoint_id), [(index, channel, value)], task_id, task_path
        )

    def _value(self, kind: str, data: bytes) -> blobs.Value:
        kind, data = self._decrypted(kind, data)
        if kind == "msgpack":
            return blobs.serialize(_MSGPACK.loads_typed((kind, data)), _MSGPACK, self._codec.texts)
        return blobs.Value(kind, data, len(data))

    def _decrypted(self, kind: str, data: bytes | None) -> tuple[str, bytes]:
        if not isinstance(data, bytes | None):
            raise TypeError
        kind, _, cipher = kind.partition("+")
        if kind not in _KINDS:
            raise SettingsError(
                f"cannot import {self._path}: it holds values of the kind {kind!r}, which are not loaded"
            )
        try:
            return kind, self._codec.decrypt(cipher, data or b"") if cipher else data or b""
        except ValueError as error:
            raise SettingsError(
                f"cannot import {self._path}: it is encrypted with another key; give that one"
            ) from error


class _Untyped:
    """Reads msgpack without making any object of what it names, and writes the same again."""

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        if obj is None:
            return "null", b""
        if isinstance(obj, bytes):
            return "bytes", obj
        return "msgpack", ormsgpack.packb(obj, option=_OPTIONS)

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        return ormsgpack.unpackb(data[1], ext_hook=ormsgpack.Ext, option=_OPTIONS)


_MSGPACK = _Untyped()


def _check_text(*values: object) -> None:
    if not all(isinstance(value, str) for value in values):  # a column of theirs takes any type, and ours none else
        raise TypeError


def _seconds(timestamp: object) -> float | None:
    try:
        return datetime.fromisoformat(str(timestamp)).timestamp()
    except ValueError:
        return None
