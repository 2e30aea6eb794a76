"""Checkpoints in memory: for tests, and for threads that need not outlive their process."""

from __future__ import annotations

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata
from langgraph.checkpoint.memory import InMemorySaver

from tidegate.checkpointers.saving import StrictSerializer, put_span, serialized_bytes


class MemorySaver(InMemorySaver):
    """LangGraph's saver in memory, strict about types and with spans."""

    def __init__(self) -> None:
        super().__init__(serde=StrictSerializer())

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint; `aput` comes by here too."""
        with put_span(config, checkpoint, metadata) as span:
            before = serialized_bytes()
            stored = super().put(config, checkpoint, metadata, new_versions)
            span.size(serialized_bytes() - before)
        return stored
