"""The SQLite store under kills, crowds and full disks."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.checkpoints import at, unused_blobs
from tidegate.checkpointers import open_checkpointer_sync

WRITER = """
import asyncio, os, signal, sys
from tests.checkpoints import at, checkpoint
from tidegate.checkpointers import open_checkpointer
from tidegate.store import blobs, database

file, name, point = sys.argv[1:]
TEXT = "".join(f"{number} is a number. " for number in range(2000))

def die_at(module, function):
    real, calls = getattr(module, function), 0
    def dying(*args, **options):
        nonlocal calls
        calls += 1
        if calls == 40 and point == f"before {function}":
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*args, **options)
        if calls == 40 and point == f"after {function}":
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    setattr(module, function, dying)

for module, function in ((blobs, "store"), (database, "_tell"), (database, "_attempt")):
    die_at(module, function)

async def one(saver, thread):
    parent = {}
    for step in range(1000):
        made = checkpoint(document=f"{thread} {step} {TEXT}", step=step)
        config = await saver.aput(at(thread, **parent), made, {"step": step}, {})
        print("put", thread, made["id"], flush=True)
        await saver.aput_writes(config, [("document", f"{thread} {step} {TEXT}"), ("n", step)], "task")
        print("wrote", thread, made["id"], flush=True)
        parent = {"checkpoint_id": made["id"]}
        if step % 5 == 4:
            await saver.aprune([thread])
            print("pruned", thread, made["id"], flush=True)

async def main():
    async with open_checkpointer(f"sqlite:///{file}") as saver:
        print("ready", flush=True)
        await asyncio.gather(*(one(saver, f"{name}-{number}") for number in range(3)))

asyncio.run(main())
"""


def kill_once(file: Path, name: str, point: str, delay: float) -> None:
    """Let a process write until it is killed, and check that all it acknowledged is there."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, file, name, point],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    if not point:
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
    told, _ = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    last: dict[str, tuple[str, str]] = {}
    for line in told.split("\n")[:-1]:  # what is not told to its end is not acknowledged
        what, thread, checkpoint_id = line.split()
        last[thread] = (what, checkpoint_id)
    with open_checkpointer_sync(f"sqlite:///{file}") as saver:
        for thread, (what, checkpoint_id) in last.items():
            found = saver.get_tuple(at(thread, checkpoint_id=checkpoint_id))
            assert found is not None, (thread, what)
            document = found.checkpoint["channel_values"]["document"]
            assert document.startswith(f"{thread} ")
            written = [(channel, value) for _, channel, value in found.pending_writes or []]
            if what != "put":
                assert written == [("document", document), ("n", found.checkpoint["channel_values"]["step"])]
            list(saver.list(at(thread)))
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        assert unused_blobs(connection) == 0


POINTS = [f"{when} {what}" for what in ("store", "_tell", "_attempt") for when in ("before", "after")]


@pytest.mark.parametrize("point", ["after store", "before _tell"])
def test_a_process_killed_at_a_named_point_loses_nothing_that_it_acknowledged(tmp_path: Path, point: str) -> None:
    kill_once(tmp_path / "tidegate.db", "a", point, 0.0)


@pytest.mark.slow
def test_two_hundred_kills_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    chance = random.Random(1)  # noqa: S311 - moments to kill at
    for number in range(200):
        point = POINTS[number % 8] if number % 8 < len(POINTS) else ""
        kill_once(tmp_path / "tidegate.db", f"kill-{number}", point, chance.uniform(0.0, 0.4))


CROWD = """
import asyncio, sys
from tests.checkpoints import at, checkpoint
from tidegate.checkpointers import open_checkpointer

async def main(file, name, threads):
    async with open_checkpointer(f"sqlite:///{file}") as saver:
        async def one(number):
            parent = {}
            for step in range(4):
                # the same text everywhere: what one process prunes another is about to name
                made = checkpoint(document=f"{step} " * 3000, step=step)
                config = await saver.aput(at(f"{name}-{number}", **parent), made, {"step": step}, {})
                await saver.aput_writes(config, [("document", f"{step + 1} " * 3000)], "task")
                parent = {"checkpoint_id": made["id"]}
                await saver.aprune([f"{name}-{number}"])
        await asyncio.gather(*(one(number) for number in range(threads)))

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


@pytest.mark.parametrize(("processes", "threads"), [(2, 10), pytest.param(4, 50, marks=pytest.mark.slow)])
def test_processes_that_share_a_file_lose_nothing(tmp_path: Path, processes: int, threads: int) -> None:
    file = tmp_path / "tidegate.db"
    command = [sys.executable, "-c", CROWD, str(file)]
    root = Path(__file__).parents[1]
    crowd = [subprocess.Popen([*command, str(name), str(threads)], cwd=root) for name in range(processes)]
    assert [process.wait(300) for process in crowd] == [0] * processes
    with open_checkpointer_sync(f"sqlite:///{file}") as saver:
        for name in range(processes):
            for number in range(threads):
                (kept,) = saver.list(at(f"{name}-{number}"))
                assert kept.checkpoint["channel_values"] == {"document": "3 " * 3000, "step": 3}
                assert kept.pending_writes == [("task", "document", "4 " * 3000)]
    with closing(sqlite3.connect(file)) as connection:
        assert unused_blobs(connection) == 0


FULL = """
import resource, signal, sys
from tests.checkpoints import at, checkpoint, put, values
from tidegate.checkpointers import open_checkpointer_sync
from tidegate.errors import StoreError

with open_checkpointer_sync(f"sqlite:///{sys.argv[1]}") as saver:
    put(saver, "a", n=1)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limit = 400_000
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        for number in range(1000):
            put(saver, "b", document="".join(chr(97 + hash((number, place)) % 26) for place in range(20_000)))
    except StoreError as error:
        print(error)
    print(values(saver, "a"))
"""


def test_a_full_disk_is_told_and_what_was_stored_is_there(tmp_path: Path) -> None:
    file = tmp_path / "tidegate.db"
    command = [sys.executable, "-c", FULL, str(file)]
    told = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1]).stdout
    assert "tidegate.db: " in told.splitlines()[0]
    assert told.splitlines()[-1] == "{'n': 1}"
    with open_checkpointer_sync(f"sqlite:///{file}") as saver:
        assert list(saver.list(at("b")))
