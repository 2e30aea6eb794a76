"""Whole threads in the tables of LangGraph's saver: copied, pruned and deleted, each in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import psycopg
from psycopg import AsyncCursor
from psycopg.rows import DictRow

from tidegate.checkpointers.retention import REVISION, Kept, Links, Rule, doomed
from tidegate.checkpointers.saving import TAKEN
from tidegate.errors import ThreadError

_TABLES: Final = ("checkpoints", "checkpoint_writes", "checkpoint_blobs")


async def copy(cursor: AsyncCursor[DictRow], source: str, target: str) -> None:
    """Copy a thread.

    Raises:
        ThreadError: both IDs have a thread.
    """
    ids = {"source": source, "target": target}
    await _lock(cursor, target)
    await cursor.execute(_EXISTS, ids)
    if await cursor.fetchone():
        raise ThreadError(target, TAKEN)
    try:
        await cursor.execute(_COPY, ids)
    except psycopg.errors.UniqueViolation:  # begun by an execution in this very moment
        raise ThreadError(target, TAKEN) from None


async def delete(cursor: AsyncCursor[DictRow], thread_id: str) -> None:
    """Delete a thread."""
    await _lock(cursor, thread_id)
    for table in _TABLES:
        await cursor.execute(f"DELETE FROM {table} WHERE thread_id = %s".encode(), (thread_id,))  # noqa: S608 - our names


async def delete_for_runs(cursor: AsyncCursor[DictRow], run_ids: Sequence[str]) -> None:
    """Delete the checkpoints that these runs made."""
    await cursor.execute(_OF_RUNS, (list(run_ids),))
    places: dict[str, list[tuple[str, str]]] = {}
    for row in await cursor.fetchall():
        places.setdefault(row["thread_id"], []).append((row["checkpoint_ns"], row["checkpoint_id"]))
    for thread_id in sorted(places):
        await _lock(cursor, thread_id)
        await _remove(cursor, thread_id, places[thread_id])


async def prune(cursor: AsyncCursor[DictRow], thread_id: str, rule: Rule) -> int:
    """Remove the checkpoints that need not be kept, and return how many those were."""
    await _lock(cursor, thread_id)
    await cursor.execute(_OF_THREAD, {"thread_id": thread_id, "revision": REVISION})
    rows = await cursor.fetchall()
    with_deltas = {row["checkpoint_ns"] for row in rows if row["delta"]}
    thread = {
        # All ancestors: which of them hold the value of a delta channel would be another query.
        Kept(*(row[name] for name in Kept._fields)): Links(row["parent_id"], with_deltas & {row["checkpoint_ns"]})
        for row in rows
    }
    removed = doomed(thread, rule)
    await _remove(cursor, thread_id, [each[:2] for each in removed])
    return sum(each.stored for each in removed)


async def _lock(cursor: AsyncCursor[DictRow], thread_id: str) -> None:
    """Let one transaction at a time remove or copy checkpoints of a thread; executions store theirs meanwhile."""
    await cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"tidegate prunes {thread_id}",))


async def _remove(cursor: AsyncCursor[DictRow], thread_id: str, places: Sequence[tuple[str, str]]) -> None:
    """Delete checkpoints, what tasks wrote on them, and the values that no other checkpoint of the thread has."""
    by_namespace: dict[str, list[str]] = {}
    for checkpoint_ns, checkpoint_id in places:
        by_namespace.setdefault(checkpoint_ns, []).append(checkpoint_id)
    for checkpoint_ns, ids in by_namespace.items():
        for table in ("checkpoints", "checkpoint_writes"):
            await cursor.execute(
                f"DELETE FROM {table} WHERE thread_id = %s AND checkpoint_ns = %s AND checkpoint_id = ANY(%s)".encode(),  # noqa: S608
                (thread_id, checkpoint_ns, ids),
            )
    await cursor.execute(_UNUSED, (thread_id, thread_id))


_EXISTS: Final = """
    SELECT 1 WHERE EXISTS (SELECT 1 FROM checkpoints WHERE thread_id = %(source)s)
        OR EXISTS (SELECT 1 FROM checkpoint_writes WHERE thread_id = %(source)s)
    INTERSECT
    SELECT 1 WHERE EXISTS (SELECT 1 FROM checkpoints WHERE thread_id = %(target)s)
        OR EXISTS (SELECT 1 FROM checkpoint_writes WHERE thread_id = %(target)s)
"""

# One statement, which sees one moment: an execution may store meanwhile.
_COPY: Final = """
    WITH copied_checkpoints AS (
        INSERT INTO checkpoints
            (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata)
        SELECT %(target)s, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata
        FROM checkpoints WHERE thread_id = %(source)s
    ), copied_blobs AS (
        INSERT INTO checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob)
        SELECT %(target)s, checkpoint_ns, channel, version, type, blob
        FROM checkpoint_blobs WHERE thread_id = %(source)s
    )
    INSERT INTO checkpoint_writes
        (thread_id, checkpoint_ns, checkpoint_id, task_id, idx, channel, type, blob, task_path)
    SELECT %(target)s, checkpoint_ns, checkpoint_id, task_id, idx, channel, type, blob, task_path
    FROM checkpoint_writes WHERE thread_id = %(source)s
"""

_OF_RUNS: Final = """
    SELECT thread_id, checkpoint_ns, checkpoint_id FROM checkpoints WHERE metadata ->> 'run_id' = ANY(%s)
"""

# Also what tasks wrote on checkpoints that are not stored: those are on their way, or gone.
_OF_THREAD: Final = """
    SELECT checkpoint_ns, checkpoint_id, parent_checkpoint_id AS parent_id, true AS stored,
        CASE jsonb_typeof(checkpoint -> 'channel_values' -> %(revision)s) WHEN 'number'
            THEN (checkpoint -> 'channel_values' ->> %(revision)s)::numeric END AS revision,
        extract(epoch FROM clock_timestamp() - (checkpoint ->> 'ts')::timestamptz)::double precision AS age,
        metadata -> 'parents' ->> '' AS root,
        metadata ? 'counters_since_delta_snapshot' AS delta
    FROM checkpoints WHERE thread_id = %(thread_id)s
    UNION ALL
    SELECT DISTINCT checkpoint_ns, checkpoint_id, NULL, false, NULL::numeric, 0.0::double precision, NULL, false
    FROM checkpoint_writes w WHERE thread_id = %(thread_id)s AND NOT EXISTS (
        SELECT 1 FROM checkpoints c WHERE c.thread_id = w.thread_id AND c.checkpoint_ns = w.checkpoint_ns
            AND c.checkpoint_id = w.checkpoint_id
    )
"""

_UNUSED: Final = """
    DELETE FROM checkpoint_blobs WHERE thread_id = %s AND (checkpoint_ns, channel, version) NOT IN (
        SELECT c.checkpoint_ns, v.key, v.value
        FROM checkpoints c CROSS JOIN LATERAL jsonb_each_text(c.checkpoint -> 'channel_versions') v
        WHERE c.thread_id = %s
    )
"""
