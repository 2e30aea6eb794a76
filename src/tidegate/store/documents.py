"""The document store: raw bytes under their SHA-256, taken in before a thread starts."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from tidegate.errors import StateInvalid
from tidegate.store.blobs import give_back
from tidegate.store.leases import Lease, check
from tidegate.store.transactions import Connection, Store

DIGEST = re.compile(r"[0-9a-f]{8,64}")
"""A SHA-256, or enough of its beginning to name a document by."""


class Documents:
    """Raw documents, so that a changed or vanished file cannot change what a thread works on."""

    def __init__(self, database: Store) -> None:
        self._database = database

    async def put(self, data: bytes) -> str:
        """Keep these bytes and return their SHA-256 in hex; storing them again changes nothing."""
        sha256 = hashlib.sha256(data).hexdigest()

        def write(connection: Connection) -> None:
            # Who forgets old documents sees by the time that this one is wanted.
            again = connection.execute("UPDATE documents SET taken_at = tidegate_now() WHERE sha256 = ?", (sha256,))
            if not again.rowcount:
                insert(connection, sha256, self._database.codec.pack(data))

        await self._database.write(write)
        return sha256

    async def named(self, digest: str) -> list[str]:
        """Return the SHA-256 of the documents whose SHA-256 begins so; none for less than 8 hex digits."""

        def select(connection: Connection) -> list[str]:
            rows = connection.execute(
                "SELECT sha256 FROM documents WHERE sha256 >= ? AND sha256 <= ?", (digest, digest + "g")
            )
            return [str(row[0]) for row in rows]

        return await self._database.read(select) if DIGEST.fullmatch(digest) else []

    async def delete(self, sha256: str, leases: Sequence[Lease] = ()) -> None:
        """Remove the bytes, unless a thread that came meanwhile, and is under none of the leases, is about them.

        Raises:
            LeaseLost: another process has taken over one of the leases, and they stay.
        """

        def delete(connection: Connection) -> None:
            check(connection, *leases)
            about = connection.execute("SELECT thread_id FROM threads WHERE document_id = ?", (sha256,))
            if {row[0] for row in about} <= {lease.thread_id for lease in leases}:
                connection.execute("DELETE FROM documents WHERE sha256 = ?", (sha256,))
            give_back(connection)

        await self._database.write(delete)

    async def get(self, sha256: str) -> bytes:
        """Return the bytes.

        Raises:
            StateInvalid: they are not in this store, or were damaged there.
        """

        def select(connection: Connection) -> bytes | None:
            row = connection.execute("SELECT data FROM documents WHERE sha256 = ?", (sha256,)).fetchone()
            return None if row is None else bytes(row[0])

        stored = await self._database.read(select)
        if stored is None:
            raise StateInvalid(f"document {sha256} is not in {self._database.path}; run it again under a new thread")
        try:
            data = self._database.codec.unpack(stored)
            if hashlib.sha256(data).hexdigest() != sha256:
                raise ValueError("is damaged: its hash differs")
        except ValueError as error:
            raise StateInvalid(
                f"document {sha256} in {self._database.path} {error}; run it again under a new thread"
            ) from error
        return data


def insert(connection: Connection, sha256: str, packed: bytes) -> None:
    """Keep a document's bytes, packed by the store's codec, in a transaction that was begun."""
    connection.execute(
        "INSERT INTO documents (sha256, data, taken_at) VALUES (?, ?, tidegate_now()) ON CONFLICT (sha256) DO NOTHING",
        (sha256, packed),
    )
