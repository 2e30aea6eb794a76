"""Checkpoints <-> rows: what one transaction writes or reads."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    Checkpoint,
    CheckpointTuple,
    DeltaChannelHistory,
    PendingWrite,
    writes_sort_key,
)

from tidegate.checkpointers.retention import REVISION
from tidegate.checkpointers.saving import Address
from tidegate.errors import CheckpointDamaged
from tidegate.store import blobs, rows
from tidegate.store.codec import Codec


class Row(NamedTuple):
    """A checkpoint's own row."""

    id: int
    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str
    parent_id: str | None
    metadata: str
    body: bytes

    @property
    def at(self) -> Address:
        """Where it is."""
        return Address(self.thread_id, self.checkpoint_ns, self.checkpoint_id)


COLUMNS = ", ".join(Row._fields)


@dataclass(frozen=True, slots=True)
class Serialized:
    """A checkpoint as it is stored: all but its values in `body`; `size` is in bytes, before compression.

    `stored_at` is None for one that is stored now.
    """

    at: Address
    parent_id: str | None
    metadata: str
    run_id: str | None
    revision: int | None
    body: bytes
    values: tuple[tuple[str, blobs.Value], ...]
    size: int
    stored_at: float | None


def serialize(
    at: Address,
    parent_id: str | None,
    checkpoint: Checkpoint,
    metadata: Mapping[str, Any],
    serde: blobs.Serializer,
    texts: blobs.Texts,
    stored_at: float | None = None,
) -> Serialized:
    """Serialize a checkpoint, in the caller's thread: it may go on to change the values."""
    _, body = serde.dumps_typed({key: value for key, value in checkpoint.items() if key != "channel_values"})
    channel_values = checkpoint["channel_values"]
    values = tuple((channel, blobs.serialize(value, serde, texts)) for channel, value in channel_values.items())
    # ASCII alone: text that is no valid Unicode, as a lone surrogate, could not be stored
    metadata_json = json.dumps(metadata)
    run_id, revision = metadata.get("run_id"), channel_values.get(REVISION)
    return Serialized(
        at=at,
        parent_id=parent_id,
        metadata=metadata_json,
        run_id=run_id if isinstance(run_id, str) else None,
        revision=revision if type(revision) is int else None,
        body=body,
        values=values,
        size=len(body) + len(metadata_json) + sum(value.size for _, value in values),
        stored_at=stored_at,
    )


# writing: in a transaction


class TaskWrites(NamedTuple):
    """What a task wrote on a checkpoint: index, channel and value of each."""

    at: Address
    writes: Sequence[tuple[int, str, blobs.Value]]
    task_id: str
    task_path: str


def store(
    connection: sqlite3.Connection, items: Sequence[Serialized | TaskWrites], codec: Codec, *, replace: bool = True
) -> None:
    """Store checkpoints, and add what tasks wrote, of all callers that wait: the statements of one serve for all.

    A checkpoint takes the place of the one of the same ID. A write that is there stays, unless its index is negative,
    and `replace` is true.
    """
    made = {item.at: item for item in items if isinstance(item, Serialized)}  # of two of one ID the last one stays
    written = [item for item in items if isinstance(item, TaskWrites) and item.writes]
    row_ids, unnamed = _put(connection, made, {item.at for item in written}, codec)
    wanted: dict[tuple[int, str, int], tuple[str, str, blobs.Value]] = {}
    for at, writes, task_id, task_path in written:
        for index, channel, value in writes:
            key = (row_ids[at], task_id, index)
            if index < 0 and replace:
                deleted = "DELETE FROM writes WHERE checkpoint = ? AND task_id = ? AND idx = ? RETURNING blob"
                unnamed.update(blob for (blob,) in connection.execute(deleted, key).fetchall())
            elif key in wanted:
                continue
            wanted[key] = (task_path, channel, value)
    held = [(row_ids[each.at], channel, value) for each in made.values() for channel, value in each.values]
    values = [value for _, _, value in held] + [value for _, _, value in wanted.values()]
    stored = blobs.store(connection, values, codec)
    rows.insert(
        connection,
        "INSERT INTO channel_values (checkpoint, channel, kind, value, blob)",
        [(row_id, channel, *each) for (row_id, channel, _), each in zip(held, stored, strict=False)],
    )
    stored = stored[len(held) :]
    before = connection.total_changes
    rows.insert(
        connection,
        "INSERT INTO writes (checkpoint, task_id, idx, task_path, channel, kind, value, blob)",
        [(*key, path, channel, *each) for (key, (path, channel, _)), each in zip(wanted.items(), stored, strict=True)],
        "ON CONFLICT DO NOTHING",
    )
    if connection.total_changes - before < len(wanted):
        # What was there stayed, and nothing may name the blob that was meant to replace it.
        unnamed.update(blob for _, _, blob in stored)
    blobs.sweep(connection, {blob for blob in unnamed if blob is not None})


