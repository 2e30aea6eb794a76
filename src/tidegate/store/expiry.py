"""Expiry: what is over is forgotten after a while, so that a store does not grow for as long as a service runs."""

from __future__ import annotations

from typing import Final

from tidegate.store.blobs import give_back
from tidegate.store.transactions import Connection

SHORTEST: Final = 86400.0
"""Seconds that everything is kept at least: sources deliver events again for hours, folders say once in eight hours
which of theirs are still there, and a process that was frozen for less still meets the lease it has lost."""

PORTION: Final = 200
"""Rows that are looked at, or removed, in one transaction."""

_OVER: Final = """
    (status IN ('complete', 'cancelled')
        OR status = 'degraded' AND extraction_at IS NULL AND enrichment_at IS NULL AND summary_at IS NULL)
    AND updated_at < tidegate_now() - ?
    AND NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.thread_id = threads.thread_id AND result IS NOT NULL)
"""
_FORGET_EVENTS: Final = """
    DELETE FROM inbox WHERE (source, event_id) IN (
        SELECT source, event_id FROM inbox
        WHERE received_at < tidegate_now() - ?
            AND NOT EXISTS (SELECT 1 FROM threads WHERE threads.thread_id = inbox.thread_id)
            AND event_id < (SELECT max(event_id) FROM inbox AS others WHERE others.source = inbox.source)
        LIMIT ?
    )
"""
_FORGET_LEASES: Final = """
    DELETE FROM leases WHERE thread_id IN (
        SELECT thread_id FROM leases
        WHERE held = 0 AND renewed_at < tidegate_now() - ?
            AND NOT EXISTS (SELECT 1 FROM threads WHERE threads.thread_id = leases.thread_id)
        LIMIT ?
    )
"""


def over(connection: Connection, seconds: float, after: str) -> list[str]:
    """Return the IDs, behind one in their order, of threads that have been over for so many seconds.

    Those are: complete, cancelled, or degraded without anything that can be had still; and each sink has its results.
    """
    sql = f"SELECT thread_id FROM threads WHERE {_OVER} AND thread_id > ? ORDER BY thread_id LIMIT ?"  # noqa: S608 - ours
    return [str(row[0]) for row in connection.execute(sql, (seconds, after, PORTION))]


def is_over(connection: Connection, thread_id: str, seconds: float) -> bool:
    """Say whether a thread is one of those."""
    sql = f"SELECT 1 FROM threads WHERE {_OVER} AND thread_id = ?"  # noqa: S608 - ours
    return connection.execute(sql, (seconds, thread_id)).fetchone() is not None


def forget(connection: Connection, thread_id: str, seconds: float) -> None:
    """Remove a thread from the list, its results, and its document if no other thread is about it.

    A document that was taken in again meanwhile stays: the thread that is to be about it may not be in the list yet.
    """
    [document_id] = connection.execute("SELECT document_id FROM threads WHERE thread_id = ?", (thread_id,)).fetchone()
    connection.execute("DELETE FROM threads WHERE thread_id = ?", (thread_id,))
    connection.execute("DELETE FROM outbox WHERE thread_id = ?", (thread_id,))
    connection.execute(
        """DELETE FROM documents WHERE sha256 = ? AND taken_at < tidegate_now() - ?
           AND NOT EXISTS (SELECT 1 FROM threads WHERE document_id = sha256)""",
        (document_id, seconds),
    )
    give_back(connection)


def forget_events(connection: Connection, seconds: float) -> int:
    """Remove events that were seen last so long ago and whose threads are gone; say how many, `PORTION` at most.

    The one that sorts last stays of each source: by its ID a schedule knows what it ran.
    """
    return connection.execute(_FORGET_EVENTS, (seconds, PORTION)).rowcount


def forget_leases(connection: Connection, seconds: float) -> int:
    """Remove leases that were given back so long ago, of threads that are gone; say how many, `PORTION` at most."""
    return connection.execute(_FORGET_LEASES, (seconds, PORTION)).rowcount
