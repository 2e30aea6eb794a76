"""The inbox and the queue: an event is one thread, whoever delivers it, however often."""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tidegate.errors import DocumentTooLarge, EventInvalid, LeaseLost, QueueFull
from tidegate.store.database import Database
from tidegate.store.documents import Documents
from tidegate.store.inbox import LONGEST_ID, Envelope, Inbox, forget
from tidegate.store.leases import Leases
from tidegate.store.owner import Owner
from tidegate.store.registry import Registry, ThreadRecord, ThreadStatus
from tidegate.store.schema import EVENTS, STORE
from tidegate.store.transactions import Connection, Store
from tidegate.testing import ManualClock


def event(number: object = 1, **changes: Any) -> Envelope:
    whole: dict[str, Any] = {"source": "folder", "id": f"{number}", "data": b"text", "name": f"{number}.txt"}
    return Envelope(**whole | changes)


def counted(connection: Connection, table: str) -> int:
    [number] = connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608 - a test's own
    return int(number)


async def count(store: Store, table: str) -> int:
    return await store.read(lambda connection: counted(connection, table))


async def test_an_event_that_many_deliver_at_once_is_one_thread_and_its_document_is_stored_once(store: Store) -> None:
    inbox = Inbox(store, max_queued=100)
    receipts = await asyncio.gather(*(inbox.accept(event(number % 5)) for number in range(40)))
    assert len({each.thread_id for each in receipts}) == 5
    assert sum(each.is_new for each in receipts) == 5
    assert [await count(store, table) for table in ("inbox", "threads", "documents")] == [5, 5, 1]
    assert await Documents(store).get(receipts[0].document_id) == b"text"


async def test_no_more_are_queued_than_may_be_however_many_come_at_once(store: Store) -> None:
    inbox = Inbox(store, max_queued=7)
    results = await asyncio.gather(*(inbox.accept(event(n)) for n in range(30)), return_exceptions=True)
    assert sum(isinstance(each, QueueFull) for each in results) == 23
    assert await Registry(store).count("queued", "dead") == {"queued": 7, "dead": 0}
    [known] = [n for n in range(30) if not isinstance(results[n], QueueFull)][:1]
    assert not (await inbox.accept(event(known))).is_new, "what came before is known all the same"


async def test_an_unreadable_event_keeps_its_thread_when_it_comes_readable_and_is_taken_only_if_there_is_room(
    store: Store,
) -> None:
    inbox = Inbox(store, max_queued=1)
    refused = await inbox.refuse("folder", "1", DocumentTooLarge("what/it/was.pdf", "is big", "cut it"))
    assert (await inbox.refuse("folder", "1", DocumentTooLarge("x", "y", "z"))).is_new is False
    await inbox.accept(event(2))
    with pytest.raises(QueueFull):
        await inbox.accept(event(1))
    await Registry(store).put(ThreadRecord(thread_id="2", document_id="d", source="s", status="queued"))
    inbox = Inbox(store, max_queued=9)
    taken = await inbox.accept(event(1, name="other.txt"))
    assert (taken.thread_id, taken.is_new) == (refused.thread_id, True)
    assert (await inbox.accept(event(1, name="third.txt"))).is_new is False
    assert await inbox.find("folder", "1") == replace(taken, is_new=False)


async def test_an_event_whose_thread_was_deleted_is_known_and_begins_nothing(store: Store) -> None:
    inbox, registry = Inbox(store, max_queued=9), Registry(store)
    receipt = await inbox.accept(event())
    await registry.delete(receipt.thread_id)
    again = await inbox.accept(event())
    assert (again.thread_id, again.document_id, again.is_new) == (receipt.thread_id, "", False)
    assert await registry.get(receipt.thread_id) is None
    await store.write(lambda connection: forget(connection, receipt.thread_id))
    assert (await inbox.accept(event())).is_new, "once it is forgotten, it is new"


