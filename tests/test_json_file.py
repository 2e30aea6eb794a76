"""Checkpoints as JSON files: what they look like, what is kept in them, and what is removed."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import WRITES_IDX_MAP
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send

from tests.checkpoints import at, checkpoint, file_of, get, ids, place, put, values
from tidegate.checkpointers import open_checkpointer_sync
from tidegate.checkpointers.durable import name_for
from tidegate.checkpointers.json_file import JsonFileSaver
from tidegate.checkpointers.json_thread import LARGE, ThreadFolder
from tidegate.errors import LeaseLost, ThreadError
from tidegate.store.leases import Lease


@pytest.fixture
def saver(tmp_path: Path) -> JsonFileSaver:
    return JsonFileSaver(tmp_path)


def test_a_checkpoint_reads_well(saver: JsonFileSaver, tmp_path: Path) -> None:
    parent = put(saver)
    made = checkpoint(
        source="Bericht ü.txt", entities={"1": {"text": "Norwich"}}, sent=[Send("enrich", {"ids": ["1"]})]
    )
    made["ts"] = "2026-03-01T09:30:00+00:00"
    saver.put(at(checkpoint_id=parent), made, {"source": "loop", "step": 3, "run_id": "tidegate:t"}, {})
    assert file_of(tmp_path, made["id"]).read_text("utf-8") == textwrap.dedent(f"""\
        {{
          "format": 1,
          "thread_id": "t",
          "checkpoint_ns": "",
          "checkpoint_id": "{made["id"]}",
          "parent_checkpoint_id": "{parent}",
          "metadata": {{
            "source": "loop",
            "step": 3,
            "run_id": "tidegate:t"
          }},
          "channel_values": {{
            "source": "Bericht ü.txt",
            "entities": {{
              "1": {{
                "text": "Norwich"
              }}
            }},
            "sent": [
              {{
                "$send": {{
                  "node": "enrich",
                  "arg": {{
                    "ids": [
                      "1"
                    ]
                  }}
                }}
              }}
            ]
          }},
          "checkpoint": {{
            "v": {made["v"]},
            "id": "{made["id"]}",
            "ts": "2026-03-01T09:30:00+00:00",
            "channel_versions": {{
              "source": 1,
              "entities": 1,
              "sent": 1
            }},
            "versions_seen": {{}},
            "pending_sends": [],
            "updated_channels": null
          }}
        }}
        """)


def test_a_large_value_is_stored_once(saver: JsonFileSaver, tmp_path: Path) -> None:
    document = {"text": "Norwich City\n" * 100_000}
    stored = put(saver, document=document, step=0)
    saver.put_writes(at(checkpoint_id=stored), [("document", document)], "task")
    for step in range(1, 10):
        put(saver, document=document, step=step)
    (file,) = (tmp_path / "threads" / "t" / "values").iterdir()
    assert json.loads(file.read_bytes()) == document
    assert sum(path.stat().st_size for path in tmp_path.rglob("*")) < file.stat().st_size * 1.1
    assert all(values(saver, checkpoint_id=each)["document"] == document for each in ids(saver))
    assert get(saver, checkpoint_id=stored).pending_writes == [("task", "document", document)]


def test_reading_and_writing_nothing_create_nothing(saver: JsonFileSaver, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert saver.get_tuple(at()) is None
    assert saver.get_tuple(at(checkpoint_id="../../x")) is None
    assert list(saver.list(at())) == list(saver.list(None)) == []
    saver.delete_thread("t")
    saver.prune(["t"])
    saver.delete_for_runs(["r"])
    saver.copy_thread("t", "u")
    saver.put_writes(at(checkpoint_id="1"), [], "task")
    assert sorted(tmp_path.rglob("*")) == before


def test_the_folder_stays_where_it_was_when_the_process_moves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    saver = JsonFileSaver(Path("folder"))
    monkeypatch.chdir("/")
    put(saver, n=1)
    assert values(JsonFileSaver(tmp_path / "folder")) == {"n": 1}


HOSTILE = [
    "",
    ".",
    "..",
    "../../x",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "a\0b",
    "A",
    "a",
    "Ä",
    "x" * 5000,
    "con",
    "-rf",
    "~",
    "*",
    "\n",
]


def test_threads_of_any_name_live_side_by_side_inside_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    saver = JsonFileSaver(folder)
    for name in HOSTILE:
        put(saver, name, name=name)
        saver.put(at("ns", checkpoint_ns=name), checkpoint(name=name), {}, {})
    assert [values(saver, name)["name"] for name in HOSTILE] == HOSTILE
    found = [saver.get_tuple(at("ns", checkpoint_ns=name)) for name in HOSTILE]
    assert [each and each.checkpoint["channel_values"]["name"] for each in found] == HOSTILE
    assert {place(each.config)["thread_id"] for each in saver.list(None)} == {*HOSTILE, "ns"}
    assert list(tmp_path.iterdir()) == [folder]
    folders = {path.name.casefold() for path in (folder / "threads").iterdir()}
    assert len(folders) == len(HOSTILE) + 1
    assert max(map(len, folders)) <= 100
    for name in HOSTILE:
        saver.delete_thread(name)
    assert [path.name for path in (folder / "threads").iterdir()] == ["ns"]


@given(st.lists(st.text(st.characters(codec="ascii") | st.characters()), unique=True))
def test_names_are_safe_and_distinct_where_case_does_not_count(texts: list[str]) -> None:
    names = [name_for(text).casefold() for text in texts]
    assert len(set(names)) == len(texts)
    assert all(name.isascii() and not set(name) - set("abcdefghijklmnopqrstuvwxyz0123456789_-~") for name in names)
    assert all(0 < len(name) <= 100 and name[0] not in "-~" for name in names)


def test_a_checkpoint_id_that_is_no_file_name_is_refused(saver: JsonFileSaver, tmp_path: Path) -> None:
    made = checkpoint()
    made["id"] = "../../x"
    with pytest.raises(ValueError, match="lower-case letters"):
        saver.put(at(), made, {}, {})
    with pytest.raises(ValueError, match="lower-case letters"):
        saver.put_writes(at(checkpoint_id="../../x"), [("a", 1)], "task")
    assert not (tmp_path / "threads" / "t").exists()


def test_a_sync_graph_runs_on_it(saver: JsonFileSaver) -> None:
    class State(TypedDict):
        n: int

    builder = StateGraph(State)

    def add(state: State) -> State:
        return {"n": state["n"] + 1}

    builder.add_node("add", add)
    builder.add_edge(START, "add")
    builder.add_edge("add", END)
    graph = builder.compile(checkpointer=saver)
    assert graph.invoke({"n": 1}, at()) == {"n": 2}
    assert [each.values for each in graph.get_state_history(at())] == [{"n": 2}, {"n": 1}, {}]


# what tasks wrote


def test_writes_keep_langgraphs_order_and_the_first_of_each(saver: JsonFileSaver) -> None:
    stored = at(checkpoint_id=put(saver))
    special = {name: index for name, index in WRITES_IDX_MAP.items() if name in {"__interrupt__", "__resume__"}}
    assert special == {"__interrupt__": -3, "__resume__": -4}
    saver.put_writes(stored, [("a", 1), ("b", 2)], "task-2", "~path, 1")
    saver.put_writes(stored, [("__resume__", "no")], "task-1", "~path, 2")
    saver.put_writes(stored, [("a", 3)], "Task 1", "~path, 2")
    saver.put_writes(stored, [("__resume__", "yes"), ("c", 9)], "task-1", "~path, 2")
    saver.put_writes(stored, [("a", 7), ("b", 8), ("c", 3)], "task-2", "~path, 1")
    saver.put_writes(stored, [("a", 0)], "task-3", "")
    assert get(saver).pending_writes == [
        ("task-3", "a", 0),
        ("task-2", "a", 1),
        ("task-2", "b", 2),
        ("task-2", "c", 3),
        ("Task 1", "a", 3),
        ("task-1", "__resume__", "yes"),
        ("task-1", "c", 9),
    ]


async def test_writes_may_come_before_their_checkpoint(saver: JsonFileSaver) -> None:
    parent, made = put(saver), checkpoint()
    await saver.aput_writes(at(checkpoint_id=made["id"]), [("a", 1)], "task")
    assert ids(saver) == [parent]
    saver.prune(["t"])
    await saver.aput(at(checkpoint_id=parent), made, {}, {})
    assert get(saver).pending_writes == [("task", "a", 1)]


# copies


def test_a_copy_is_a_thread_of_its_own(saver: JsonFileSaver) -> None:
    put(saver, large="x" * LARGE)
    saver.put_writes(at(checkpoint_id=put(saver, small=1)), [("large", "z" * LARGE)], "task")
    saver.put(at(checkpoint_ns="sub:1"), checkpoint(small=2), {}, {})
    saver.copy_thread("t", "Copy of t")
    before = list(saver.list(at()))
    saver.delete_thread("t")
    copied = list(saver.list(at("Copy of t")))
    assert [each.checkpoint for each in copied] == [each.checkpoint for each in before]
    assert [each.pending_writes for each in copied] == [each.pending_writes for each in before]
    assert {place(each.config)["thread_id"] for each in copied} == {"Copy of t"}


def test_nothing_is_copied_over_a_thread(saver: JsonFileSaver) -> None:
    put(saver, n=1)
    put(saver, "other", n=2)
    for target in ("other", "t"):
        with pytest.raises(ThreadError, match="exists already; delete it, or copy to another ID"):
            saver.copy_thread("t", target)
    assert values(saver, "other") == {"n": 2}
    assert values(saver) == {"n": 1}


def test_what_a_killed_copy_or_deletion_left_is_cleared_away(saver: JsonFileSaver, tmp_path: Path) -> None:
    put(saver, n=1)
    put(saver, "u", n=2)
    threads = tmp_path / "threads"
    (threads / "u").rename(threads / ".copy-copy")
    put(saver, "v", n=3)
    (threads / "v").rename(threads / ".deleted-v-0123abcd")
    assert [place(each.config)["thread_id"] for each in saver.list(None)] == ["t"]
    saver.copy_thread("t", "copy")
    saver.delete_thread("v")
    assert sorted(path.name for path in threads.iterdir()) == ["copy", "t"]
    assert ids(saver, "copy") == ids(saver)


# removing


def test_pruning_removes_the_values_that_only_older_checkpoints_had(saver: JsonFileSaver, tmp_path: Path) -> None:
    for letter in "abc":
        put(saver, both="x" * LARGE, one=letter * LARGE)
    saver.prune(["t", "none"])
    assert values(saver) == {"both": "x" * LARGE, "one": "c" * LARGE}
    assert len(ids(saver)) == 1
    assert len(list((tmp_path / "threads" / "t" / "values").iterdir())) == 2
    saver.prune(["t"], strategy="delete")
    assert list((tmp_path / "threads").iterdir()) == []
    with pytest.raises(ValueError, match="use 'keep_latest' or 'delete'"):
        saver.prune(["t"], strategy="keep_all")


def test_deleting_a_run_removes_the_thread_that_it_was_all_of(saver: JsonFileSaver, tmp_path: Path) -> None:
    for thread_id, run_id in (("t", "1"), ("t", "2"), ("u", "1")):
        saver.put(at(thread_id), checkpoint(large=run_id * LARGE), {"run_id": run_id}, {})
    saver.delete_for_runs(["1"])
    assert [each.metadata.get("run_id") for each in saver.list(None)] == ["2"]
    assert len(list((tmp_path / "threads").glob("*/values/*"))) == 1
    assert [path.name for path in (tmp_path / "threads").iterdir()] == ["t"]


def _append(state: list[str], writes: Sequence[list[str]]) -> list[str]:
    return [*state, *(item for write in writes for item in write)]


class Log(TypedDict):
    lines: Annotated[list[str], DeltaChannel(_append, snapshot_frequency=4)]


async def test_pruning_keeps_what_a_delta_channel_is_rebuilt_from(saver: JsonFileSaver) -> None:
    builder = StateGraph(Log)

    def add(state: Log) -> Log:
        return {"lines": [str(len(state["lines"]))]}

    builder.add_node("add", add)
    builder.add_edge(START, "add")
    builder.add_edge("add", END)
    graph = builder.compile(checkpointer=saver)
    removed, before = [], {"lines": list[str]()}
    for turn in range(12):
        await graph.ainvoke({"lines": [f"turn {turn}"]}, at())
        before, count = (await graph.aget_state(at())).values, len(ids(saver))
        await saver.aprune(["t"])
        removed.append(count - len(ids(saver)))
        assert (await graph.aget_state(at())).values == before
    assert len(before["lines"]) == 24
    assert max(removed) > 5


def test_a_put_whose_lease_was_lost_leaves_no_folder_behind(tmp_path: Path) -> None:
    with open_checkpointer_sync(f"file:///{tmp_path}/kept") as saver:
        put(saver, "a", n=1)
        lost: dict[str, Any] = Lease("b", 1).configurable()
        with pytest.raises(LeaseLost):
            saver.put(at("b", **lost), checkpoint(n=1), {"step": 1}, {})
        with pytest.raises(LeaseLost):
            saver.put_writes(at("b", checkpoint_id="1", **lost), [("n", 1)], "task")
        saver.copy_thread("a", "b")
        assert values(saver, "b") == {"n": 1}


def test_a_value_goes_when_its_checkpoint_is_put_again_without_it(tmp_path: Path) -> None:
    with open_checkpointer_sync(f"file:///{tmp_path}") as saver:
        again = checkpoint()
        for letter in "abc":
            again["channel_values"] = {"v": letter * 20_000}
            config = saver.put(at(), again, {"step": 1}, {})
            saver.put_writes(config, [("__error__", letter * 30_000)], "task")
        assert len(list(tmp_path.glob("threads/t/values/*"))) == 2
        [found] = saver.list(at())
    assert found.checkpoint["channel_values"] == {"v": "c" * 20_000}
    assert found.pending_writes == [("task", "__error__", "c" * 30_000)]


def test_a_listing_reads_each_folder_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_checkpointer_sync(f"file:///{tmp_path}") as saver:
        for number in range(5):
            put(saver, n=number)
        looked = 0
        ids = ThreadFolder.ids

        def counted(self: ThreadFolder, folder: Path) -> list[str]:
            nonlocal looked
            looked += 1
            return ids(self, folder)

        monkeypatch.setattr(ThreadFolder, "ids", counted)
        assert len(list(saver.list(at()))) == 5
    assert looked == 1
