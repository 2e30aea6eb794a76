"""The folder trigger, on real folders: which files come in, when, and where they go."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import logging
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.doors import Doorstep, fetching, opened_door, running, until
from tidegate.errors import SettingsError, StoreUnavailable
from tidegate.settings.service import FolderTrigger as FolderSettings
from tidegate.store import expiry
from tidegate.store.clock import SystemClock
from tidegate.store.file_events import event_id, path_of
from tidegate.store.inbox import Envelope
from tidegate.store.transactions import Connection
from tidegate.testing import ManualClock
from tidegate.triggers.folder import moves as folder_moves
from tidegate.triggers.folder.listing import FileChangedError, FolderListing, Signature
from tidegate.triggers.folder.moves import move
from tidegate.triggers.folder.trigger import FolderTrigger
from tidegate.triggers.folder.watch import FolderWatch
from tidegate.triggers.opening import open_trigger

SETTLE = 2.0
MEMORY = Path("/dev/shm")  # noqa: S108 - a disk of its own, on Linux


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


@pytest.fixture
async def at(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Doorstep]:
    async with opened_door(tmp_path / "store.db", clock) as doorstep:
        yield doorstep


def trigger_on(folder: Path, **settings: Any) -> FolderTrigger:
    made = open_trigger(
        FolderSettings(kind="folder", path=str(folder), **{"settle": SETTLE, **settings}), fetch=fetching
    )
    assert isinstance(made, FolderTrigger)
    return made


async def pass_time(clock: ManualClock, seconds: float) -> None:
    """Let the trigger do what is due, then let time pass, then let it do what is due then."""
    await asyncio.wait_for(clock.until_sleeping(), 20)
    clock.advance(seconds)
    await asyncio.wait_for(clock.until_sleeping(), 20)


async def after(clock: ManualClock, condition: Callable[[], bool], step: float = SETTLE) -> None:
    """Let time pass until something is so."""
    for _ in range(100):
        await asyncio.wait_for(clock.until_sleeping(), 20)
        if condition():
            return
        clock.advance(step)
        await asyncio.sleep(0)
    raise AssertionError("it never happened")


# What comes in


async def test_files_that_were_there_before_come_in_with_their_paths(
    inbox: Path, at: Doorstep, clock: ManualClock
) -> None:
    (inbox / "a" / "b").mkdir(parents=True)
    (inbox / "report.pdf").write_bytes(b"one")
    (inbox / "a" / "b" / "report.pdf").write_bytes(b"two")
    async with running(trigger_on(inbox), at.door):
        await after(clock, lambda: len(at.queue.new) == 2)
    assert at.documents == {"report.pdf": b"one", "a/b/report.pdf": b"two"}
    assert {each.id for each in at.queue.new} == {
        f"report.pdf#{hashlib.sha256(b'one').hexdigest()}",
        f"a/b/report.pdf#{hashlib.sha256(b'two').hexdigest()}",
    }
    assert {each.source for each in at.queue.new} == {"folder"}


async def test_subfolders_are_left_out_where_so_set(inbox: Path, at: Doorstep, clock: ManualClock) -> None:
    (inbox / "a").mkdir()
    (inbox / "a" / "x.txt").write_text("x")
    (inbox / "y.txt").write_text("y")
    async with running(trigger_on(inbox, recursive=False), at.door):
        await after(clock, lambda: "y.txt" in at.documents)
        await pass_time(clock, 100)
    assert set(at.documents) == {"y.txt"}


@pytest.mark.parametrize(
    "name",
    [
        b"new\nline\t.txt",
        b"no unicode \xff\xfe.txt",
        b"n" * 251 + b".txt",
        "ü".encode() * 125 + b".txt",
        b"100% #1 %41.txt",
        b"-rf.txt",
        "Отчёт 報告.txt".encode(),
        b" blank .txt",
        b"back\\slash.txt",
    ],
)
async def test_a_file_of_any_name_comes_in_once_and_is_found_again_by_its_event(
    name: bytes, inbox: Path, at: Doorstep, clock: ManualClock, tmp_path: Path
) -> None:
    path = inbox / os.fsdecode(name)
    path.write_bytes(b"content")
    done = tmp_path / "done"
    async with running(trigger_on(inbox, done=str(done)), at.door):
        await after(clock, lambda: len(at.queue.new) == 1)
        [event] = at.queue.new
        assert event.id.isprintable()
        [shown] = at.documents
        assert shown.isprintable()
        assert path_of(event.id, shown) == os.fsdecode(name)
        await at.end(shown, "complete")
        await after(clock, lambda: not path.exists(), 60)
    assert [os.fsencode(each.name) for each in done.iterdir()] == [name]


async def test_a_very_deep_folder_is_searched_too(
    inbox: Path, at: Doorstep, clock: ManualClock, tmp_path: Path
) -> None:
    folder = inbox
    for level in range(90):
        folder /= f"level-{level:020}"
    folder.mkdir(parents=True)
    (folder / "deep.txt").write_text("deep")
    async with running(trigger_on(inbox, done=str(tmp_path / "done")), at.door):
        await after(clock, lambda: len(at.queue.new) == 1)
        [event], [name] = at.queue.new, at.documents
        assert len(event.id) < 1000
        assert path_of(event.id, name) == str(folder.relative_to(inbox) / "deep.txt")
        await at.end(name, "complete")
        await after(clock, lambda: not (folder / "deep.txt").exists(), 60)


def test_the_path_in_an_event_leads_out_of_no_folder() -> None:
    for path in ("../x", "a/../../x", "/etc/passwd", "a//b", "", ".", "a/./b"):
        assert path_of(event_id(path, "0" * 64), path) is None
    assert path_of("%2E%2E/x#0", "x") is None
    assert path_of("no mark", "x") is None
    long = "x/" * 600 + "y"
    assert path_of(event_id(long, "0"), long) == long
    assert path_of(event_id(long, "0"), "another") is None


async def test_only_names_that_are_included_count_whatever_their_case(
    inbox: Path, at: Doorstep, clock: ManualClock
) -> None:
    for name in ("a.pdf", "B.PDF", "c.txt", "d.pdf.exe"):
        (inbox / name).write_text(name)
    async with running(trigger_on(inbox, include=("*.pdf",)), at.door):
        await after(clock, lambda: len(at.queue.new) == 2)
        await pass_time(clock, 100)
    assert set(at.documents) == {"a.pdf", "B.PDF"}


async def test_what_is_temporary_or_a_result_is_no_document(inbox: Path, at: Doorstep, clock: ManualClock) -> None:
    names = [".hidden", "~$letter.docx", "a.part", "b.tmp", "c.crdownload", "d.swp", "e~", "F.PART"]
    for name in [*names, "report.pdf.summary.md", "report.pdf.summary.json", "yes.txt"]:
        (inbox / name).write_text(name)
    (inbox / ".git").mkdir()
    (inbox / ".git" / "config.txt").write_text("x")
    async with running(trigger_on(inbox), at.door):
        await after(clock, lambda: len(at.queue.new) == 1)
        await pass_time(clock, 100)
    assert set(at.documents) == {"yes.txt"}


async def test_links_out_of_the_folder_pipes_and_sockets_are_ignored_and_told_of_once(
    inbox: Path, at: Doorstep, clock: ManualClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.txt").write_text("secret")
    (inbox / "link.txt").symlink_to(outside / "secret.txt")
    (inbox / "folder.d").symlink_to(outside)
    (inbox / "nowhere.txt").symlink_to("none.txt")
    os.mkfifo(inbox / "pipe.txt")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(inbox / "socket.txt"))
    (inbox / "yes.txt").write_text("yes")
    async with running(trigger_on(inbox), at.door):
        await after(clock, lambda: len(at.queue.new) == 1)
        (outside / "later.txt").write_text("through the link, the watcher may tell of it")
        for _ in range(5):
            await pass_time(clock, 60)
    listener.close()
    assert set(at.documents) == {"yes.txt"}
    told = [record.getMessage() for record in caplog.records if "ignored" in record.getMessage()]
    for name in ("link.txt", "folder.d", "pipe.txt", "socket.txt"):
        assert len([each for each in told if f"'{name}'" in each]) == 1, told
    assert len(told) == 4  # what leads nowhere may yet lead somewhere


async def test_a_link_to_a_file_inside_the_folder_is_a_document_and_stays_where_it_is(
    inbox: Path, at: Doorstep, clock: ManualClock, tmp_path: Path
) -> None:
    (inbox / "..2024").mkdir()  # as Kubernetes mounts files
    (inbox / "..2024" / "note.txt").write_text("note")
    (inbox / "note.txt").symlink_to("..2024/note.txt")
    async with running(trigger_on(inbox, done=str(tmp_path / "done")), at.door):
        await after(clock, lambda: len(at.queue.new) == 1)
        await at.end("note.txt", "complete")
        await pass_time(clock, 60)
        await pass_time(clock, 60)
    assert at.documents == {"note.txt": b"note"}
    assert (inbox / "note.txt").read_text() == "note"


def test_a_file_that_is_swapped_for_a_link_is_not_read(inbox: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("s")
    (inbox / "a").mkdir()
    (inbox / "a" / "x.txt").write_text("x")
    listing = FolderListing(str(inbox), recursive=True, include=("*",), but_not=())
    [(path, signature)] = listing.walk()
    (inbox / "a" / "x.txt").unlink()
    (inbox / "a" / "x.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(FileChangedError):
        listing.read(path, signature, max_bytes=10)
    shutil.rmtree(inbox / "a")
    (inbox / "a").symlink_to(tmp_path)
    assert listing.look("a/secret.txt") is None
    secret = Signature.of((tmp_path / "secret.txt").stat())
    with pytest.raises(FileChangedError):
        listing.read("a/secret.txt", secret, max_bytes=10)


def test_folders_that_are_left_out_are_left_out_of_scans_and_of_what_the_watcher_tells(inbox: Path) -> None:
    for name in ("done/sub/x.txt", "done/x.txt", "done-too/x.txt"):
        (inbox / name).parent.mkdir(parents=True, exist_ok=True)
        (inbox / name).write_text("x")
    listing = FolderListing(str(inbox), recursive=True, include=("*",), but_not=(str(inbox / "done"),))
    assert [path for path, _ in listing.walk()] == ["done-too/x.txt"]
    assert listing.look("done-too/x.txt") is not None
    assert listing.look("done/x.txt") is None
    assert listing.look("done/sub/x.txt") is None
    assert not listing.is_folder("done")


def test_a_file_that_grows_while_it_is_read_is_not_taken(inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (inbox / "x.txt").write_text("x")
    listing, fstat = FolderListing(str(inbox), recursive=True, include=("*",), but_not=()), os.fstat
    [(path, signature)] = listing.walk()

    def growing(descriptor: int) -> os.stat_result:
        status = fstat(descriptor)
        with (inbox / "x.txt").open("a") as file:
            file.write("more")
        return status

    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", growing)
        with pytest.raises(FileChangedError):
            listing.read(path, signature, max_bytes=100)


# When it comes in


async def test_a_file_that_is_written_in_pieces_comes_in_whole(inbox: Path, at: Doorstep, clock: ManualClock) -> None:
    with (inbox / "slow.txt").open("wb") as file:
        async with running(trigger_on(inbox), at.door):
            for number in range(20):
                file.write(b"%d\n" % number)
                file.flush()
                await pass_time(clock, SETTLE * 0.9)
                assert not at.queue.events
            await after(clock, lambda: bool(at.queue.events))
    assert at.documents == {"slow.txt": b"".join(b"%d\n" % number for number in range(20))}


async def test_a_file_comes_in_when_it_has_not_changed_for_as_long_as_set_and_not_before(
    inbox: Path, at: Doorstep, clock: ManualClock
) -> None:
    (inbox / "x.txt").write_text("x")
    os.utime(inbox / "x.txt", (0, 0))  # a time that says nothing: `cp -p` sets it
    async with running(trigger_on(inbox, settle=5.0), at.door):
        await pass_time(clock, 4.9)
        assert not at.queue.events
        await pass_time(clock, 0.2)
        await until(lambda: bool(at.queue.events))


async def test_a_file_that_is_renamed_into_place_comes_in_once_under_its_last_name(
    inbox: Path, at: Doorstep, clock: ManualClock
) -> None:
    (inbox / "big.pdf.part").write_text("whole")
    async with running(trigger_on(inbox), at.door):
        await pass_time(clock, SETTLE)
        (inbox / "big.pdf.part").rename(inbox / "big.pdf")
        await after(clock, lambda: bool(at.queue.events))
        await pass_time(clock, 100)
    assert at.documents == {"big.pdf": b"whole"}


async def test_a_file_that_is_deleted_before_it_settled_leaves_nothing(
    inbox: Path, at: Doorstep, clock: ManualClock
) -> None:
    trigger = trigger_on(inbox)
    (inbox / "gone.txt").write_text("gone")
    async with running(trigger, at.door):
        await pass_time(clock, 1)
        (inbox / "gone.txt").unlink()
        await pass_time(clock, 100)
        await pass_time(clock, 100)
    assert not at.queue.events
    assert not trigger._files


@pytest.mark.parametrize("change", ["replace", "write", "vanish"])
async def test_a_file_that_changes_while_it_is_read_is_left_for_later(
    change: str, inbox: Path, at: Doorstep, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    (inbox / "x.txt").write_text("old")
    fdopen, changes = os.fdopen, [change]

    def changing(descriptor: int, *options: Any) -> Any:
        if changes:
            changes.pop()
            if change == "write":
                (inbox / "x.txt").write_text("new and longer")
            else:
                (inbox / "x.txt").unlink()
                if change == "replace":
                    (inbox / "x.txt").write_text("new")
        return fdopen(descriptor, *options)

    monkeypatch.setattr(os, "fdopen", changing)
    async with running(trigger_on(inbox), at.door):
        if change == "vanish":
            await after(clock, lambda: not changes)
            await pass_time(clock, 100)
            assert at.documents in ({}, {"x.txt": b"old"})  # it was open, so it could be read
        else:
            await after(clock, lambda: "x.txt" in at.documents and at.documents["x.txt"] != b"old", 5)
    if change == "write":
        assert at.documents == {"x.txt": b"new and longer"}


async def test_the_same_content_runs_once_and_a_changed_file_is_another_event(
    inbox: Path, at: Doorstep, clock: ManualClock
) -> None:
    async with running(trigger_on(inbox), at.door):
        for content in ("one", "two", "one", "two"):
            (inbox / "x.txt").write_text(content)
            await pass_time(clock, 60)
            await pass_time(clock, 60)
    assert [each.data for each in at.queue.new if isinstance(each, Envelope)] == [b"one", b"two"]


async def test_after_a_restart_with_everything_there_nothing_runs_again(
    inbox: Path, clock: ManualClock, tmp_path: Path
) -> None:
    for number in range(20):
        (inbox / f"{number}.txt").write_text(f"{number}")
    (inbox / "empty.txt").touch()
    (inbox / "large.txt").write_bytes(bytes(100_001))
    for start in range(3):
        async with opened_door(tmp_path / "store.db", clock) as at:
            async with running(trigger_on(inbox), at.door):
                await pass_time(clock, 60)
                await pass_time(clock, 60)
                await pass_time(clock, 60)
                await pass_time(clock, 60)
            assert len(at.queue.new) == len(at.queue.events) == (22 if start == 0 else 0)
            assert len(await at.registry.threads(limit=None)) == 22


async def test_an_event_is_kept_as_long_as_its_file_is_there(
    inbox: Path, at: Doorstep, clock: ManualClock, tmp_path: Path
) -> None:
    (inbox / "stays.txt").write_text("One.")
    (inbox / "zz.txt").write_text("The last of a source is kept in any case.")
    async with running(trigger_on(inbox), at.door):
        await after(clock, lambda: len(at.documents) == 2)
        for name in at.documents:
            await at.end(name, "complete")
        for _ in range(40):
            await pass_time(clock, 6 * 3600.0)
    await forget_all(at, 2 * 86400.0)
    async with running(trigger_on(inbox), at.door):
        await pass_time(clock, 3600.0)
        (inbox / "new.txt").write_text("Two.")
        await after(clock, lambda: "new.txt" in at.documents)
    assert len(at.queue.new) == 3, "what was there before is no new event"


async def forget_all(at: Doorstep, seconds: float) -> None:
    """Forget all threads, and the events that are old enough."""

    def forget(connection: Connection) -> None:
        connection.execute("DELETE FROM threads")
        expiry.forget_events(connection, seconds)

    await at.registry._database.write(forget)


async def test_a_file_is_read_once_as_long_as_it_stays_the_same(
    inbox: Path, at: Doorstep, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    trigger, reads = trigger_on(inbox), list[str]()
    read = trigger._listing.read

    def counted(path: str, *arguments: Any, **options: Any) -> bytes:
        reads.append(path)
        return read(path, *arguments, **options)

    monkeypatch.setattr(trigger._listing, "read", counted)
    (inbox / "x.txt").write_text("x")
    async with running(trigger, at.door):
        for _ in range(5):
            await pass_time(clock, 60)
        assert reads == ["x.txt"]
        (inbox / "x.txt").unlink()
        await pass_time(clock, 60)
        await pass_time(clock, 60)
        assert not trigger._files


async def test_what_cannot_be_a_document_is_a_dead_thread_and_told_once(
    inbox: Path, at: Doorstep, clock: ManualClock
) -> None:
    (inbox / "empty.txt").touch()
    (inbox / "large.txt").write_bytes(bytes(100_001))
    async with running(trigger_on(inbox, scan_every=10.0), at.door):
        await pass_time(clock, SETTLE)
        await after(clock, lambda: len(at.queue.events) == 2)
        for _ in range(5):
            await pass_time(clock, 10)
        assert len(at.queue.events) == 2
        assert {name: record.status for name, record in (await at.threads()).items()} == {
            "empty.txt": "dead",
            "large.txt": "dead",
        }
        (inbox / "empty.txt").write_text("filled")
        await after(clock, lambda: "empty.txt" in at.documents)
    assert "large.txt: is larger than 100000 bytes" in at.refused[0]
    assert "empty.txt: is empty" in at.refused[1]


async def test_an_empty_file_gets_time_to_be_filled(inbox: Path, at: Doorstep, clock: ManualClock) -> None:
    (inbox / "upload.txt").touch()
    async with running(trigger_on(inbox), at.door):
        await pass_time(clock, SETTLE)
        await pass_time(clock, 30)
        (inbox / "upload.txt").write_text("filled")
        await after(clock, lambda: bool(at.queue.events))
    assert at.documents == {"upload.txt": b"filled"}
    assert not at.refused


async def test_a_file_that_may_not_be_read_for_the_moment_is_tried_at_the_next_scan(
    inbox: Path, at: Doorstep, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (inbox / "x.txt").write_text("x")
    trigger, refusals = trigger_on(inbox), [1, 2, 3]
    read = trigger._listing.read

    def refusing(*arguments: Any, **options: Any) -> bytes:
        if refusals:
            refusals.pop()
            raise PermissionError(errno.EACCES, "Permission denied")
        return read(*arguments, **options)

    monkeypatch.setattr(trigger._listing, "read", refusing)
    async with running(trigger, at.door):
        await after(clock, lambda: bool(at.queue.events), 30)
    assert at.documents == {"x.txt": b"x"}
    assert len([record for record in caplog.records if "cannot be read" in record.getMessage()]) == 1


async def test_a_disk_that_fails_is_told_as_a_dead_thread_and_the_file_is_tried_again(
    inbox: Path, at: Doorstep, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    (inbox / "x.txt").write_text("x")
    trigger, failures = trigger_on(inbox), [1, 2, 3]
    read = trigger._listing.read

    def failing(*arguments: Any, **options: Any) -> bytes:
        if failures:
            failures.pop()
            raise OSError(errno.EIO, "Input/output error")
        return read(*arguments, **options)

    monkeypatch.setattr(trigger._listing, "read", failing)
    async with running(trigger, at.door):
        await after(clock, lambda: len(at.queue.new) == 2, 30)
    assert at.refused == ["x.txt: cannot be read (Input/output error); check the disk"]
    assert at.documents == {"x.txt": b"x"}
    assert len(at.queue.events) == 2


async def test_a_store_that_is_away_is_waited_for_and_the_file_comes_in_then(
    inbox: Path, at: Doorstep, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    (inbox / "x.txt").write_text("x")
    at.queue.failures = [StoreUnavailable("it is away") for _ in range(3)]
    async with running(trigger_on(inbox), at.door):
        await after(clock, lambda: bool(at.queue.events))
    assert at.documents == {"x.txt": b"x"}
    assert len([record for record in caplog.records if "waits for the store" in record.getMessage()]) == 1


async def test_while_too_many_threads_wait_files_stay_on_the_disk(
    inbox: Path, tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(8):
        (inbox / f"{number}.txt").write_text(f"{number}")
    trigger, reads = trigger_on(inbox), list[str]()
    read = trigger._listing.read

    def counted(path: str, *arguments: Any, **options: Any) -> bytes:
        reads.append(path)
        return read(path, *arguments, **options)

    monkeypatch.setattr(trigger._listing, "read", counted)
    async with opened_door(tmp_path / "full.db", clock, max_queued=3) as at, running(trigger, at.door):
        await after(clock, lambda: len(at.queue.new) == 3)
        for _ in range(10):
            await pass_time(clock, 60)
        assert len(at.queue.new) == 3
        assert len(reads) == 4
        for name in list(at.documents):
            await at.end(name, "complete")
        await after(clock, lambda: len(at.queue.new) == 6)


# Where it goes


async def test_files_are_moved_when_their_threads_ended(
    inbox: Path, at: Doorstep, clock: ManualClock, tmp_path: Path
) -> None:
    ends: dict[str, Any] = {
        "a/complete.txt": "complete",
        "degraded.txt": "degraded",
        "dead.txt": "dead",
        "cancelled.txt": "cancelled",
        "failed.txt": "failed",
        "waiting.txt": "waiting",
    }
    (inbox / "a").mkdir()
    for name in ends:
        (inbox / name).write_text(name)
    (inbox / "empty.txt").touch()
    done, failed = tmp_path / "done", tmp_path / "failed"
    async with running(trigger_on(inbox, done=str(done), failed=str(failed)), at.door):
        await after(clock, lambda: len(at.queue.new) == 7, 30)
        for name, status in ends.items():
            await at.end(name, status)
        await after(clock, lambda: (failed / "dead.txt").exists() and (done / "degraded.txt").exists(), 60)
        await pass_time(clock, 60)
    assert (done / "a" / "complete.txt").read_text() == "a/complete.txt"
    assert sorted(each.name for each in done.iterdir()) == ["a", "degraded.txt"]
    assert sorted(each.name for each in failed.iterdir()) == ["dead.txt", "empty.txt"]
    files = {each.name for each in inbox.iterdir() if each.is_file()}
    assert files == {"cancelled.txt", "failed.txt", "waiting.txt"}
    assert set(at.queue.events) == set(at.queue.new)


async def test_the_folders_for_what_is_done_may_lie_in_the_watched_one_and_are_not_searched(
    inbox: Path, at: Doorstep, clock: ManualClock
) -> None:
    (inbox / "done" / "sub").mkdir(parents=True)
    (inbox / "done" / "sub" / "old.txt").write_text("old")
    (inbox / "new.txt").write_text("new")
    async with running(trigger_on(inbox, done=str(inbox / "done")), at.door):
        await after(clock, lambda: len(at.queue.new) == 1)
        await at.end("new.txt", "complete")
        await after(clock, lambda: (inbox / "done" / "new.txt").exists(), 60)
        (inbox / "done" / "sub" / "told.txt").write_text("the watcher tells of it")
        for _ in range(3):
            await asyncio.sleep(0.1)
            await pass_time(clock, 60)
    assert set(at.documents) == {"new.txt"}


@pytest.mark.parametrize("option", ["done", "failed"])
def test_files_cannot_be_moved_to_where_they_come_from(option: str, inbox: Path, tmp_path: Path) -> None:
    (tmp_path / "same").symlink_to(inbox)
    for target in (inbox, tmp_path, inbox / "x" / "..", tmp_path / "same"):
        with pytest.raises(SettingsError, match="name another folder"):
            trigger_on(inbox, **{option: str(target)})


@pytest.mark.parametrize("links", [True, False], ids=["one disk", "another disk"])
@pytest.mark.parametrize("hard", [True, False], ids=["hard links", "none"])
def test_a_move_overwrites_nothing(
    links: bool, hard: bool, inbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def linked(old: str, new: str, **options: Any) -> None:
        if old == "x.txt" and not links:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        if not hard:
            raise OSError(errno.EPERM, "Operation not permitted")
        link(old, new, **options)

    monkeypatch.setattr(os, "link", linked)
    done = tmp_path / "done"
    for content in ("one", "two", "three", "two"):
        (inbox / "x.txt").write_text(content)
        (inbox / "x.txt").chmod(0o640)
        os.utime(inbox / "x.txt", (1_000_000_000, 1_000_000_000))
        move(str(inbox), "x.txt", Signature.of((inbox / "x.txt").stat()), str(done))
        assert not (inbox / "x.txt").exists()
    assert {each.name: each.read_text() for each in done.iterdir()} == {
        "x.txt": "one",
        "x (2).txt": "two",
        "x (3).txt": "three",
    }
    status = (done / "x (2).txt").stat()
    assert (status.st_mtime, status.st_mode & 0o777) == (1_000_000_000, 0o640)


@pytest.mark.skipif(
    not MEMORY.is_dir() or MEMORY.stat().st_dev == Path(tempfile.gettempdir()).stat().st_dev,
    reason="needs two disks",
)
def test_a_move_crosses_disks(inbox: Path, tmp_path: Path) -> None:
    done = MEMORY / f"tidegate-{os.getpid()}-{time.monotonic_ns()}"
    try:
        (inbox / "x.txt").write_bytes(bytes(3_000_000))
        move(str(inbox), "x.txt", Signature.of((inbox / "x.txt").stat()), str(done))
        assert (done / "x.txt").read_bytes() == bytes(3_000_000)
        assert not list(inbox.iterdir())
    finally:
        shutil.rmtree(done)


def test_a_move_follows_no_link_out_and_leaves_what_changed(inbox: Path, tmp_path: Path) -> None:
    outside, done = tmp_path / "outside", tmp_path / "done"
    for folder in (outside, done, inbox / "a"):
        folder.mkdir()
    (inbox / "a" / "x.txt").write_text("x")
    (done / "a").symlink_to(outside)
    signature = Signature.of((inbox / "a" / "x.txt").stat())
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        move(str(inbox), "a/x.txt", signature, str(done))
    (done / "a").unlink()
    (inbox / "a" / "x.txt").write_text("changed")
    with pytest.raises(FileChangedError):
        move(str(inbox), "a/x.txt", signature, str(done))
    assert not list(outside.iterdir())
    assert not list((done / "a").iterdir())
    assert (inbox / "a" / "x.txt").read_text() == "changed"


@pytest.mark.parametrize("links", [True, False], ids=["one disk", "another disk"])
@pytest.mark.parametrize("call", ["link", "unlink", "fsync", "rename"])
def test_a_process_that_is_killed_while_it_moves_leaves_one_file(
    call: str, links: bool, inbox: Path, tmp_path: Path
) -> None:
    (inbox / "x.txt").write_text("x")
    signature, done = Signature.of((inbox / "x.txt").stat()), tmp_path / "done"
    if (pid := os.fork()) == 0:
        _die_at(call, links=links)
        move(str(inbox), "x.txt", signature, str(done))
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or call == "rename"
    if (inbox / "x.txt").exists():
        move(str(inbox), "x.txt", signature, str(done))
    assert not (inbox / "x.txt").exists()
    assert [each.read_text() for each in done.iterdir() if not each.name.startswith(".")] == ["x"]


def _die_at(call: str, *, links: bool) -> None:
    link, real = os.link, getattr(os, call)

    def die(*arguments: Any, **options: Any) -> Any:
        real(*arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)

    def no_link(old: str, *arguments: Any, **options: Any) -> None:
        if old == "x.txt":
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        (die if call == "link" else link)(old, *arguments, **options)

    setattr(os, call, die)
    if not links:
        setattr(os, "link", no_link)  # noqa: B010 - another signature


def test_a_long_name_gets_a_number_and_stays_a_name() -> None:
    name = folder_moves._numbered("ü" * 125 + ".pdf", 12)
    assert name.endswith(" (12).pdf")
    assert len(os.fsencode(name)) <= 255
    assert folder_moves._numbered("x" * 250 + ".y", 2).startswith("x" * 200)


TAKE_AND_DIE = """
import asyncio, os, signal, sys
from pathlib import Path
from tests.doors import opened_door, running, until
from tidegate.settings.service import FolderTrigger as FolderSettings
from tidegate.store import expiry
from tidegate.store.clock import SystemClock
from tidegate.triggers.folder.trigger import FolderTrigger