@pytest.mark.parametrize(
    "changes",
    [
        {"id": ""},
        {"id": "a\0b"},
        {"id": "\ud800"},
        {"id": "x" * (LONGEST_ID + 1)},
        {"id": "\N{CJK UNIFIED IDEOGRAPH-4E00}" * LONGEST_ID},
        {"source": ""},
        {"source": "s" * 500},
    ],
)
async def test_an_event_that_no_database_could_tell_apart_is_invalid(store: Store, changes: dict[str, str]) -> None:
    inbox = Inbox(store, max_queued=9)
    with pytest.raises(EventInvalid, match="an event"):
        await inbox.accept(event(**changes))
    with pytest.raises(EventInvalid):
        await inbox.refuse(changes.get("source", "s"), changes.get("id", "1"), DocumentTooLarge("a", "b", "c"))
    assert await inbox.find(changes.get("source", "s"), changes.get("id", "1")) is None
    assert await count(store, "inbox") == 0


async def test_whatever_its_sender_calls_a_document_it_is_taken_in(store: Store) -> None:
    inbox, registry = Inbox(store, max_queued=99), Registry(store)
    ideographs = "".join(chr(0x4E00 + (n * 7919) % 20000) for n in range(LONGEST_ID))  # which no index compresses
    for number, name in enumerate(["a\0b.txt", "caf\udce9.txt", ideographs * 5, "", "../../etc/passwd", "x\x1b[2J\n"]):
        parent = "00-" + "\0" * number if number % 2 else "x" * 10_000
        traced = {"traceparent": parent, "tracestate": parent}
        taken = await inbox.accept(event(number, name=name, media_type="text/plain\0\udce9", **traced))
        record = await registry.get(taken.thread_id)
        assert record is not None
        assert len(record.source.encode()) <= 2500
        assert record.media_type == "text/plain??"
        origin = await inbox.origin(taken.thread_id)
        assert origin is not None
        assert origin.traceparent == origin.tracestate
        assert origin.traceparent in (None, "00-")
    longest = ideographs[: LONGEST_ID * 2 // 3]
    assert (await inbox.accept(event(longest, name="n"))).is_new
    assert not (await inbox.accept(event(longest, name="n"))).is_new


async def test_two_events_whose_short_digests_are_the_same_are_two_threads(store: Store) -> None:
    inbox = Inbox(store, max_queued=9)
    first = await inbox.accept(event())
    await store.write(lambda c: c.execute("UPDATE inbox SET event_id = 'other' WHERE source = 'folder'"))
    second = await inbox.accept(event())
    assert second.is_new
    assert second.thread_id.startswith(first.thread_id)
    assert second.thread_id != first.thread_id


async def test_a_document_stays_that_an_event_brought_again_while_it_was_forgotten(store: Store) -> None:
    inbox, leases, documents = Inbox(store, max_queued=9), Leases(store), Documents(store)
    first = await inbox.accept(event(1))
    async with leases.hold(first.thread_id) as lease:
        await inbox.accept(event(2))
        await documents.delete(first.document_id, [lease])
    assert await documents.get(first.document_id) == b"text"


# the queue


def record(thread_id: str, status: ThreadStatus, **changes: Any) -> ThreadRecord:
    return ThreadRecord(thread_id=thread_id, document_id="d", source="s", status=status, **changes)


async def due(store: Store, limit: int = 10, **options: Any) -> list[str]:
    return [each.thread_id for each in await Registry(store).due(limit=limit, **options)]


async def test_what_was_interrupted_comes_first_then_the_longest_due(store: Store, clock: ManualClock) -> None:
    registry = Registry(store)
    for thread_id, status, pause in [
        ("queued-1", "queued", None),
        ("failed-1", "failed", 5.0),
        ("queued-2", "queued", None),
        ("failed-2", "failed", 60.0),
        ("interrupted", "running", None),
        ("dead", "dead", None),
        ("waiting", "waiting", None),
        ("cancelled", "cancelled", None),
        ("failed-by-hand", "failed", None),
    ]:
        await registry.put(record(thread_id, status), pause=pause)  # type: ignore[arg-type]
        clock.advance(1.0)
    assert await due(store) == ["interrupted", "queued-1", "queued-2", "failed-1", "failed-by-hand"]
    assert await registry.pause_left() == pytest.approx(54.0)
    assert await due(store, but_not={"interrupted", "queued-1"}, limit=2) == ["queued-2", "failed-1"]
    clock.advance(54.0)
    assert "failed-2" in await due(store)
    assert await registry.pause_left() is None, "a pause that is over is nothing to wait for"


async def test_threads_that_fail_again_and_again_hold_up_none_that_are_queued(store: Store, clock: ManualClock) -> None:
    registry = Registry(store)
    for number in range(8):
        await registry.put(record(f"failed-{number}", "failed"), pause=0.0)
    await registry.put(record("queued", "queued"))
    for _ in range(5):
        [first, second] = await registry.due(limit=2)
        if "queued" in (first.thread_id, second.thread_id):
            return
        clock.advance(1.0)
        for each in (first, second):
            await registry.put(each, pause=0.0)
    raise AssertionError("failed ones are always first")


async def test_a_clock_that_is_set_back_lengthens_no_pause_to_more_than_twice(store: Store, clock: ManualClock) -> None:
    registry = Registry(store)
    await registry.put(record("failed", "failed"), pause=60.0)
    clock.set_back(59.0)
    assert await due(store) == []
    clock.set_back(1.0)
    assert await due(store) == ["failed"]
    clock.set_back(86400.0 * 365)
    assert await due(store) == ["failed"]


async def test_a_thread_that_somebody_runs_is_not_due(store: Store) -> None:
    registry, leases = Registry(store), Leases(store)
    await registry.put(record("t", "running"))
    async with leases.hold("t"):
        assert await due(store) == []
    assert await due(store) == ["t"]


async def test_of_those_that_were_interrupted_twice_so_many_are_due_as_asked_for(store: Store) -> None:
    registry = Registry(store)
    for thread_id, attempts in (("a", 2), ("b", 3), ("c", 1)):
        await registry.put(record(thread_id, "running", attempts=attempts))
    assert await due(store, suspects=1) == ["c", "a"]
    assert await due(store, suspects=0) == ["c"]
    assert await due(store) == ["c", "a", "b"]


async def test_who_lost_a_thread_rules_on_it_no_more(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry(store)
    await registry.put(record("t", "failed", attempts=2))
    lease = await Leases(store).acquire("t")
    monkeypatch.setattr(Owner, "is_dead", lambda _: True)
    taken = await Leases(store, owner=Owner("there", "other", "", 1, "")).acquire("t")
    with pytest.raises(LeaseLost):
        await registry.rule("t", seen=["failed"], status="dead", lease=lease)
    with pytest.raises(LeaseLost):
        await registry.uncount("t", lease)
    assert not await registry.rule("t", seen=["queued"], status="dead", lease=taken)
    assert await registry.rule("t", seen=["failed"], status="dead", lease=taken, error="why")
    found = await registry.get("t")
    assert found is not None
    assert (found.status, found.error) == ("dead", "why")


# files of before


async def test_a_file_from_before_there_were_events_opens_and_keeps_its_threads(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    before = Database(path, STORE[: STORE.index(EVENTS)])
    await before.open()
    columns = "thread_id, document_id, source, status, revision, retryable_missing, fingerprint, updated_at"
    await before.write(
        lambda c: c.execute(f"INSERT INTO threads ({columns}) VALUES ('t', 'd', 's', 'failed', 1, 0, 'f', 5.0)")  # noqa: S608
    )
    await before.close()
    database = Database(path, STORE)
    registry = Registry(database)
    found = await registry.get("t")
    assert found == record("t", "failed", revision=1, fingerprint="f", updated_at=5.0)
    assert await due(database) == ["t"]
    assert (await Inbox(database, max_queued=1).accept(event())).is_new
    await database.close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM threads").fetchone() == (2,)
    connection.close()