def _put(
    connection: sqlite3.Connection, made: Mapping[Address, Serialized], written_on: Collection[Address], codec: Codec
) -> tuple[dict[Address, int], set[int | None]]:
    """Store the rows of checkpoints, and make room for what tasks wrote on some; returns the IDs of all these rows.

    And the blobs that nothing may name any more, since a checkpoint was replaced.
    """
    found = rows.join(
        connection,
        "SELECT thread_id, checkpoint_ns, checkpoint_id, id, body IS NOT NULL",
        list(made.keys() | written_on),
        """CROSS JOIN checkpoints
           ON thread_id = key.column1 AND checkpoint_ns = key.column2 AND checkpoint_id = key.column3""",
    )
    row_ids = {Address(*at): row_id for *at, row_id, _ in found}
    replaced = [row_id for *at, row_id, is_stored in found if is_stored and Address(*at) in made]
    unnamed: set[int | None] = set()
    if replaced:
        unnamed.update(_blobs_of(connection, replaced, "channel_values"))
        for row_id in replaced:
            connection.execute("DELETE FROM channel_values WHERE checkpoint = ?", (row_id,))
    for at in made.keys() & row_ids.keys():
        connection.execute(
            """UPDATE checkpoints SET parent_id = ?, run_id = ?, revision = ?, stored_at = coalesce(?, tidegate_now()),
               metadata = ?, body = ? WHERE id = ?""",
            (*_columns(made[at], codec), row_ids[at]),
        )
    inserted = rows.insert(
        connection,
        """INSERT INTO checkpoints (thread_id, checkpoint_ns, checkpoint_id,
               parent_id, run_id, revision, stored_at, metadata, body)""",
        [(*at, *_columns(each, codec)) for at, each in made.items() if at not in row_ids],
        "RETURNING thread_id, checkpoint_ns, checkpoint_id, id",
        row="(?, ?, ?, ?, ?, ?, coalesce(?, tidegate_now()), ?, ?)",
    )
    inserted += rows.insert(
        connection,
        "INSERT INTO checkpoints (thread_id, checkpoint_ns, checkpoint_id)",
        [at for at in written_on if at not in row_ids and at not in made],
        "RETURNING thread_id, checkpoint_ns, checkpoint_id, id",
    )
    return row_ids | {Address(*at): row_id for *at, row_id in inserted}, unnamed


def _columns(made: Serialized, codec: Codec) -> tuple[str | None, str | None, int | None, float | None, str, bytes]:
    return made.parent_id, made.run_id, made.revision, made.stored_at, made.metadata, codec.pack(made.body)


def serialize_writes(
    writes: Sequence[tuple[str, Any]], serde: blobs.Serializer, texts: blobs.Texts
) -> list[tuple[int, str, blobs.Value]]:
    """Serialize what a task wrote, each with the index that LangGraph gives it."""
    return [
        (WRITES_IDX_MAP.get(channel, place), channel, blobs.serialize(value, serde, texts))
        for place, (channel, value) in enumerate(writes)
    ]


def copy(connection: sqlite3.Connection, source: str, target: str) -> None:
    """Copy a thread to an ID that has none; the blobs are shared."""
    for (row_id,) in connection.execute("SELECT id FROM checkpoints WHERE thread_id = ?", (source,)).fetchall():
        copied = connection.execute(
            """INSERT INTO checkpoints
                   (thread_id, checkpoint_ns, checkpoint_id, parent_id, run_id, revision, stored_at, metadata, body)
               SELECT ?, checkpoint_ns, checkpoint_id, parent_id, run_id, revision, stored_at, metadata, body
               FROM checkpoints WHERE id = ?""",
            (target, row_id),
        ).lastrowid
        connection.execute(
            """INSERT INTO channel_values (checkpoint, channel, kind, value, blob)
               SELECT ?, channel, kind, value, blob FROM channel_values WHERE checkpoint = ?""",
            (copied, row_id),
        )
        connection.execute(
            """INSERT INTO writes (checkpoint, task_id, idx, task_path, channel, kind, value, blob)
               SELECT ?, task_id, idx, task_path, channel, kind, value, blob FROM writes WHERE checkpoint = ?""",
            (copied, row_id),
        )


