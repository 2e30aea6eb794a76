"""Our saver in memory holds what LangGraph's holds, whatever is done to both, and no value too many."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis.stateful import invariant, rule, run_state_machine_as_test

from tests.conformance.histories import keeps_what_the_model_keeps
from tests.conformance.model import THREADS, BothSavers
from tidegate.checkpointers.memory import MemorySaver


class Memory:
    """Nothing but the saver."""

    def __init__(self) -> None:
        self.saver = MemorySaver()

    def open(self) -> MemorySaver:
        return self.saver

    def tell(self, ts: str) -> None:
        """Its checkpoints say it themselves."""

    def close(self) -> None:
        """Leave it to the garbage collector."""


class BothWithMemory(BothSavers):
    """Our saver in memory beside the model."""

    place = Memory

    @invariant()
    def no_value_is_leaked(self) -> None:
        """Look into the saver: values go when their thread does."""
        assert isinstance(self.saver, MemorySaver)
        assert {key[0] for key in self.saver.blobs} <= {
            thread_id for thread_id, namespaces in self.saver.storage.items() if any(namespaces.values())
        }

    @rule(thread=THREADS)
    def prune_leaves_no_value_that_no_checkpoint_has(self, thread: str) -> None:
        """Look for each value after a thread was pruned; one that was put again may have left some before."""
        assert isinstance(self.saver, MemorySaver)
        before = dict(self.saver.blobs)
        self.prune(thread)
        used = {
            (thread, checkpoint_ns, *versioned)
            for checkpoint_ns, checkpoints in self.saver.storage.get(thread, {}).items()
            for packed, _, _ in checkpoints.values()
            for versioned in self.saver.serde.loads_typed(packed)["channel_versions"].items()
        }
        assert self.saver.blobs == before or {key for key in self.saver.blobs if key[0] == thread} <= used


@pytest.mark.parametrize(("examples", "steps"), [(30, 20), pytest.param(500, 40, marks=pytest.mark.slow)])
def test_both_savers_hold_the_same(examples: int, steps: int) -> None:
    settings_ = settings(max_examples=examples, stateful_step_count=steps, deadline=None)
    run_state_machine_as_test(BothWithMemory, settings=settings_)


@pytest.mark.parametrize("examples", [200, pytest.param(2000, marks=pytest.mark.slow)])
def test_what_is_pruned_is_what_the_rules_say(examples: int) -> None:
    kept = Memory()
    keeps_what_the_model_keeps(kept, examples)
    kept.close()
