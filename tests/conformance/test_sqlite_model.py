"""The SQLite file holds what LangGraph's saver in memory holds, whatever is done to both, and no blob too many."""

from __future__ import annotations

import sqlite3
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule, run_state_machine_as_test

from tests.checkpoints import unused_blobs
from tests.conformance.histories import keeps_what_the_model_keeps
from tests.conformance.model import PICK, RUNS, THREADS, BothSavers
from tidegate.checkpointers.sqlite import SqliteSaver
from tidegate.store import blobs
from tidegate.store.database import Database
from tidegate.store.opening import store_at
from tidegate.testing import ManualClock

TEXTS = st.builds(lambda letter: letter * blobs.LARGE, st.sampled_from("äyz"))
DOCUMENTS = TEXTS | st.dictionaries(
    st.sampled_from(["text", "source", "ä"]),
    st.none() | TEXTS | st.dictionaries(st.sampled_from(["text", "n"]), TEXTS, max_size=2),
    max_size=3,
)


class File:
    """A SQLite file."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.database: Database | None = None
        self.clock = ManualClock()

    def open(self) -> SqliteSaver:
        if self.database is not None:
            self.database.close_sync()
        self.database = store_at(Path(self.folder.name) / "tidegate.db", synchronous="NORMAL", clock=self.clock)
        return SqliteSaver(self.database)

    def tell(self, ts: str) -> None:
        self.clock.set_back(self.clock.now() - datetime.fromisoformat(ts).timestamp())

    def close(self) -> None:
        if self.database is not None:
            self.database.close_sync()
        self.folder.cleanup()


class BothWithSqlite(BothSavers):
    """A SQLite file beside the model."""

    place = File

    @rule(thread=THREADS, pick=PICK, document=DOCUMENTS, run=RUNS)
    def put_a_document(self, thread: str, pick: int, document: Any, run: str) -> None:
        """Put a large value, as what a task wrote and in the next checkpoint."""
        self.write(thread, "", pick, [("document", document)], "1", "")
        self.put(thread, "", pick, 1, {"document": document}, run, 0)

    @rule(thread=THREADS, channels=st.lists(st.sampled_from(["document", "entities"]), unique=True))
    def trace(self, thread: str, channels: list[str]) -> None:
        """Ask for the history of channels."""
        ids = self.model.ids(thread, "")
        if not ids or self.is_built_on_itself(thread):  # as one is that is put again on top of itself
            return
        at: Any = {"configurable": {"thread_id": thread, "checkpoint_ns": "", "checkpoint_id": ids[-1]}}
        found, expected = (each.get_delta_channel_history(config=at, channels=channels) for each in self.both[::-1])
        assert found == expected

    def is_built_on_itself(self, thread: str) -> bool:
        """Whether a parent is no older than its child, which the model would follow for ever."""
        return any(
            parent is not None and parent >= checkpoint_id
            for checkpoint_id, (_, _, parent) in self.model.storage[thread][""].items()
        )

    @invariant()
    def no_blob_is_leaked_or_missing(self) -> None:
        """Look into the file."""
        assert isinstance(self.saver, SqliteSaver)

        def look(connection: sqlite3.Connection) -> tuple[int, list[Any]]:
            return unused_blobs(connection), connection.execute("PRAGMA foreign_key_check").fetchall()

        assert self.saver.database.read_sync(look) == (0, [])


@pytest.mark.parametrize(("examples", "steps"), [(8, 15), pytest.param(400, 40, marks=pytest.mark.slow)])
def test_the_file_holds_what_the_model_holds(examples: int, steps: int) -> None:
    settings_ = settings(max_examples=examples, stateful_step_count=steps, deadline=None)
    run_state_machine_as_test(BothWithSqlite, settings=settings_)


@pytest.mark.parametrize("examples", [60, pytest.param(2000, marks=pytest.mark.slow)])
def test_what_is_pruned_is_what_the_rules_say(examples: int) -> None:
    kept = File()
    keeps_what_the_model_keeps(kept, examples)
    kept.close()
