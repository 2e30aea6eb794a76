"""One file, used by several tasks, event loops, threads and processes at once."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import threading
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable
from concurrent import futures
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path

import pytest

from tidegate.errors import SettingsError, StoreDamaged, StoreError
from tidegate.store import connection as connections
from tidegate.store.clock import Clock
from tidegate.store.connection import APPLICATION_ID, WAL_LIMIT
from tidegate.store.database import Database
from tidegate.testing import ManualClock

FIRST = "CREATE TABLE entries (value INTEGER NOT NULL) STRICT; CREATE INDEX entries_by_value ON entries (value)"
SECOND = "ALTER TABLE entries ADD COLUMN note TEXT"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "test.db"


@pytest.fixture
async def database(file: Path) -> AsyncIterator[Database]:
    database = Database(file, [FIRST])
    await database.open()
    yield database
    await database.close()


def insert(value: int) -> Callable[[sqlite3.Connection], None]:
    def work(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO entries (value) VALUES (?)", (value,))

    return work


def values(connection: sqlite3.Connection) -> list[int]:
    return [value for (value,) in connection.execute("SELECT value FROM entries ORDER BY value")]


def pragma(name: str) -> Callable[[sqlite3.Connection], object]:
    return lambda connection: connection.execute(f"PRAGMA {name}").fetchone()[0]


async def test_what_is_deleted_is_overwritten_whatever_sqlite_is_built_for(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = connections.connect

    def built_without(path: str, clock: Clock) -> sqlite3.Connection:
        connection = connect(path, clock)
        connection.execute("PRAGMA secure_delete = OFF")
        return connection

    monkeypatch.setattr(connections, "connect", built_without)
    database = Database(file, [FIRST])
    assert await database.write(pragma("secure_delete")) == 1
    await database.close()


async def test_what_was_written_is_there_after_the_file_was_closed(file: Path, database: Database) -> None:
    await database.write(insert(1))
    await database.close()
    again = Database(file, [FIRST])
    assert await again.read(values) == [1]
    await again.close()


def test_nothing_is_opened_before_the_first_use(file: Path) -> None:
    database = Database(file, [FIRST])
    asyncio.run(database.close())
    assert not file.exists()


async def test_the_file_is_in_wal_mode_and_as_durable_as_asked(database: Database, tmp_path: Path) -> None:
    assert [await database.write(pragma(name)) for name in ("journal_mode", "synchronous", "foreign_keys")] == [
        "wal",
        2,
        1,
    ]
    live = Database(tmp_path / "live.db", [FIRST], synchronous="NORMAL")
    assert await live.write(pragma("synchronous")) == 1
    await live.close()


async def test_sql_tells_the_time_of_the_injected_clock() -> None:
    clock = ManualClock(1000.0)
    clock.advance(5.0)
    database = Database(":memory:", [], clock=clock)
    assert await database.read(lambda c: c.execute("SELECT tidegate_now(), tidegate_ticks()").fetchone()) == (1005, 5)
    await database.close()


async def test_a_transaction_that_fails_leaves_nothing_and_blocks_nobody(database: Database) -> None:
    def fail(connection: sqlite3.Connection) -> None:
        insert(1)(connection)
        raise KeyError("x")

    with pytest.raises(KeyError):
        await database.write(fail)
    await database.write(insert(2))
    assert await database.read(values) == [2]


async def test_a_commit_that_fails_leaves_nothing_and_blocks_nobody() -> None:
    schema = """
        CREATE TABLE parents (id INTEGER PRIMARY KEY);
        CREATE TABLE entries (value INTEGER REFERENCES parents (id) DEFERRABLE INITIALLY DEFERRED)
    """
    database = Database(":memory:", [schema])
    with pytest.raises(sqlite3.IntegrityError):  # by the commit, which is when deferred constraints are checked
        await database.write(insert(1))
    await database.write(lambda connection: connection.execute("INSERT INTO parents VALUES (2)"))
    await database.write(insert(2))
    assert await database.read(values) == [2]
    await database.close()


async def test_a_full_disk_is_reported_as_one(database: Database) -> None:
    def fill(connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA max_page_count = 8")
        for value in range(100_000):
            insert(value)(connection)

    with pytest.raises(StoreError, match=r"no space left on its disk .*; free some and try again"):
        await database.write(fill)
    await database.write(insert(7))
    assert await database.read(values) == [7]


async def test_a_cancelled_writer_whose_turn_had_come_is_carried_out(database: Database) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(connection: sqlite3.Connection) -> None:
        insert(1)(connection)
        begun.set()
        go_on.wait()
        insert(2)(connection)

    writing = asyncio.create_task(database.write(slow))
    queued = asyncio.create_task(database.write(insert(3)))
    await asyncio.to_thread(begun.wait)
    writing.cancel()
    queued.cancel()
    assert all(
        isinstance(e, asyncio.CancelledError) for e in await asyncio.gather(writing, queued, return_exceptions=True)
    )
    go_on.set()
    assert await database.write(values) == [1, 2]  # whole; and the one that waited for its turn is undone


async def test_what_was_submitted_is_done_in_order_without_waiting(database: Database) -> None:
    futures: list[Future[None]] = [database.submit(insert(value)) for value in range(3)]
    assert await database.read(values) == [0, 1, 2]
    assert all(future.done() for future in futures)


def test_several_event_loops_can_use_one_database(file: Path) -> None:
    database = Database(file, [FIRST])

    async def write_some(start: int) -> None:
        await asyncio.gather(*(database.write(insert(start + value)) for value in range(10)))

    threads = [threading.Thread(target=lambda start=start: asyncio.run(write_some(start))) for start in (0, 10, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert asyncio.run(database.read(values)) == list(range(30))
    asyncio.run(database.close())


async def test_closing_finishes_what_was_begun_and_may_be_repeated(file: Path, database: Database) -> None:
    writing = database.submit(insert(1))
    closing_first = asyncio.create_task(database.close())
    await asyncio.sleep(0)
    closing_first.cancel()
    await asyncio.gather(closing_first, return_exceptions=True)
    await database.close()
    assert writing.exception() is None
    assert not file.with_name("test.db-wal").exists()
    with pytest.raises(RuntimeError, match="shutdown"):
        await database.write(insert(2))


def test_a_first_read_that_begins_while_the_file_is_closed_is_refused_and_holds_nothing_up(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(file, [FIRST])
    begun, closing_begun = threading.Event(), threading.Event()
    open_file, end_queue = database.open_sync, database._writer.shutdown

    def open_later() -> None:
        begun.set()
        closing_begun.wait()
        open_file()

    def end_queue_later(*, wait: bool) -> None:  # the last turn is queued, and waits for whoever reads
        closing_begun.set()
        futures.wait([reading], timeout=0.05)
        end_queue(wait=wait)

    monkeypatch.setattr(database, "open_sync", open_later)
    monkeypatch.setattr(database._writer, "shutdown", end_queue_later)
    reading = database._readers.submit(database._read, values)
    begun.wait()
    database._close().result(timeout=5.0)
    with pytest.raises(RuntimeError, match="was closed"):
        reading.result(timeout=5.0)


async def test_a_file_that_may_no_longer_be_written_is_told_and_goes_on_once_it_may(database: Database) -> None:
    await database.write(insert(1))
    database._connected().execute("PRAGMA query_only = ON")
    with pytest.raises(StoreError, match=r"it cannot be written .*; check the permissions of file and folder"):
        await database.write(insert(2))
    database._connected().execute("PRAGMA query_only = OFF")
    await database.write(insert(3))
    assert await database.read(values) == [1, 3]


async def test_a_disk_that_is_full_for_one_of_a_group_undoes_what_came_before_it_and_no_more(
    database: Database,
) -> None:
    def fill(connection: sqlite3.Connection) -> None:
        connection.execute("ROLLBACK")  # as SQLite does where it cannot undo the statement alone
        connection.execute("PRAGMA max_page_count = 1")
        raise full

    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorcode = sqlite3.SQLITE_FULL
    begun, go_on = threading.Event(), threading.Event()

    def hold(_: sqlite3.Connection) -> None:
        begun.set()
        go_on.wait()

    held = database.submit(hold)
    await asyncio.to_thread(begun.wait)
    before, failing, after = (database.submit(work) for work in (insert(1), fill, insert(3)))
    go_on.set()
    await asyncio.wrap_future(held)
    for each in (before, failing):
        with pytest.raises(StoreError, match="no space left on its disk"):
            await asyncio.wrap_future(each)
    await asyncio.wrap_future(after)
    assert await database.read(values) == [3]


async def test_the_database_of_another_application_is_left_alone(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE theirs (value)")
    content = file.read_bytes()
    database = Database(file, [FIRST])
    with pytest.raises(SettingsError, match="is the database of another application; name another file"):
        await database.open()
    await database.close()
    assert file.read_bytes() == content


@pytest.mark.parametrize("is_ours", [True, False])
async def test_a_table_whose_name_was_damaged_is_told_without_the_name(file: Path, *, is_ours: bool) -> None:
    if is_ours:
        database = Database(file, [FIRST])
        await database.open()
        await database.close()
    else:
        with closing(sqlite3.connect(file)) as connection:
            connection.executescript(FIRST)
    file.write_bytes(file.read_bytes().replace(b"tableentriesentries", b"tableentri\xffsentries"))
    expected = (StoreDamaged, "text in it is not UTF-8") if is_ours else (SettingsError, "name another file")
    with pytest.raises(expected[0], match=expected[1]):
        await Database(file, [FIRST]).open()


async def test_what_cannot_be_read_is_told(database: Database) -> None:
    def damaged(_: sqlite3.Connection) -> None:
        error = sqlite3.DatabaseError("malformed")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error

    with pytest.raises(StoreDamaged, match=r"it is damaged .*restore it from a copy"):
        await database.read(damaged)
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        await database.read(lambda connection: connection.execute("SELECT * FROM none"))


async def test_the_schema_is_brought_up_to_date(file: Path, database: Database) -> None:
    await database.write(insert(1))
    newer = Database(file, [FIRST, SECOND])
    assert await newer.read(lambda c: c.execute("SELECT value, note FROM entries").fetchall()) == [(1, None)]
    assert await newer.read(pragma("user_version")) == 2
    await newer.close()


async def test_a_migration_that_fails_changes_nothing(file: Path, database: Database) -> None:
    newer = Database(file, [FIRST, f"{SECOND}; CREATE TABLE entries (again TEXT)"])
    with pytest.raises(SettingsError, match="already exists"):
        await newer.open()
    assert await database.read(pragma("user_version")) == 1
    await database.write(insert(1))
    await newer.close()


async def test_a_file_of_newer_code_is_refused(file: Path, database: Database) -> None:
    newer = Database(file, [FIRST, SECOND])
    await newer.open()
    await newer.close()
    older = Database(file, [FIRST])
    with pytest.raises(SettingsError, match="has schema version 2, this code knows 1; upgrade tidegate"):
        await older.open()
    with pytest.raises(SettingsError, match="upgrade tidegate"):
        await older.read(values)
    await older.close()


async def test_opening_does_not_wait_for_a_writer(file: Path, database: Database) -> None:
    await database.write(insert(1))
    with closing(sqlite3.connect(file, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        another = Database(file, [FIRST])
        assert await asyncio.wait_for(another.read(values), 5.0) == [1]
    await another.close()


async def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    database = Database(tmp_path / "none" / "test.db", [FIRST])
    with pytest.raises(SettingsError, match="its folder does not exist; create it or name another"):
        await database.open()
    (tmp_path / "none").mkdir()
    await database.write(insert(1))
    await database.close()


@pytest.mark.parametrize("content", [b"not a database" * 1000, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_file_that_is_no_database_is_named_and_left_alone(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    database = Database(file, [FIRST])
    with pytest.raises(SettingsError, match=r"cannot use .*test\.db: .*; move it away or name another file"):
        asyncio.run(database.open())
    asyncio.run(database.close())
    assert file.read_bytes() == content


async def test_a_folder_in_place_of_the_file_is_named(tmp_path: Path) -> None:
    database = Database(tmp_path, [FIRST])
    with pytest.raises(SettingsError, match=rf"cannot open {tmp_path}: "):
        await database.open()
    await database.close()


WRITER = """
import asyncio, sys
from tidegate.store.database import Database

