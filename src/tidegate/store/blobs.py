"""Values by their content: each is stored once, whoever names it and however often."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

from tidegate.store import rows

if TYPE_CHECKING:
    from tidegate.store.codec import Codec
    from tidegate.store.transactions import Connection


INLINE = 256
"""Bytes below which a value stands in the row that needs it: naming a blob costs 32 bytes of hash and a look-up."""

LARGE = 4096
"""Bytes from which on an item of a dictionary is a blob of its own, since it may well stand elsewhere too."""

_MAX_ITEMS = 64  # larger dictionaries are collections of alike things, which are not looked through
_MAX_DEPTH = 4
_MAX_KNOWN = 4_000_000  # characters
_TEXT = "text"
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
    """A serialized value, whose large items are values of their own; `size` is in bytes, with all of them.

    A large text is `text` as well, and only that if its digest is known: then there is likely no need for its bytes.
    """

    kind: str
    data: bytes
    size: int
    parts: tuple[tuple[str, Value], ...] = ()
    text: str | None = None
    digest: bytes | None = None


_NONE = Value("null", b"", 0)
_Named: TypeAlias = tuple[Value, list[tuple[str, bytes]]]
"""A value with the keys and digests of its parts."""


class Texts:
    """The digests and sizes of texts that were stored lately: a document is in every checkpoint of its thread.

    Finding the same object again costs next to nothing, where serializing and hashing 200 kB costs a third of a
    millisecond. Any thread may ask; only the writer tells.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[bytes, int]] = {}
        self._characters = 0

    def get(self, text: str) -> tuple[bytes, int] | None:
        """Return the digest and the size in bytes, None if it is not known."""
        return self._known.get(text)

    def put(self, text: str, digest: bytes, size: int) -> None:
        """Remember a text, and forget the oldest where they become too much."""
        if text in self._known or len(text) > _MAX_KNOWN:
            return
        self._known[text] = (digest, size)
        self._characters += len(text)
        while self._characters > _MAX_KNOWN:
            oldest = next(iter(self._known))
            del self._known[oldest]
            self._characters -= len(oldest)


class Blob(NamedTuple):
    """What is stored of a value: the same, unpacked, with the IDs of its parts."""

    kind: str
    data: bytes
    parts: tuple[tuple[str, int], ...]


def serialize(value: Any, serde: Serializer, texts: Texts, depth: int = 1) -> Value:
    """Serialize a value; done by the caller, who may change it afterwards."""
    if value is None:
        return _NONE
    if type(value) is str and len(value) >= LARGE:
        return _serialize_text(value, texts)
    if type(value) is not dict or len(value) > _MAX_ITEMS or depth == _MAX_DEPTH:
        kind, data = serde.dumps_typed(value)
        return Value(kind, data, len(data))
    parts = [
        (key, _serialize_text(item, texts))
        for key, item in value.items()
        if type(item) is str and len(item) >= LARGE and _is_plain(key)
    ]
    rest = {**value, **dict.fromkeys([key for key, _ in parts])} if parts else value
    kind, data = serde.dumps_typed(rest)
    if not parts and len(data) < LARGE:
        return Value(kind, data, len(data))
    if len(data) >= LARGE:
        left = len(data)
        for key, item in rest.items():
            if left < LARGE:  # so is each of the items that are left
                break
            if type(item) in (bytes, dict, list) and _is_plain(key):
                part = serialize(item, serde, texts, depth + 1)
                left -= part.size
                if part.size >= LARGE:
                    parts.append((key, part))
        if parts:
            kind, data = serde.dumps_typed({**value, **dict.fromkeys([key for key, _ in parts])})
    return Value(kind, data, len(data) + sum(part.size for _, part in parts), tuple(parts))


def _serialize_text(text: str, texts: Texts) -> Value:
    known = texts.get(text)
    if known is not None:
        return Value(_TEXT, b"", known[1], (), text, known[0])
    data = text.encode("utf-8", "surrogatepass")
    return Value(_TEXT, data, len(data), (), text)


def _is_plain(key: Any) -> bool:
    return type(key) is str and key.isascii()


def store(connection: sqlite3.Connection, values: Sequence[Value], codec: Codec) -> list[Stored]:
    """Return what rows hold of these values, storing those blobs that there are not yet.

    A blob is looked for, or stored, in the transaction that names it, and removed only in one that finds no name for
    it: as SQLite lets one transaction write at a time, whatever is named is there.
    """
    wanted: dict[bytes, _Named] = {}
    digests = [None if value.size < INLINE else _name(value, codec, wanted) for value in values]
    if not wanted:  # all are small, as what most tasks write
        return [(value.kind, codec.pack(value.data), None) for value in values]
    ids = dict(rows.select(connection, "SELECT digest, id FROM blobs WHERE digest", list(wanted)))
    new = {digest: named for digest, named in wanted.items() if digest not in ids}
    ids |= rows.insert(
        connection,
        "INSERT INTO blobs (digest, kind, data)",
        [(digest, value.kind, codec.pack(_bytes_of(value))) for digest, (value, _) in new.items()],
        "RETURNING digest, id",
    )
    rows.insert(
        connection,
        "INSERT INTO blob_parts (blob, key, part)",
        [(ids[digest], key, ids[part]) for digest, (_, parts) in new.items() for key, part in parts],
    )
    return [
        (value.kind, codec.pack(value.data), None) if digest is None else (None, None, ids[digest])
        for value, digest in zip(values, digests, strict=True)
    ]


def _name(value: Value, codec: Codec, wanted: dict[bytes, _Named]) -> bytes:
    """Return the value's digest, and add the value and its parts to those wanted."""
    parts = [(key, _name(part, codec, wanted)) for key, part in value.parts]
    digest = value.digest
    if digest is None and value.text is not None and (known := codec.texts.get(value.text)) is not None:
        digest, _ = known  # stored since it was serialized
    if digest is None:
        named = (name for key, part in parts for name in (f"{len(key)}:{key}".encode(), part))
        digest = codec.digest((f"{value.kind}:{len(value.data)}:".encode(), value.data, *named))
        if value.text is not None:
            codec.texts.put(value.text, digest, value.size)
    wanted[digest] = (value, parts)
    return digest


def _bytes_of(value: Value) -> bytes:
    return value.data if value.text is None else value.text.encode("utf-8", "surrogatepass")


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
    if kind == _TEXT:
        return data.decode("utf-8", "surrogatepass")
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


def give_back(connection: Connection) -> None:
    """Give the space that nothing uses any more back to the disk; in a transaction, after what made it free.

    PostgreSQL does so by itself.
    """
    if not isinstance(connection, sqlite3.Connection):
        return
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    for _ in range(free):  # sqlite3 stops this pragma after one page, as it returns no columns
        connection.execute("PRAGMA incremental_vacuum(1)")
