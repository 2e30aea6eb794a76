"""The store in PostgreSQL: the same tables and statements, and a server that may go away."""

from __future__ import annotations

import asyncio
import signal
import threading
import traceback
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests.servers.postgres import Server, serving
from tidegate.errors import SettingsError, StateInvalid, StoreDamaged, StoreError, StoreUnavailable
from tidegate.store import postgres, postgres_server
from tidegate.store.dialect import FOR_SHARE
from tidegate.store.documents import Documents
from tidegate.store.postgres import PostgresDatabase
from tidegate.store.postgres_url import PostgresUrl, read_url
from tidegate.store.registry import Registry, ThreadRecord
from tidegate.store.schema import SERVER_STORE
from tidegate.store.transactions import Connection
from tidegate.testing import ManualClock

FIRST = "CREATE TABLE entries (value INTEGER NOT NULL) STRICT; CREATE INDEX entries_by_value ON entries (value)"
SECOND = "ALTER TABLE entries ADD COLUMN note TEXT"


@pytest.fixture
async def database(postgres_url: str) -> AsyncIterator[PostgresDatabase]:
    database = PostgresDatabase(read_url(postgres_url), [FIRST])
    await database.open()
    yield database
    await database.close()


def insert(value: int) -> Callable[[Connection], None]:
    def work(connection: Connection) -> None:
        connection.execute("INSERT INTO entries (value) VALUES (?)", (value,))

    return work


def values(connection: Connection) -> list[int]:
    return [value for (value,) in connection.execute("SELECT value FROM entries ORDER BY value")]


def end_connection(connection: Connection) -> None:
    """End the connection from the server's side, as a restart does."""
    (pid,) = connection.execute("SELECT pg_backend_pid()").fetchone()
    with psycopg.connect(connection._connection.info.dsn, autocommit=True) as other:  # type: ignore[attr-defined]
        other.execute("SELECT pg_terminate_backend(%s, 1000)", (pid,))


# the same as in SQLite


async def test_the_registry_and_the_documents_are_kept(postgres_url: str) -> None:
    clock = ManualClock(1000.0)
    database = PostgresDatabase(read_url(postgres_url), SERVER_STORE, clock=clock)
    registry, documents = Registry(database), Documents(database)
    first = ThreadRecord(thread_id="a", document_id="d", source="what? 100 %", status="running", next_at=1.5)
    await registry.put(first)
    [listed] = await registry.threads(status="interrupted")
    assert listed == replace(first, status="interrupted", updated_at=1000.0)
    await registry.put(ThreadRecord(thread_id="a", document_id="d", source="s", status="failed", error="no"))
    found = await registry.get("a")
    assert found == ThreadRecord(
        thread_id="a", document_id="d", source="s", status="failed", error="no", updated_at=1000.0
    )
    assert await registry.threads(status="running") == []
    assert await registry.get("b") is None
    assert await registry.silence() == 0.0
    clock.advance(2.5)
    assert await registry.silence() == 2.5
    data = bytes(range(256)) * 3
    assert await documents.get(await documents.put(data)) == data == await documents.get(await documents.put(data))
    with pytest.raises(StateInvalid, match=r"is not in postgresql://"):
        await documents.get("0" * 64)
    await database.close()


async def test_a_server_whose_clock_is_set_back_tells_of_threads_that_may_be_asked_about_now(postgres_url: str) -> None:
    clock = ManualClock(1000.0)
    database = PostgresDatabase(read_url(postgres_url), SERVER_STORE, clock=clock)
    registry = Registry(database)
    record = ThreadRecord(thread_id="a", document_id="d", source="s", status="degraded", enrichment_at=1060.0)
    await registry.put(record)
    told = []
    for step in (0.0, 59.0, 1.0):
        clock.set_back(step)
        told += [each.asks("enrichment") for each in await registry.lacking("enrichment", limit=10)]
    assert told == [1060.0, 1060.0, 0.0]
    assert await registry.lacking("summary", limit=10) == []
    await database.close()


@pytest.mark.parametrize("text", ["a\0b", "\ufdd0", "\ufdd00\0\ufdd01", "\0\0", "plain ü 🎈"])
async def test_text_may_hold_what_postgresql_refuses(text: str, postgres_url: str) -> None:
    registry = Registry(database := PostgresDatabase(read_url(postgres_url), SERVER_STORE))
    await registry.put(ThreadRecord(thread_id=text, document_id="d", source=text, status="running"))
    found = await registry.get(text)
    assert found is not None
    assert (found.thread_id, found.source) == (text, text)
    await database.close()


