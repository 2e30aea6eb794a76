"""The outbox: each revision that a thread publishes, kept until it was delivered to each sink."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tidegate.store.transactions import Connection, Store


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


class Outbox:
    """The results of threads that events began, for each sink.

    A delivery is claimed for a while, and due again after it: whoever claimed it may have been killed. So each is made
    at least once, by any number of processes.
    """

    def __init__(self, database: Store, sinks: Mapping[str, Sequence[str]]) -> None:
        """Name the sinks, each with the triggers whose results go there; none named means all."""
        self._database = database
        self._sinks = sinks

    def writing(self, thread_id: str, revision: int, result: Mapping[str, Any]) -> Callable[[Connection], None] | None:
        """Return what puts a result in, to be done in the transaction that records it; None if there is no sink."""
        if not self._sinks:
            return None
        packed = self._database.codec.pack(json.dumps(result).encode())

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

    async def claim(self, *, limit: int, seconds: float) -> list[Delivery]:
        """Take up to `limit` deliveries that are due, the longest due first; nobody else does for so many `seconds`.

        Those to a sink that is in the settings no more are left.

        Raises:
            StoreUnavailable, StoreError: they cannot be looked up.
        """

        marks = ", ".join("?" * len(self._sinks))
        # The condition stands twice: another process may have claimed one between the SELECT and the UPDATE.
        claim = f"""
            UPDATE outbox SET next_at = tidegate_now() + ?, attempts = attempts + 1
            WHERE next_at <= tidegate_now() AND id IN (
                SELECT id FROM outbox WHERE next_at <= tidegate_now() AND sink IN ({marks}) ORDER BY next_at, id LIMIT ?
            )
            RETURNING id, thread_id, revision, sink, attempts, result
        """  # noqa: S608 - ours

        def take(connection: Connection) -> list[tuple[Any, ...]]:
            claimed = connection.execute(claim, (seconds, *self._sinks, limit)).fetchall()
            origins = {}
            for _, thread_id, *_ in claimed:
                row = connection.execute("SELECT source, event_id FROM inbox WHERE thread_id = ?", (thread_id,))
                origins[thread_id] = row.fetchone() or ("", "")
            return sorted((*row, *origins[row[1]]) for row in claimed)

        return [
            Delivery(
                row=row,
                thread_id=thread_id,
                revision=revision,
                sink=sink,
                attempts=attempts,
                result=json.loads(self._database.codec.unpack(result)),
                trigger=trigger,
                event_id=event_id,
            )
            for row, thread_id, revision, sink, attempts, result, trigger, event_id in await self._database.write(take)
        ]

    async def delivered(self, delivery: Delivery) -> None:
        """Record that a delivery was made; its result is not kept here any more."""
        await self._update("result = NULL, next_at = NULL, error = NULL", delivery.row)

    async def failed(self, delivery: Delivery, error: str, *, retry_in: float | None) -> None:
        """Record why it was not; it is due again in so many seconds, or given up where `retry_in` is None."""
        await self._update("next_at = tidegate_now() + ?, error = ?", retry_in, error, delivery.row)

    async def postponed(self, delivery: Delivery, error: str, *, retry_in: float) -> None:
        """Record that it could not be tried, which is no attempt."""
        sql = "next_at = tidegate_now() + ?, error = ?, attempts = attempts - 1"
        await self._update(sql, retry_in, error, delivery.row)

    async def _update(self, assignments: str, *values: object) -> None:
        sql = f"UPDATE outbox SET {assignments} WHERE id = ?"  # noqa: S608 - ours
        await self._database.write(lambda connection: connection.execute(sql, values))

    async def retry(self) -> int:
        """Make due what was given up; return how many deliveries that are."""

        def update(connection: Connection) -> int:
            return connection.execute(
                """UPDATE outbox SET next_at = tidegate_now(), attempts = 0
                   WHERE result IS NOT NULL AND next_at IS NULL"""
            ).rowcount

        return await self._database.write(update)

    async def pause_left(self) -> float | None:
        """Return the seconds until the next delivery is due; None if there is none."""

        def select(connection: Connection) -> float | None:
            [left] = connection.execute(
                "SELECT min(next_at) - tidegate_now() FROM outbox WHERE next_at IS NOT NULL"
            ).fetchone()
            return None if left is None else max(0.0, float(left))

        return await self._database.read(select)

    async def undelivered(self) -> dict[str, tuple[int, int, str | None]]:
        """Return by sink how many results wait, how many were given up, and the error that was met last."""

        def select(connection: Connection) -> dict[str, tuple[int, int, str | None]]:
            rows = connection.execute(
                """SELECT sink, count(next_at), count(*) - count(next_at), max(error) FROM outbox
                   WHERE result IS NOT NULL GROUP BY sink"""
            )
            return {sink: (int(waiting), int(given_up), error) for sink, waiting, given_up, error in rows}

        return await self._database.read(select)


def forget(connection: Connection, thread_id: str) -> None:
    """Remove a thread's results, delivered or not."""
    connection.execute("DELETE FROM outbox WHERE thread_id = ?", (thread_id,))
