"""What is removed from a SQLite file when checkpoints are pruned."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence

from tidegate.checkpointers import sqlite_rows
from tidegate.checkpointers.retention import Kept, Rule, kept
from tidegate.store.blobs import Serializer
from tidegate.store.codec import Codec


def threads(connection: sqlite3.Connection) -> list[str]:
    """Return the IDs of all threads."""
    return [thread_id for (thread_id,) in connection.execute("SELECT DISTINCT thread_id FROM checkpoints")]


def delete(connection: sqlite3.Connection, thread_id: str) -> None:
    """Remove a thread."""
    rows = connection.execute("SELECT id FROM checkpoints WHERE thread_id = ?", (thread_id,))
    sqlite_rows.remove(connection, [row_id for (row_id,) in rows])


def prune(
    connection: sqlite3.Connection, thread_id: str, rule: Rule, codec: Codec, serde: Serializer, path: str
) -> int:
    """Remove the checkpoints of a thread that need not be kept, and return how many those were.

    Raises:
        CheckpointDamaged: one that is to be kept cannot be read.
    """
    thread: dict[int, Kept] = {}
    looked_into: set[Kept] = set()
    for row_id, deltas, *described in connection.execute(_DESCRIBED, (thread_id,)):
        thread[row_id] = Kept._make(described)
        if deltas != 0:  # it has some; or its metadata is damaged, and looking into it says so
            looked_into.add(thread[row_id])

    def built_on(each: Kept) -> Iterable[str]:
        row = sqlite_rows.find(connection, thread_id, *each[:2]) if each in looked_into else None
        needed = sqlite_rows.built_on(connection, row, codec, serde, path) if row else ()
        return (thread[row_id].checkpoint_id for row_id in needed)

    stays = kept(thread.values(), rule, built_on)
    doomed = {row_id: each for row_id, each in thread.items() if each[:2] not in stays}
    sqlite_rows.remove(connection, list(doomed))
    return sum(each.stored for each in doomed.values())


def remove_runs(connection: sqlite3.Connection, run_ids: Sequence[str]) -> None:
    """Remove the checkpoints that these runs made."""
    rows = connection.execute(
        "SELECT id FROM checkpoints WHERE run_id IN (SELECT value FROM json_each(?))", (json.dumps(list(run_ids)),)
    )
    sqlite_rows.remove(connection, [row_id for (row_id,) in rows])


_DESCRIBED = """
    SELECT id, CASE WHEN json_valid(metadata) THEN
            CASE json_type(metadata) WHEN 'object' THEN instr(metadata, 'counters_since_delta_snapshot') END END,
        checkpoint_ns, checkpoint_id, revision, coalesce(tidegate_now() - stored_at, 0.0),
        CASE WHEN instr(checkpoint_ns, ':') AND json_valid(metadata)
            THEN CAST(json_extract(metadata, '$.parents.""') AS TEXT) END,
        body IS NOT NULL
    FROM checkpoints WHERE thread_id = ? ORDER BY checkpoint_ns, checkpoint_id
"""