async def test_sql_tells_the_time_of_the_injected_clock_or_of_the_server(
    database: PostgresDatabase, postgres_url: str
) -> None:
    def tell(connection: Connection) -> Any:
        return connection.execute("SELECT tidegate_now(), tidegate_ticks()").fetchone()

    clock = ManualClock(1000.0)
    by_hand = PostgresDatabase(read_url(postgres_url), [FIRST], clock=clock)
    assert await by_hand.read(tell) == (1000, 0)
    clock.advance(5.0)
    assert await by_hand.write(tell) == (1005, 5)
    await by_hand.close()
    before = await database.read(tell)
    assert before[0] > 1_700_000_000
    assert await database.read(tell) > before


async def test_a_truth_value_is_a_number(database: PostgresDatabase) -> None:
    await database.write(lambda connection: connection.execute("INSERT INTO entries (value) VALUES (?)", (True,)))
    assert await database.read(values) == [1]


async def test_a_transaction_that_fails_leaves_nothing_and_blocks_nobody(database: PostgresDatabase) -> None:
    def fail(connection: Connection) -> None:
        insert(1)(connection)
        raise KeyError("x")

    with pytest.raises(KeyError):
        await database.write(fail)
    with pytest.raises(StoreError, match=r'refuses \(relation "nothing" does not exist\); check that .*') as caught:
        await database.write(lambda connection: connection.execute("SELECT 1 FROM nothing"))
    assert isinstance(caught.value.__cause__, psycopg.errors.UndefinedTable)
    await database.write(insert(2))
    assert await database.read(values) == [2]


async def test_work_that_ignores_a_failed_statement_is_not_taken_for_stored(database: PostgresDatabase) -> None:
    def ignore(connection: Connection) -> None:
        insert(1)(connection)
        with pytest.raises(psycopg.Error):
            connection.execute("SELECT 1 FROM nothing")

    with pytest.raises(RuntimeError, match="went on after a statement"):
        await database.write(ignore)
    assert await database.read(values) == []


async def test_what_a_reader_writes_is_not_kept(database: PostgresDatabase) -> None:
    await database.read(insert(1))
    assert await database.read(values) == []


async def test_a_cancelled_writer_whose_turn_had_come_is_carried_out(database: PostgresDatabase) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(connection: Connection) -> None:
        insert(1)(connection)
        begun.set()
        go_on.wait()
        insert(2)(connection)

    writing = asyncio.create_task(database.write(slow))
    await asyncio.to_thread(begun.wait)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    go_on.set()
    await database.close()
    again = PostgresDatabase(database._url, [FIRST])
    assert await again.read(values) == [1, 2]
    await again.close()


