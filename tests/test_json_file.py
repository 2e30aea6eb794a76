"""Checkpoints as JSON files: what they look like, what they hold, and what damages them."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import fcntl
import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import WRITES_IDX_MAP, CheckpointTuple
from langgraph.graph import END, START, StateGraph
from langgraph.types import Interrupt, Send

from tests.checkpoints import at, checkpoint, place
from tidegate.checkpointers.durable import name_for
from tidegate.checkpointers.json_file import JsonFileSaver
from tidegate.checkpointers.json_format import dump_json
from tidegate.checkpointers.json_thread import LARGE
from tidegate.checkpointers.json_values import decode, encode
from tidegate.checkpointers.saving import StrictSerializer
from tidegate.errors import CheckpointDamaged, ThreadError


@pytest.fixture
def saver(tmp_path: Path) -> JsonFileSaver:
    return JsonFileSaver(tmp_path)


def put(saver: JsonFileSaver, thread_id: str = "t", **values: Any) -> str:
    """Put a checkpoint on top of the newest; return its ID."""
    latest = saver.get_tuple(at(thread_id))
    parent = {"checkpoint_id": latest.checkpoint["id"]} if latest else {}
    stored = saver.put(at(thread_id, **parent), checkpoint(**values), {"step": 1, "source": "loop"}, {})
    return str(place(stored)["checkpoint_id"])


def get(saver: JsonFileSaver, thread_id: str = "t", checkpoint_id: str | None = None) -> CheckpointTuple:
    found = saver.get_tuple(at(thread_id, **({"checkpoint_id": checkpoint_id} if checkpoint_id else {})))
    assert found is not None
    return found


def values(saver: JsonFileSaver, thread_id: str = "t", checkpoint_id: str | None = None) -> dict[str, Any]:
    return get(saver, thread_id, checkpoint_id).checkpoint["channel_values"]


def ids(saver: JsonFileSaver, thread_id: str = "t") -> list[str]:
    return [each.checkpoint["id"] for each in saver.list(at(thread_id))]


def file_of(tmp_path: Path, checkpoint_id: str, thread_id: str = "t") -> Path:
    return tmp_path / "threads" / thread_id / "checkpoints" / f"{checkpoint_id}.json"


# the files


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


# values

keys = st.text(max_size=5) | st.sampled_from(["$", "$$", "$send", "$$send", "$file", "$msgpack", "node"])
scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text() | st.binary()
)
plain = st.recursive(
    scalars | st.dates() | st.sets(st.integers(0, 9)),
    lambda each: (
        st.lists(each)
        | st.dictionaries(keys, each)
        | st.dictionaries(st.integers(0, 9), each, min_size=1)
        | st.builds(Send, st.text(), each)
        | st.builds(lambda value, id_: Interrupt(value=value, id=id_), each, st.text())
    ),
    max_leaves=10,
)


@given(value=plain)
def test_values_come_back_as_they_were(value: Any) -> None:
    serde = StrictSerializer()
    stored = dump_json(encode(value, serde))
    assert decode(json.loads(stored), serde) == value


@pytest.mark.parametrize(
    "value",
    [
        "\ud800 a lone surrogate",
        float("inf"),
        2**64 + 1,
        [[[[dt.datetime(2026, 3, 1, tzinfo=dt.UTC)]]]],
        Send("a", Send("b", b"\0")),
        Interrupt(value={"$x": 1}, id="1"),
        Interrupt(value=1, id="1", response_schema={"type": "string"}),
        Send("a", 1, timeout=3),
        "x" * LARGE,
        ["$file"],
        {"$file": "values/" + "0" * 64 + ".json"},
    ],
)
def test_unusual_values_come_back_as_they_were(value: Any, saver: JsonFileSaver) -> None:
    put(saver, value=value)
    assert values(saver) == {"value": value}


def test_what_langgraph_does_not_keep_is_not_kept_either(saver: JsonFileSaver) -> None:
    put(saver, pair=(1, [2]), error=ValueError("no"))
    assert values(saver) == {"pair": [1, [2]], "error": "ValueError('no')"}


def test_deep_values_do_not_use_up_the_stack(saver: JsonFileSaver) -> None:
    put(saver, deep=_nested(300))  # 255 are the most that LangGraph's serializer takes
    assert values(saver) == {"deep": _nested(300)}
    with pytest.raises(TypeError, match="Recursion limit"):
        put(saver, deep=_nested(100_000))
    assert values(saver) == {"deep": _nested(300)}


def _nested(levels: int) -> Any:
    value: Any = 1
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


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


# several at once


async def test_many_tasks_may_write_at_once(tmp_path: Path) -> None:
    savers = [JsonFileSaver(tmp_path) for _ in range(3)]
    stored = at(checkpoint_id=put(savers[0]))
    await asyncio.gather(
        *(savers[task % 3].aput_writes(stored, [("c", task)] * 2, f"task-{task:02}", "") for task in range(40)),
        *(savers[i % 3].aput_writes(stored, [("c", n) for n in range(i + 1)], "same", "~") for i in range(20)),
    )
    assert get(savers[0]).pending_writes == [
        *((f"task-{task:02}", "c", task) for task in range(40) for _ in range(2)),
        *(("same", "c", n) for n in range(20)),
    ]


def test_a_thread_may_be_deleted_while_others_write(tmp_path: Path) -> None:
    saver = JsonFileSaver(tmp_path)
    until = time.monotonic() + 0.5

    def work(action: Callable[[], Any]) -> int:
        count = 0
        while time.monotonic() < until:
            action()
            count += 1
        return count

    actions: list[Callable[[], Any]] = [
        lambda: saver.put(at(), checkpoint(large="x" * LARGE), {"run_id": "r"}, {}),
        lambda: saver.put_writes(at(checkpoint_id="1"), [("a", "x" * LARGE)], "task"),
        lambda: saver.delete_thread("t"),
        lambda: list(saver.list(None)) and saver.get_tuple(at()),
        lambda: saver.prune(["t"]),
        lambda: saver.delete_for_runs(["r"]),
    ]
    with ThreadPoolExecutor(len(actions)) as pool:
        assert all(pool.map(work, actions))
    saver.delete_thread("t")
    assert list((tmp_path / "threads").iterdir()) == []


async def test_waiting_for_another_process_does_not_block_the_event_loop(saver: JsonFileSaver, tmp_path: Path) -> None:
    put(saver)
    other = os.open(tmp_path / "threads" / "t" / ".lock", os.O_RDWR)
    fcntl.flock(other, fcntl.LOCK_EX)
    release = threading.Timer(0.1, os.close, [other])
    release.start()
    writing = asyncio.create_task(saver.aput(at(), checkpoint(), {}, {}))
    turns = 0
    while not writing.done():
        turns += 1
        await asyncio.sleep(0.005)
    assert turns > 3
    release.join()


async def test_a_cancelled_write_is_whole_or_not_there_and_nothing_lands_later(saver: JsonFileSaver) -> None:
    first = put(saver, large="x" * LARGE)
    landed = 0
    for moment in range(20):
        values_ = {"n": moment, "large": "y" * (LARGE + moment)}
        writing = [
            asyncio.create_task(saver.aput(at(), checkpoint(**values_), {}, {})),
            asyncio.create_task(saver.aput_writes(at(checkpoint_id=first), [("a", 1), ("b", 1)], f"task-{moment}")),
        ]
        await asyncio.sleep(moment * 0.0005)
        for each in writing:
            each.cancel()
        await asyncio.gather(*writing, return_exceptions=True)
        after = ids(saver), get(saver, checkpoint_id=first).pending_writes
        await asyncio.sleep(0.005)
        assert after == (ids(saver), get(saver, checkpoint_id=first).pending_writes)
        assert len(after[1] or ()) % 2 == 0
        landed = len(after[0]) + len(after[1] or ())
    assert landed > 1


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


# damage


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def _edit(old: str, new: str) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        text = path.read_text("utf-8")
        assert old in text
        path.write_text(text.replace(old, new), "utf-8")

    return edit


def _typed(kind: str, data: bytes) -> str:
    return json.dumps({f"${kind}": base64.b64encode(data).decode()})


DAMAGES = {
    "cut": (_cut, "is not whole JSON"),
    "emptied": (lambda path: path.write_bytes(b""), "is not whole JSON"),
    "zeros": (lambda path: path.write_bytes(bytes(path.stat().st_size)), "is not whole JSON"),
    "not UTF-8": (lambda path: path.write_bytes(b'{"format": "\xff"}'), "is not whole JSON"),
    "a bomb": (lambda path: path.write_bytes(b"[" * 100_000), "is not whole JSON"),
    "not JSON": (_edit('"marker"', "NaN"), "is not whole JSON"),
    "a number too long": (_edit('"marker"', "9" * 5000), "is not whole JSON"),
    "another shape": (lambda path: path.write_text("[]"), "does not fit this version"),
    "a newer format": (_edit('"format": 1', '"format": 2'), "does not fit this version (format)"),
    "another type": (_edit('"metadata": {', '"metadata": 1, "x": {'), "does not fit this version (metadata)"),
    "another ID": (_edit('"id": "', '"id": "0'), "does not fit this version (checkpoint)"),
    "no time": (_edit('"ts"', '"x"'), "does not fit this version (checkpoint)"),
    "no versions": (_edit('"channel_versions"', '"x"'), "does not fit this version (checkpoint)"),
    "renamed": (_edit('"thread_id": "t"', '"thread_id": "u"'), "belongs to another thread"),
    "an unknown key": (_edit('"marker"', '{"$x": 1}'), "has an object with an unknown $ key"),
    "a half tag": (_edit('"marker"', '{"$send": {"node": "a"}}'), "has an object with an unknown $ key"),
    "a tag among keys": (_edit('"marker"', '{"$send": 1, "a": 1}'), "has an object with an unknown $ key"),
    "a pickle": (_edit('"marker"', _typed("pickle", b"cos\nsystem\n(S'touch pwned'\ntR.")), "unknown $ key"),
    "a constructor": (_edit('"marker"', _typed("json", b"{}")), "unknown $ key"),
    "not msgpack": (_edit('"marker"', _typed("msgpack", b"\xc1")), "has a $msgpack value that cannot be loaded"),
    "not base64": (_edit('"marker"', '{"$bytes": "*"}'), "has a $bytes value that cannot be loaded"),
    "a path": (_edit('"marker"', '{"$file": "../../../x"}'), "has an object with an unknown $ key"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_nothing_else_is_lost(
    name: str, saver: JsonFileSaver, tmp_path: Path
) -> None:
    damage, problem = DAMAGES[name]
    old, good, bad = put(saver, n=0), put(saver, n=1, large="x" * LARGE), put(saver, n=2, value="marker")
    put(saver, "other", n=3)
    file = file_of(tmp_path, bad)
    damage(file)
    for config in (at(), at(checkpoint_id=bad)):
        with pytest.raises(CheckpointDamaged) as caught:
            saver.get_tuple(config)
        assert caught.value.thread_id == "t"
        assert str(file) in str(caught.value)
        assert problem in str(caught.value)
        assert f"move {file} away to go on from checkpoint {good}, the newest that is whole" in str(caught.value)
    with pytest.raises(CheckpointDamaged):
        list(saver.list(at()))
    with pytest.raises(CheckpointDamaged):
        saver.prune(["t"])
    with pytest.raises(CheckpointDamaged):
        saver.copy_thread("t", "copy")
    saver.delete_for_runs(["r"])
    assert [each.checkpoint["id"] for each in saver.list(at(), before=at(checkpoint_id=bad))] == [good, old]
    assert values(saver, checkpoint_id=good) == {"n": 1, "large": "x" * LARGE}
    assert values(saver, "other") == {"n": 3}
    assert sorted(path.name for path in (tmp_path / "threads").iterdir()) == ["other", "t"]
    file.rename(tmp_path / "away")
    assert values(saver) == {"n": 1, "large": "x" * LARGE}
    assert ids(saver) == [good, old]


def test_damage_is_told_without_the_contents(saver: JsonFileSaver, tmp_path: Path) -> None:
    bad = put(saver, value="marker")
    for text in ('{"secret": "secret"}', '{"secret', '{"format": 1, "thread_id": {"secret": 1}}'):
        file_of(tmp_path, bad).write_text(text)
        with pytest.raises(CheckpointDamaged, match="to start anew: no other is whole") as caught:
            saver.get_tuple(at())
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (_cut, "has other content than its name says"),
        (_edit("xx", "yy"), "has other content than its name says"),
        (Path.unlink, "is missing"),
    ],
)
def test_a_damaged_value_is_named_and_mended_by_the_next_put(
    damage: Callable[[Path], None], problem: str, saver: JsonFileSaver, tmp_path: Path
) -> None:
    good, bad = put(saver, n=1), put(saver, large="x" * LARGE)
    (file,) = (tmp_path / "threads" / "t" / "values").iterdir()
    damage(file)
    with pytest.raises(CheckpointDamaged) as caught:
        saver.get_tuple(at())
    assert f"{file} {problem}; move {file_of(tmp_path, bad)} away to go on from checkpoint {good}" in str(caught.value)
    saver.put(at(), checkpoint(large="x" * LARGE), {}, {})
    assert values(saver) == values(saver, checkpoint_id=bad) == {"large": "x" * LARGE}


def test_damaged_writes_are_named_and_their_checkpoint_is_whole(saver: JsonFileSaver, tmp_path: Path) -> None:
    stored = put(saver, n=1)
    saver.put_writes(at(checkpoint_id=stored), [("a", 1)], "task-1")
    saver.put_writes(at(checkpoint_id=stored), [("a", 2)], "task-2")
    file = file_of(tmp_path, stored).with_suffix(".writes") / "task-1.json"
    _cut(file)
    expected = f"{file} is not whole JSON; move {file} away to go on from checkpoint {stored}, the newest"
    with pytest.raises(CheckpointDamaged) as caught:
        saver.get_tuple(at())
    assert expected in str(caught.value)
    with pytest.raises(CheckpointDamaged):
        saver.put_writes(at(checkpoint_id=stored), [("a", 1), ("b", 1)], "task-1")
    with pytest.raises(CheckpointDamaged):
        saver.prune(["t"])
    file.unlink()
    assert get(saver).pending_writes == [("task-2", "a", 2)]


def test_a_folder_copied_by_hand_is_not_taken_for_another_thread(saver: JsonFileSaver, tmp_path: Path) -> None:
    put(saver, n=1)
    (tmp_path / "threads" / "t").rename(tmp_path / "threads" / name_for("Another"))
    with pytest.raises(CheckpointDamaged, match=r"thread 'Another' is damaged: .* it was copied or renamed"):
        saver.get_tuple(at("Another"))


# sudden death


def test_a_file_is_on_the_disk_before_it_has_its_name_and_its_name_before_we_return(
    saver: JsonFileSaver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[str, int]] = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(descriptor: int) -> None:
        fsync(descriptor)
        done.append(("synced", os.fstat(descriptor).st_ino))

    def noted_replace(old: Path, new: Path) -> None:
        replace(old, new)
        done.append(("named", new.stat().st_ino))

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    checkpoint_file = file_of(tmp_path, put(saver, large="x" * LARGE))
    folder = tmp_path / "threads" / "t"
    (value_file,) = (folder / "values").iterdir()
    above = {folder.stat().st_ino, folder.parent.stat().st_ino}
    assert [each for each in done if each[1] not in above] == [
        ("synced", value_file.stat().st_ino),
        ("named", value_file.stat().st_ino),
        ("synced", value_file.parent.stat().st_ino),
        ("synced", checkpoint_file.stat().st_ino),
        ("named", checkpoint_file.stat().st_ino),
        ("synced", checkpoint_file.parent.stat().st_ino),
    ]
    assert above <= {each for _, each in done}  # for the folders that are new


KILLED = """
    import itertools, os, random, signal, sys, time
    from pathlib import Path
    from tests.checkpoints import at, checkpoint
    from tidegate.checkpointers.json_file import JsonFileSaver

    folder, kills = Path(sys.argv[1]), int(sys.argv[2])

    def work(acknowledge):
        saver = JsonFileSaver(folder)
        while True:
            made = checkpoint(large="x" * 10_000)
            made["channel_values"]["id"] = made["id"] * 300
            saver.put(at(), made, {}, {})
            acknowledge(f"put {made['id']}")
            saver.put_writes(at(checkpoint_id=made["id"]), [("a", made["id"]), ("b", made["id"] * 300)], "task")
            acknowledge(f"wrote {made['id']}")
            saver.put(at("pruned"), made, {}, {})
            acknowledge(f"pruned {made['id']}")
            saver.prune(["pruned"])

    for _ in range(kills):  # children, since starting an interpreter for each would take a second
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            work(lambda line: os.write(writer, f"{line}\\n".encode()))
        os.close(writer)
        began = time.perf_counter()
        for _ in range(random.randint(1, 6)):
            sys.stdout.write(os.read(reader, 100).decode())
        step = (time.perf_counter() - began) / 3
        time.sleep(random.uniform(0, step))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        sys.stdout.write(os.read(reader, 100_000).decode())
        os.close(reader)
"""


@pytest.mark.parametrize("kills", [8, pytest.param(100, marks=pytest.mark.slow)])
def test_what_was_acknowledged_outlives_a_kill(kills: int, tmp_path: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path), str(kills)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    acknowledged = [line.split() for line in output.splitlines()]
    assert len(acknowledged) > kills
    saver = JsonFileSaver(tmp_path)
    newest_pruned = ""
    for what, id_ in acknowledged:
        if what == "put":
            assert values(saver, checkpoint_id=id_)["id"] == id_ * 300
        elif what == "wrote":
            assert get(saver, checkpoint_id=id_).pending_writes == [("task", "a", id_), ("task", "b", id_ * 300)]
        else:
            newest_pruned = id_
    for each in saver.list(None):
        assert each.checkpoint["channel_values"]["id"] == each.checkpoint["id"] * 300
        assert each.pending_writes is not None
        assert len(each.pending_writes) in {0, 2}
    assert get(saver, "pruned").checkpoint["id"] >= newest_pruned


# graphs


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
