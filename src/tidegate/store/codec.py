"""How values are kept: checked, compressed, and encrypted where there is a key."""

from __future__ import annotations

import hashlib
import hmac
import os
import sqlite3
import struct
import threading
import zlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeAlias

import zstandard

from tidegate.errors import MissingExtra, SettingsError
from tidegate.store.blobs import Texts

if TYPE_CHECKING:
    from langgraph.checkpoint.serde.base import CipherProtocol

Key: TypeAlias = bytes | Callable[[], bytes]

KEY_VARIABLE = "TIDEGATE_ENCRYPTION_KEY"
COMPRESS_FROM = 1024
"""Bytes from which on a value is compressed: below, the frame costs what is saved."""

MAX_BYTES = 1 << 30
"""Largest value that is unpacked, in bytes: SQLite stores none that is larger, and a forged one could name any size."""

_LEVEL = 3
_COMPRESSED, _ENCRYPTED = 1, 2
_CHECKSUM_BYTES = 4
_HEAD = struct.Struct(">BI")


class Codec:
    """Packs values: a byte that says how, then a checksum and the value, compressed if large, then encrypted.

    Values are identified by SHA-256, or under a key by HMAC-SHA-256, so that nobody without the key can tell from these
    names whether an encrypted file holds a value that they know. (Of documents the file tells: they go by their plain
    SHA-256, which threads are named for.) The order matters: compressed or encrypted first, equal
    values would not be found to be equal.
    """

    def __init__(self, key: Key | None = None) -> None:
        """Take a key of 16, 24 or 32 bytes, for AES as in LangGraph's `EncryptedSerializer`; None stores plainly.

        Raises:
            SettingsError: the key has another length, or the extra `encryption` is not installed.
        """
        self.texts = Texts()
        key = key() if callable(key) else key
        if key is not None and not isinstance(key, bytes):
            raise SettingsError("an encryption key is given as bytes, as b'...'")
        self._cipher = None if key is None else _cipher(key)
        self._mac_key = None if key is None else hmac.digest(key, b"tidegate: names of values", "sha256")
        self._proof = None if key is None else hmac.digest(key, b"tidegate: is this the key", "sha256")
        self._local = threading.local()  # zstd's contexts are not for two threads at once

    @property
    def encrypts(self) -> bool:
        """Whether there is a key."""
        return self._cipher is not None

    def digest(self, parts: Iterable[bytes]) -> bytes:
        """Return the 32 bytes that identify a value, given in parts."""
        made = hmac.new(self._mac_key, digestmod="sha256") if self._mac_key else hashlib.sha256()
        for part in parts:
            made.update(part)
        return made.digest()

    def pack(self, data: bytes) -> bytes:
        """Return what to store.

        Raises:
            ValueError: it is larger than what is unpacked again.
        """
        if len(data) < COMPRESS_FROM and self._cipher is None:  # most values are
            return _HEAD.pack(0, zlib.crc32(data)) + data
        if len(data) + _CHECKSUM_BYTES > MAX_BYTES:
            raise ValueError(
                f"a value of {len(data)} bytes cannot be stored; {MAX_BYTES - _CHECKSUM_BYTES} is the most"
            )
        how, packed = 0, zlib.crc32(data).to_bytes(_CHECKSUM_BYTES, "big") + data
        if len(data) >= COMPRESS_FROM:
            compressed = self._compressor().compress(packed)
            if len(compressed) < len(packed):
                how, packed = _COMPRESSED, compressed
        if self._cipher is not None:
            _, packed = self._cipher.encrypt(packed)
            how |= _ENCRYPTED
        return bytes((how,)) + packed

    def unpack(self, stored: bytes) -> bytes:
        """Return what was packed.

        Raises:
            ValueError: it was damaged, was not encrypted although there is a key, or the other way round.
        """
        how, packed = stored[:1], stored[1:]
        if how not in (b"\0", b"\1", b"\2", b"\3"):
            raise ValueError("is damaged, or was not packed by this version")
        if bool(how[0] & _ENCRYPTED) != self.encrypts:
            raise ValueError("is not encrypted" if self.encrypts else "is encrypted, and no key was given")
        if self._cipher is not None:
            packed = self._cipher.decrypt("aes", packed)  # a ValueError too, where it is not what was encrypted
        if how[0] & _COMPRESSED:
            try:
                if not 0 <= zstandard.frame_content_size(packed) <= MAX_BYTES:
                    raise ValueError("is damaged: it says that it is larger than anything stored")
                packed = self._decompressor().decompress(packed)
            except zstandard.ZstdError as error:
                raise ValueError(f"is damaged: {error}") from error
        checksum, data = packed[:_CHECKSUM_BYTES], packed[_CHECKSUM_BYTES:]
        if zlib.crc32(data).to_bytes(_CHECKSUM_BYTES, "big") != checksum:
            raise ValueError("is damaged: its checksum differs")
        return data

    def decrypt(self, cipher: str, data: bytes) -> bytes:
        """Return what LangGraph's `EncryptedSerializer` encrypted with this key.

        Raises:
            ValueError: it was encrypted with another one.
        """
        if self._cipher is None or cipher != "aes":
            raise ValueError(f"is encrypted with {cipher!r}, and this key is for none or another cipher")
        return self._cipher.decrypt(cipher, data)

    def open(self, connection: sqlite3.Connection, path: str) -> None:
        """Check that the file is for this key, or for none; a new one is from now on.

        Raises:
            SettingsError: it has another key, or it has one and none was given, or the other way round.
        """
        row = connection.execute("SELECT proof FROM encryption").fetchone()
        if row is not None and self._proof is None:
            raise SettingsError(f"{path} is encrypted; give its key in {KEY_VARIABLE}")
        if row is not None and self._proof is not None and not hmac.compare_digest(bytes(row[0]), self._proof):
            raise SettingsError(f"{path} is encrypted with another key; give that one in {KEY_VARIABLE}")
        if row is None and self._proof is not None:
            connection.execute("BEGIN IMMEDIATE")
            try:
                if connection.execute("SELECT 1 FROM encryption").fetchone() is None:  # another may have been faster
                    if _holds_anything(connection):
                        raise SettingsError(
                            f"{path} was written without encryption, and a key was given; "
                            "take it away, or name a new file"
                        )
                    connection.execute("INSERT INTO encryption (id, proof) VALUES (1, ?)", (self._proof,))
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            self.open(connection, path)

    def _compressor(self) -> zstandard.ZstdCompressor:
        if not hasattr(self._local, "compressor"):
            self._local.compressor = zstandard.ZstdCompressor(level=_LEVEL)
        compressor: zstandard.ZstdCompressor = self._local.compressor
        return compressor

    def _decompressor(self) -> zstandard.ZstdDecompressor:
        if not hasattr(self._local, "decompressor"):
            self._local.decompressor = zstandard.ZstdDecompressor()
        decompressor: zstandard.ZstdDecompressor = self._local.decompressor
        return decompressor


def key_from_environment() -> bytes | None:
    """Return the key that the variable holds, None without one.

    Raises:
        SettingsError: it is set and empty, as where a secret was not mounted: who meant to encrypt shall not store
            plainly.
    """
    key = os.environ.get(KEY_VARIABLE)
    if key == "":
        raise SettingsError(f"{KEY_VARIABLE} is empty; set it to the key, or unset it to store without encryption")
    return None if key is None else os.fsencode(key)  # bytes that are no text too


def _holds_anything(connection: sqlite3.Connection) -> bool:
    tables = ("documents", "threads", "checkpoints", "calls")
    return any(connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() for table in tables)  # noqa: S608 - ours


def _cipher(key: bytes) -> CipherProtocol:
    if len(key) not in (16, 24, 32):
        raise SettingsError(f"an encryption key has 16, 24 or 32 bytes, and this one has {len(key)}")
    try:
        from langgraph.checkpoint.serde.encrypted import EncryptedSerializer

        return EncryptedSerializer.from_pycryptodome_aes(key=key).cipher
    except ImportError as error:
        raise MissingExtra("encryption at rest", "encryption") from error
