"""Values by their content: each is stored once, whoever names it and however often."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias

from tidegate.store.codec import Codec

INLINE = 256
"""Bytes below which a value stands in the row that needs it: naming a blob costs 32 bytes of hash and a look-up."""

LARGE = 4096
"""Bytes from which on an item of a dictionary is a blob of its own, since it may well stand elsewhere too."""

_MAX_ITEMS = 64  # larger dictionaries are collections of alike things, which are not looked through
_MAX_DEPTH = 4
_KINDS = frozenset({"null", "bytes", "bytearray", "msgpack"})

Stored: TypeAlias = tuple[str | None, bytes | None, int | None]
"""The columns kind, value and blob: a small value with its kind, or the blob of a large one."""


class Serializer(Protocol):
    """What LangGraph calls a serializer."""

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """Return kind and bytes."""
        ...

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """Return the value again."""
        ...


class Value(NamedTuple):
    """A serialized value, whose large items are values of their own; `size` is in bytes, with all of them."""

    kind: str
    data: bytes
    size: int
    parts: tuple[tuple[str, Value], ...] = ()


class Blob(NamedTuple):
    """What is stored of a value: the same, unpacked, with the IDs of its parts."""

    kind: str
    data: bytes
    parts: tuple[tuple[str, int], ...]


def serialize(value: Any, serde: Serializer, depth: int = 1) -> Value:
    """Serialize a value; done by the caller, who may change it afterwards."""
    kind, data = serde.dumps_typed(value)
    if len(data) < LARGE or type(value) is not dict or len(value) > _MAX_ITEMS or depth == _MAX_DEPTH:
        return Value(kind, data, len(data))
    parts, rest = [], dict(value)
    for key, item in value.items():
        if type(key) is str and key.isascii() and type(item) in (str, bytes, dict, list):
            part = serialize(item, serde, depth + 1)
            if part.size >= LARGE:
                parts.append((key, part))
                rest[key] = None
    if not parts:
        return Value(kind, data, len(data))
    kind, data = serde.dumps_typed(rest)
    return Value(kind, data, len(data) + sum(part.size for _, part in parts), tuple(parts))


def store(connection: sqlite3.Connection, value: Value, codec: Codec) -> Stored:
    """Return what a row holds of a value, storing its blob if there is none yet.

    The blob is looked for, or stored, in the transaction that names it, and removed only in one that finds no name for
    it: as SQLite lets one transaction write at a time, whatever is named is there.
    """
    if value.size < INLINE:
        return value.kind, codec.pack(value.data), None
    return None, None, _blob(connection, value, codec)[0]


def _blob(connection: sqlite3.Connection, value: Value, codec: Codec) -> tuple[int, bytes]:
    parts = [(key, *_blob(connection, part, codec)) for key, part in value.parts]
    named = (part for key, _, digest in parts for part in (f"{len(key)}:{key}".encode(), digest))
    digest = codec.digest((f"{value.kind}:{len(value.data)}:".encode(), value.data, *named))
    row = connection.execute("SELECT id FROM blobs WHERE digest = ?", (digest,)).fetchone()
    if row is not None:
        return row[0], digest
    inserted = connection.execute(
        "INSERT INTO blobs (digest, kind, data) VALUES (?, ?, ?)", (digest, value.kind, codec.pack(value.data))
    )
    blob = inserted.lastrowid
    assert blob is not None  # noqa: S101 - sqlite3's type says that it may be None, which an INSERT never leaves it
    connection.executemany(
        "INSERT INTO blob_parts (blob, key, part) VALUES (?, ?, ?)", [(blob, key, part) for key, part, _ in parts]
    )
    return blob, digest


def fetch(connection: sqlite3.Connection, blobs: Iterable[int], codec: Codec) -> dict[int, Blob]:
    """Return these blobs and all that they are made of.

    Raises:
        ValueError: one is damaged.
    """
    found: dict[int, Blob] = {}
    wanted = set(blobs)
    while wanted:
        ids = json.dumps(sorted(wanted))
        parts: dict[int, list[tuple[str, int]]] = {}
        for blob, key, part in connection.execute(
            "SELECT blob, key, part FROM blob_parts WHERE blob IN (SELECT value FROM json_each(?))", (ids,)
        ):
            parts.setdefault(blob, []).append((key, part))
        for blob, kind, data in connection.execute(
            "SELECT id, kind, data FROM blobs WHERE id IN (SELECT value FROM json_each(?))", (ids,)
        ):
            found[blob] = Blob(kind, codec.unpack(data), tuple(parts.get(blob, ())))
        wanted = {part for each in parts.values() for _, part in each} - found.keys()
    return found


def load(stored: Stored, blobs: Mapping[int, Blob], codec: Codec, serde: Serializer, depth: int = 1) -> Any:
    """Return a value, made anew: its caller may change it.

    Raises:
        ValueError: it is damaged, or of a kind that is never stored here, pickle among them.
    """
    kind, data, blob = stored
    parts: tuple[tuple[str, int], ...] = ()
    if blob is None:
        data = codec.unpack(data or b"")
    elif blob in blobs:
        kind, data, parts = blobs[blob].kind, blobs[blob].data, blobs[blob].parts
    if data is None:
        raise ValueError("names a blob that is not there")
    value = deserialize(kind, data, serde)
    for key, part in parts:
        if type(value) is not dict or key not in value or depth == _MAX_DEPTH:
            raise ValueError("holds a value whose parts do not fit it")
        value[key] = load((None, None, part), blobs, codec, serde, depth + 1)
    return value


def deserialize(kind: str | None, data: bytes, serde: Serializer) -> Any:
    """Return what was serialized.

    Raises:
        ValueError: it is no such thing, or of a kind that is never stored here, pickle among them.
    """
    if kind not in _KINDS:
        raise ValueError(f"holds a value of the kind {kind!r}, which is never stored here")
    try:
        return serde.loads_typed((kind, data))
    except Exception as error:
        raise ValueError(f"holds a value that cannot be loaded ({type(error).__name__})") from error


def sweep(connection: sqlite3.Connection, candidates: Collection[int]) -> None:
    """Remove those of these blobs that nothing names any more, and what they alone were made of."""
    wanted = set(candidates)
    while wanted:
        ids = json.dumps(sorted(wanted))
        unused = [
            blob
            for (blob,) in connection.execute(
                """SELECT id FROM blobs WHERE id IN (SELECT value FROM json_each(?))
                   AND NOT EXISTS (SELECT 1 FROM channel_values WHERE blob = blobs.id)
                   AND NOT EXISTS (SELECT 1 FROM writes WHERE blob = blobs.id)
                   AND NOT EXISTS (SELECT 1 FROM blob_parts WHERE part = blobs.id)""",
                (ids,),
            )
        ]
        ids = json.dumps(unused)
        wanted = {
            part
            for (part,) in connection.execute(
                "SELECT part FROM blob_parts WHERE blob IN (SELECT value FROM json_each(?))", (ids,)
            )
        }
        connection.execute("DELETE FROM blobs WHERE id IN (SELECT value FROM json_each(?))", (ids,))


def give_back(connection: sqlite3.Connection) -> None:
    """Give the space that nothing uses any more back to the disk; in a transaction, after what made it free."""
    connection.execute("PRAGMA incremental_vacuum").fetchall()
