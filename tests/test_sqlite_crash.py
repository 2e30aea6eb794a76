"""The SQLite store under kills, crowds and full disks."""

from __future__ import annotations

import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.checkpoints import at, ids, put, unused_blobs, values
from tests.conftest import FORBIDDEN
from tidegate.checkpointers import open_checkpointer_sync
from tidegate.errors import CheckpointDamaged, StoreDamaged

WRITER = """
import asyncio, os, signal, sys
from tests.checkpoints import at, checkpoint
from tidegate.checkpointers import open_checkpointer
from tidegate.store import blobs, connection, database

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

def connect_writer(*args):
    made, calls = connect(*args), 0
    def trace(statement):
        nonlocal calls
        calls += statement == "COMMIT"
        if calls == 40 and point == "before COMMIT":
            os.kill(os.getpid(), signal.SIGKILL)
    made.set_trace_callback(trace)
    return made

connect, connection.connect_writer = connection.connect_writer, connect_writer
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
POINTS.append("before COMMIT")


@pytest.mark.parametrize("point", ["after store", "before COMMIT", "before _tell"])
def test_a_process_killed_at_a_named_point_loses_nothing_that_it_acknowledged(tmp_path: Path, point: str) -> None:
    kill_once(tmp_path / "tidegate.db", "a", point, 0.0)


@pytest.mark.slow
def test_two_hundred_kills_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    chance = random.Random(1)  # noqa: S311 - moments to kill at
    for number in range(200):
        point = POINTS[number % 9] if number % 9 < len(POINTS) else ""
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
import random, sys
from pathlib import Path
from tests.checkpoints import put, values
from tidegate.checkpointers import open_checkpointer_sync
from tidegate.errors import StoreError

folder = Path(sys.argv[1])
with open_checkpointer_sync(f"sqlite:///{folder}/tidegate.db") as saver:
    put(saver, "a", n=1)
    ballast = folder / "ballast"
    ballast.write_bytes(bytes(1_000_000))
    try:
        for number in range(1000):
            put(saver, "b", document=random.randbytes(10_000).hex())
    except StoreError as error:
        print(error)
    print(values(saver, "a"))
    ballast.unlink()
    put(saver, "c", n=3)
with open_checkpointer_sync(f"sqlite:///{folder}/tidegate.db") as saver:
    print(values(saver, "a"), values(saver, "c"), len(list(saver.list({"configurable": {"thread_id": "b"}}))) > 5)
"""


def test_a_full_disk_is_told_and_the_store_goes_on_once_there_is_space(tmp_path: Path) -> None:
    mounted = in_a_mount_of_its_own(f"mount -t tmpfs -o size=3m none {tmp_path}", FULL, tmp_path)
    told, held, later = mounted.splitlines()
    assert told.startswith(f"{tmp_path}/tidegate.db: there is no space left on its disk")
    assert told.endswith("; free some and try again")
    assert held == "{'n': 1}"
    assert later == "{'n': 1} {'n': 3} True"


READ_ONLY = """
import subprocess, sys
from tests.checkpoints import put, values
from tidegate.checkpointers import open_checkpointer_sync
from tidegate.errors import SettingsError

url = f"sqlite:///{sys.argv[1]}/tidegate.db"
with open_checkpointer_sync(url) as saver:
    put(saver, "a", n=1)
subprocess.run(["mount", "-o", "remount,ro", sys.argv[1]], check=True)
try:
    with open_checkpointer_sync(url) as saver:
        put(saver, "a", n=2)
except SettingsError as error:
    print(error)
subprocess.run(["mount", "-o", "remount,rw", sys.argv[1]], check=True)
with open_checkpointer_sync(url) as saver:
    print(values(saver, "a"))
"""


def test_a_disk_that_became_read_only_is_told_and_what_was_stored_is_there(tmp_path: Path) -> None:
    told, held = in_a_mount_of_its_own(f"mount -t tmpfs none {tmp_path}", READ_ONLY, tmp_path).splitlines()
    assert told.startswith(f"cannot use {tmp_path}/tidegate.db: ")
    assert told.endswith("; make it writable, move it away or name another file")
    assert held == "{'n': 1}"


