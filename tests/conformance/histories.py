"""Histories of one thread: whatever is pruned of one, a saver keeps what the model keeps."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st
from langgraph.checkpoint.base import CheckpointMetadata, empty_checkpoint

from tests.checkpoints import at, place
from tests.conformance.model import DAY, NAMESPACES, OLD, PICK, REVISIONS, Model, Place
from tidegate.checkpointers.saving import Pruned, Saver

Pruning = Callable[[Model | Saver], Pruned | None]


class Made(NamedTuple):
    """A checkpoint to put; without `stored` a task only writes on it."""

    checkpoint_ns: str
    revision: Any
    old: bool
    root: int
    stored: bool


HISTORIES = st.lists(
    st.builds(
        Made,
        st.just("") | NAMESPACES,
        st.just(1) | REVISIONS,
        st.booleans(),
        PICK,
        st.sampled_from([True, True, True, False]),
    ),
    max_size=12,
)
PRUNINGS: st.SearchStrategy[Pruning] = st.one_of(
    st.just(lambda saver: saver.prune(["t"])),
    st.just(lambda saver: saver.prune_older_than(DAY)),
    st.integers(1, 4).map(lambda count: lambda saver: saver.keep_last(count)),
)


def keeps_what_the_model_keeps(kept: Place, examples: int) -> None:
    """Try histories, one after another in the same place."""
    saver = kept.open()

    @settings(max_examples=examples, deadline=None)
    @given(HISTORIES, st.lists(PRUNINGS, min_size=1, max_size=2))
    def compare(history: list[Made], prunings: list[Pruning]) -> None:
        saver.delete_thread("t")
        model = Model()
        for number, made in enumerate(history):
            for each in (model, saver):
                _put(each, kept, model, f"{number:08}", made)
        for prune in prunings:
            prune(model)
            before = len(list(saver.list(None)))
            pruned = prune(saver)
            removed = before - len(list(saver.list(None)))
            assert pruned in (None, Pruned(removed, int(removed > 0)))
        assert _held(saver) == _held(model)

    compare()


def _put(saver: Model | Saver, kept: Place, model: Model, checkpoint_id: str, made: Made) -> None:
    saver.put_writes(at("t", made.checkpoint_ns, checkpoint_id=checkpoint_id), [("done", checkpoint_id)], "task")
    if not made.stored:
        return
    roots = sorted({*model.ids("t", ""), "unknown"} - {checkpoint_id})
    metadata: CheckpointMetadata = {"source": "loop", "step": 0}
    if made.checkpoint_ns:
        metadata["parents"] = {"": roots[made.root % len(roots)]}
    now = datetime.now(UTC).isoformat()
    checkpoint = empty_checkpoint()
    checkpoint["id"] = checkpoint_id
    checkpoint["ts"] = OLD if made.old else now
    if made.revision is not None:
        checkpoint["channel_values"] = {"revision": made.revision}
        checkpoint["channel_versions"] = {"revision": checkpoint_id}
    kept.tell(checkpoint["ts"])
    saver.put(at("t", made.checkpoint_ns), checkpoint, metadata, checkpoint["channel_versions"])
    kept.tell(now)


def _held(saver: Model | Saver) -> dict[tuple[str, str], Any]:
    """Return what is left of every checkpoint: its values, and what the task wrote on it."""
    return {
        (place(each.config)["checkpoint_ns"], each.checkpoint["id"]): (
            each.checkpoint["channel_values"],
            each.pending_writes,
        )
        for each in saver.list({"configurable": {"thread_id": "t"}})
    }
