"""Documents and the thread registry."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from tidegate.errors import StateInvalid
from tidegate.store.clock import timestamp
from tidegate.store.database import Database
from tidegate.store.documents import Documents
from tidegate.store.registry import Registry, Service, ThreadRecord
from tidegate.store.schema import HEALING, STORE
from tidegate.store.transactions import Connection
from tidegate.testing import ManualClock


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


async def test_the_unfinished_thread_that_is_silent_the_longest_is_told(database: Database, clock: ManualClock) -> None:
    registry = Registry(database)
    assert await registry.silence() == 0.0
    for status in ("complete", "failed", "running", "waiting", "degraded"):
        await registry.put(ThreadRecord(thread_id=status, document_id="d", source="s", status=status))
        clock.advance(10.0)
    for gone, silence in (("complete", 40.0), ("failed", 30.0), ("running", 20.0), ("waiting", 0.0)):
        await registry.delete(gone)
        assert await registry.silence() == silence, gone


def test_timestamps_are_utc_to_the_millisecond() -> None:
    assert timestamp(ManualClock(1_772_357_400.25)) == "2026-03-01T09:30:00.250Z"


THREADS_OF_BEFORE = [
    ("degraded", "degraded", 50.0),
    ("waiting", "waiting", 60.0),
    ("crashed", "running", None),
    ("stopped", "failed", 70.0),
    ("complete", "complete", None),
]


async def test_threads_that_were_stored_before_sweeps_are_found_by_them(tmp_path: Path) -> None:
    older = Database(tmp_path / "t.db", STORE[: STORE.index(HEALING)])

    def insert(connection: Connection) -> None:
        for thread_id, status, next_at in THREADS_OF_BEFORE:
            connection.execute(
                "INSERT INTO threads (thread_id, document_id, source, status, revision, retryable_missing, next_at, "
                "fingerprint, updated_at) VALUES (?, 'd', 's', ?, 0, 0, ?, '', 0.0)",
                (thread_id, status, next_at),
            )

    await older.write(insert)
    await older.close()
    newer = Database(tmp_path / "t.db", STORE)
    registry = Registry(newer)
    services: tuple[Service, ...] = ("enrichment", "summary")
    for service in services:
        found = await registry.lacking(service, limit=10)
        assert [(each.thread_id, each.asks(service)) for each in found] == [
            ("degraded", 50.0),
            ("waiting", 60.0),
        ]
    await newer.close()


@pytest.mark.parametrize(
    ("clause", "index"),
    [
        ("document_id >= 'a' AND document_id <= 'ag'", "threads_by_document"),
        ("source = 's'", "threads_by_source"),
        ("status = 'failed' ORDER BY updated_at DESC, thread_id LIMIT 100", "threads_by_status"),
        (
            "updated_at > (SELECT tidegate_now()) AND updated_at - (SELECT tidegate_now()) >= summary_at - updated_at "
            "ORDER BY updated_at LIMIT 100",
            "threads_by_update",
        ),
    ],
)
async def test_threads_are_found_by_an_index(database: Database, clause: str, index: str) -> None:
    def plan(connection: Connection) -> list[str]:
        found = connection.execute(f"EXPLAIN QUERY PLAN SELECT * FROM threads WHERE {clause}")  # noqa: S608
        return [str(row[3]) for row in found]

    assert index in (await database.read(plan))[0]


async def test_ten_threads_of_a_hundred_thousand_are_found_without_reading_the_rest(database: Database) -> None:
    def plan(connection: Connection) -> list[str]:
        connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) "
            "INSERT INTO threads (thread_id, document_id, source, status, revision, retryable_missing, fingerprint, "
            "updated_at, summary_at) SELECT i, 'd', 's', 'complete', 1, 0, '', 0.0, CASE WHEN i > 99990 THEN i END "
            "FROM n"
        )
        clause = "SELECT * FROM threads WHERE summary_at IS NOT NULL ORDER BY summary_at, thread_id LIMIT 20"
        return [str(row[3]) for row in connection.execute(f"EXPLAIN QUERY PLAN {clause}")]

    (step,) = await database.write(plan)
    assert "USING INDEX threads_by_summary" in step
    found = await Registry(database).lacking("summary", limit=20)
    assert [each.thread_id for each in found] == [str(number) for number in range(99991, 100001)]
    assert await Registry(database).lacking("enrichment", limit=20) == []
