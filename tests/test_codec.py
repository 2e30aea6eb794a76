"""How values are kept: what was damaged or is for another key is refused, never half read."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
import zlib
from pathlib import Path

import pytest
import zstandard

from tidegate.errors import MissingExtra, SettingsError
from tidegate.settings import Settings
from tidegate.store.codec import KEY_VARIABLE, MAX_BYTES, Codec, key_from_environment
from tidegate.store.documents import Documents
from tidegate.store.opening import store_at

KEY = b"0123456789abcdef"
LONG = b"a sentence that is often repeated. " * 100


def compressed(data: bytes, *, size: int | None = None) -> bytes:
    """Return a packed value by hand; `size` is how large it says to be."""
    frame = zstandard.ZstdCompressor().compress(zlib.crc32(data).to_bytes(4, "big") + data)
    if size is not None:  # frame header: magic number, a byte of flags, here for a size of 8 bytes, and the size
        frame = frame[:4] + b"\xe0" + size.to_bytes(8, "little") + frame[7:]
    return b"\1" + frame


@pytest.mark.parametrize("data", [b"", b"short", LONG])
@pytest.mark.parametrize("key", [None, KEY])
def test_what_was_packed_comes_back(data: bytes, key: bytes | None) -> None:
    assert Codec(key).unpack(Codec(key).pack(data)) == data


@pytest.mark.parametrize(
    ("stored", "problem"),
    [
        (b"", "damaged, or was not packed"),
        (b"\x09", "damaged, or was not packed"),
        (Codec().pack(b"short")[:-1], "its checksum differs"),
        (Codec().pack(LONG)[:-1], "is damaged: "),
        (b"\1no frame", "is damaged: "),
        (compressed(LONG, size=MAX_BYTES + 1), "says that it is larger than anything stored"),
    ],
)
def test_what_was_damaged_is_refused(stored: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Codec().unpack(stored)


@pytest.mark.parametrize(
    ("written", "read", "problem"),
    [
        (None, KEY, "is not encrypted"),
        (KEY, None, "is encrypted, and no key was given"),
        (KEY, b"another key 0123", "MAC check failed"),
    ],
)
def test_what_is_for_another_key_is_refused(written: bytes | None, read: bytes | None, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Codec(read).unpack(Codec(written).pack(LONG))


def test_what_would_not_be_unpacked_again_is_not_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidegate.store.codec.MAX_BYTES", 10_004)
    assert len(Codec().unpack(Codec().pack(bytes(10_000)))) == 10_000
    with pytest.raises(ValueError, match="a value of 10001 bytes cannot be stored; 10000 is the most"):
        Codec().pack(bytes(10_001))


def test_a_key_may_be_bytes_that_are_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    key = b"\xff\xfe" + KEY[2:]
    monkeypatch.setenv(KEY_VARIABLE, os.fsdecode(key))
    assert key_from_environment() == key
    assert Settings().key == key


def test_the_extra_that_a_key_needs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "Crypto.Cipher", None)
    with pytest.raises(MissingExtra, match=r"pip install 'tidegate\[encryption\]'"):
        Codec(KEY)


ROWS = {
    "documents": "INSERT INTO documents (sha256, data, taken_at) VALUES ('a', x'00', 1.0)",
    "checkpoints": "INSERT INTO checkpoints (thread_id, checkpoint_ns, checkpoint_id) VALUES ('a', '', '1')",
    "calls": """INSERT INTO calls (cache_key, service, operation, idempotency_key, intended_at)
                VALUES ('a', 'enrichment', 'look_up', 'b', 1.0)""",
    "threads": """INSERT INTO threads
                  (thread_id, document_id, source, status, revision, retryable_missing, fingerprint, updated_at)
                  VALUES ('a', 'b', 'c', 'running', 0, 0, '', 1.0)""",
}


@pytest.mark.parametrize("table", ROWS)
async def test_a_key_is_not_taken_for_a_file_that_holds_anything_plain(table: str, tmp_path: Path) -> None:
    plain = store_at(tmp_path / "t.db")
    await plain.write(lambda connection: connection.execute(ROWS[table]))
    await plain.close()
    encrypted = store_at(tmp_path / "t.db", key=KEY)
    with pytest.raises(SettingsError, match="was written without encryption, and a key was given"):
        await encrypted.open()
    await encrypted.close()


def test_of_two_that_open_a_new_file_with_one_key_at_once_both_can_use_it(tmp_path: Path) -> None:
    first, second = (store_at(tmp_path / "t.db", key=KEY) for _ in range(2))
    connect = second._open

    def overtaken() -> sqlite3.Connection:
        connection = connect()

        def overtake(statement: str) -> None:
            if statement == "BEGIN IMMEDIATE":
                connection.set_trace_callback(None)
                first.open_sync()
                asyncio.run(Documents(first).put(LONG))

        connection.set_trace_callback(overtake)
        return connection

    second._open = overtaken  # type: ignore[method-assign]
    second.open_sync()
    for each in (first, second):
        each.close_sync()


def test_an_empty_key_is_refused_and_not_taken_for_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_ENCRYPTION_KEY", "")
    with pytest.raises(SettingsError, match="TIDEGATE_ENCRYPTION_KEY is empty; set it"):
        store_at(tmp_path / "t.db")
