"""What saving a checkpoint is everywhere: strict about types, seen in a span, and never half done."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import ContextVar
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint, CheckpointMetadata
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from tidegate.store.leases import stopping
from tidegate.telemetry import names, spans

_Value = TypeVar("_Value")

TAKEN = "exists already; delete it, or copy to another ID"
"""What is the matter with a thread that another one cannot be copied to."""

_serialized: ContextVar[int] = ContextVar("tidegate-serialized", default=0)


class StrictSerializer(JsonPlusSerializer):
    """LangGraph's serializer, loading no type outside LangGraph's own list of harmless ones.

    LangGraph's default imports and calls whatever class or function the stored bytes name.
    """

    def __init__(self) -> None:
        super().__init__(allowed_msgpack_modules=None)

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """Serialize, and count the bytes for `serialized_bytes`."""
        kind, data = super().dumps_typed(obj)
        _serialized.set(_serialized.get() + len(data))
        return kind, data


class Address(NamedTuple):
    """Which checkpoint."""

    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str

    def config(self) -> RunnableConfig:
        """Return the config that names it."""
        return {"configurable": self._asdict()}


def serialized_bytes() -> int:
    """Return how many bytes were serialized in this context so far; the difference of two calls is of use."""
    return _serialized.get()


def put_span(config: RunnableConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata) -> spans.CheckpointPut:
    """Open the span of one `put`."""
    parent = config.get("configurable", {}).get(names.TRACEPARENT)
    return spans.checkpoint_put(checkpoint["id"], metadata.get("step", 0), metadata.get("source", ""), parent=parent)


async def uninterrupted(work: Coroutine[Any, Any, _Value]) -> _Value:
    """Await `work` to its end; a cancellation meanwhile takes effect after it, a second one at once.

    A cancelled execution thus leaves no write behind that lands later, and no transaction open. One whose lease turns
    out to be lost is stopped.
    """
    task = asyncio.create_task(work)
    try:
        with stopping():
            return await asyncio.shield(task)
    except asyncio.CancelledError:
        if not task.done():
            await asyncio.wait([task])
        raise


@runtime_checkable
class Fenced(Protocol):
    """A saver that checks leases outside of the transaction in which they change."""

    async def afence(self, thread_id: str) -> None:
        """Return once no write that passed its check before can land any more."""
        ...
