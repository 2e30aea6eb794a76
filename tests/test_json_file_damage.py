"""Checkpoints as JSON files, when a file is damaged: it is named, and nothing else is lost."""

from __future__ import annotations

import base64
import json
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.checkpoints import at, checkpoint, file_of, get, ids, place, put, values
from tidegate.checkpointers.durable import name_for
from tidegate.checkpointers.json_file import JsonFileSaver
from tidegate.checkpointers.json_thread import LARGE
from tidegate.errors import CheckpointDamaged, StoreError


@pytest.fixture
def saver(tmp_path: Path) -> JsonFileSaver:
    return JsonFileSaver(tmp_path)


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


def test_a_link_that_leads_nowhere_is_told(saver: JsonFileSaver, tmp_path: Path) -> None:
    put(saver, "locked", n=1)
    (tmp_path / "threads" / "locked" / ".lock").unlink()
    (tmp_path / "threads" / "locked" / ".lock").symlink_to(tmp_path / "gone" / "lock")
    (tmp_path / "threads" / "moved").symlink_to(tmp_path / "gone")
    for thread_id in ("locked", "moved"):
        with pytest.raises(StoreError, match=r"threads/\w+/\.lock: it cannot be used \(No such file"):
            saver.put(at(thread_id), checkpoint(n=2), {}, {})


def test_a_full_disk_is_told_and_what_was_begun_takes_none_of_it(saver: JsonFileSaver, tmp_path: Path) -> None:
    put(saver, n=1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(StoreError, match=r"threads/t: there is no space left .*; free some and try again"):
            put(saver, n="x" * 1_000_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not (tmp_path / "threads" / "t" / ".new").exists()
    assert values(saver) == {"n": 1}


def test_files_and_folders_of_somebody_else_among_the_threads_are_left_alone(
    saver: JsonFileSaver, tmp_path: Path
) -> None:
    put(saver, n=1)
    (tmp_path / "threads" / "README").write_text("what is in here")
    (tmp_path / "threads" / "old").mkdir()
    (tmp_path / "threads" / "old" / "notes.txt").write_text("notes")
    assert [place(each.config)["thread_id"] for each in saver.list(None)] == ["t"]
    saver.keep_last(1)
    saver.delete_for_runs(["1"])
    assert (tmp_path / "threads" / "README").exists()
    assert (tmp_path / "threads" / "old" / "notes.txt").exists()