def has_thread(connection: sqlite3.Connection, thread_id: str) -> bool:
    """Whether there is anything under this ID."""
    return connection.execute("SELECT 1 FROM checkpoints WHERE thread_id = ?", (thread_id,)).fetchone() is not None


def remove(connection: sqlite3.Connection, row_ids: Sequence[int]) -> None:
    """Remove checkpoints and what tasks wrote on them, and give back the space that only they used."""
    if not row_ids:
        return
    unused = _blobs_of(connection, row_ids, "channel_values") | _blobs_of(connection, row_ids, "writes")
    connection.execute(
        "DELETE FROM checkpoints WHERE id IN (SELECT value FROM json_each(?))", (json.dumps(list(row_ids)),)
    )
    blobs.sweep(connection, unused)
    blobs.give_back(connection)


def _blobs_of(connection: sqlite3.Connection, row_ids: Sequence[int], table: str) -> set[int]:
    rows = connection.execute(
        f"SELECT DISTINCT blob FROM {table} WHERE checkpoint IN (SELECT value FROM json_each(?))"  # noqa: S608 - ours
        " AND blob IS NOT NULL",
        (json.dumps(list(row_ids)),),
    )
    return {blob for (blob,) in rows}


# reading: on the state of one moment


def find(connection: sqlite3.Connection, thread_id: str, checkpoint_ns: str, checkpoint_id: str | None) -> Row | None:
    """Return one checkpoint's row, the newest without an ID; None if there is none."""
    clause, values = ("AND checkpoint_id = ?", (checkpoint_id,)) if checkpoint_id else ("", ())
    row = connection.execute(
        f"SELECT {COLUMNS} FROM checkpoints WHERE thread_id = ? AND checkpoint_ns = ? {clause}"  # noqa: S608 - our names
        " AND body IS NOT NULL ORDER BY checkpoint_id DESC LIMIT 1",
        (thread_id, checkpoint_ns, *values),
    ).fetchone()
    return None if row is None else Row(*row)


def load(
    connection: sqlite3.Connection, found: Sequence[Row], codec: Codec, serde: blobs.Serializer, path: str
) -> list[CheckpointTuple]:
    """Return checkpoints with their values and what tasks wrote on them.

    Raises:
        CheckpointDamaged: one of them cannot be read.
    """
    ids = json.dumps([row.id for row in found])
    values: dict[int, list[tuple[str, blobs.Stored]]] = {row.id: [] for row in found}
    for checkpoint, channel, *stored in connection.execute(
        """SELECT checkpoint, channel, kind, value, blob FROM channel_values
           WHERE checkpoint IN (SELECT value FROM json_each(?))""",
        (ids,),
    ):
        values[checkpoint].append((channel, (stored[0], stored[1], stored[2])))
    writes: dict[int, list[_Write]] = {row.id: [] for row in found}
    for write in _writes(connection, ids):
        writes[write.checkpoint].append(write)
    named = {stored[2] for each in values.values() for _, stored in each if stored[2] is not None}
    named |= {each.stored[2] for some in writes.values() for each in some if each.stored[2] is not None}
    fetched: dict[int, blobs.Blob] | None = None
    loaded = []
    for row in found:
        try:
            if fetched is None:
                fetched = blobs.fetch(connection, named, codec)
            checkpoint = _body(row, codec, serde)
            checkpoint["channel_values"] = {
                channel: blobs.load(stored, fetched, codec, serde) for channel, stored in values[row.id]
            }
            loaded.append(
                CheckpointTuple(
                    config=row.at.config(),
                    checkpoint=checkpoint,
                    metadata=metadata_of(row),
                    parent_config=row.at._replace(checkpoint_id=row.parent_id).config() if row.parent_id else None,
                    pending_writes=[
                        (write.task_id, write.channel, blobs.load(write.stored, fetched, codec, serde))
                        for write in writes[row.id]
                    ],
                )
            )
        except ValueError as error:
            raise damaged(row, path, error) from error
    return loaded


def damaged(row: Row, path: str, error: Exception) -> CheckpointDamaged:
    """Return the error that says which checkpoint cannot be read, and why."""
    problem = f"has a checkpoint that cannot be read: {row.checkpoint_id} {error}; restore {path} from a copy"
    return CheckpointDamaged(row.thread_id, problem)


class _Write(NamedTuple):
    checkpoint: int
    task_id: str
    channel: str
    stored: blobs.Stored


