"""Checkpoints made by hand, and put into JSON files."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, Checkpoint, CheckpointTuple, empty_checkpoint
from langgraph.checkpoint.base.id import uuid6


def at(thread_id: str = "t", checkpoint_ns: str = "", **more: Any) -> RunnableConfig:
    """Address a thread, and with `checkpoint_id` one checkpoint of it."""
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": checkpoint_ns, **more}}


def checkpoint(**values: Any) -> Checkpoint:
    """Make a checkpoint with these channel values; it is newer than all made before."""
    made = empty_checkpoint()
    made["id"] = str(uuid6())
    made["channel_values"] = values
    made["channel_versions"] = dict.fromkeys(values, 1)
    return made


def place(config: RunnableConfig) -> dict[str, Any]:
    """Return which thread, namespace and checkpoint a config names."""
    return config.get("configurable", {})


def put(saver: BaseCheckpointSaver[Any], thread_id: str = "t", **values: Any) -> str:
    """Put a checkpoint on top of the newest; return its ID."""
    latest = saver.get_tuple(at(thread_id))
    parent = {"checkpoint_id": latest.checkpoint["id"]} if latest else {}
    stored = saver.put(at(thread_id, **parent), checkpoint(**values), {"step": 1, "source": "loop"}, {})
    return str(place(stored)["checkpoint_id"])


def get(saver: BaseCheckpointSaver[Any], thread_id: str = "t", checkpoint_id: str | None = None) -> CheckpointTuple:
    """Return a checkpoint that is there: the newest of the thread, or the one that is named."""
    found = saver.get_tuple(at(thread_id, **({"checkpoint_id": checkpoint_id} if checkpoint_id else {})))
    assert found is not None
    return found


def values(saver: BaseCheckpointSaver[Any], thread_id: str = "t", checkpoint_id: str | None = None) -> dict[str, Any]:
    """Return the channel values of a checkpoint."""
    return get(saver, thread_id, checkpoint_id).checkpoint["channel_values"]


def ids(saver: BaseCheckpointSaver[Any], thread_id: str = "t") -> list[str]:
    """Return the IDs of a thread's checkpoints, newest first."""
    return [each.checkpoint["id"] for each in saver.list(at(thread_id))]


def file_of(tmp_path: Path, checkpoint_id: str, thread_id: str = "t") -> Path:
    """Return the file of a checkpoint."""
    return tmp_path / "threads" / thread_id / "checkpoints" / f"{checkpoint_id}.json"


def unused_blobs(connection: sqlite3.Connection) -> int:
    """Return how many blobs of a SQLite store nothing names."""
    (count,) = connection.execute(
        """SELECT count(*) FROM blobs WHERE id NOT IN (SELECT blob FROM channel_values WHERE blob IS NOT NULL)
           AND id NOT IN (SELECT blob FROM writes WHERE blob IS NOT NULL) AND id NOT IN (SELECT part FROM blob_parts)"""
    ).fetchone()
    return int(count)