def test_several_event_loops_can_use_one_database(postgres_url: str) -> None:
    database = PostgresDatabase(read_url(postgres_url), [FIRST])

    async def write_some(start: int) -> None:
        await asyncio.gather(*(database.write(insert(start + value)) for value in range(10)))

    threads = [threading.Thread(target=lambda start=start: asyncio.run(write_some(start))) for start in (0, 10, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert asyncio.run(database.read(values)) == list(range(30))
    asyncio.run(database.close())


async def test_closing_finishes_what_was_begun_and_may_be_repeated(database: PostgresDatabase) -> None:
    writing = [database.submit(insert(value)) for value in range(20)]
    closing = asyncio.create_task(database.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)
    await database.close()
    assert [each.exception() for each in writing] == [None] * 20
    with pytest.raises(RuntimeError, match="shutdown"):
        await database.write(insert(2))


# transactions


async def test_work_that_reads_and_then_writes_is_not_overtaken(database: PostgresDatabase, postgres_url: str) -> None:
    other = PostgresDatabase(read_url(postgres_url), [FIRST])
    calls = 0

    def next_value(connection: Connection) -> None:
        nonlocal calls
        calls += 1
        (highest,) = connection.execute("SELECT coalesce(max(value), 0) FROM entries").fetchone()
        insert(highest + 1)(connection)

    await asyncio.gather(*(each.write(next_value) for each in [database, other] * 10))
    assert await database.read(values) == list(range(1, 21))
    assert calls > 20, "none met another, so this shows nothing"
    await other.close()


async def test_a_row_read_for_share_cannot_change_before_the_commit(
    database: PostgresDatabase, postgres_url: str
) -> None:
    await database.write(insert(1))
    read, change_begun = threading.Event(), threading.Event()
    order: list[str] = []

    def check_then_write(connection: Connection) -> None:
        connection.execute("SELECT value FROM entries WHERE value = ? " + FOR_SHARE, (1,)).fetchone()  # noqa: S608
        read.set()
        change_begun.wait()
        insert(2)(connection)
        order.append("checked")

    def change(connection: Connection) -> None:
        change_begun.set()
        connection.execute("UPDATE entries SET value = 9 WHERE value = 1")
        order.append("changed")

    checking = database.submit(check_then_write)
    await asyncio.to_thread(read.wait)
    await database.write(change)
    await asyncio.wrap_future(checking)
    assert order == ["checked", "changed"]


# a server that goes away


async def test_work_whose_connection_was_lost_is_done_once_more(database: PostgresDatabase) -> None:
    calls = 0

    def work(connection: Connection) -> None:
        nonlocal calls
        calls += 1
        insert(calls)(connection)
        if calls == 1:
            end_connection(connection)
            insert(9)(connection)

    await database.write(work)
    assert await database.read(values) == [2]
    assert len(database._connections) <= postgres.CONNECTIONS


async def test_a_read_whose_connection_was_lost_while_it_ended_is_done(database: PostgresDatabase) -> None:
    seen: list[list[int]] = []

    def work(connection: Connection) -> list[int]:
        seen.append(values(connection))
        if len(seen) == 1:
            end_connection(connection)
        return seen[-1]

    assert await database.read(work) == []


async def test_a_commit_that_was_cut_off_is_said_to_be_unknown(database: PostgresDatabase) -> None:
    def work(connection: Connection) -> None:
        insert(1)(connection)
        end_connection(connection)  # so that the commit finds no connection

    with pytest.raises(StoreUnavailable, match="whether it did is not known; resume the thread"):
        await database.write(work)
    assert await database.read(values) == []


async def test_a_serialization_failure_that_does_not_pass_is_told(postgres_url: str) -> None:
    database = PostgresDatabase(read_url(postgres_url), [FIRST], patience=0.05)

    def fail(connection: Connection) -> None:
        raise psycopg.errors.SerializationFailure("could not serialize access")

    with pytest.raises(StoreUnavailable, match="cannot be used: could not serialize access; resume the thread"):
        await database.write(fail)
    await database.close()


async def test_a_process_that_hangs_in_a_transaction_loses_it(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_server, "IDLE_IN_TRANSACTION", 0.5)
    database = PostgresDatabase(read_url(postgres_url), [FIRST])
    await database.write(insert(1))
    calls = 0

    def hang(connection: Connection) -> None:
        nonlocal calls
        calls += 1
        connection.execute("UPDATE entries SET value = value + 1")
        if calls == 1:
            held.set()
            lost.wait(10)

    held, lost = threading.Event(), threading.Event()
    hanging = database.submit(hang)
    await asyncio.to_thread(held.wait)
    await database.write(lambda connection: connection.execute("UPDATE entries SET value = value + 10"))
    lost.set()
    await asyncio.wrap_future(hanging)
    assert (calls, await database.read(values)) == (2, [12])
    await database.close()


async def test_damage_that_the_server_finds_is_told(database: PostgresDatabase) -> None:
    def find(_: Connection) -> None:
        raise psycopg.errors.DataCorrupted("invalid page")

    with pytest.raises(StoreDamaged, match=r"it is damaged \(DataCorrupted\); restore it from a copy"):
        await database.read(find)


@pytest.mark.slow
async def test_a_server_that_crashes_in_the_middle_of_work_is_told(server: Server) -> None:
    database = PostgresDatabase(read_url(server.url), [FIRST], patience=0.2)

    def crash(connection: Connection) -> None:
        insert(1)(connection)
        server.stop(signal.SIGQUIT)
        insert(2)(connection)

    with pytest.raises(StoreUnavailable, match=r"cannot be used: .*; resume the thread once the server is back"):
        await database.write(crash)
    await asyncio.to_thread(server.start)
    assert await database.read(values) == []
    await database.close()


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        if server is None:
            pytest.skip("needs the programs of a PostgreSQL server, initdb among them")
        yield server


@pytest.mark.slow
async def test_a_server_that_stops_and_starts_is_waited_for(server: Server) -> None:
    database = PostgresDatabase(read_url(server.url), [FIRST])
    await database.write(insert(1))
    server.stop()
    writing = asyncio.create_task(database.write(insert(2)))
    await asyncio.sleep(0)
    await asyncio.to_thread(server.start)
    await writing
    assert await database.read(values) == [1, 2]
    server.stop()
    await database.close()


async def test_a_server_that_stays_away_is_named(server: Server) -> None:
    database = PostgresDatabase(read_url(server.url), [FIRST], patience=0.2)
    await database.write(insert(1))
    server.stop()
    with pytest.raises(StoreUnavailable, match=r"postgresql:///postgres cannot be used: .*; resume the thread once"):
        await database.read(values)
    await database.close()


# opening


async def test_the_schema_is_brought_up_to_date(postgres_url: str, database: PostgresDatabase) -> None:
    await database.write(insert(1))
    newer = PostgresDatabase(read_url(postgres_url), [FIRST, SECOND])
    assert await newer.read(lambda c: c.execute("SELECT value, note FROM entries").fetchall()) == [(1, None)]
    await newer.close()


async def test_a_migration_that_fails_changes_nothing(postgres_url: str, database: PostgresDatabase) -> None:
    newer = PostgresDatabase(read_url(postgres_url), [FIRST, f"{SECOND}; CREATE TABLE entries (again TEXT)"])
    with pytest.raises(SettingsError, match="already exists"):
        await newer.open()
    await newer.close()
    again = PostgresDatabase(read_url(postgres_url), [FIRST, SECOND])
    await again.open()
    await again.close()


async def test_a_schema_of_newer_code_is_refused(postgres_url: str, database: PostgresDatabase) -> None:
    newer = PostgresDatabase(read_url(postgres_url), [FIRST, SECOND])
    await newer.open()
    await newer.close()
    older = PostgresDatabase(read_url(postgres_url), [FIRST])
    with pytest.raises(SettingsError, match=r"has version 3 of test_.*, this code knows 2; upgrade tidegate"):
        await older.open()
    with pytest.raises(SettingsError, match="upgrade tidegate"):
        await older.read(values)
    await older.close()


async def test_several_can_open_a_new_schema_at_once(postgres_url: str) -> None:
    databases = [PostgresDatabase(read_url(postgres_url), [FIRST, SECOND]) for _ in range(8)]
    await asyncio.gather(*(each.open() for each in databases))
    await asyncio.gather(*(each.close() for each in databases))


def test_nothing_is_connected_to_before_the_first_use() -> None:
    asyncio.run(PostgresDatabase(read_url("postgresql://nowhere.invalid/db"), SERVER_STORE).close())


def changed(url: str, **options: str) -> PostgresUrl:
    read = read_url(url)
    return replace(read, conninfo=make_conninfo(read.conninfo, **options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dbname": "missing"}, r'database "missing" does not exist; check that the server runs'),
        ({"host": "/nowhere"}, r"/nowhere.*; check that the server runs, and the host, database, user and password"),
        ({"sslmode": "red"}, r"cannot use .*red"),
    ],
)
async def test_what_cannot_be_opened_is_a_setting_to_change(
    options: dict[str, str], message: str, postgres_url: str
) -> None:
    url = replace(changed(postgres_url, password="sesame", **options), passwords=("sesame",))
    with pytest.raises(SettingsError, match=message) as caught:
        await PostgresDatabase(url, SERVER_STORE).open()
    assert "sesame" not in "".join(traceback.format_exception(caught.value))


async def test_an_option_that_libpq_does_not_know_is_named() -> None:
    database = PostgresDatabase(read_url("postgresql://me:sesame@host/db?colour=red"), SERVER_STORE)
    with pytest.raises(SettingsError, match=r'cannot read the options of postgresql://host/db: .*"colour"') as caught:
        await database.open()
    assert "sesame" not in "".join(traceback.format_exception(caught.value))


async def test_a_role_that_may_not_create_the_schema_is_told_what_to_do(postgres_url: str) -> None:
    role = f"role_{uuid.uuid4().hex[:16]}"
    with psycopg.connect(read_url(postgres_url).conninfo, autocommit=True) as owner:
        owner.execute(f"CREATE ROLE {role}".encode())
        try:
            database = PostgresDatabase(changed(postgres_url, options=f"-c role={role}"), SERVER_STORE)
            with pytest.raises(SettingsError, match=r"permission denied.*; let this role own the schema test_"):
                await database.open()
            schema = read_url(postgres_url).schema
            owner.execute(f"CREATE SCHEMA {schema} AUTHORIZATION {role}".encode())
            await database.open()  # with a schema of its own it needs no other right
            await database.close()
        finally:
            owner.execute(f"DROP OWNED BY {role}".encode())
            owner.execute(f"DROP ROLE {role}".encode())


async def test_a_database_that_does_not_store_unicode_is_refused(postgres_url: str) -> None:
    name = f"test_{uuid.uuid4().hex[:16]}"
    with psycopg.connect(read_url(postgres_url).conninfo, autocommit=True) as owner:
        owner.execute(f"CREATE DATABASE {name} ENCODING SQL_ASCII LOCALE 'C' TEMPLATE template0".encode())
        try:
            with pytest.raises(SettingsError, match="stores text as SQL_ASCII; use a database with the encoding UTF8"):
                await PostgresDatabase(changed(postgres_url, dbname=name), SERVER_STORE).open()
        finally:
            owner.execute(f"DROP DATABASE {name}".encode())