def in_a_mount_of_its_own(mount: str, script: str, folder: Path) -> str:
    """Run a script in a folder that is a file system of its own, which goes with it; return what it prints."""
    unshare = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if shutil.which("unshare") is None or subprocess.run([*unshare, mount], check=False).returncode:
        pytest.skip(f"{FORBIDDEN}to mount a file system in a namespace of its own")
    command = [*unshare, f'{mount} && exec "$0" "$@"', sys.executable, "-c", script, str(folder)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr
    return done.stdout


LIMITED = """
import random, resource, signal, sys
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
            put(saver, "b", document=random.randbytes(10_000).hex())
    except StoreError as error:
        print(error)
    print(values(saver, "a"))
"""


def test_a_file_that_may_not_grow_is_told_and_what_was_stored_is_there(tmp_path: Path) -> None:
    file = tmp_path / "tidegate.db"
    command = [sys.executable, "-c", LIMITED, str(file)]
    told = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1]).stdout
    assert "tidegate.db: " in told.splitlines()[0]
    assert told.splitlines()[-1] == "{'n': 1}"
    with open_checkpointer_sync(f"sqlite:///{file}") as saver:
        assert list(saver.list(at("b")))


@pytest.mark.parametrize("part", [0.001, 0.02, 0.3, 0.5, 0.9])
def test_a_file_that_was_cut_is_told_as_damage_and_left_as_it_is(tmp_path: Path, part: float) -> None:
    file = written(tmp_path / "tidegate.db")
    cut = file.read_bytes()[: int(file.stat().st_size * part)]
    file.write_bytes(cut)
    with (
        pytest.raises(StoreDamaged, match=r"tidegate.db: it is damaged \(.*\); restore it from a copy"),
        open_checkpointer_sync(f"sqlite:///{file}"),
    ):
        pass
    assert file.read_bytes() == cut


@pytest.mark.parametrize("part", [0.0, 0.00003, 0.2, 0.6, 1.0])
@pytest.mark.parametrize("rest", [b"", b"\xaa" * 5000])
def test_a_log_that_was_cut_or_damaged_costs_the_last_transactions_alone(
    tmp_path: Path, part: float, rest: bytes
) -> None:
    file = tmp_path / "tidegate.db"
    put_all(file, "kept", 3)
    with open_checkpointer_sync(f"sqlite:///{file}") as saver:
        stored = [put(saver, "a", text=noise(number), n=number) for number in range(10)]
        log = file.with_name("tidegate.db-wal").read_bytes()
        crashed = tmp_path / "crashed.db"
        crashed.write_bytes(file.read_bytes())
    whole = log[: int(len(log) * part)]
    crashed.with_name("crashed.db-wal").write_bytes(whole + rest + log[len(whole) + len(rest) :] if rest else whole)
    with open_checkpointer_sync(f"sqlite:///{crashed}") as saver:
        assert len(ids(saver, "kept")) == 3
        held = ids(saver, "a")[::-1]
        assert held == stored[: len(held)]  # no gap, nothing half there
        assert [values(saver, "a", each) for each in held] == [
            {"text": noise(number), "n": number} for number in range(len(held))
        ]
        assert (len(held) > 0) == (part > 0.1)
        put(saver, "b", n=1)
    with closing(sqlite3.connect(crashed)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_pages_damaged_anywhere_are_told_and_no_value_is_ever_wrong(tmp_path: Path) -> None:
    file = written(tmp_path / "tidegate.db")
    data = file.read_bytes()
    intact = 0
    for page in range(1, len(data) // 4096):
        file.with_name("tidegate.db-wal").unlink(missing_ok=True)
        file.write_bytes(data[: page * 4096] + b"\xaa" * 4096 + data[(page + 1) * 4096 :])
        for thread in ("kept", "a"):
            try:
                with open_checkpointer_sync(f"sqlite:///{file}") as saver:
                    found = [each.checkpoint["channel_values"] for each in saver.list(at(thread))]
            except (CheckpointDamaged, StoreDamaged) as error:
                assert "restore" in str(error)  # noqa: PT017 - several calls may raise it
                assert "from a copy" in str(error)  # noqa: PT017
            else:
                assert found == [{"text": noise(number), "n": number} for number in reversed(range(len(found)))]
                intact += len(found) in (3, 10)
    assert intact > len(data) // 4096  # most pages are of one thread alone, and the other is whole


def written(file: Path) -> Path:
    """Make a file of two threads, whose log is gone."""
    put_all(file, "kept", 3)
    put_all(file, "a", 10)
    return file


def put_all(file: Path, thread_id: str, count: int) -> None:
    with open_checkpointer_sync(f"sqlite:///{file}") as saver:
        for number in range(count):
            put(saver, thread_id, text=noise(number), n=number)


def noise(number: int) -> str:
    """Return a text that cannot be compressed, the same for the same number."""
    return random.Random(number).randbytes(4000).hex()  # noqa: S311 - filling
