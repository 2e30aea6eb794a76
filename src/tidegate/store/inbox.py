"""The inbox: an event from outside becomes one thread, however often it is delivered."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tidegate.errors import DocumentError, EventInvalid, QueueFull
from tidegate.store.documents import insert as insert_document
from tidegate.store.registry import ThreadRecord, ThreadStatus, put, thread_id_of
from tidegate.store.transactions import Connection, Store

LONGEST_ID = 1000
"""Characters in the ID of an event at most; in UTF-8 they have twice as many bytes at most."""

_DIGITS = 16  # hex digits of a thread ID: 64 bits, of which as many events as there ever are leave no two alike
_FULL_PAUSE = 5.0
_LONGEST_SOURCE = 400  # bytes; with an ID, what PostgreSQL has room for in an index: 2704
_LONGEST_NAME = 2500  # bytes, for the same reason
_LONGEST_TYPE = 255  # characters
_LONGEST_HEADER = 512  # characters of a `tracestate` that W3C asks for; a `traceparent` has 55


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """One event and the document that it brings. Two are the same event if `source` and `id` are the same.

    `source` is the name of the trigger, `id` what the trigger tells its events apart by. `name` is what the document is
    called in results, `media_type` what its sender says it is. `traceparent` and `tracestate` (W3C Trace Context) are
    the span that the thread's first execution is part of. `request_sha256` tells requests for a document that is
    elsewhere apart, which may be another one the next time.
    """

    source: str
    id: str
    data: bytes
    name: str
    media_type: str | None = None
    traceparent: str | None = None
    request_sha256: str | None = None
    tracestate: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What became of an event: its thread; `is_new` is False if it had come before.

    `document_id` is the SHA-256 of the document that the thread is about, empty if that could not be taken in, or if
    the thread was deleted since: it is not begun again. `request_sha256` is that of the envelope that came first.
    """

    thread_id: str
    document_id: str
    is_new: bool
    request_sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The event that a thread began with."""

    source: str
    id: str
    traceparent: str | None
    tracestate: str | None


class Inbox:
    """The events that came, and the queue of threads that they brought. Whatever it returned is durable."""

    def __init__(self, database: Store, *, max_queued: int) -> None:
        """Take new events only while fewer than `max_queued` threads wait to be begun."""
        self._database = database
        self._max_queued = max_queued

    async def accept(self, envelope: Envelope) -> Receipt:
        """Take in an event and its document, in one transaction; one that came before changes nothing.

        What its sender says of it is kept as far as a database takes it: a name is cut off after 2500 bytes, and what
        is no text in it becomes `?`.

        Raises:
            QueueFull: too many threads wait already. Nothing was taken in; deliver the event again later.
            EventInvalid: it has no ID, or too long a one.
        """
        _check(envelope.source, envelope.id)
        sha256, packed = await asyncio.to_thread(self._pack, envelope.data)
        name = _text(envelope.name, _LONGEST_NAME)
        record = ThreadRecord(
            thread_id="",
            document_id=sha256,
            source=name,
            media_type=_text(envelope.media_type, _LONGEST_TYPE) if envelope.media_type else None,
            status="queued",
        )
        parent = _header(envelope.traceparent)
        state = _header(envelope.tracestate) if parent is not None else None

        def take(connection: Connection) -> Receipt | QueueFull:
            known = _known(connection, envelope.source, envelope.id)
            if known is not None and known.document_id != "":
                return known.receipt
            if _queued(connection, self._max_queued) >= self._max_queued:
                return QueueFull(self._max_queued, retry_in=_FULL_PAUSE)
            # One that could not be read the first time keeps its thread, whatever its document is called now.
            thread_id = known.thread_id if known else _new_thread_id(connection, envelope.source, envelope.id, name)
            insert_document(connection, sha256, packed)
            _insert(connection, envelope.source, envelope.id, thread_id, parent, state, envelope.request_sha256)
            put(connection, replace(record, thread_id=thread_id))
            return Receipt(thread_id=thread_id, document_id=sha256, is_new=True, request_sha256=envelope.request_sha256)

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
        name = _text(error.source, _LONGEST_NAME)
        record = ThreadRecord(
            thread_id="",
            document_id="",
            source=name,
            status="dead",
            error=_text(f"{type(error).__name__}: {error}", 2 * _LONGEST_NAME),
        )

        def take(connection: Connection) -> Receipt:
            known = _known(connection, source, event_id)
            if known is not None:
                return known.receipt
            thread_id = _new_thread_id(connection, source, event_id, name)
            _insert(connection, source, event_id, thread_id)
            put(connection, replace(record, thread_id=thread_id))
            return Receipt(thread_id=thread_id, document_id="", is_new=True)

        return await self._database.write(take)

    async def find(self, source: str, event_id: str) -> Receipt | None:
        """Return what became of an event, None if it has not come, or never can: saves reading its document again."""
        try:
            _check(source, event_id)
        except EventInvalid:
            return None
        known = await self._database.read(lambda connection: _known(connection, source, event_id))
        return None if known is None else known.receipt

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

    async def keep(self, source: str, event_ids: Sequence[str]) -> None:
        """Have these events, up to 500 at once, not forgotten: their source has them still, and may deliver them again.

        That was written down for none of them within the last hour, or nothing is written.
        """
        marks = ", ".join("?" * len(event_ids))
        sql = f"""UPDATE inbox SET received_at = tidegate_now()
                  WHERE source = ? AND event_id IN ({marks}) AND received_at < tidegate_now() - 3600"""  # noqa: S608 - marks
        await self._database.write(lambda connection: connection.execute(sql, (source, *event_ids)))

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
                "SELECT source, event_id, traceparent, tracestate FROM inbox WHERE thread_id = ?", (thread_id,)
            ).fetchone()
            return None if row is None else Origin(source=row[0], id=row[1], traceparent=row[2], tracestate=row[3])

        return await self._database.read(select)

    def _pack(self, data: bytes) -> tuple[str, bytes]:
        return hashlib.sha256(data).hexdigest(), self._database.codec.pack(data)


def forget(connection: Connection, thread_id: str) -> None:
    """Remove what is known of the event that a thread began with: if it is delivered again, it is a new one."""
    connection.execute("DELETE FROM inbox WHERE thread_id = ?", (thread_id,))


@dataclass(frozen=True, slots=True)
class _Known:
    """An event that came before; `document_id` is empty if its document was not taken in, None if it was deleted."""

    thread_id: str
    document_id: str | None
    request_sha256: str | None

    @property
    def receipt(self) -> Receipt:
        return Receipt(
            thread_id=self.thread_id,
            document_id=self.document_id or "",
            is_new=False,
            request_sha256=self.request_sha256,
        )


def _known(connection: Connection, source: str, event_id: str) -> _Known | None:
    row = connection.execute(
        """SELECT inbox.thread_id, threads.document_id, inbox.request_sha256 FROM inbox
           LEFT JOIN threads ON threads.thread_id = inbox.thread_id WHERE inbox.source = ? AND event_id = ?""",
        (source, event_id),
    ).fetchone()
    return None if row is None else _Known(*row)


def _new_thread_id(connection: Connection, source: str, event_id: str, name: str) -> str:
    digest = hashlib.sha256(f"{len(source)}:{source}{event_id}".encode()).hexdigest()
    thread_id = thread_id_of(name, digest[:_DIGITS])
    # Whoever chooses the IDs of events finds two with the same 64 bits, if they try for long.
    taken = connection.execute("SELECT 1 FROM threads WHERE thread_id = ?", (thread_id,)).fetchone()
    return thread_id if taken is None else thread_id_of(name, digest)


def _insert(
    connection: Connection,
    source: str,
    event_id: str,
    thread_id: str,
    traceparent: str | None = None,
    tracestate: str | None = None,
    request_sha256: str | None = None,
) -> None:
    connection.execute(
        """INSERT INTO inbox (source, event_id, thread_id, traceparent, tracestate, request_sha256, received_at)
           VALUES (?, ?, ?, ?, ?, ?, tidegate_now()) ON CONFLICT (source, event_id) DO NOTHING""",
        (source, event_id, thread_id, traceparent, tracestate, request_sha256),
    )


def _queued(connection: Connection, most: int) -> int:
    sql = "SELECT count(*) FROM (SELECT 1 FROM threads WHERE status = 'queued' LIMIT ?) AS queued"
    [number] = connection.execute(sql, (most,)).fetchone()
    return int(number)


def _check(source: str, event_id: str) -> None:
    """Refuse what a database cannot keep, or find again.

    Raises:
        EventInvalid: source or ID are that.
    """
    size, name_size = _size(event_id), _size(source)
    if not 0 < name_size <= _LONGEST_SOURCE:
        raise EventInvalid(f"an event names a source of {len(source)} characters; give 1 to {_LONGEST_SOURCE} bytes")
    if not (0 < size <= 2 * LONGEST_ID and len(event_id) <= LONGEST_ID):
        problem = f"an event of {source[:100]!r} has an ID of {len(event_id)} characters, or with one that is no text"
        raise EventInvalid(f"{problem}; an ID has 1 to {LONGEST_ID} characters, in UTF-8 {2 * LONGEST_ID} bytes")


def _size(text: str) -> int:
    """Return the bytes of a text in UTF-8, 0 if it cannot be kept."""
    try:
        return 0 if "\0" in text else len(text.encode())
    except UnicodeEncodeError:  # half of a surrogate pair
        return 0


def _header(value: str | None) -> str | None:
    """Return a header of W3C Trace Context, None where it can be none: that is no reason to lose a document."""
    fits = value is not None and len(value) <= _LONGEST_HEADER and value.isascii() and "\0" not in value
    return value if fits else None


def _text(text: str, most: int) -> str:
    """Return what can be kept of a text from outside: so many bytes, without null characters and halves of pairs."""
    return text.replace("\0", "?").encode("utf-8", "replace")[:most].decode("utf-8", "ignore")
