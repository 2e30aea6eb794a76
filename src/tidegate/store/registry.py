"""The thread registry: which threads there are and how far each is, which LangGraph's savers cannot list."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import PurePath
from typing import Final, Literal, TypeAlias
from urllib.parse import urlsplit

from tidegate.settings import Policy
from tidegate.store.documents import DIGEST
from tidegate.store.leases import Lease, check, running
from tidegate.store.transactions import Connection, Store

ThreadStatus: TypeAlias = Literal[
    "queued", "running", "interrupted", "waiting", "failed", "dead", "cancelled", "complete", "degraded"
]
"""`queued`: an event brought it, and it was not begun; `waiting` for a circuit; `failed` with an error; `dead`: a
service gave it up, with the error that it ended with; `cancelled` by hand; `interrupted`: its process ended, or was
killed.

The last is never stored: a thread is `running` until it is resumed, and `Registry.threads` looks who runs it.
"""

Service: TypeAlias = Literal["extraction", "enrichment", "summary"]
"""What a thread may lack: that which this service gives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadRecord:
    """One thread; times are in seconds since 1970. `next_at` is when resuming makes sense again.

    `when_open` is the policy that its last execution was given, in place of the settings'. `extraction_at`,
    `enrichment_at` and `summary_at` are the times from which a sweep may ask that service for what the thread lacks, if
    its circuit lets it: None where it lacks nothing that can be had. They outlast a crash in the middle of healing.
    `attempts` counts the executions that ended, or go on, after the checkpoint `attempted_at` and before the next one.
    """

    thread_id: str
    document_id: str
    source: str
    media_type: str | None = None
    status: ThreadStatus
    outcome: str | None = None
    revision: int = 0
    retryable_missing: int = 0
    next_at: float | None = None
    fingerprint: str = ""
    error: str | None = None
    when_open: Policy | None = None
    enrichment_at: float | None = None
    summary_at: float | None = None
    extraction_at: float | None = None
    attempts: int = 0
    attempted_at: str | None = None
    updated_at: float = 0.0

    def asks(self, service: Service) -> float | None:
        """Return the time from which a sweep may ask this service for the thread."""
        return {
            "extraction": self.extraction_at,
            "enrichment": self.enrichment_at,
            "summary": self.summary_at,
        }[service]


UNFINISHED: Final[tuple[ThreadStatus, ...]] = ("queued", "running", "waiting", "failed")
"""Those that somebody or something goes on with."""

ASKS_NOTHING: Final = {"next_at": None, "extraction_at": None, "enrichment_at": None, "summary_at": None}
"""What a thread has whose time nobody waits for."""

SUSPECT: Final = 2
"""Executions that ended with their process at the same step, after which it may be the thread that ends processes.

Whatever ran beside it was interrupted as often, and is told from it by being run apart.
"""

_PAUSE_IS_OVER: Final = (  # apart, so that each is found by an index, however many threads failed in an outage
    "status = 'failed' AND next_at IS NULL ORDER BY updated_at, thread_id LIMIT ?",
    "status = 'failed' AND next_at <= (SELECT tidegate_now()) ORDER BY next_at, thread_id LIMIT ?",
    # Its pause began later than now: the clock was set back, by as much as there was to wait, or more.
    """status = 'failed' AND updated_at > (SELECT tidegate_now())
        AND updated_at - (SELECT tidegate_now()) >= next_at - updated_at ORDER BY updated_at, thread_id LIMIT ?""",
)
_COLUMNS = ", ".join(field.name for field in fields(ThreadRecord))
_UPDATES = ", ".join(f"{field.name} = excluded.{field.name}" for field in fields(ThreadRecord)[1:])


