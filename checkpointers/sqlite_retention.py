"""What is kept when checkpoints are pruned."""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tidegate.checkpointers import sqlite_rows
from tidegate.store.blobs import Serializer
from tidegate.store.codec import Codec


@dataclass(frozen=True, slots=True)
class Keep:
    """What to keep of each namespace besides what its thread needs and what was published.

    `last` counts checkpoints, the newest included; `seconds` is an age since they were stored. With `last=0` nothing is
    kept at all.
    """

    last: int = 1
    seconds: float | None = None


NOTHING = Keep(last=0)


def newest(n: int) -> Keep:
    """Return what keeps the newest `n` checkpoints.

    Raises:
        ValueError: there must be at least one.
    """
    if n < 1:
        raise ValueError(f"cannot keep the last {n} checkpoints of a thread; keep at least 1, or delete the thread")
    return Keep(last=n)


def younger(seconds: float) -> Keep:
    """Return what keeps the checkpoints that are no older than this.

    Raises:
        ValueError: it is no age.
    """
    if not seconds >= 0:
        raise ValueError(f"{seconds} seconds are no age; give 0 or more")
    return Keep(seconds=seconds)


class _Known(NamedTuple):
    id: int
    checkpoint_ns: str
    checkpoint_id: str
    revision: int | None
    age: float
    stored: bool


def threads(connection: sqlite3.Connection) -> list[str]:
    """Return the IDs of all threads."""
    return [thread_id for (thread_id,) in connection.execute("SELECT DISTINCT thread_id FROM checkpoints")]


def prune(
    connection: sqlite3.Connection, thread_id: str, keep: Keep, codec: Codec, serde: Serializer, path: str
) -> None:
    """Remove the checkpoints of a thread that need not be kept.

    Raises:
        CheckpointDamaged: one that is to be kept cannot be read.
    """
    known = [
        _Known(*row)
        for row in connection.execute(
            """SELECT id, checkpoint_ns, checkpoint_id, revision,
                      tidegate_now() - coalesce(stored_at, tidegate_now()), body IS NOT NULL
               FROM checkpoints WHERE thread_id = ? ORDER BY checkpoint_ns, checkpoint_id""",
            (thread_id,),
        )
    ]
    kept: set[int] = set()
    if keep != NOTHING:
        for _, group in itertools.groupby(known, key=lambda each: each.checkpoint_ns):
            for each in _kept(list(group), keep):
                kept.add(each.id)
                row = sqlite_rows.find(connection, thread_id, each.checkpoint_ns, each.checkpoint_id)
                if row is not None and each.stored:
                    kept |= sqlite_rows.built_on(connection, row, codec, serde, path)
    sqlite_rows.remove(connection, [each.id for each in known if each.id not in kept])


def _kept(known: Sequence[_Known], keep: Keep) -> set[_Known]:
    """Return what to keep of one namespace, given oldest first."""
    stored = [each for each in known if each.stored]
    if not stored:
        return set(known)
    kept = set(stored[-keep.last :])
    # Tasks may write on a checkpoint before it is stored itself, so what is newer than the newest stays.
    kept |= {each for each in known if each.checkpoint_id > stored[-1].checkpoint_id}
    if keep.seconds is not None:
        kept |= {each for each in known if each.age <= keep.seconds}
    published: dict[int, _Known] = {}
    last: dict[int, _Known] = {}
    for each in stored:
        if each.revision is not None:
            published.setdefault(each.revision, each)
            last[each.revision] = each
    return kept.union(published.values(), last.values())


def remove_runs(connection: sqlite3.Connection, run_ids: Sequence[str]) -> None:
    """Remove the checkpoints that these runs made."""
    rows = connection.execute(
        "SELECT id FROM checkpoints WHERE run_id IN (SELECT value FROM json_each(?))", (json.dumps(list(run_ids)),)
    )
    sqlite_rows.remove(connection, [row_id for (row_id,) in rows])
