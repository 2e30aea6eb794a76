"""Checkpoints in memory: for tests, and for threads that need not outlive their process."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata
from langgraph.checkpoint.memory import InMemorySaver

from tidegate.checkpointers.saving import StrictSerializer, put_span

_serialized: ContextVar[int] = ContextVar("tidegate-serialized", default=0)


class _CountingSerializer(StrictSerializer):
    """Counts the bytes that are serialized in a context; the difference of two counts is of use."""

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        kind, data = super().dumps_typed(obj)
        _serialized.set(_serialized.get() + len(data))
        return kind, data


class MemorySaver(InMemorySaver):
    """LangGraph's saver in memory, strict about types and with spans."""

    def __init__(self) -> None:
        super().__init__(serde=_CountingSerializer())

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint; `aput` comes by here too."""
        with put_span(config, checkpoint, metadata) as span:
            before = _serialized.get()
            stored = super().put(config, checkpoint, metadata, new_versions)
            span.size(_serialized.get() - before)
        return stored
