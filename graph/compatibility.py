"""Can this code go on with a stored thread?"""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from langgraph.checkpoint.base import Checkpoint

from tidegate.errors import IncompatibleThread
from tidegate.state import SCHEMA_VERSION

_BRANCH = "branch:to:"


def check(thread_id: str, checkpoint: Checkpoint, nodes: Container[str]) -> None:
    """Refuse a checkpoint that waits before a step this graph does not have, or was written under another schema.

    LangGraph 1.2.22 would return from such a thread as if it were finished, without running the step.

    Raises:
        IncompatibleThread: with what differs.
    """
    values: dict[str, Any] = checkpoint["channel_values"]
    waiting_for = {name.removeprefix(_BRANCH) for name in values if name.startswith(_BRANCH)}
    waiting_for |= {send.node for send in values.get("__pregel_tasks") or ()}
    unknown = sorted(name for name in waiting_for if name not in nodes)
    if unknown:
        raise IncompatibleThread(
            thread_id,
            f"waits for {', '.join(unknown)}, which this version of the code does not have; "
            "resume it with the version that started it, or register the step under its old name too",
        )
    version = values.get("schema_version", SCHEMA_VERSION)
    if version != SCHEMA_VERSION:
        raise IncompatibleThread(
            thread_id,
            f"was stored under schema version {version}, this code reads {SCHEMA_VERSION}; upgrade or roll back",
        )
