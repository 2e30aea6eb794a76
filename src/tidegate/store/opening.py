"""Opening the store: the database of documents, threads and checkpoints."""

from __future__ import annotations

from pathlib import Path

from tidegate.store.clock import Clock
from tidegate.store.codec import Codec, Key, key_from_environment
from tidegate.store.database import Database, Synchronous
from tidegate.store.schema import STORE


def store_at(
    path: str | Path, *, key: Key | None = None, synchronous: Synchronous = "FULL", clock: Clock | None = None
) -> Database:
    """Return the store in this file, which its first use opens; `path` may be `:memory:`.

    `key` encrypts values and documents; without one, that in the variable TIDEGATE_ENCRYPTION_KEY does.

    Raises:
        SettingsError: the key does not have 16, 24 or 32 bytes, or the extra `encryption` is not installed.
    """
    codec = Codec(key_from_environment() if key is None else key)
    return Database(path, STORE, synchronous=synchronous, clock=clock, codec=codec)
