"""Checkpoints as JSON files, when many use them at once or are killed."""

from __future__ import annotations

import asyncio
import fcntl
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.checkpoints import at, checkpoint, file_of, get, ids, put, values
from tidegate.checkpointers.json_file import JsonFileSaver
from tidegate.checkpointers.json_thread import LARGE


@pytest.fixture
def saver(tmp_path: Path) -> JsonFileSaver:
    return JsonFileSaver(tmp_path)


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
    root = Path(__file__).parent.parent  # where `tests` is found
    output = subprocess.run(command, check=True, capture_output=True, text=True, cwd=root).stdout
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
