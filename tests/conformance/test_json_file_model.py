"""The JSON files hold what LangGraph's saver in memory holds, whatever is done to both."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointTuple,
    empty_checkpoint,
)
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Send

from tests.checkpoints import at, place
from tidegate.checkpointers.json_file import JsonFileSaver
from tidegate.checkpointers.json_thread import LARGE
from tidegate.checkpointers.saving import StrictSerializer
from tidegate.errors import ThreadError

THREADS = st.sampled_from(["a", "A", "../b"])
NAMESPACES = st.sampled_from(["", "sub:1", "Sub:1"])
CHANNELS = st.sampled_from(["document", "entities", "$file"])
RUNS = st.sampled_from(["run 1", "run 2"])
SMALL = st.none() | st.booleans() | st.integers(0, 9) | st.text(max_size=3)
VALUES = (
    SMALL
    | st.lists(SMALL, max_size=3)
    | st.dictionaries(st.sampled_from(["a", "$b", "$$c"]), SMALL, max_size=2)
    | st.builds(lambda letter: letter * LARGE, st.sampled_from("xyz"))
    | st.builds(Send, st.just("node"), SMALL)
)
WRITES = st.lists(
    st.tuples(CHANNELS | st.sampled_from(["__interrupt__", "__resume__", "__error__"]), VALUES), max_size=3
)
PICK = st.integers(0, 99)


class Model(InMemorySaver):
    """LangGraph's saver in memory, with what it lacks."""

    def __init__(self) -> None:
        super().__init__(serde=StrictSerializer())

    def ids(self, thread_id: str, checkpoint_ns: str) -> list[str]:
        return sorted(self.storage[thread_id][checkpoint_ns])

    def has(self, thread_id: str) -> bool:
        return any(self.storage[thread_id].values()) or any(key[0] == thread_id for key in self.writes)

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        for checkpoint_ns, checkpoints in list(self.storage[source_thread_id].items()):
            self.storage[target_thread_id][checkpoint_ns].update(checkpoints)
        for (thread_id, *key), writes in list(self.writes.items()):
            if thread_id == source_thread_id:
                self.writes[(target_thread_id, *key)] = dict(writes)  # type: ignore[index]
        for (thread_id, *blob_key), blob in list(self.blobs.items()):
            if thread_id == source_thread_id:
                self.blobs[(target_thread_id, *blob_key)] = blob  # type: ignore[index]

    def remove(self, thread_id: str, checkpoint_ns: str, checkpoint_id: str) -> None:
        del self.storage[thread_id][checkpoint_ns][checkpoint_id]
        self.writes.pop((thread_id, checkpoint_ns, checkpoint_id), None)

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        for each in [each for each in self.list(None) if each.metadata.get("run_id") in run_ids]:
            self.remove(**place(each.config))

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        for thread_id in thread_ids:
            for checkpoint_ns in list(self.storage[thread_id]):
                *older, latest = self.ids(thread_id, checkpoint_ns) or [""]
                for checkpoint_id in older:
                    self.remove(thread_id, checkpoint_ns, checkpoint_id)
                for key in [key for key in self.writes if key[:2] == (thread_id, checkpoint_ns) and key[2] < latest]:
                    del self.writes[key]