def insert(connection):
    connection.execute("INSERT INTO entries (value) VALUES ((SELECT coalesce(max(value), 0) + 1 FROM entries))")

def hang(connection):
    insert(connection)
    print("ready", flush=True)
    sys.stdin.readline()

async def main():
    database = Database(sys.argv[1], [sys.argv[2]])
    if sys.argv[3] == "hang":
        await database.write(hang)
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(50):
        await database.write(insert)
    await database.close()

asyncio.run(main())
"""


async def start(file: Path, what: str) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITER, file, FIRST, what, stdin=PIPE, stdout=PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    return process


async def test_processes_that_open_and_write_a_new_file_at_once_lose_nothing(file: Path) -> None:
    processes = [await start(file, "write") for _ in range(3)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
    for process in processes:
        await process.communicate()
        assert process.returncode == 0
    database = Database(file, [FIRST])
    assert await database.read(values) == list(range(1, 151))
    await database.close()


async def test_a_process_killed_in_a_transaction_leaves_nothing_and_blocks_nobody(
    file: Path, database: Database
) -> None:
    await database.write(insert(10))
    process = await start(file, "hang")
    assert await database.read(values) == [10]
    process.kill()
    await process.wait()
    await database.write(insert(20))
    assert await database.read(values) == [10, 20]


async def test_opening_a_new_file_waits_for_whoever_is_making_it(file: Path) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as maker:
        maker.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        maker.execute("CREATE TABLE made (value)")
        maker.execute("BEGIN IMMEDIATE")  # while this lasts, SQLite refuses WAL mode without waiting
        database = Database(file, [FIRST])
        opening = asyncio.create_task(database.open())
        await asyncio.wait([opening], timeout=0.05)
        assert not opening.done()
        maker.execute("COMMIT")
        await opening
    await database.close()


async def test_one_of_a_group_that_fails_is_undone_alone(database: Database) -> None:
    groups: list[int] = []

    def fail(connection: sqlite3.Connection) -> None:
        insert(1)(connection)
        raise KeyError("x")

    def insert_items(connection: sqlite3.Connection, items: list[int]) -> None:
        groups.append(len(items))
        for item in items:
            insert(item)(connection)
            if item == 12:
                raise KeyError(item)

    begun, go_on = threading.Event(), threading.Event()

    def hold(_: sqlite3.Connection) -> None:
        begun.set()
        go_on.wait()

    held = database.submit(hold)
    await asyncio.to_thread(begun.wait)
    work = [database.write(insert(0)), database.write(fail), database.write(insert(2))]
    items = [database.write_item(insert_items, item) for item in (10, 11, 12, 13)]
    waiting = asyncio.gather(*work, *items, return_exceptions=True)
    await asyncio.sleep(0)
    go_on.set()
    results = await waiting
    assert [type(each) for each in results if each is not None] == [KeyError, KeyError]
    assert await database.read(values) == [0, 2, 10, 11, 13]
    assert groups == [4, 1, 1, 1, 1]  # together, then each alone
    assert held.done()


async def test_items_that_fail_together_and_have_the_transaction_to_themselves_are_done_each_alone(
    database: Database,
) -> None:
    groups: list[int] = []

    def insert_items(connection: sqlite3.Connection, items: list[int]) -> None:
        groups.append(len(items))
        for item in items:
            insert(item)(connection)
            if item == 12:
                raise KeyError(item)

    begun, go_on = threading.Event(), threading.Event()

    def hold(_: sqlite3.Connection) -> None:
        begun.set()
        go_on.wait()

    database.submit(hold)
    await asyncio.to_thread(begun.wait)
    items = asyncio.gather(
        *(database.write_item(insert_items, item) for item in (10, 11, 12, 13)), return_exceptions=True
    )
    await asyncio.sleep(0)
    go_on.set()
    assert [type(each) for each in await items if each is not None] == [KeyError]
    assert await database.read(values) == [10, 11, 13]
    assert groups == [4, 1, 1, 1, 1]


async def test_what_is_queued_is_written_though_whoever_waits_for_it_is_cancelled(database: Database) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def hold(_: sqlite3.Connection) -> None:
        begun.set()
        go_on.wait()

    async def wait() -> None:
        await asyncio.shield(database.queue(insert(1)))

    database.submit(hold)
    await asyncio.to_thread(begun.wait)
    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    go_on.set()
    assert await database.queue(values) == [1]


async def test_a_cancelled_writer_that_settles_waits_for_the_end_of_its_write(database: Database) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(connection: sqlite3.Connection) -> None:
        insert(1)(connection)
        begun.set()
        go_on.wait()

    writing = asyncio.create_task(database.write(slow, settle=True))
    await asyncio.to_thread(begun.wait)
    writing.cancel()
    done, _ = await asyncio.wait([writing], timeout=0.05)
    assert not done
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert await database.read(values) == [1]


async def test_a_writer_cancelled_when_its_turn_had_come_ends_with_its_group(database: Database) -> None:
    busy, together, begun, go_on = [threading.Event() for _ in range(4)]

    def first(connection: sqlite3.Connection) -> None:
        busy.set()
        together.wait()

    def slow(connection: sqlite3.Connection) -> None:
        begun.set()
        go_on.wait()

    database.submit(first)
    await asyncio.to_thread(busy.wait)
    slowly = database.submit(slow)
    writing = asyncio.create_task(database.write(insert(1), settle=True))
    await asyncio.sleep(0)
    together.set()
    await asyncio.to_thread(begun.wait)  # both are one group, and the second is not begun
    writing.cancel()
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.wait_for(asyncio.wrap_future(slowly), 10.0)
    done, _ = await asyncio.wait([writing], timeout=10.0)
    assert done
    assert writing.cancelled()
    assert await database.read(values) == []


async def test_the_log_is_cut_once_nobody_reads_it(file: Path, database: Database) -> None:
    await database.write(insert(1))
    database._wal_allowed = 1
    with closing(sqlite3.connect(file, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM entries").fetchall()
        await database.write(insert(2))
        await database.read(values)
        assert database._wal_allowed > WAL_LIMIT  # a reader was in the way: tried again only after as much more
        reader.execute("COMMIT")
    database._wal_allowed = 1
    await database.write(insert(3))
    await database.write(lambda _: None)
    assert file.with_name("test.db-wal").stat().st_size == 0