async def main(inbox, store):
    trigger = FolderTrigger(FolderSettings(kind="folder", path=inbox, settle=0.01))
    async with opened_door(Path(store), SystemClock()) as at, running(trigger, at.door):
        await until(lambda: len(at.queue.new) == 1)
        await at.end("x.txt", "complete")
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_after_a_kill_between_taking_in_and_moving_the_file_is_moved(
    inbox: Path, tmp_path: Path, clock: ManualClock
) -> None:
    (inbox / "x.txt").write_text("x")
    store = tmp_path / "store.db"
    command = [sys.executable, "-c", TAKE_AND_DIE, str(inbox), str(store)]
    killed = await asyncio.to_thread(
        lambda: subprocess.run(command, check=False, env={**os.environ, "PYTHONPATH": "."})
    )
    assert killed.returncode == -signal.SIGKILL
    async with opened_door(store, clock) as at:
        async with running(trigger_on(inbox, done=str(tmp_path / "done")), at.door):
            await after(clock, lambda: (tmp_path / "done" / "x.txt").exists(), 30)
        assert not at.queue.events


# The folder and its watcher


async def test_a_folder_that_is_not_there_is_a_wrong_setting(inbox: Path, at: Doorstep, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="none does not exist"):
        await trigger_on(tmp_path / "none").run(at.door)
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="file is no folder"):
        await trigger_on(tmp_path / "file").run(at.door)