class Registry:
    """The `threads` table. It may lag behind the checkpoints by one crash; they are what counts."""

    def __init__(self, database: Store) -> None:
        self._database = database

    async def put(
        self,
        record: ThreadRecord,
        lease: Lease | None = None,
        *,
        pause: float | None = None,
        also: Callable[[Connection], None] | None = None,
    ) -> None:
        """Write one thread's record in place of the one before; `updated_at` is set here.

        With `pause`, `next_at` is in so many seconds by the database's clock, which `due` goes by. `also` is done in
        the same transaction.

        Raises:
            LeaseLost: the lease is given, and another process has taken the thread over.
        """

        def write(connection: Connection) -> None:
            if lease is not None:
                check(connection, lease)
            put(connection, record)
            if pause is not None:
                connection.execute(
                    "UPDATE threads SET next_at = updated_at + ? WHERE thread_id = ?", (pause, record.thread_id)
                )
            if also is not None:
                also(connection)

        await self._database.write(write)

    async def get(self, thread_id: str) -> ThreadRecord | None:
        """Return one thread's record, None if it has none."""
        rows = await self._select("WHERE thread_id = ?", (thread_id,))
        return rows[0] if rows else None

    async def delete(
        self, thread_id: str, lease: Lease | None = None, *, also: Callable[[Connection, str], None] | None = None
    ) -> None:
        """Remove one thread's record; `also` is done in the same transaction.

        Raises:
            LeaseLost: as `put`.
        """

        def delete(connection: Connection) -> None:
            if lease is not None:
                check(connection, lease)
            connection.execute("DELETE FROM threads WHERE thread_id = ?", (thread_id,))
            if also is not None:
                also(connection, thread_id)

        await self._database.write(delete)

    async def threads(self, *, status: ThreadStatus | None = None, limit: int | None = 100) -> list[ThreadRecord]:
        """Return threads, the most recently updated first; all of them without a `limit`.

        One that nobody runs any more is `interrupted`.
        """
        return await self.page(status=status, limit=limit)

    async def look(self, thread_id: str) -> ThreadRecord | None:
        """Return what `get` does, `interrupted` if nobody runs it any more."""

        def select(connection: Connection) -> list[ThreadRecord]:
            return _looked_after(connection, _select(connection, "WHERE thread_id = ?", (thread_id,)))

        rows = await self._database.read(select)
        return rows[0] if rows else None

    async def page(
        self,
        *,
        limit: int | None,
        after: tuple[float, str] | None = None,
        status: ThreadStatus | None = None,
        source: str | None = None,
        trigger: str | None = None,
    ) -> list[ThreadRecord]:
        """Return the threads behind one, which is named by its `updated_at` and ID, in the order of `threads`.

        `source` is the name of the document, `trigger` the source of the event that began the thread.
        """
        begun = status in ("running", "interrupted")  # which of the two, is seen when they are read
        conditions: list[tuple[str, tuple[object, ...]]] = []
        if status is not None:
            conditions.append(("status = ?", ("running" if begun else status,)))
        if source is not None:
            conditions.append(("source = ?", (source,)))
        if trigger is not None:
            conditions.append(("thread_id IN (SELECT thread_id FROM inbox WHERE source = ?)", (trigger,)))
        if after is not None:
            conditions.append(("(updated_at < ? OR (updated_at = ? AND thread_id > ?))", (after[0], *after)))
        where = f"WHERE {' AND '.join(each for each, _ in conditions)} " if conditions else ""
        values = tuple(value for _, some in conditions for value in some)
        order = "ORDER BY updated_at DESC, thread_id"
        if limit is not None and not begun:
            order, values = f"{order} LIMIT ?", (*values, limit)

        def select(connection: Connection) -> list[ThreadRecord]:
            found = _looked_after(connection, _select(connection, f"{where}{order}", values))
            return [each for each in found if status in (None, each.status)][:limit]

        return await self._database.read(select)

    async def lacking(self, service: Service, *, limit: int) -> list[ThreadRecord]:
        """Return threads that lack what this service gives, those first for which it may be asked first.

        Where the clock was set back by as much as there was to wait, or more, that time is told as 0.0: now.
        """
        at = f"{service}_at"
        # `updated_at` and now are of one clock, also where several machines write. The subqueries, run once, let
        # PostgreSQL use the index.
        set_back = "updated_at > (SELECT tidegate_now()) AND updated_at - (SELECT tidegate_now())"

        def select(connection: Connection) -> list[ThreadRecord]:
            due = _select(connection, f"WHERE {set_back} >= {at} - updated_at ORDER BY updated_at LIMIT ?", (limit,))
            rest = _select(connection, f"WHERE {at} IS NOT NULL ORDER BY {at}, thread_id LIMIT ?", (limit,))
            found = {each.thread_id: replace(each, **{at: 0.0}) for each in due}  # type: ignore[arg-type]  # a time
            return [*found.values(), *(each for each in rest if each.thread_id not in found)][:limit]

        return await self._database.read(select)

    async def due(
        self, *, limit: int, but_not: Collection[str] = (), suspects: int | None = None
    ) -> list[ThreadRecord]:
        """Return threads that are to be executed now, and that nobody runs.

        Those first that were interrupted, then those that failed and whose pause is over among those that are queued,
        the longest due first: so neither holds up the other. A clock that was set back lengthens a pause to twice as
        much at most. Of the `suspects`, which were interrupted more than once where they are, so many at most.
        """

        def select(connection: Connection) -> list[ThreadRecord]:
            begun = _select(connection, "WHERE status = 'running' ORDER BY updated_at, thread_id", ())
            run = running(connection) if begun else frozenset()
            begun = [each for each in begun if each.thread_id not in run and each.thread_id not in but_not]
            found = [each for each in begun if each.attempts < SUSPECT]
            found += [each for each in begun if each.attempts >= SUSPECT][:suspects]
            most = limit + len(but_not)
            failed = [each for clause in _PAUSE_IS_OVER for each in _select(connection, f"WHERE {clause}", (most,))]
            queued = _select(connection, "WHERE status = 'queued' ORDER BY updated_at, thread_id LIMIT ?", (most,))
            due = {each.thread_id: each for each in (*failed, *queued) if each.thread_id not in but_not}
            return [*found, *sorted(due.values(), key=lambda each: each.next_at or each.updated_at)][:limit]

        return await self._database.read(select)

    async def pause_left(self) -> float | None:
        """Return the seconds until the pause of a failed thread is over that is not over yet; None if there is none."""

        def select(connection: Connection) -> float | None:
            left = connection.execute(
                """SELECT next_at - (SELECT tidegate_now()) FROM threads
                   WHERE status = 'failed' AND next_at > (SELECT tidegate_now()) ORDER BY next_at LIMIT 1"""
            ).fetchone()
            return None if left is None else max(0.0, float(left[0]))

        return await self._database.read(select)

    async def rule(
        self,
        thread_id: str,
        *,
        seen: Sequence[ThreadStatus],
        status: ThreadStatus,
        lease: Lease,
        **values: object,
    ) -> bool:
        """Give a thread this status and these values if it has one of those `seen`; say whether it had.

        Raises:
            LeaseLost: as `put`.
        """
        assignments = "".join(f", {name} = ?" for name in values)
        marks = ", ".join("?" * len(seen))

        def update(connection: Connection) -> int:
            check(connection, lease)
            return connection.execute(
                f"UPDATE threads SET status = ?{assignments}, updated_at = tidegate_now() "  # noqa: S608 - our names
                f"WHERE thread_id = ? AND status IN ({marks})",
                (status, *values.values(), thread_id, *seen),
            ).rowcount

        return await self._database.write(update) > 0

    async def uncount(self, thread_id: str, lease: Lease) -> None:
        """Take back the attempt that a running execution was counted as: it was stopped from outside.

        Raises:
            LeaseLost: as `put`.
        """

        def update(connection: Connection) -> None:
            check(connection, lease)
            connection.execute(
                """UPDATE threads SET attempts = attempts - 1
                   WHERE thread_id = ? AND status = 'running' AND attempts > 0""",
                (thread_id,),
            )

        await self._database.write(update)

    async def count(self, *statuses: ThreadStatus) -> dict[ThreadStatus, int]:
        """Return how many threads there are of each status that is stored: those that were interrupted are running.

        Of the `statuses` that are given, else of all there are: which takes the longer the more threads there are.
        """

        def select(connection: Connection) -> dict[ThreadStatus, int]:
            if not statuses:
                rows = connection.execute("SELECT status, count(*) FROM threads GROUP BY status")
                return {status: int(number) for status, number in rows}
            counted = {}
            for status in statuses:
                [number] = connection.execute("SELECT count(*) FROM threads WHERE status = ?", (status,)).fetchone()
                counted[status] = int(number)
            return counted

        return await self._database.read(select)

    async def silence(self) -> float:
        """Return for how many seconds nothing was written of the unfinished thread of which that is longest; else 0."""
        oldest = " UNION ALL ".join(["SELECT min(updated_at) AS at FROM threads WHERE status = ?"] * len(UNFINISHED))

        def select(connection: Connection) -> float:
            sql = f"SELECT tidegate_now() - min(at) FROM ({oldest}) AS of_each"  # noqa: S608 - our own words
            [silence] = connection.execute(sql, UNFINISHED).fetchone()
            return max(0.0, float(silence or 0.0))  # a clock may be set back

        return await self._database.read(select)

    async def of_document(self, name: str) -> list[ThreadRecord]:
        """Return the threads of the documents with this SHA-256 or its first 8 digits or more; else of this source."""
        found: list[ThreadRecord] = []
        if DIGEST.fullmatch(name):
            found = await self._select("WHERE document_id >= ? AND document_id <= ?", (name, name + "g"))
        return found or await self._select("WHERE source = ?", (name,))  # `20240131` is both

    async def _select(self, clause: str, values: tuple[object, ...]) -> list[ThreadRecord]:
        return await self._database.read(lambda connection: _select(connection, clause, values))


