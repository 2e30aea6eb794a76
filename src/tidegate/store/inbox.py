"""The inbox: an event from outside becomes one thread, however often it is delivered."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from tidegate.errors import DocumentError, EventInvalid, QueueFull
from tidegate.store.documents import insert as insert_document
from tidegate.store.registry import ThreadRecord, ThreadStatus, put, thread_id_of
from tidegate.store.transactions import Connection, Store

LONGEST_ID = 1000
"""Characters in the ID of an event at most."""

_DIGITS = 16  # hex digits of a thread ID: 64 bits, of which as many events as there ever are leave no two alike
_FULL_PAUSE = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """One event and the document that it brings. Two are the same event if `source` and `id` are the same.

    `source` is the name of the trigger, `id` what the trigger tells its events apart by. `name` is what the document is
    called in results, `media_type` what its sender says it is. `traceparent` (W3C Trace Context) is the span that the
    thread's first execution is part of.
    """

    source: str
    id: str
    data: bytes
    name: str
    media_type: str | None = None
    traceparent: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What became of an event: its thread; `is_new` is False if it had come before.

    `document_id` is the SHA-256 of the document that the thread is about, empty if that could not be taken in.
    """

    thread_id: str
    document_id: str
    is_new: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The event that a thread began with."""

    source: str
    id: str
    traceparent: str | None


class Inbox:
    """The events that came, and the queue of threads that they brought. Whatever it returned is durable."""

    def __init__(self, database: Store, *, max_queued: int) -> None:
        """Take new events only while fewer than `max_queued` threads wait to be begun."""
        self._database = database
        self._max_queued = max_queued

    async def accept(self, envelope: Envelope) -> Receipt:
        """Take in an event and its document, in one transaction; one that came before changes nothing.

        Raises:
            QueueFull: too many threads wait already. Nothing was taken in; deliver the event again later.
            EventInvalid: it has no ID, or too long a one.
        """
        _check(envelope.source, envelope.id)
        sha256, packed = await asyncio.to_thread(self._pack, envelope.data)
        thread_id = _thread_id(envelope.source, envelope.id, envelope.name)
        record = ThreadRecord(
            thread_id=thread_id,
            document_id=sha256,
            source=envelope.name,
            media_type=envelope.media_type,
            status="queued",
        )

        def take(connection: Connection) -> Receipt | QueueFull:
            known = _receipt(connection, envelope.source, envelope.id)
            if known is not None and known.document_id:
                return known
            if known is None and _queued(connection, self._max_queued) >= self._max_queued:
                return QueueFull(self._max_queued, retry_in=_FULL_PAUSE)
            insert_document(connection, sha256, packed)
            _insert(connection, envelope.source, envelope.id, thread_id, envelope.traceparent)
            put(connection, record)
            return Receipt(thread_id=thread_id, document_id=sha256, is_new=True)

        taken = await self._database.write(take)
        if isinstance(taken, QueueFull):
            raise taken
        return taken

    async def refuse(self, source: str, event_id: str, error: DocumentError) -> Receipt:
        """Record an event whose document cannot be taken in, as a thread that is dead: it is seen, and not lost.

        If the event is delivered again with a document that can be, it is accepted then.

        Raises:
            EventInvalid: as `accept`.
        """
        _check(source, event_id)
        thread_id = _thread_id(source, event_id, error.source)
        record = ThreadRecord(
            thread_id=thread_id,
            document_id="",
            source=error.source,
            status="dead",
            error=f"{type(error).__name__}: {error}",
        )

        def take(connection: Connection) -> Receipt:
            known = _receipt(connection, source, event_id)
            if known is None:
                _insert(connection, source, event_id, thread_id, None)
                put(connection, record)
            return known or Receipt(thread_id=thread_id, document_id="", is_new=True)

        return await self._database.write(take)

    async def find(self, source: str, event_id: str) -> Receipt | None:
        """Return what became of an event, None if it has not come: saves reading its document again."""
        return await self._database.read(lambda connection: _receipt(connection, source, event_id))

    async def statuses(self, source: str, event_ids: Sequence[str]) -> dict[str, ThreadStatus]:
        """Return by event how far its thread is, for those that came; up to 500 at once.

        A thread that was interrupted is `running`: who runs it is not looked up.
        """
        if not event_ids:
            return {}
        marks = ", ".join("?" * len(event_ids))
        sql = f"""SELECT event_id, status FROM inbox JOIN threads ON threads.thread_id = inbox.thread_id
                  WHERE inbox.source = ? AND event_id IN ({marks})"""  # noqa: S608 - marks
        return await self._database.read(lambda connection: dict(connection.execute(sql, (source, *event_ids))))

    async def latest(self, source: str) -> str | None:
        """Return the ID that sorts last of this source's events, None if it had none."""

        def select(connection: Connection) -> str | None:
            [found] = connection.execute("SELECT max(event_id) FROM inbox WHERE source = ?", (source,)).fetchone()
            return None if found is None else str(found)

        return await self._database.read(select)

    async def origin(self, thread_id: str) -> Origin | None:
        """Return the event that a thread began with, None if it began by hand."""

        def select(connection: Connection) -> Origin | None:
            row = connection.execute(
                "SELECT source, event_id, traceparent FROM inbox WHERE thread_id = ?", (thread_id,)
            ).fetchone()
            return None if row is None else Origin(source=row[0], id=row[1], traceparent=row[2])

        return await self._database.read(select)

    def _pack(self, data: bytes) -> tuple[str, bytes]:
        return hashlib.sha256(data).hexdigest(), self._database.codec.pack(data)


def forget(connection: Connection, thread_id: str) -> None:
    """Remove what is known of the event that a thread began with: if it is delivered again, it is a new one."""
    connection.execute("DELETE FROM inbox WHERE thread_id = ?", (thread_id,))


def _thread_id(source: str, event_id: str, name: str) -> str:
    digest = hashlib.sha256(f"{len(source)}:{source}{event_id}".encode()).hexdigest()
    return thread_id_of(name, digest[:_DIGITS])


def _receipt(connection: Connection, source: str, event_id: str) -> Receipt | None:
    row = connection.execute(
        """SELECT inbox.thread_id, coalesce(threads.document_id, 'deleted') FROM inbox
           LEFT JOIN threads ON threads.thread_id = inbox.thread_id WHERE inbox.source = ? AND event_id = ?""",
        (source, event_id),
    ).fetchone()
    return None if row is None else Receipt(thread_id=row[0], document_id=row[1], is_new=False)


def _insert(connection: Connection, source: str, event_id: str, thread_id: str, traceparent: str | None) -> None:
    connection.execute(
        """INSERT INTO inbox (source, event_id, thread_id, traceparent, received_at) VALUES (?, ?, ?, ?, tidegate_now())
           ON CONFLICT (source, event_id) DO NOTHING""",
        (source, event_id, thread_id, traceparent),
    )


def _queued(connection: Connection, most: int) -> int:
    sql = "SELECT count(*) FROM (SELECT 1 FROM threads WHERE status = 'queued' LIMIT ?) AS queued"
    [number] = connection.execute(sql, (most,)).fetchone()
    return int(number)


def _check(source: str, event_id: str) -> None:
    if not event_id or len(event_id) > LONGEST_ID or "\0" in event_id:
        problem = f"an event of {source!r} has an ID of {len(event_id)} characters, or a null character in it"
        raise EventInvalid(f"{problem}; an ID has 1 to {LONGEST_ID} characters")
