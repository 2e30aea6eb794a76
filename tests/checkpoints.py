"""Checkpoints made by hand."""

from __future__ import annotations

from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint, empty_checkpoint
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
