"""A saver of ours and LangGraph's saver in memory: whatever is done to both, they hold the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from langgraph.checkpoint.base import (
    ChannelVersions,
    Checkpoint,
    CheckpointTuple,
    empty_checkpoint,
)
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Send

from tests.checkpoints import at, place
from tidegate.checkpointers.json_thread import LARGE
from tidegate.checkpointers.saving import Saver, StrictSerializer
from tidegate.errors import ThreadError

THREADS = st.sampled_from(["a", "A", "../b"])
NAMESPACES = st.sampled_from(["", "sub:1", "Sub:1", "lasting"])
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
REVISIONS = st.sampled_from([None, None, 1, 2, 3, True, "1"])  # only whole numbers count
OLD = "2020-01-01T00:00:00+00:00"
DAY = 86400.0


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
            self.retain(thread_id, lambda _: [])

    def keep_last(self, count: int) -> None:
        for thread_id in list(self.storage):
            self.retain(thread_id, lambda found: found[-count:])

    def prune_older_than(self, seconds: float) -> None:
        """Take all for young but what is `OLD`."""
        for thread_id in list(self.storage):
            self.retain(thread_id, lambda found: [each for each in found if each.checkpoint["ts"] != OLD])

    def retain(self, thread_id: str, also: Callable[[list[CheckpointTuple]], list[CheckpointTuple]]) -> None:
        outer = self.ids(thread_id, "")
        for checkpoint_ns in sorted(self.storage[thread_id]):
            found = list(self.list(at(thread_id, checkpoint_ns)))[::-1]
            if not found:
                continue
            stays = {_id(found[-1])} | {_id(each) for each in also(found)}
            for number in (1, 2, 3):
                published = [each for each in found if _revision(each) == number]
                stays |= {_id(each) for each in (*published[:1], *published[-1:])}
            latest, root = _id(found[-1]), found[-1].metadata.get("parents", {}).get("")
            if ":" in checkpoint_ns and root in outer and root not in self.ids(thread_id, ""):
                stays, latest = set(), "~"
            for each in found:
                if _id(each) not in stays:
                    self.remove(**place(each.config))
            for key in [key for key in self.writes if key[:2] == (thread_id, checkpoint_ns)]:
                if key[2] < latest and key[2] not in stays:
                    del self.writes[key]


def _id(found: CheckpointTuple) -> str:
    return found.checkpoint["id"]


def _revision(found: CheckpointTuple) -> int | None:
    revision = found.checkpoint["channel_values"].get("revision")
    return revision if type(revision) is int else None


class Place(Protocol):
    """Where one saver keeps its threads: empty at first."""

    def open(self) -> Saver:
        """Return a saver, which finds what an earlier one stored."""
        ...

    def tell(self, ts: str) -> None:
        """Set the clock, where a checkpoint's own `ts` does not say how old it is."""
        ...

    def close(self) -> None:
        """Remove everything."""
        ...


class BothSavers(RuleBasedStateMachine):
    """Does the same to both savers and compares all that they hold."""

    place: type[Place]

    def __init__(self) -> None:
        super().__init__()
        self.kept = self.place()
        self.model = Model()
        self.saver = self.kept.open()
        self.count = 0

    def teardown(self) -> None:
        self.kept.close()

    @rule(
        thread=THREADS,
        namespace=NAMESPACES,
        parent=PICK,
        again=st.integers(0, 9),
        changes=st.dictionaries(CHANNELS, VALUES, max_size=3),
        run=RUNS,
        step=st.integers(0, 2),
        revision=REVISIONS,
        root=PICK,
        old=st.booleans(),
    )
    def put(
        self,
        thread: str,
        namespace: str,
        parent: int,
        again: int,
        changes: dict[str, Any],
        run: str,
        step: int,
        revision: Any = None,
        root: int = 0,
        old: bool = False,
    ) -> None:
        """Put a checkpoint on one that is there, or the first; sometimes one that is there is put again.

        One of a subgraph's says under which of the outer graph it was made, which may not be there.
        """
        if revision is not None:
            changes = {**changes, "revision": revision}
        roots = [*self.model.ids(thread, ""), "unknown"]
        parents = {"": roots[root % len(roots)]} if namespace else {}
        self.count += 1
        ids = self.model.ids(thread, namespace)
        base = at(thread, namespace, **({"checkpoint_id": ids[parent % len(ids)]} if ids else {}))
        below = self.model.get_tuple(base)
        made: Checkpoint = empty_checkpoint()
        made["id"] = ids[-1] if ids and again == 0 else f"{self.count:08}"
        made["channel_values"] = {**(below.checkpoint["channel_values"] if below else {}), **changes}
        new_versions: ChannelVersions = dict.fromkeys(changes, self.count)
        made["channel_versions"] = {**(below.checkpoint["channel_versions"] if below else {}), **new_versions}
        now = datetime.now(UTC).isoformat()
        made["ts"] = OLD if old else now
        self.kept.tell(made["ts"])
        metadata: Any = {"source": "loop", "step": step, "score": step + 0.5, "run_id": run, "parents": parents}
        results = [each.put(base, made, metadata, new_versions) for each in self.both]
        self.kept.tell(now)
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
        """Keep what a thread goes on from, and what it published."""
        for each in self.both:
            each.prune([thread])

    @rule(count=st.integers(1, 4))
    def keep_last(self, count: int) -> None:
        """Keep more than that of every thread."""
        for each in self.both:
            each.keep_last(count)

    @rule()
    def prune_older(self) -> None:
        """Keep what is young of every thread."""
        for each in self.both:
            each.prune_older_than(DAY)

    @rule()
    def reopen(self) -> None:
        """Go on in another process, as it were."""
        self.saver = self.kept.open()

    @rule(
        thread=THREADS,
        namespace=NAMESPACES,
        before=st.none() | st.integers(1, 99),
        limit=st.none() | st.integers(0, 3),
        wanted=st.dictionaries(st.just("step"), st.integers(0, 2))
        | st.dictionaries(st.just("run_id"), RUNS)
        | st.dictionaries(st.just("score"), st.sampled_from([0.5, 1.5])),  # which no SQL compares as Python does
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
        """Compare everything, and within each namespace its order."""
        held = [_by_namespace(each.list(None)) for each in self.both]
        assert held[0] == held[1]

    @property
    def both(self) -> tuple[Model | Saver, ...]:
        """Both savers, the model first."""
        return (self.model, self.saver)


def _by_namespace(found: Iterator[CheckpointTuple]) -> dict[tuple[str, str], list[tuple[Any, ...]]]:
    namespaces: dict[tuple[str, str], list[tuple[Any, ...]]] = {}
    for each in found:
        at = place(each.config)
        namespaces.setdefault((at["thread_id"], at["checkpoint_ns"]), []).append(_plain(each))
    return namespaces


def _plain(found: CheckpointTuple) -> tuple[Any, ...]:
    parent = place(found.parent_config) if found.parent_config else None
    return (place(found.config), found.checkpoint, found.metadata, parent, found.pending_writes)
