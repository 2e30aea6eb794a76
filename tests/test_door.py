"""What a door tells a trigger of its events, in SQLite and in PostgreSQL."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.doors import Queue
from tidegate.errors import EmptyDocument
from tidegate.store.inbox import Envelope, Inbox
from tidegate.store.registry import Registry
from tidegate.store.transactions import Store
from tidegate.triggers.door import Door


@pytest.fixture
def door(store: Store) -> Door:
    inbox = Inbox(store, max_queued=10_000)
    return Door(Queue(inbox), inbox, max_document_bytes=100)


def envelope_of(id_: str, source: str = "folder") -> Envelope:
    return Envelope(source=source, id=id_, data=b"x", name=id_)


async def test_it_tells_how_far_the_threads_of_events_are(door: Door, store: Store) -> None:
    receipts = [await door.take(envelope_of(id_)) for id_ in ("a", "b", "c'?%")]
    await door.take(envelope_of("a", source="another"))
    empty = EmptyDocument("d", "is empty", "give a document with content")
    await Inbox(store, max_queued=1).refuse("folder", "d", empty)
    registry = Registry(store)
    record = await registry.get(receipts[1].thread_id)
    assert record is not None
    await registry.put(replace(record, status="complete"))
    asked = ["a", "b", "c'?%", "d", "unknown"]
    expected = {"a": "queued", "b": "complete", "c'?%": "queued", "d": "dead"}
    assert await door.statuses("folder", asked) == expected
    assert await door.statuses("folder", []) == {}
    assert await door.statuses("another", asked) == {"a": "queued"}
    assert len(await door.statuses("folder", [f"{number}" for number in range(499)] + ["b"])) == 1


async def test_it_tells_the_event_that_sorts_last(door: Door) -> None:
    assert await door.latest("cron") is None
    for id_ in ("2026-06-02T06:00:00Z", "2026-11-01T06:00:00Z", "2026-06-10T06:00:00Z"):
        await door.take(envelope_of(id_, source="cron"))
    await door.take(envelope_of("2027-01-01T00:00:00Z", source="another"))
    assert await door.latest("cron") == "2026-11-01T06:00:00Z"