def put(connection: Connection, record: ThreadRecord) -> None:
    """Write one thread's record, as `Registry.put` does, in a transaction that was begun."""
    values = astuple(record)[:-1]
    marks = ", ".join("?" * len(values))
    connection.execute(
        f"INSERT INTO threads ({_COLUMNS}) VALUES ({marks}, tidegate_now()) "  # noqa: S608 - our names
        f"ON CONFLICT (thread_id) DO UPDATE SET {_UPDATES}",
        values,
    )


def thread_id_of(source: str, digest: str) -> str:
    """Return a thread ID that can be typed and told apart: of a document's name, and of hex digits."""
    path = PurePath(urlsplit(source).path if "://" in source else source)
    slug = re.sub(r"[^\w.]+", "-", path.stem.lower()).strip("-.")[:40] or "document"
    return f"{slug}-{digest}"


def _looked_after(connection: Connection, found: list[ThreadRecord]) -> list[ThreadRecord]:
    """Return these, with those as `interrupted` that are running and that nobody runs."""
    if all(each.status != "running" for each in found):
        return found
    run = running(connection)  # in the same transaction: one that has just ended is neither
    return [
        replace(each, status="interrupted") if each.status == "running" and each.thread_id not in run else each
        for each in found
    ]


def _select(connection: Connection, clause: str, values: tuple[object, ...]) -> list[ThreadRecord]:
    rows = connection.execute(f"SELECT {_COLUMNS} FROM threads {clause}", values)  # noqa: S608 - our names
    return [ThreadRecord(**dict(zip(_COLUMNS.split(", "), row, strict=True))) for row in rows]