class BothSavers(RuleBasedStateMachine):
    """Does the same to both savers and compares all that they hold."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.model = Model()
        self.saver = self.open()
        self.count = 0

    def open(self) -> BaseCheckpointSaver[Any]:
        """Open the saver that is compared with the model; once more, as another process would."""
        return JsonFileSaver(Path(self.folder.name))

    def teardown(self) -> None:
        self.folder.cleanup()

    @rule(
        thread=THREADS,
        namespace=NAMESPACES,
        parent=PICK,
        again=st.integers(0, 9),
        changes=st.dictionaries(CHANNELS, VALUES, max_size=3),
        run=RUNS,
        step=st.integers(0, 2),
    )
    def put(
        self, thread: str, namespace: str, parent: int, again: int, changes: dict[str, Any], run: str, step: int
    ) -> None:
        """Put a checkpoint on one that is there, or the first; sometimes one that is there is put again."""
        self.count += 1
        ids = self.model.ids(thread, namespace)
        base = at(thread, namespace, **({"checkpoint_id": ids[parent % len(ids)]} if ids else {}))
        below = self.model.get_tuple(base)
        made: Checkpoint = empty_checkpoint()
        made["id"] = ids[-1] if ids and again == 0 else f"{self.count:08}"
        made["channel_values"] = {**(below.checkpoint["channel_values"] if below else {}), **changes}
        new_versions: ChannelVersions = dict.fromkeys(changes, self.count)
        made["channel_versions"] = {**(below.checkpoint["channel_versions"] if below else {}), **new_versions}
        results = [
            each.put(base, made, {"source": "loop", "step": step, "run_id": run}, new_versions) for each in self.both
        ]
        assert results[0] == results[1]

    @rule(
        thread=THREADS,
        namespace=NAMESPACES,
        pick=PICK,
        writes=WRITES,
        task=st.sampled_from(["1", "Task", "task"]),
        path=st.sampled_from(["", "~a", "~b"]),
    )
    def write(
        self, thread: str, namespace: str, pick: int, writes: list[tuple[str, Any]], task: str, path: str
    ) -> None:
        """Write on a checkpoint that is there, or on the next one."""
        ids = [*self.model.ids(thread, namespace), f"{self.count + 1:08}"]
        for each in self.both:
            each.put_writes(at(thread, namespace, checkpoint_id=ids[pick % len(ids)]), writes, task, path)

    @rule(source=THREADS, copy=THREADS)
    def copy(self, source: str, copy: str) -> None:
        """Copy a thread, unless there is one already."""
        if self.model.has(source) and self.model.has(copy):
            with pytest.raises(ThreadError):
                self.saver.copy_thread(source, copy)
        else:
            for each in self.both:
                each.copy_thread(source, copy)

    @rule(thread=THREADS)
    def delete(self, thread: str) -> None:
        """Delete a thread."""
        for each in self.both:
            each.delete_thread(thread)

    @rule(run=RUNS)
    def delete_run(self, run: str) -> None:
        """Delete what a run made."""
        for each in self.both:
            each.delete_for_runs([run])

    @rule(thread=THREADS)
    def prune(self, thread: str) -> None:
        """Keep the latest checkpoints of a thread."""
        for each in self.both:
            each.prune([thread])

    @rule()
    def reopen(self) -> None:
        """Go on in another process, as it were."""
        self.saver = self.open()

    @rule(
        thread=THREADS,
        namespace=NAMESPACES,
        before=st.none() | st.integers(1, 99),
        limit=st.none() | st.integers(0, 3),
        wanted=st.dictionaries(st.just("step"), st.integers(0, 2)) | st.dictionaries(st.just("run_id"), RUNS),
    )
    def list_some(
        self, thread: str, namespace: str, before: int | None, limit: int | None, wanted: dict[str, Any]
    ) -> None:
        """List a part of a namespace, and read its newest."""
        end = None if before is None else at(thread, namespace, checkpoint_id=f"{before:08}")
        listed = [
            [_plain(found) for found in each.list(at(thread, namespace), filter=wanted, before=end, limit=limit)]
            for each in self.both
        ]
        assert listed[0] == listed[1]
        newest = [each.get_tuple(at(thread, namespace)) for each in self.both]
        assert (newest[0] and _plain(newest[0])) == (newest[1] and _plain(newest[1]))

    @invariant()
    def they_hold_the_same(self) -> None:
        """Compare everything."""
        held = [{str(place(found.config)): _plain(found) for found in each.list(None)} for each in self.both]
        assert held[0] == held[1]

    @property
    def both(self) -> tuple[BaseCheckpointSaver[Any], ...]:
        """Both savers, the model first."""
        return (self.model, self.saver)


def _plain(found: CheckpointTuple) -> tuple[Any, ...]:
    parent = place(found.parent_config) if found.parent_config else None
    return (place(found.config), found.checkpoint, found.metadata, parent, found.pending_writes)


@pytest.mark.parametrize(("examples", "steps"), [(20, 20), pytest.param(500, 40, marks=pytest.mark.slow)])
def test_both_savers_hold_the_same(examples: int, steps: int) -> None:
    settings_ = settings(max_examples=examples, stateful_step_count=steps, deadline=None)
    run_state_machine_as_test(BothSavers, settings=settings_)
