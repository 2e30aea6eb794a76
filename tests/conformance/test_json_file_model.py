"""The JSON files hold what LangGraph's saver in memory holds, whatever is done to both, and no value too many."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis.stateful import invariant, run_state_machine_as_test

from tests.conformance.histories import keeps_what_the_model_keeps
from tests.conformance.model import BothSavers
from tidegate.checkpointers.json_file import JsonFileSaver


class Folder:
    """A folder of threads."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory()

    def open(self) -> JsonFileSaver:
        return JsonFileSaver(Path(self.folder.name))

    def tell(self, ts: str) -> None:
        """Its checkpoints say it themselves."""

    def close(self) -> None:
        self.folder.cleanup()


class BothWithJsonFiles(BothSavers):
    """JSON files beside the model."""

    place = Folder

    @invariant()
    def no_value_is_leaked(self) -> None:
        """Look into the folder: a value's file goes with the last checkpoint that names it."""
        assert isinstance(self.kept, Folder)
        for thread in Path(self.kept.folder.name).glob("threads/*"):
            named = "".join(path.read_text() for path in thread.rglob("*.json") if path.parent.name != "values")
            assert all(path.stem in named for path in thread.glob("values/*.json"))


@pytest.mark.parametrize(("examples", "steps"), [(20, 20), pytest.param(500, 40, marks=pytest.mark.slow)])
def test_both_savers_hold_the_same(examples: int, steps: int) -> None:
    settings_ = settings(max_examples=examples, stateful_step_count=steps, deadline=None)
    run_state_machine_as_test(BothWithJsonFiles, settings=settings_)


@pytest.mark.parametrize("examples", [40, pytest.param(2000, marks=pytest.mark.slow)])
def test_what_is_pruned_is_what_the_rules_say(examples: int) -> None:
    kept = Folder()
    keeps_what_the_model_keeps(kept, examples)
    kept.close()
