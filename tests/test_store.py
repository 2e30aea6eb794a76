"""Documents and the thread registry."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from tidegate.errors import StateInvalid
from tidegate.store.clock import timestamp
from tidegate.store.database import Database
from tidegate.store.documents import Documents
from tidegate.store.registry import Registry, ThreadRecord
from tidegate.store.schema import STORE
from tidegate.testing import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def database(clock: ManualClock) -> AsyncIterator[Database]:
    database = Database(":memory:", STORE, clock=clock)
    yield database
    await database.close()


async def test_a_document_comes_back_under_its_hash_however_often_it_was_stored(database: Database) -> None:
    documents = Documents(database)
    data = b"\x00\xff bytes"
    sha256 = await documents.put(data)
    assert await documents.put(data) == sha256
    assert await documents.get(sha256) == data


async def test_a_document_that_is_not_there_is_named(database: Database) -> None:
    with pytest.raises(StateInvalid, match="document abc is not in"):
        await Documents(database).get("abc")


async def test_a_document_damaged_in_the_store_is_refused(database: Database) -> None:
    documents = Documents(database)
    sha256 = await documents.put(b"right")

    def damage(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE documents SET data = ?", (b"wrong",))

    await database.write(damage)
    with pytest.raises(StateInvalid, match="is damaged"):
        await documents.get(sha256)


async def test_another_document_under_a_hash_is_refused(database: Database) -> None:
    documents = Documents(database)
    sha256 = await documents.put(b"right")
    wrong = database.codec.pack(b"wrong")
    await database.write(lambda connection: connection.execute("UPDATE documents SET data = ?", (wrong,)))
    with pytest.raises(StateInvalid, match="its hash differs"):
        await documents.get(sha256)


async def test_threads_are_listed_by_their_last_update_and_by_status(database: Database, clock: ManualClock) -> None:
    registry = Registry(database)
    first = ThreadRecord(thread_id="first", document_id="d", source="a.txt", status="running")
    await registry.put(first)
    clock.advance(1.0)
    await registry.put(ThreadRecord(thread_id="second", document_id="d", source="b.txt", status="complete", revision=1))
    assert [record.thread_id for record in await registry.threads()] == ["second", "first"]
    clock.advance(1.0)
    await registry.put(replace(first, status="degraded", retryable_missing=3, next_at=5.0))
    assert [record.thread_id for record in await registry.threads()] == ["first", "second"]
    assert [record.thread_id for record in await registry.threads(status="complete")] == ["second"]
    assert [record.thread_id for record in await registry.threads(limit=1)] == ["first"]
    found = await registry.get("first")
    assert found == replace(first, status="degraded", retryable_missing=3, next_at=5.0, updated_at=clock.now())
    assert await registry.get("third") is None


def test_timestamps_are_utc_to_the_millisecond() -> None:
    assert timestamp(ManualClock(1_772_357_400.25)) == "2026-03-01T09:30:00.250Z"