async def test_a_folder_that_goes_away_and_comes_back_is_waited_for(
    inbox: Path, at: Doorstep, clock: ManualClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    (inbox / "one.txt").write_text("one")
    async with running(trigger_on(inbox), at.door):
        await after(clock, lambda: len(at.queue.new) == 1)
        inbox.rename(tmp_path / "away")
        for _ in range(5):
            await pass_time(clock, 60)
        (tmp_path / "away" / "two.txt").write_text("two")
        (tmp_path / "away").rename(inbox)
        await after(clock, lambda: len(at.queue.new) == 2, 30)
        shutil.rmtree(inbox)
        await pass_time(clock, 60)
        inbox.mkdir()
        (inbox / "three.txt").write_text("three")
        await after(clock, lambda: len(at.queue.new) == 3, 30)
    assert set(at.documents) == {"one.txt", "two.txt", "three.txt"}
    told = [record.getMessage() for record in caplog.records]
    assert len([each for each in told if "is not there; it is waited for" in each]) == 2
    assert len([each for each in told if "is there again" in each]) == 2


class Told:
    """A watcher that tells what a test wants it to. `begun` counts how often it was begun."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun = 0
        self.tell: queue.Queue[str] = queue.Queue()
        monkeypatch.setattr("watchfiles.watch", self._watch)

    def _watch(self, root: str, *, stop_event: threading.Event, **_: object) -> Iterator[set[tuple[int, str]]]:
        self.begun += 1
        while not stop_event.is_set():
            with contextlib.suppress(queue.Empty):
                yield {(1, f"{root}/{self.tell.get(timeout=0.01)}")}


async def test_what_came_while_the_watcher_began_is_found_by_a_second_scan(
    inbox: Path, at: Doorstep, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    Told(monkeypatch)
    async with running(trigger_on(inbox, scan_every=1000.0), at.door):
        await asyncio.wait_for(clock.until_sleeping(), 20)
        (inbox / "x.txt").write_text("x")
        for _ in range(3):
            await pass_time(clock, SETTLE)
        assert at.documents == {"x.txt": b"x"}


async def test_what_came_into_a_new_folder_before_that_was_watched_is_found_soon(
    inbox: Path, at: Doorstep, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told(monkeypatch)
    async with running(trigger_on(inbox, scan_every=1000.0), at.door):
        for _ in range(3):
            await pass_time(clock, SETTLE)
        (inbox / "new").mkdir()
        told.tell.put("new")
        await asyncio.sleep(0.1)
        (inbox / "new" / "x.txt").write_text("x")
        for _ in range(3):
            await pass_time(clock, SETTLE)
        assert at.documents == {"new/x.txt": b"x"}


async def test_a_folder_in_the_place_of_the_one_that_was_watched_is_watched(
    inbox: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told(monkeypatch)
    watch = FolderWatch(str(inbox), recursive=True, clock=clock)
    for identity, begins, begun in (((1, 1), True, 1), ((1, 1), False, 1), (None, False, 1), ((1, 2), True, 2)):
        assert await watch.follow(identity) is begins
        await until(lambda: told.begun == begun)  # noqa: B023 - awaited at once
    await watch.stop()


async def test_the_watcher_wakes_it_long_before_the_next_scan(inbox: Path, tmp_path: Path) -> None:
    real = SystemClock()
    trigger = trigger_on(inbox, settle=0.05, scan_every=3600.0)
    async with opened_door(tmp_path / "real.db", real) as at, running(trigger, at.door):
        (inbox / "before.txt").write_text("before")
        await until(lambda: "before.txt" in at.documents)
        await asyncio.sleep(0.2)  # what was missed as the watcher began is found by the second scan: let that be over
        (inbox / "new.txt").write_text("new")
        (inbox / "sub").mkdir()
        (inbox / "sub" / "made.txt").write_text("made with its folder")
        (tmp_path / "tree" / "deep").mkdir(parents=True)
        (tmp_path / "tree" / "deep" / "moved.txt").write_text("moved in with its folder")
        (tmp_path / "tree").rename(inbox / "tree")
        await until(lambda: len(at.documents) == 4)
        (inbox / "new.txt").write_text("changed")
        await until(lambda: len(at.queue.new) == 5)
    assert set(at.documents) == {"before.txt", "new.txt", "sub/made.txt", "tree/deep/moved.txt"}


async def test_a_watcher_that_breaks_at_a_name_is_begun_again(
    inbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tidegate.triggers.folder.watch._PAUSE", 0.05)
    real = SystemClock()
    trigger = trigger_on(inbox, settle=0.05, scan_every=3600.0)
    async with opened_door(tmp_path / "real.db", real) as at, running(trigger, at.door):
        await asyncio.sleep(0.2)
        for number in range(2):
            (inbox / os.fsdecode(b"\xff%d.txt" % number)).write_bytes(b"%d" % number)
            await until(lambda: len(at.documents) == number + 1)  # noqa: B023 - awaited at once
            await asyncio.sleep(0.3)
    assert len([record for record in caplog.records if "cannot be watched" in record.getMessage()]) == 1


async def test_without_a_watcher_scans_find_all(
    inbox: Path, at: Doorstep, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def limit(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "OS file watch limit reached")

    monkeypatch.setattr("watchfiles.watch", limit)
    async with running(trigger_on(inbox), at.door):
        await pass_time(clock, 100)
        (inbox / "x.txt").write_text("x")
        for _ in range(1000):
            clock.advance(10)
            await asyncio.sleep(0.005)
            if at.queue.new:
                break
    assert at.documents == {"x.txt": b"x"}


async def test_a_relative_path_is_watched_too(inbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    trigger = trigger_on(Path("inbox"), settle=0.05, scan_every=3600.0)
    async with opened_door(tmp_path / "real.db", SystemClock()) as at, running(trigger, at.door):
        await asyncio.sleep(0.5)
        (inbox / "x.txt").write_text("x")
        await until(lambda: "x.txt" in at.documents)


@pytest.mark.slow
async def test_ten_thousand_files_come_in_without_holding_up_the_event_loop(inbox: Path, tmp_path: Path) -> None:
    for number in range(10_000):
        folder = inbox / f"{number % 100}"
        folder.mkdir(exist_ok=True)
        (folder / f"{number}.txt").write_text(f"{number}" * 100)
    longest = 0.0

    async def watch_the_loop() -> None:
        nonlocal longest
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.001)
            longest = max(longest, time.monotonic() - before)

    async with opened_door(tmp_path / "real.db", SystemClock()) as at:
        lag = asyncio.create_task(watch_the_loop())
        done = tmp_path / "done"
        async with running(trigger_on(inbox, settle=0.1, scan_every=5.0, done=str(done)), at.door):
            began = time.monotonic()
            while len(at.queue.new) < 10_000:
                await asyncio.sleep(0.1)
                assert time.monotonic() - began < 300
            took = time.monotonic() - began
            await at.registry._database.write(
                lambda connection: connection.execute("UPDATE threads SET status = 'complete'")
            )
            while any(path.is_file() for path in inbox.rglob("*")):
                await asyncio.sleep(0.5)
                assert time.monotonic() - began < 600
        lag.cancel()
    print(f"10,000 files taken in {took:.1f} s, moved {time.monotonic() - began - took:.1f} s; lag {longest:.3f} s")
    assert len(at.queue.events) == 10_000
    assert sum(path.is_file() for path in done.rglob("*")) == 10_000
    assert longest < 0.5