def _writes(connection: sqlite3.Connection, ids: str, channel: str | None = None) -> list[_Write]:
    """Return what tasks wrote on these checkpoints, in LangGraph's order within each."""
    rows = connection.execute(
        """SELECT checkpoint, task_path, task_id, idx, channel, kind, value, blob FROM writes
           WHERE checkpoint IN (SELECT value FROM json_each(:ids)) AND channel = coalesce(:channel, channel)""",
        {"ids": ids, "channel": channel},
    ).fetchall()
    rows.sort(key=lambda row: (row[0], writes_sort_key(*row[1:4])))
    return [_Write(row[0], row[2], row[4], (row[5], row[6], row[7])) for row in rows]


def _body(row: Row, codec: Codec, serde: blobs.Serializer) -> Any:
    body = blobs.deserialize("msgpack", codec.unpack(row.body), serde)
    keyed = isinstance(body, dict) and all(
        isinstance(body.get(key), dict) for key in ("channel_versions", "versions_seen")
    )
    if not keyed or body.get("id") != row.checkpoint_id:
        raise ValueError("does not fit this version")
    return body


def metadata_of(row: Row) -> Any:
    """Return a checkpoint's metadata.

    Raises:
        ValueError: it was damaged.
    """
    try:
        metadata = json.loads(row.metadata)
    except (TypeError, RecursionError) as error:  # there is none, or brackets without end
        raise ValueError("does not fit this version (metadata)") from error
    if not isinstance(metadata, dict):
        raise ValueError("does not fit this version (metadata)")
    return metadata


# delta channels, whose value is what was written since the last checkpoint that holds all of it


def delta_history(
    connection: sqlite3.Connection, row: Row, channels: Sequence[str], codec: Codec, serde: blobs.Serializer, path: str
) -> dict[str, DeltaChannelHistory]:
    """Return for each channel what tasks wrote on the ancestors of a checkpoint, back to one that holds its value.

    Raises:
        CheckpointDamaged: one of them cannot be read.
    """
    history: dict[str, DeltaChannelHistory] = {}
    for channel in channels:
        ids, seed = _chain(connection, row, channel)
        place = {row_id: position for position, row_id in enumerate(ids)}
        writes = _writes(connection, json.dumps(ids), channel)
        writes.sort(key=lambda write: -place[write.checkpoint])  # the oldest checkpoint first; stable within each
        named = {each.stored[2] for each in writes} | ({seed[2]} if seed else set())
        try:
            found = blobs.fetch(connection, {blob for blob in named if blob is not None}, codec)
            pending: list[PendingWrite] = [
                (each.task_id, channel, blobs.load(each.stored, found, codec, serde)) for each in writes
            ]
            history[channel] = {"writes": pending}
            if seed is not None:
                history[channel]["seed"] = blobs.load(seed, found, codec, serde)
        except ValueError as error:
            raise damaged(row, path, error) from error
    return history


def _chain(connection: sqlite3.Connection, row: Row, channel: str) -> tuple[list[int], blobs.Stored | None]:
    """Return a checkpoint's ancestors, nearest first, up to one that holds a channel, and what that one holds."""
    ids: dict[int, None] = {}
    parent_id = row.parent_id
    while parent_id is not None:
        found = connection.execute(
            """SELECT id, parent_id FROM checkpoints
               WHERE thread_id = ? AND checkpoint_ns = ? AND checkpoint_id = ? AND body IS NOT NULL""",
            (row.thread_id, row.checkpoint_ns, parent_id),
        ).fetchone()
        if found is None or found[0] in ids:  # a forged chain may lead back into itself
            break
        row_id, parent_id = found
        ids[row_id] = None
        stored = connection.execute(
            "SELECT kind, value, blob FROM channel_values WHERE checkpoint = ? AND channel = ?", (row_id, channel)
        ).fetchone()
        if stored is not None:
            return list(ids), stored
    return list(ids), None


def built_on(connection: sqlite3.Connection, row: Row, codec: Codec, serde: blobs.Serializer, path: str) -> set[int]:
    """Return the ancestors without which a checkpoint's delta channels would lose their values."""
    try:
        counted = metadata_of(row).get("counters_since_delta_snapshot")
        if not counted:
            return set()
        if not isinstance(counted, dict):
            raise ValueError("does not fit this version (metadata)")
        written = _body(row, codec, serde)["channel_versions"].keys()
    except ValueError as error:
        raise damaged(row, path, error) from error
    needed: set[int] = set()
    for channel in set(counted) & written:
        holds = "SELECT 1 FROM channel_values WHERE checkpoint = ? AND channel = ?"
        if not connection.execute(holds, (row.id, channel)).fetchone():
            needed.update(_chain(connection, row, channel)[0])
    return needed
