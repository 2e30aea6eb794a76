"""Checkpoints in a SQLite file: what is stored, found, kept, given back, encrypted and taken over."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.types import ERROR
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from tests.checkpoints import at, checkpoint, get, ids, put, unused_blobs, values
from tidegate.checkpointers import open_checkpointer, open_checkpointer_sync, sqlite_import, sqlite_listing
from tidegate.checkpointers.sqlite import SqliteSaver
from tidegate.errors import CheckpointDamaged, LeaseLost, SettingsError
from tidegate.state import LEASE
from tidegate.store.codec import Codec
from tidegate.store.database import Database
from tidegate.store.documents import Documents
from tidegate.store.leases import Leases
from tidegate.store.opening import store_at
from tidegate.store.schema import STORE
from tidegate.testing import ManualClock

TEXT = "".join(f"{number} is a number. " for number in range(10_000))
KEY = b"0123456789abcdef"
BROKEN = Codec().pack(b"\xc1").hex()  # no msgpack begins so


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tidegate.db"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1_000_000.0)


@pytest.fixture
def saver(file: Path, clock: ManualClock) -> Iterator[SqliteSaver]:
    database = store_at(file, clock=clock)
    yield SqliteSaver(database)
    database.close_sync()


def count(file: Path, table: str) -> int:
    with closing(sqlite3.connect(file)) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608


def test_a_document_is_stored_once_wherever_it_stands(saver: SqliteSaver, file: Path) -> None:
    first = put(saver, "a", document=TEXT)
    saver.put_writes(at("a", checkpoint_id=first), [("document", "".join(TEXT))], "task")
    put(saver, "b", __start__={"document": TEXT, "more": 1})
    put(saver, "b", nested={"input": {"text": TEXT}})
    saver.copy_thread("a", "c")
    with closing(sqlite3.connect(file)) as connection:
        large = connection.execute("SELECT count(*) FROM blobs WHERE kind = 'text'").fetchone()
        assert large == (1,)
    assert values(saver, "b", ids(saver, "b")[-1]) == {"__start__": {"document": TEXT, "more": 1}}
    assert values(saver, "b") == {"nested": {"input": {"text": TEXT}}}
    assert get(saver, "c").pending_writes == [("task", "document", TEXT)]


@pytest.mark.parametrize("place", [0, 20, 40])
def test_a_large_item_is_found_among_small_ones_wherever_it_stands(saver: SqliteSaver, file: Path, place: int) -> None:
    large = ["as long as a document"] * 300
    items: list[tuple[str, Any]] = [(f"{number}", {"n": ["small"] * 20}) for number in range(40)]
    collection = dict([*items[:place], ("large", large), *items[place:]])
    put(saver, "a", collection=collection)
    assert count(file, "blob_parts") == 1
    assert values(saver, "a") == {"collection": collection}


def test_what_is_deleted_gives_its_space_back(saver: SqliteSaver, file: Path) -> None:
    for number in range(30):  # which outweigh the empty tables
        put(saver, "a", document=f"{number} {TEXT}")
    with closing(sqlite3.connect(file)) as connection:
        before = connection.execute("PRAGMA page_count").fetchone()[0]
        saver.delete_thread("a")
        assert connection.execute("PRAGMA page_count").fetchone()[0] < before / 2
        assert unused_blobs(connection) == 0
    assert count(file, "blobs") == 0


def test_pruning_keeps_the_newest_and_of_every_revision_what_published_it_and_its_last(saver: SqliteSaver) -> None:
    made = [put(saver, "a", revision=revision) for revision in (0, 0, 1, 1, 1, 2, 2)]
    newest = put(saver, "a", other=1)
    saver.prune(["a"])
    assert ids(saver, "a") == [newest, made[6], made[5], made[4], made[2], made[1], made[0]]


def test_keep_last_and_prune_older_than_keep_what_prune_keeps(saver: SqliteSaver, clock: ManualClock) -> None:
    made = [put(saver, "a", step=1), put(saver, "a", revision=1)]
    clock.advance(100.0)
    made += [put(saver, "a", step=step) for step in range(4)]
    saver.prune_older_than(50.0)
    assert ids(saver, "a") == made[:0:-1]
    saver.keep_last(2)
    assert ids(saver, "a") == [made[5], made[4], made[1]]
    with pytest.raises(ValueError, match="keep at least 1"):
        saver.keep_last(0)
    with pytest.raises(ValueError, match="no age"):
        saver.prune_older_than(-1.0)
    with pytest.raises(ValueError, match="use 'keep_latest' or 'delete'"):
        saver.prune(["a"], strategy="none")


def test_pruning_keeps_what_a_delta_channel_is_built_on(saver: SqliteSaver) -> None:
    parent: str | None = None
    made = []
    for number, held in enumerate(({"log": ["a"]}, {"log": ["a", "b"]}, {}, {})):
        each = checkpoint(**held)
        each["channel_versions"] = {"log": number + 1}
        place = at("a", **({"checkpoint_id": parent} if parent else {}))
        saver.put(place, each, {"step": number, "counters_since_delta_snapshot": {"log": (number, number)}}, {})
        parent = each["id"]
        made.append(parent)
        saver.put_writes(at("a", checkpoint_id=parent), [("log", [f"{number}"])], "task")
    saver.prune(["a"])
    assert ids(saver, "a") == made[:0:-1]
    history = saver.get_delta_channel_history(config=at("a"), channels=["log", "none"])
    assert history["log"].get("seed") == ["a", "b"]
    assert [value for _, _, value in history["log"]["writes"]] == [["1"], ["2"]]
    assert "seed" not in history["none"]


async def test_the_history_of_a_delta_channel_ends_where_a_chain_ends_or_leads_back(
    saver: SqliteSaver, file: Path
) -> None:
    first = put(saver, "a", other=1)
    saver.put_writes(at("a", checkpoint_id=first), [("log", ["x"])], "task")
    latest = put(saver, "a", other=2)
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        for parent in ("gone", latest, first):  # the last one leads back to itself
            connection.execute("UPDATE checkpoints SET parent_id = ? WHERE checkpoint_id = ?", (parent, first))
            history = await saver.aget_delta_channel_history(config=at("a"), channels=["log"])
            assert history == {"log": {"writes": [("task", "log", ["x"])]}}
    assert saver.get_delta_channel_history(config=at("none"), channels=["log"]) == {"log": {"writes": []}}


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        ("UPDATE writes SET value = x'09'", "was not packed by this version"),
        ("UPDATE channel_values SET kind = 'pickle' WHERE channel = 'log'", "never stored"),
    ],
)
def test_a_damaged_history_of_a_delta_channel_is_told(saver: SqliteSaver, file: Path, damage: str, what: str) -> None:
    first = put(saver, "a", log=["a"])
    saver.put_writes(at("a", checkpoint_id=first), [("log", ["x"])], "task")
    put(saver, "a", other=2)
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(damage)
    with pytest.raises(CheckpointDamaged, match=rf"thread 'a' has a checkpoint .*{what}.*restore"):
        saver.get_delta_channel_history(config=at("a"), channels=["log"])


@pytest.mark.parametrize("metadata", ["no JSON", "[]", None, '{"counters_since_delta_snapshot": [[1]]}'])
def test_pruning_passes_over_a_thread_with_a_damaged_checkpoint_and_then_names_it(
    saver: SqliteSaver, file: Path, metadata: str | None
) -> None:
    for number in range(3):
        put(saver, "a", n=number)
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        damage = "UPDATE checkpoints SET metadata = ? WHERE checkpoint_id = ?"
        connection.execute(damage, (metadata, ids(saver, "a")[0]))
    for number in range(3):
        put(saver, "b", n=number)
    with pytest.raises(CheckpointDamaged, match=r"thread 'a' .*restore"):
        saver.prune(["a", "b"])
    assert (len(ids(saver, "b")), count(file, "checkpoints")) == (1, 4)


def test_a_checkpoint_that_is_put_again_replaces_its_values_and_what_they_alone_held(
    saver: SqliteSaver, file: Path
) -> None:
    made = checkpoint(document=TEXT, small=1)
    saver.put(at("a"), made, {"step": 1}, {})
    made["channel_values"] = {"document": f"another {TEXT}"}
    saver.put(at("a"), made, {"step": 2}, {})
    assert values(saver, "a") == {"document": f"another {TEXT}"}
    assert get(saver, "a").metadata == {"step": 2}
    with closing(sqlite3.connect(file)) as connection:
        assert (count(file, "blobs"), unused_blobs(connection)) == (1, 0)


@pytest.mark.parametrize("one_fails", [False, True])
async def test_what_waits_together_is_stored_as_if_each_came_alone(
    saver: SqliteSaver, file: Path, one_fails: bool
) -> None:
    again = checkpoint(document=TEXT, old="old" * 200)
    await saver.aput(at("a"), again, {}, {})
    begun, go_on = threading.Event(), threading.Event()

    def hold(_: sqlite3.Connection) -> None:
        begun.set()
        go_on.wait()

    saver.database.submit(hold)
    await asyncio.to_thread(begun.wait)
    new, later = checkpoint(document=TEXT, n=1), checkpoint(document=TEXT, n=3)
    config, other = at("a", checkpoint_id=new["id"]), at("b", checkpoint_id=later["id"])
    nobodys: dict[str, Any] = {LEASE: {"thread_id": "a", "epoch": 7}}
    lost = at("a", **nobodys)
    waiting = asyncio.gather(
        saver.aput_writes(other, [("n", 1)], "early"),  # before its checkpoint
        saver.aput(at("a"), new, {}, {}),
        saver.aput_writes(config, [("n", "first" * 100), (ERROR, "1")], "task"),
        *([saver.aput(lost, checkpoint(n=9), {}, {})] if one_fails else []),
        saver.aput(at("a"), {**new, "channel_values": {"n": 2}}, {}, {}),  # in its place
        saver.aput_writes(config, [("n", "second" * 100), (ERROR, "2")], "task"),
        saver.aput(at("b"), later, {}, {}),
        saver.aput(at("a"), {**again, "channel_values": {"new": "new" * 200}}, {}, {}),
        return_exceptions=True,
    )
    await asyncio.sleep(0)
    go_on.set()
    failed = [type(each) for each in await waiting if isinstance(each, BaseException)]
    assert failed == ([LeaseLost] if one_fails else [])
    assert values(saver, "a", new["id"]) == {"n": 2}
    assert values(saver, "a", again["id"]) == {"new": "new" * 200}
    assert values(saver, "b") == {"document": TEXT, "n": 3}
    assert get(saver, "a", new["id"]).pending_writes == [("task", ERROR, "2"), ("task", "n", "first" * 100)]
    assert get(saver, "b").pending_writes == [("early", "n", 1)]
    assert len(ids(saver, "a")) == 2
    with closing(sqlite3.connect(file)) as connection:
        assert unused_blobs(connection) == 0


def test_a_mark_of_a_task_that_is_written_again_replaces_the_first(saver: SqliteSaver, file: Path) -> None:
    stored = at("a", checkpoint_id=put(saver, "a", n=1))
    for text in (TEXT, f"another {TEXT}"):
        saver.put_writes(stored, [("__error__", text)], "task")
    assert get(saver, "a").pending_writes == [("task", "__error__", f"another {TEXT}")]
    with closing(sqlite3.connect(file)) as connection:
        assert (count(file, "blobs"), unused_blobs(connection)) == (1, 0)


def test_a_listing_can_be_narrowed_by_place_and_by_metadata_of_any_kind(saver: SqliteSaver, file: Path) -> None:
    marks: list[Any] = [{"a": [1]}, 'say "yes"', 1.5, None, 2]
    stored = []
    for number, mark in enumerate(marks):
        metadata: Any = {"mark": mark}
        stored.append(saver.put(at("a", f"ns{number % 2}"), checkpoint(), metadata, {}))
    for config, mark in zip(stored, marks, strict=True):
        assert [each.config for each in saver.list(None, filter={"mark": mark})] == [config]
    assert [each.config for each in saver.list(stored[1])] == [stored[1]]
    anywhere: Any = {"configurable": {"thread_id": "a"}}
    assert [each.config for each in saver.list(anywhere)] == stored[::-1]
    assert [each.config for each in saver.list(anywhere, before=stored[3])] == stored[2::-1]
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("UPDATE checkpoints SET metadata = 'no JSON' WHERE checkpoint_ns = 'ns1'")
    with pytest.raises(CheckpointDamaged):  # rather than passing it over
        list(saver.list(anywhere, filter={"mark": {"a": [1]}}))


def explain(connection: sqlite3.Connection, query: str) -> list[Any]:
    return connection.execute(f"EXPLAIN QUERY PLAN {query}").fetchall()


async def test_a_listing_uses_an_index_and_may_be_read_and_left_while_it_goes_on(saver: SqliteSaver) -> None:
    for number in range(70):
        await saver.aput(at("a"), checkpoint(n=number), {"step": number % 7, "source": "loop"}, {})
    seen = 0
    async for each in saver.alist(at("a")):
        assert (await saver.aget_tuple(each.config)) == each
        seen += 1
    assert seen == 70
    found = [each async for each in saver.alist(None, filter={"step": 3}, limit=4)]
    assert [each.checkpoint["channel_values"]["n"] for each in found] == [66, 59, 52, 45]
    for clause in ("thread_id = 'a' AND checkpoint_ns = ''", "thread_id = 'a'", "1"):
        query = f"SELECT * FROM checkpoints WHERE {clause} ORDER BY checkpoint_id DESC, id DESC LIMIT 10"  # noqa: S608
        plan = await saver.database.read(partial(explain, query=query))
        assert "TEMP B-TREE" not in str(plan)


def test_the_lease_key_is_not_stored(saver: SqliteSaver) -> None:
    lease = asyncio.run(Leases(saver.database).acquire("a"))
    saver.put(at("a", **lease.configurable()), checkpoint(), {"source": "loop"}, {})
    assert get(saver, "a").metadata == {"source": "loop"}


def test_a_copy_with_an_allowlist_shares_the_file(saver: SqliteSaver) -> None:
    clone = saver.with_allowlist([("somewhere", "Something")])
    assert clone is not saver
    put(clone, "a", document=TEXT)
    assert values(saver, "a") == {"document": TEXT}


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("UPDATE blobs SET data = substr(data, 1, 50)", "is damaged"),
        ("UPDATE blobs SET data = x'09'", "was not packed by this version"),
        ("UPDATE channel_values SET kind = 'pickle'", "of the kind 'pickle', which is never stored"),
        ("UPDATE checkpoints SET body = zeroblob(9)", "is damaged"),
        ("UPDATE checkpoints SET metadata = '[]'", "does not fit this version"),
        ("UPDATE checkpoints SET metadata = NULL", "does not fit this version"),
        (f"UPDATE checkpoints SET metadata = '{'[' * 100_000}'", "does not fit this version"),  # noqa: S608
        ("UPDATE checkpoints SET metadata = CAST(x'ff' AS TEXT)", "text in it is not UTF-8"),
        ("UPDATE checkpoints SET checkpoint_id = checkpoint_id || 'x'", "does not fit this version"),
        ("INSERT INTO blob_parts SELECT id, 'none', id FROM blobs", "holds a value whose parts do not fit it"),
        (f"UPDATE channel_values SET value = x'{BROKEN}' WHERE value NOTNULL", "cannot be loaded"),  # noqa: S608
        ("PRAGMA foreign_keys = OFF; DELETE FROM blobs", "names a blob that is not there"),
    ],
)
def test_damage_is_told_with_thread_and_way_out(saver: SqliteSaver, file: Path, statement: str, what: str) -> None:
    put(saver, "a", document=TEXT, small=1)
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(statement)
    with pytest.raises(CheckpointDamaged, match=rf"thread 'a' has a checkpoint .*{what}.*restore .* from a copy"):
        saver.get_tuple(at("a"))


def test_damaged_pages_are_told_and_the_rest_can_be_read(saver: SqliteSaver, file: Path) -> None:
    put(saver, "kept", n=1)
    for number in range(40):
        put(saver, "a", document=f"{number} {TEXT}")
    saver.database.close_sync()
    data = bytearray(file.read_bytes())
    data[-len(data) // 4 :] = b"\xaa" * (len(data) // 4 + 1)
    file.write_bytes(data)
    with open_checkpointer_sync(f"sqlite:///{file}") as again:
        assert values(again, "kept") == {"n": 1}
        with pytest.raises(CheckpointDamaged):
            list(again.list(at("a")))


# encryption


def test_an_encrypted_file_needs_its_key_and_holds_no_plain_value(file: Path) -> None:
    url = f"sqlite:///{file}"
    with open_checkpointer_sync(url, key=lambda: KEY) as saver:
        put(saver, "a", document=TEXT, small="a small secret")
        put(saver, "a", document=TEXT)
        assert values(saver, "a") == {"document": TEXT}
    assert count(file, "blobs") == 1
    content = b"".join(path.read_bytes() for path in file.parent.iterdir())
    assert b"small secret" not in content
    assert b"is a number" not in content
    for key, told in ((None, "is encrypted; give its key"), (b"another key 0123", "is encrypted with another key")):
        with pytest.raises(SettingsError, match=told), open_checkpointer_sync(url, key=key):
            pass


def test_a_key_beside_an_open_store_is_refused_and_not_passed_over(file: Path) -> None:
    store = store_at(file)
    with (
        pytest.raises(SettingsError, match="open the store with it"),
        open_checkpointer_sync(f"sqlite:///{file}", store=store, key=KEY),
    ):
        pass
    store.close_sync()


def test_a_plain_file_is_refused_when_there_is_a_key(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{file}"
    with open_checkpointer_sync(url) as saver:
        put(saver, "a", n=1)
    monkeypatch.setenv("TIDEGATE_ENCRYPTION_KEY", KEY.decode())
    with pytest.raises(SettingsError, match="without encryption"), open_checkpointer_sync(f"sqlite:///{file}"):
        pass
    with pytest.raises(SettingsError, match="not encrypted"), open_checkpointer_sync(f"file:///{file.parent}/json"):
        pass
    with (
        pytest.raises(SettingsError, match="16, 24 or 32 bytes"),
        open_checkpointer_sync(f"sqlite:///{file}", key=b"x"),
    ):
        pass


# taking over


@pytest.fixture
async def official(tmp_path: Path) -> AsyncIterator[AsyncSqliteSaver]:
    async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "official.db")) as saver:
        yield saver


async def everything(saver: BaseCheckpointSaver[Any]) -> list[CheckpointTuple]:
    found = [each async for each in saver.alist(None)]
    return sorted(found, key=lambda each: str(each.config))


async def test_an_official_database_is_taken_over_as_it_is_and_only_once(
    official: AsyncSqliteSaver, saver: SqliteSaver, tmp_path: Path
) -> None:
    for thread in ("a", "b"):
        parent: dict[str, str] = {}
        for step in range(3):
            made = checkpoint(document=TEXT, step=step, raw=b"\0\1", none=None)
            stored = await official.aput(at(thread, **parent), made, {"step": step, "source": "loop"}, {})
            await official.aput_writes(stored, [("document", TEXT), ("__interrupt__", [1])], "task", "~path")
            parent = {"checkpoint_id": made["id"]}
    assert await saver.aimport_from(tmp_path / "official.db") == 6
    assert await everything(saver) == await everything(official)
    await saver.aput(at("a", **parent), checkpoint(later=1), {}, {})
    held = await everything(saver)
    assert await asyncio.to_thread(saver.import_from, tmp_path / "official.db") == 0
    assert await everything(saver) == held
    with pytest.raises(SettingsError, match=r"`tidegate import .*official\.db` takes it over"):
        async with open_checkpointer(f"sqlite:///{tmp_path}/official.db"):
            pass


async def test_an_encrypted_official_database_is_taken_over_by_its_key_alone(tmp_path: Path) -> None:
    serde = EncryptedSerializer.from_pycryptodome_aes(key=KEY)
    async with aiosqlite.connect(tmp_path / "official.db") as connection:
        official = AsyncSqliteSaver(connection, serde=serde)
        stored = await official.aput(at("a"), checkpoint(document=TEXT), {"step": 1}, {})
        await official.aput_writes(stored, [("raw", b"\0\1"), ("none", None), ("document", TEXT)], "task")
        expected = await everything(official)
    for name, key in (("plain.db", None), ("other.db", b"another key 0123")):
        async with open_checkpointer(f"sqlite:///{tmp_path}/{name}", key=key) as saver:
            assert isinstance(saver, SqliteSaver)
            with pytest.raises(SettingsError, match="it is encrypted with another key; give that one"):
                await saver.aimport_from(tmp_path / "official.db")
            assert await everything(saver) == []
    async with open_checkpointer(f"sqlite:///{tmp_path}/tidegate.db", key=KEY) as saver:
        assert isinstance(saver, SqliteSaver)
        assert await saver.aimport_from(tmp_path / "official.db") == 1
        assert await everything(saver) == expected


async def test_values_that_are_never_loaded_are_not_taken_over_and_odd_times_are(
    official: AsyncSqliteSaver, saver: SqliteSaver, tmp_path: Path
) -> None:
    made = checkpoint(n=1)
    made["ts"] = "some day"
    await official.aput(at("a"), made, {}, {})
    await official.aput(at("b"), checkpoint(n=1), {}, {})
    await official.conn.execute("UPDATE checkpoints SET type = 'pickle' WHERE thread_id = 'b'")
    await official.conn.commit()
    with pytest.raises(SettingsError, match="it holds values of the kind 'pickle', which are not loaded"):
        await saver.aimport_from(tmp_path / "official.db")
    await official.adelete_thread("b")
    assert await saver.aimport_from(tmp_path / "official.db") == 1
    assert await everything(saver) == await everything(official)


async def test_a_thread_that_was_taken_over_goes_on_in_versions_of_its_own_kind(
    official: AsyncSqliteSaver, saver: SqliteSaver
) -> None:
    first = official.get_next_version(None, None)
    second = saver.get_next_version(first, None)
    assert first < second < official.get_next_version(second, None)


@pytest.mark.parametrize(
    ("statement", "where"),
    [
        ("UPDATE checkpoints SET checkpoint = substr(checkpoint, 1, 20)", "checkpoint ID of thread a"),
        ("UPDATE checkpoints SET checkpoint = NULL", "checkpoint ID of thread a"),
        ("UPDATE checkpoints SET checkpoint = x'90'", "checkpoint ID of thread a"),
        ("UPDATE checkpoints SET type = NULL", "checkpoint ID of thread a"),
        ("UPDATE checkpoints SET metadata = '[1]'", "checkpoint ID of thread a"),
        ("UPDATE checkpoints SET metadata = '{'", "checkpoint ID of thread a"),
        ("UPDATE checkpoints SET parent_checkpoint_id = x'ff'", "checkpoint ID of thread a"),
        ("UPDATE writes SET value = x'92'", "a write on checkpoint ID of thread a"),
        ("UPDATE writes SET value = 'text'", "a write on checkpoint ID of thread a"),
        ("UPDATE writes SET type = 'bytes', value = 'text'", "a write on checkpoint ID of thread a"),
        ("UPDATE writes SET idx = 'one'", "a write on checkpoint ID of thread a"),
        ("UPDATE writes SET channel = x'ff'", "a write on checkpoint ID of thread a"),
    ],
)
async def test_damage_to_an_official_database_is_told_by_its_place(
    official: AsyncSqliteSaver, saver: SqliteSaver, tmp_path: Path, statement: str, where: str
) -> None:
    made = checkpoint(n=1)
    stored = await official.aput(at("a"), made, {}, {})
    await official.aput_writes(stored, [("n", {"a": 1})], "task")
    await official.conn.execute(statement)
    await official.conn.commit()
    told = (
        rf"official\.db: {where.replace('ID', made['id'])} is damaged; delete it there, or restore the file from a copy"
    )
    with pytest.raises(SettingsError, match=told):
        await saver.aimport_from(tmp_path / "official.db")


def test_what_is_no_official_database_is_not_imported(saver: SqliteSaver, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("notes " * 1000)
    for name in ("none.db", "notes.txt", "tidegate.db"):
        put(saver, "a", n=1)
        with pytest.raises(SettingsError, match="cannot import"):
            saver.import_from(tmp_path / name)


# the schema


def test_a_file_of_the_first_version_is_brought_up_to_date(file: Path) -> None:
    sha256 = hashlib.sha256(b"document").hexdigest()

    def fill(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO documents VALUES (?, ?, 1.0)", (sha256, b"document"))

    first = Database(file, STORE[:1])
    first.write_sync(fill)
    first.close_sync()
    with open_checkpointer_sync(f"sqlite:///{file}") as saver:
        assert isinstance(saver, SqliteSaver)
        put(saver, "a", n=1)
        assert asyncio.run(Documents(saver.database).get(sha256)) == b"document"


DAMAGE_TO_A_SOURCE = {
    "a value cut short": "UPDATE checkpoints SET checkpoint = substr(checkpoint, 1, 50)",
    "metadata that is no JSON": "UPDATE checkpoints SET metadata = 'nojson'",
    "metadata that is a list": "UPDATE checkpoints SET metadata = '[]'",
    "no type": "UPDATE checkpoints SET type = NULL",
    "another type": "UPDATE checkpoints SET type = 'bytes'",
    "no dictionary": "UPDATE checkpoints SET checkpoint = x'01'",
    "a write cut short": "UPDATE writes SET value = x'dc'",
}


@pytest.mark.parametrize("damage", DAMAGE_TO_A_SOURCE.values(), ids=DAMAGE_TO_A_SOURCE)
async def test_damage_to_what_is_taken_over_is_told_with_its_place(
    official: AsyncSqliteSaver, tmp_path: Path, damage: str
) -> None:
    made = checkpoint(n=1)
    config = await official.aput(at("a"), made, {"step": 1, "source": "loop"}, {"n": 1})
    await official.aput_writes(config, [("n", {"m": 1})], "task")
    await official.conn.execute(damage)
    await official.conn.commit()
    async with open_checkpointer(f"sqlite:///{tmp_path}/new.db") as saver:
        assert isinstance(saver, SqliteSaver)
        with pytest.raises(SettingsError, match=f"checkpoint {made['id']} of thread a is damaged"):
            await saver.aimport_from(tmp_path / "official.db")


async def test_the_event_loop_goes_on_while_threads_are_taken_over(
    official: AsyncSqliteSaver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await official.aput(at("a"), checkpoint(n=1), {"step": 1, "source": "loop"}, {"n": 1})
    taken_apart_by: list[int] = []
    seconds = sqlite_import._seconds

    def noted(timestamp: object) -> float | None:
        taken_apart_by.append(threading.get_ident())
        return seconds(timestamp)

    monkeypatch.setattr(sqlite_import, "_seconds", noted)
    async with open_checkpointer(f"sqlite:///{tmp_path}/new.db") as saver:
        assert isinstance(saver, SqliteSaver)
        assert await saver.aimport_from(tmp_path / "official.db") == 1
    assert taken_apart_by
    assert threading.get_ident() not in taken_apart_by


def test_a_filter_that_only_python_understands_is_read_a_page_at_a_time(file: Path) -> None:
    with open_checkpointer_sync(f"sqlite:///{file}") as saver:
        assert isinstance(saver, SqliteSaver)
        for number in range(70):
            saver.put(at("a"), {**checkpoint(), "id": f"{number:08}"}, {"step": number}, {})
        pages = 0
        read = saver.database.read_sync

        def counted(work: Any) -> Any:
            nonlocal pages
            pages += 1
            return read(work)

        saver.database.read_sync = counted  # type: ignore[method-assign]
        assert list(saver.list(at("a"), filter={"step": 0.5}, limit=1)) == []
        assert pages == 3
        found = list(saver.list(at("a"), filter={"step": 10.0}, limit=1))
        assert [each.checkpoint["id"] for each in found] == ["00000010"]


def test_runs_are_listed_by_an_index(file: Path) -> None:
    listing = sqlite_listing.Listing(None, {"run_id": "one"}, None, 10)
    asked: list[str] = []
    with open_checkpointer_sync(f"sqlite:///{file}") as saver:
        assert isinstance(saver, SqliteSaver)

        def plan(connection: sqlite3.Connection) -> list[str]:
            connection.set_trace_callback(asked.append)
            listing.page(connection)
            connection.set_trace_callback(None)
            return [str(row[3]) for row in connection.execute(f"EXPLAIN QUERY PLAN {asked[-1]}")]

        assert "checkpoints_by_run" in saver.database.read_sync(plan)[0]
