"""The outbox: each revision that a thread publishes, kept until it was delivered to each sink."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tidegate.store.transactions import Connection, Store

_log = logging.getLogger(__name__)

LONGEST_PAUSE = 3600.0
"""Seconds between two deliveries of a result at most. One that is due later was written before the clock was set back,
and is due now."""

_IS_DUE = "next_at IS NOT NULL AND (next_at <= tidegate_now() OR next_at > tidegate_now() + ?)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A result that is to be delivered: `id` is the same however often that happens.

    `result` is `Result.to_dict()` of the revision. `trigger` and `event_id` name the event that began the thread.
    `attempts` counts the deliveries that were begun, this one included.
    """

    row: int
    thread_id: str
    revision: int
    sink: str
    trigger: str
    event_id: str
    attempts: int
    result: Mapping[str, Any]

    @property
    def id(self) -> str:
        """Thread and revision: who receives the same twice can tell by it."""
        return f"{self.thread_id}:{self.revision}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Undelivered:
    """Results that a sink did not get: how many are to be delivered still, and how many were given up.

    `oldest` is for how many seconds the first of them was there, `error` what the newest that failed came to.
    """

    waiting: int
    given_up: int
    oldest: float
    error: str | None


class Outbox:
    """The results of threads that events began, for each sink.

    A delivery is claimed for a while, and due again after it: whoever claimed it may have been killed. So each is made
    at least once, by any number of processes.
    """

    def __init__(self, database: Store, sinks: Mapping[str, Sequence[str]]) -> None:
        """Name the sinks, each with the triggers whose results go there; none named means all."""
        self._database = database
        self._sinks = sinks
        self._listeners: list[Callable[[], None]] = []

    @property
    def sinks(self) -> tuple[str, ...]:
        """The names of the sinks."""
        return tuple(self._sinks)

    def listen(self, listener: Callable[[], None]) -> None:
        """Have this called, on the event loop of the execution, when one in this process put a result in."""
        self._listeners.append(listener)

    def told(self) -> None:
        """Tell the listeners that a result was put in."""
        for listener in self._listeners:
            listener()

    async def writing(
        self, thread_id: str, revision: int, result: Mapping[str, Any]
    ) -> Callable[[Connection], None] | None:
        """Return what puts a result in, to be done in the transaction that records it; None if there is no sink."""
        if not self._sinks:
            return None
        packed = await asyncio.to_thread(lambda: self._database.codec.pack(json.dumps(result).encode()))

        def write(connection: Connection) -> None:
            row = connection.execute("SELECT source FROM inbox WHERE thread_id = ?", (thread_id,)).fetchone()
            if row is None:  # it was begun by hand, and whoever did so has the result
                return
            for sink, triggers in self._sinks.items():
                if not triggers or row[0] in triggers:
                    connection.execute(
                        """INSERT INTO outbox (thread_id, revision, sink, result, written_at, next_at)
                           VALUES (?, ?, ?, ?, tidegate_now(), tidegate_now())
                           ON CONFLICT (thread_id, revision, sink) DO NOTHING""",
                        (thread_id, revision, sink, packed),
                    )

        return write

    async def claim(self, sink: str, *, limit: int, seconds: float) -> list[Delivery]:
        """Take up to `limit` deliveries to a sink that are due, the longest due first; nobody else does for `seconds`.

        One whose result cannot be read any more is given up.

        Raises:
            StoreUnavailable, StoreError: they cannot be looked up.
        """

        # The condition stands twice: another process may have claimed one between the SELECT and the UPDATE.
        claim = f"""
            UPDATE outbox SET next_at = tidegate_now() + ?, attempts = attempts + 1
            WHERE {_IS_DUE} AND result IS NOT NULL AND id IN (
                SELECT id FROM outbox WHERE sink = ? AND {_IS_DUE} AND result IS NOT NULL ORDER BY next_at, id LIMIT ?
            )
            RETURNING id, thread_id, revision, attempts, result
        """  # noqa: S608 - ours

        def take(connection: Connection) -> list[tuple[Any, ...]]:
            values = (seconds, LONGEST_PAUSE, sink, LONGEST_PAUSE, limit)
            claimed = connection.execute(claim, values).fetchall()
            origins = {}
            for _, thread_id, *_ in claimed:
                row = connection.execute("SELECT source, event_id FROM inbox WHERE thread_id = ?", (thread_id,))
                origins[thread_id] = row.fetchone() or ("", "")
            return sorted((*row, *origins[row[1]]) for row in claimed)

        rows = await self._database.write(take)
        read = await asyncio.to_thread(lambda: [self._delivery(sink, *row) for row in rows])
        for row, delivery in zip(rows, read, strict=True):
            if delivery is None:
                _log.error("a result of thread %s is damaged where it is kept; resume the thread for a new one", row[1])
                await self._update("next_at = NULL, error = ?", "its result is damaged in the store", row[0])
        return [each for each in read if each is not None]

    def _delivery(
        self,
        sink: str,
        row: int,
        thread_id: str,
        revision: int,
        attempts: int,
        packed: bytes,
        trigger: str,
        event_id: str,
    ) -> Delivery | None:
        try:
            result = json.loads(self._database.codec.unpack(packed))
        except ValueError:
            return None
        return Delivery(
            row=row,
            thread_id=thread_id,
            revision=revision,
            sink=sink,
            trigger=trigger,
            event_id=event_id,
            attempts=attempts,
            result=result,
        )

    async def delivered(self, delivery: Delivery) -> None:
        """Record that a delivery was made; its result is not kept here any more."""
        await self._update("result = NULL, next_at = NULL, error = NULL", delivery.row)

    async def failed(self, delivery: Delivery, error: str, *, retry_in: float | None) -> None:
        """Record why it was not; it is due again in so many seconds, or given up where `retry_in` is None."""
        pause = None if retry_in is None else min(retry_in, LONGEST_PAUSE)
        await self._update("next_at = tidegate_now() + ?, error = ?", pause, error, delivery.row)

    async def postponed(self, delivery: Delivery, error: str | None, *, retry_in: float) -> None:
        """Record that it could not be tried, which is no attempt; without an `error`, the one before stays."""
        sql = "next_at = tidegate_now() + ?, error = coalesce(?, error), attempts = attempts - 1"
        await self._update(sql, min(retry_in, LONGEST_PAUSE), error, delivery.row)

    async def _update(self, assignments: str, *values: object) -> None:
        # Another process may have delivered it, after this one had kept it for longer than it was claimed for.
        sql = f"UPDATE outbox SET {assignments} WHERE id = ? AND result IS NOT NULL"  # noqa: S608 - ours
        await self._database.write(lambda connection: connection.execute(sql, values))

    async def retry(self) -> int:
        """Make due what was given up; return how many deliveries that are."""

        def update(connection: Connection) -> int:
            return connection.execute(
                """UPDATE outbox SET next_at = tidegate_now(), attempts = 0
                   WHERE result IS NOT NULL AND next_at IS NULL"""
            ).rowcount

        return await self._database.write(update)

    async def discard(self, sink: str) -> int:
        """Keep no result any more that a sink did not get; return how many there were."""

        def update(connection: Connection) -> int:
            return connection.execute(
                "UPDATE outbox SET result = NULL, next_at = NULL WHERE sink = ? AND result IS NOT NULL", (sink,)
            ).rowcount

        return await self._database.write(update)

    async def pause_left(self, sink: str) -> float | None:
        """Return the seconds until the next delivery to a sink is due; None if there is none."""

        def select(connection: Connection) -> float | None:
            [left] = connection.execute(
                "SELECT min(next_at) - tidegate_now() FROM outbox WHERE sink = ? AND next_at IS NOT NULL", (sink,)
            ).fetchone()
            return None if left is None else max(0.0, float(left))

        return await self._database.read(select)

    async def count(self, sink: str) -> tuple[int, int]:
        """Return how many results are still to be delivered to a sink, and how many were given up."""

        def select(connection: Connection) -> tuple[int, int]:
            sql = "SELECT count(next_at), count(*) FROM outbox WHERE sink = ? AND result IS NOT NULL"
            waiting, kept = connection.execute(sql, (sink,)).fetchone()
            return int(waiting), int(kept - waiting)

        return await self._database.read(select)

    async def undelivered(self) -> dict[str, Undelivered]:
        """Return by sink what was not delivered, those included that are in the settings no more."""

        def select(connection: Connection) -> dict[str, Undelivered]:
            rows = connection.execute(
                """SELECT sink, count(next_at), count(*) - count(next_at), min(written_at), tidegate_now() FROM outbox
                   WHERE result IS NOT NULL GROUP BY sink ORDER BY sink"""
            ).fetchall()
            found = {}
            for sink, waiting, given_up, oldest, now in rows:
                last = connection.execute(
                    """SELECT error FROM outbox WHERE sink = ? AND result IS NOT NULL AND error IS NOT NULL
                       ORDER BY id DESC LIMIT 1""",
                    (sink,),
                ).fetchone()
                found[sink] = Undelivered(
                    waiting=int(waiting),
                    given_up=int(given_up),
                    oldest=max(0.0, float(now - oldest)),
                    error=last[0] if last else None,
                )
            return found

        return await self._database.read(select)


def forget(connection: Connection, thread_id: str) -> None:
    """Remove a thread's results, delivered or not."""
    connection.execute("DELETE FROM outbox WHERE thread_id = ?", (thread_id,))
