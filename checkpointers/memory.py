"""Checkpoints in memory: for tests, and for threads that need not outlive their process."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata
from langgraph.checkpoint.memory import InMemorySaver

from tidegate.checkpointers.retention import REVISION, Kept, Links, Rule, described, doomed
from tidegate.checkpointers.saving import TAKEN, Saver, StrictSerializer, put_span
from tidegate.errors import ThreadError
from tidegate.store.clock import Clock, SystemClock
from tidegate.store.leases import Lease

_serialized: ContextVar[int] = ContextVar("tidegate-serialized", default=0)


class _CountingSerializer(StrictSerializer):
    """Counts the bytes that are serialized in a context; the difference of two counts is of use."""

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        kind, data = super().dumps_typed(obj)
        _serialized.set(_serialized.get() + len(data))
        return kind, data


class MemorySaver(Saver, InMemorySaver):
    """LangGraph's saver in memory, strict about types, with spans, and with what it lacks.

    No other process can take a thread over, so leases are not asked for.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        super().__init__(serde=_CountingSerializer())
        self._clock = clock or SystemClock()
        self._lock = threading.RLock()  # a checkpoint's values come before it, and must not be taken for unused

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
            with self._lock:
                stored = super().put(config, checkpoint, metadata, new_versions)
            span.size(_serialized.get() - before)
        return stored

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy a thread to an ID that has none; a source that does not exist is nothing.

        Raises:
            ThreadError: there is a thread under the target ID.
        """
        source, target = str(source_thread_id), str(target_thread_id)
        with self._lock:
            if not self._has(source):
                return
            if self._has(target):
                raise ThreadError(target, TAKEN)
            for checkpoint_ns, checkpoints in list(self.storage[source].items()):
                self.storage[target][checkpoint_ns] = dict(checkpoints)
            for (thread_id, checkpoint_ns, checkpoint_id), writes in list(self.writes.items()):
                if thread_id == source:
                    self.writes[target, checkpoint_ns, checkpoint_id] = dict(writes)
            for (thread_id, checkpoint_ns, channel, version), blob in list(self.blobs.items()):
                if thread_id == source:
                    self.blobs[target, checkpoint_ns, channel, version] = blob

    def _has(self, thread_id: str) -> bool:
        return any(self.storage.get(thread_id, {}).values()) or any(key[0] == thread_id for key in list(self.writes))

    def delete_thread(self, thread_id: str) -> None:
        """Delete a thread."""
        with self._lock:
            InMemorySaver.delete_thread(self, str(thread_id))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints that these runs made."""
        with self._lock:
            for thread_id in self._thread_ids():
                self._remove(
                    thread_id,
                    [
                        (checkpoint_ns, checkpoint_id)
                        for checkpoint_ns, checkpoints in self.storage[thread_id].items()
                        for checkpoint_id, (_, metadata, _) in checkpoints.items()
                        if self.serde.loads_typed(metadata).get("run_id") in run_ids
                    ],
                )

    def _thread_ids(self) -> Sequence[str]:
        return list(self.storage)

    def _prune_thread(self, thread_id: str, rule: Rule) -> int:
        with self._lock:
            thread: dict[Kept, Links] = {}
            for checkpoint_ns, checkpoints in self.storage.get(thread_id, {}).items():
                for checkpoint_id in checkpoints:
                    thread |= [self._describe(thread_id, checkpoint_ns, checkpoint_id)]
            stored = {each[:2] for each in thread}
            for owner, checkpoint_ns, checkpoint_id in list(self.writes):
                if owner == thread_id and (checkpoint_ns, checkpoint_id) not in stored:
                    thread[Kept(checkpoint_ns, checkpoint_id, stored=False)] = Links()
            removed = doomed(thread, rule)
            self._remove(thread_id, [each[:2] for each in removed])
        return sum(each.stored for each in removed)

    def _describe(self, thread_id: str, checkpoint_ns: str, checkpoint_id: str) -> tuple[Kept, Links]:
        packed, packed_metadata, parent_id = self.storage[thread_id][checkpoint_ns][checkpoint_id]
        checkpoint: Checkpoint = self.serde.loads_typed(packed)
        metadata: CheckpointMetadata = self.serde.loads_typed(packed_metadata)
        versions = checkpoint["channel_versions"]
        holds = [
            channel
            for channel, version in versions.items()
            if self.blobs.get((thread_id, checkpoint_ns, channel, version), ("empty", b""))[0] != "empty"
        ]
        revision: Any = None
        if REVISION in holds:
            revision = self.serde.loads_typed(self.blobs[thread_id, checkpoint_ns, REVISION, versions[REVISION]])
        links = Links(parent_id, holds=holds)
        return described(
            (checkpoint_ns, checkpoint_id), checkpoint, metadata, links, revision=revision, now=self._clock.now()
        )

    def _remove(self, thread_id: str, places: Sequence[tuple[str, str]]) -> None:
        """Remove checkpoints, what tasks wrote on them, and the values that no other checkpoint of the thread has."""
        if not places:
            return
        namespaces = self.storage.get(thread_id, {})
        for checkpoint_ns, checkpoint_id in places:
            namespaces.get(checkpoint_ns, {}).pop(checkpoint_id, None)
            self.writes.pop((thread_id, checkpoint_ns, checkpoint_id), None)
        used = {
            (thread_id, checkpoint_ns, *versioned)
            for checkpoint_ns, checkpoints in namespaces.items()
            for packed, _, _ in checkpoints.values()
            for versioned in self.serde.loads_typed(packed)["channel_versions"].items()
        }
        for key in [key for key in self.blobs if key[0] == thread_id and key not in used]:
            del self.blobs[key]

    # the same for callers on an event loop

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str, *, leases: Sequence[Lease] = ()) -> None:
        """As `copy_thread`."""
        self.copy_thread(source_thread_id, target_thread_id)

    async def adelete_thread(self, thread_id: str, *, leases: Sequence[Lease] = ()) -> None:
        """As `delete_thread`."""
        self.delete_thread(thread_id)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """As `delete_for_runs`."""
        self.delete_for_runs(run_ids)

    async def _athread_ids(self) -> Sequence[str]:
        return self._thread_ids()

    async def _aprune_thread(self, thread_id: str, rule: Rule) -> int:
        return self._prune_thread(thread_id, rule)
