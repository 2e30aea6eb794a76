"""The saver in PostgreSQL, as far as it differs from LangGraph's: leases, retention, odd values, lost connections."""

from __future__ import annotations

import asyncio
import math
import operator
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import chain
from typing import Annotated, Any, TypedDict, cast

import psycopg
import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.channels import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt
from psycopg import AsyncCursor
from psycopg.conninfo import make_conninfo
from psycopg.rows import DictRow

from tests.checkpoints import at, checkpoint, place
from tests.servers.postgres import serving
from tidegate.checkpointers import open_checkpointer
from tidegate.checkpointers.postgres import INLINE, PostgresSaver
from tidegate.errors import (
    CheckpointDamaged,
    LeaseLost,
    SettingsError,
    StoreError,
    StoreUnavailable,
    ThreadError,
    WrongThread,
)
from tidegate.state import LEASE
from tidegate.store import postgres_server
from tidegate.store.postgres_url import read_url


@pytest.fixture
async def saver(postgres_url: str) -> AsyncIterator[PostgresSaver]:
    url = read_url(postgres_url)
    named = make_conninfo(url.conninfo, application_name=url.schema)
    async with PostgresSaver.open(replace(url, conninfo=named)) as saver:
        yield saver


async def rows(saver: PostgresSaver, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    async with saver._cursor() as cursor:
        await cursor.execute(sql.encode(), values)
        return [tuple(row.values()) for row in await cursor.fetchall()] if cursor.description else []


async def count(saver: PostgresSaver, table: str, thread_id: str = "t") -> int:
    found = await rows(saver, f"SELECT count(*) FROM {table} WHERE thread_id = %s", thread_id)  # noqa: S608
    return int(found[0][0])


async def put(saver: PostgresSaver, version: int = 1, ts: str | None = None, **values: Any) -> RunnableConfig:
    """Put a checkpoint of thread t on top of the newest; every value is new."""
    latest = await saver.aget_tuple(at())
    made = checkpoint(**values)
    made["channel_versions"] = dict.fromkeys(values, f"{version}")
    made["ts"] = ts or made["ts"]
    base = at(checkpoint_id=latest.checkpoint["id"]) if latest else at()
    return await saver.aput(base, made, {"step": version}, made["channel_versions"])


async def get(saver: PostgresSaver, config: RunnableConfig | None = None) -> CheckpointTuple:
    found = await saver.aget_tuple(config or at())
    assert found is not None
    return found


# values


@pytest.mark.parametrize(
    "value",
    [
        "a\0b",
        "\0",
        "x" * (INLINE + 1),
        "x" * INLINE,
        "",
        1e16,
        -0.0,
        1e-300,
        0.1,
        math.inf,
        True,
        None,
        2**70,
        "ü\ufdd0",
    ],
)
async def test_a_bare_value_comes_back_as_it_was(value: Any, saver: PostgresSaver) -> None:
    stored = await put(saver, value=value)
    found = (await get(saver, stored)).checkpoint["channel_values"]["value"]
    assert (type(found), repr(found)) == (type(value), repr(value))


async def test_half_a_character_is_replaced_as_langgraphs_serializer_does(saver: PostgresSaver) -> None:
    await put(saver, value="a\ud800b")
    assert (await get(saver)).checkpoint["channel_values"]["value"] == "a?b"


async def test_not_a_number_comes_back_too(saver: PostgresSaver) -> None:
    await put(saver, value=math.nan)
    assert math.isnan((await get(saver)).checkpoint["channel_values"]["value"])


async def test_a_long_string_is_stored_once_a_version_and_is_there_in_every_checkpoint(saver: PostgresSaver) -> None:
    text = "a line of prose\n" * 10_000
    for step in range(5):
        made = checkpoint(text=text, document={"text": text}, step=step)
        # `text` is said to be new only once, and never of the last
        await saver.aput(at(), made, {}, {"text": 1, "document": 1, "step": step} if step == 0 else {"step": step})
        assert (await get(saver)).checkpoint["channel_values"] == {
            "text": text,
            "document": {"text": text},
            "step": step,
        }
    assert await count(saver, "checkpoint_blobs") == 2
    (size,) = (await rows(saver, "SELECT sum(length(checkpoint::text)) FROM checkpoints"))[0]
    assert size < 3_000


async def test_a_long_string_without_a_version_is_not_lost(saver: PostgresSaver) -> None:
    made = checkpoint(text="x" * 5000)
    made["channel_versions"] = {}
    await saver.aput(at(), made, {}, {})
    assert (await get(saver)).checkpoint["channel_values"] == {"text": "x" * 5000}


async def test_a_mark_of_a_task_is_replaced_though_it_comes_with_a_write_that_stays(saver: PostgresSaver) -> None:
    stored = await put(saver, value=["x"])
    await saver.aput_writes(stored, [("value", 1), ("__resume__", "first")], "task")
    await saver.aput_writes(stored, [("value", 2), ("__resume__", "second")], "task")
    found = {channel: value for _, channel, value in (await get(saver)).pending_writes or []}
    assert found == {"value": 1, "__resume__": "second"}


async def test_a_thread_id_that_fits_no_index_is_told_and_not_taken_for_a_server_that_is_away(
    saver: PostgresSaver,
) -> None:
    long = "".join(map(chr, range(0x4E00, 0x9000)))  # repeats would be compressed
    with pytest.raises(StoreError, match=r"the server refuses .*; choose shorter names"):
        await saver.aput(at(long), checkpoint(), {}, {})


@pytest.mark.parametrize("damage", ['{"ts": "some day"}', '{"channel_versions": 1}'])
async def test_pruning_tells_damage_and_removes_nothing(damage: str, saver: PostgresSaver) -> None:
    for version in (1, 2):
        await put(saver, version, value=["x"])
    await rows(saver, "UPDATE checkpoints SET checkpoint = checkpoint || %s::jsonb", damage)
    with pytest.raises(CheckpointDamaged, match="thread 't' has a checkpoint that cannot be read"):
        await saver.aprune(["t"])
    assert await count(saver, "checkpoints") == 2


async def test_a_put_that_fails_leaves_nothing(saver: PostgresSaver) -> None:
    with pytest.raises(psycopg.DataError):
        await saver.aput(at(), checkpoint(value=["x"]), cast("Any", {"odd": ["\0"]}), {"value": 1})
    assert await count(saver, "checkpoint_blobs") == 0


async def test_bytes_that_cannot_be_read_are_told_as_damage(saver: PostgresSaver) -> None:
    stored = await put(saver, value=["x"])
    for damage in ("blob = '\\xc1'::bytea", "type = 'json+zlib'"):
        await rows(saver, f"UPDATE checkpoint_blobs SET {damage}")  # noqa: S608
        for read in (saver.aget_tuple(stored), anext(saver.alist(stored))):
            with pytest.raises(CheckpointDamaged, match="thread 't' has a checkpoint that cannot be read"):
                await read


# leases


@pytest.fixture
async def leases(saver: PostgresSaver) -> PostgresSaver:
    await rows(saver, "CREATE TABLE leases (thread_id TEXT PRIMARY KEY, epoch BIGINT NOT NULL, held BIGINT NOT NULL)")
    await rows(saver, "INSERT INTO leases VALUES ('t', 7, 1)")
    return saver


def under(epoch: int, **more: Any) -> RunnableConfig:
    return at(**{LEASE: {"thread_id": "t", "epoch": epoch}, **more})


async def test_what_is_stored_under_a_lease_that_is_held_is_stored(leases: PostgresSaver) -> None:
    stored = await leases.aput(under(7), checkpoint(value=["x"]), {"step": 1}, {"value": 1})
    await leases.aput_writes(under(7, **place(stored)), [("value", "y")], "task")
    found = await get(leases)
    assert found.checkpoint["channel_values"] == {"value": ["x"]}
    assert found.pending_writes == [("task", "value", "y")]
    assert (
        await rows(
            leases, "SELECT checkpoint::text || metadata::text FROM checkpoints WHERE metadata::text LIKE %s", "%lease%"
        )
        == []
    )
    assert "epoch" not in str(found)


@pytest.mark.parametrize("change", ["UPDATE leases SET epoch = 8", "DELETE FROM leases"])
async def test_what_comes_under_a_lease_that_was_lost_is_refused(change: str, leases: PostgresSaver) -> None:
    stored = await leases.aput(under(7), checkpoint(value=["x"]), {}, {"value": 1})
    await rows(leases, change)
    with pytest.raises(LeaseLost, match="thread 't' was taken over by another process"):
        await leases.aput(under(7, **place(stored)), checkpoint(value=["late"]), {}, {"value": 2})
    with pytest.raises(LeaseLost):
        await leases.aput_writes(under(7, **place(stored)), [("value", "late")], "task")
    with pytest.raises(LeaseLost):
        await asyncio.to_thread(leases.put, under(7), checkpoint(value=["late"]), {}, {"value": 2})
    with pytest.raises(LeaseLost):
        await asyncio.to_thread(leases.put_writes, under(7, **place(stored)), [("value", "late")], "task")
    assert [await count(leases, table) for table in ("checkpoints", "checkpoint_blobs", "checkpoint_writes")] == [
        1,
        1,
        0,
    ]


@asynccontextmanager
async def taking_over(leases: PostgresSaver) -> AsyncIterator[AsyncCursor[DictRow]]:
    async with leases.conn.connection() as connection, connection.transaction(), connection.cursor() as cursor:
        await cursor.execute("UPDATE leases SET epoch = epoch + 1 WHERE thread_id = 't'")
        yield cursor


async def blocked(leases: PostgresSaver, what: str) -> None:
    """Wait until a statement with this in it waits for a lock."""
    waiting = (
        "SELECT 1 FROM pg_stat_activity "
        "WHERE wait_event_type = 'Lock' AND query LIKE %s AND application_name = current_schema()"
    )
    async with asyncio.timeout(10):
        while not await rows(leases, waiting, f"%{what}%"):  # noqa: ASYNC110 - only the server knows
            await asyncio.sleep(0)


@pytest.mark.parametrize("what", ["put", "put_writes"])
async def test_a_write_that_races_with_a_takeover_waits_and_is_refused(what: str, leases: PostgresSaver) -> None:
    stored = await leases.aput(under(7), checkpoint(value=["x"]), {}, {"value": 1})
    late: dict[str, Any] = {
        "put": lambda: leases.aput(under(7), checkpoint(value=["late"]), {}, {"value": 2}),
        "put_writes": lambda: leases.aput_writes(under(7, **place(stored)), [("value", "late")], "task"),
    }
    async with taking_over(leases):
        writing: asyncio.Task[Any] = asyncio.create_task(late[what]())
        await blocked(leases, "FOR SHARE")
    with pytest.raises(LeaseLost):
        await writing
    assert (await get(leases)).config == stored
    assert (await get(leases)).pending_writes == []


async def test_a_takeover_that_races_with_a_write_waits_for_it(
    leases: PostgresSaver, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked, go_on = asyncio.Event(), asyncio.Event()
    cursor = PostgresSaver._cursor

    @asynccontextmanager
    async def held(self: PostgresSaver, *, pipeline: bool = False) -> AsyncIterator[AsyncCursor[DictRow]]:
        async with cursor(self, pipeline=pipeline) as inner:
            if pipeline:
                checked.set()
                await go_on.wait()
            yield inner

    async def take_over() -> str:
        async with taking_over(leases) as inner:  # the checkpoint that was under way is seen by whoever takes over
            await inner.execute("SELECT checkpoint_id FROM checkpoints")
            row = await inner.fetchone()
            return str(row and row["checkpoint_id"])

    monkeypatch.setattr(PostgresSaver, "_cursor", held)
    writing = asyncio.create_task(leases.aput(under(7), checkpoint(value=["x"]), {}, {"value": 1}))
    await checked.wait()
    taking = asyncio.create_task(take_over())
    await blocked(leases, "UPDATE leases")
    go_on.set()
    assert await taking == place(await writing)["checkpoint_id"]


@pytest.mark.parametrize("operation", ["aput", "aput_writes"])
async def test_langgraphs_saver_writes_through_the_cursor_that_checks_leases(
    operation: str, leases: PostgresSaver, monkeypatch: pytest.MonkeyPatch
) -> None:
    # If this fails, LangGraph's saver has changed: find where it takes its connection now, and check leases there.
    seen: list[bool] = []
    cursor = PostgresSaver._cursor

    @asynccontextmanager
    async def counted(self: PostgresSaver, *, pipeline: bool = False) -> AsyncIterator[AsyncCursor[DictRow]]:
        seen.append(pipeline)
        async with cursor(self, pipeline=pipeline) as inner:
            yield inner

    monkeypatch.setattr(PostgresSaver, "_cursor", counted)
    if operation == "aput":
        await leases.aput(under(7), checkpoint(value=["x"]), {}, {"value": 1})
    else:
        await leases.aput_writes(under(7, checkpoint_id="1"), [("value", "y")], "task")
    assert seen == [True]
    assert "_cursor" in vars(AsyncPostgresSaver)


async def test_a_graph_stores_nothing_once_its_lease_is_lost(leases: PostgresSaver) -> None:
    app = graph(leases)
    await app.ainvoke({"text": "x"}, under(7), durability="sync")
    before = await count(leases, "checkpoints")
    await rows(leases, "UPDATE leases SET epoch = 8")
    with pytest.raises(LeaseLost):
        await app.aupdate_state(under(7), {"text": "late"})
    with pytest.raises(LeaseLost):
        await app.ainvoke(Command(resume="late"), under(7), durability="sync")
    assert await count(leases, "checkpoints") == before
    await app.ainvoke(Command(resume="yes"), under(8), durability="sync")
    assert "lease" not in str(await rows(leases, "SELECT metadata::text FROM checkpoints"))


class State(TypedDict, total=False):
    text: str
    done: Annotated[list[str], operator.add]
    revision: int


def graph(saver: BaseCheckpointSaver[Any]) -> Any:
    async def work(state: State) -> State:
        return {"done": ["work"]}

    async def ask(state: State) -> State:
        return {"done": [interrupt("?")], "revision": state.get("revision", 0) + 1}

    builder = StateGraph(State)
    builder.add_node("work", work)
    builder.add_node("ask", ask)
    builder.add_edge(START, "work")
    builder.add_edge("work", "ask")
    builder.add_edge("ask", END)
    return builder.compile(checkpointer=saver)


# retention


async def test_pruning_keeps_the_first_and_last_of_every_revision_with_their_values(
    saver: PostgresSaver,
) -> None:
    stored = [
        await put(saver, version, value=[version], revision=revision)
        for version, revision in enumerate([1, 1, 2, 2, 2, 3, 3])
    ]
    for config in stored:
        await saver.aput_writes(config, [("value", "y")], "task")
    await saver.aprune(["t"])
    kept = [stored[6], stored[5], stored[4], stored[2], stored[1], stored[0]]
    found = [each async for each in saver.alist(at())]
    assert [each.config for each in found] == kept
    assert [each.checkpoint["channel_values"]["value"] for each in found] == [[6], [5], [4], [2], [1], [0]]
    assert [await count(saver, table) for table in ("checkpoint_blobs", "checkpoint_writes")] == [6, 6]


async def test_the_newest_are_kept_of_every_thread(saver: PostgresSaver) -> None:
    stored = [await put(saver, version, value=[version]) for version in range(6)]
    await saver.acopy_thread("t", "other")
    await saver.akeep_last(2)
    assert [each.config for each in [each async for each in saver.alist(at())]] == [stored[5], stored[4]]
    assert await count(saver, "checkpoints", "other") == await count(saver, "checkpoint_blobs", "other") == 2
    await asyncio.to_thread(saver.keep_last, 1)
    assert await count(saver, "checkpoints") == 1
    with pytest.raises(ValueError, match="keep at least 1"):
        await saver.akeep_last(0)


async def test_what_is_older_goes_and_the_latest_never(saver: PostgresSaver) -> None:
    for version, ts in enumerate(["2020-01-01T00:00:00+00:00", "2020-01-02T00:00:00+00:00"]):
        await put(saver, version, ts=ts, value=[version])
    await saver.acopy_thread("t", "old")
    young = [await put(saver, version, value=[version]) for version in (2, 3)]
    await saver.aprune_older_than(3600)
    assert [each.config for each in [each async for each in saver.alist(at())]] == young[::-1]
    assert await count(saver, "checkpoints", "old") == 1
    await asyncio.to_thread(saver.prune_older_than, 0)
    assert await count(saver, "checkpoints") == 1


async def test_a_pruned_thread_that_is_unfinished_goes_on(saver: PostgresSaver) -> None:
    app = graph(saver)
    await app.ainvoke({"text": "x"}, at(), durability="sync")
    await saver.aprune(["t"])
    assert await app.ainvoke(Command(resume="yes"), at(), durability="sync") == {
        "text": "x",
        "done": ["work", "yes"],
        "revision": 1,
    }


class Log(TypedDict):
    lines: Annotated[list[str], DeltaChannel(lambda lines, batches: [*(lines or []), *chain(*batches)])]


@pytest.mark.parametrize("sync", [False, True])
async def test_a_pruned_thread_whose_state_is_stored_as_changes_has_it_still(sync: bool, saver: PostgresSaver) -> None:
    async def write(state: Log) -> Log:
        return {"lines": [f"after {len(state['lines'])}"]}

    builder = StateGraph(Log)
    builder.add_node("write", write)
    builder.add_edge(START, "write")
    app: Any = builder.compile(checkpointer=saver)
    for number in range(3):
        await app.ainvoke({"lines": [f"line {number}"]}, at(), durability="sync")
    before = (await app.aget_state(at())).values
    assert len(before["lines"]) == 6
    await saver.aprune(["t"])
    after = await (asyncio.to_thread(app.get_state, at()) if sync else app.aget_state(at()))
    assert after.values == before


async def test_writes_on_a_checkpoint_that_is_still_on_its_way_are_not_pruned(saver: PostgresSaver) -> None:
    await put(saver, value=["x"])
    coming, gone = checkpoint(value=["y"]), at(checkpoint_id="0")
    await saver.aput_writes(at(checkpoint_id=coming["id"]), [("value", "early")], "task")
    await saver.aput_writes(gone, [("value", "left behind")], "task")
    await saver.aprune(["t"])
    await saver.aput(at(), coming, {}, {"value": 2})
    assert (await get(saver)).pending_writes == [("task", "value", "early")]
    assert await count(saver, "checkpoint_writes") == 1


async def test_deleting_leaves_nothing_and_an_unknown_strategy_is_refused(saver: PostgresSaver) -> None:
    await saver.aput_writes(await put(saver, value=["x"]), [("value", "y")], "task")
    with pytest.raises(ValueError, match="no strategy 'keep_some'"):
        await saver.aprune(["t"], strategy="keep_some")
    await saver.aprune(["t"], strategy="delete")
    for table in ("checkpoints", "checkpoint_blobs", "checkpoint_writes"):
        assert await count(saver, table) == 0


async def test_what_a_run_made_goes_with_its_values(saver: PostgresSaver) -> None:
    first = await put(saver, 1, value=["x"])
    second = checkpoint(value=["y"])
    second["channel_versions"] = {"value": "2"}
    await saver.aput(first, second, cast("Any", {"run_id": "run"}), {"value": "2"})
    await saver.adelete_for_runs(["run", "another"])
    assert (await get(saver)).config == first
    assert await count(saver, "checkpoint_blobs") == 1


async def test_a_copy_does_not_replace_a_thread(saver: PostgresSaver) -> None:
    await put(saver, value=["x"])
    await saver.acopy_thread("t", "u")
    for target in ("t", "u"):
        with pytest.raises(ThreadError, match="exists already; delete it, or copy to another ID"):
            await saver.acopy_thread("t", target)
    await saver.acopy_thread("nothing", "u")
    await saver.acopy_thread("nothing", "v")
    assert await saver.aget_tuple(at("v")) is None


async def test_of_two_copies_to_one_id_one_is_made(saver: PostgresSaver) -> None:
    await put(saver, value=["x"])
    made = await asyncio.gather(*(saver.acopy_thread("t", "u") for _ in range(4)), return_exceptions=True)
    assert sorted(type(each).__name__ for each in made) == ["NoneType", *["ThreadError"] * 3]
    assert await count(saver, "checkpoints", "u") == 1


async def test_a_copy_gives_way_to_an_execution_that_begins_under_its_id(
    saver: PostgresSaver, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = await put(saver, value=["x"])
    checkpoint_id = place(stored)["checkpoint_id"]
    monkeypatch.setattr(
        "tidegate.checkpointers.postgres_threads._EXISTS", "SELECT 1 WHERE %(source)s = '' AND %(target)s = ''"
    )
    beginning = "INSERT INTO checkpoints (thread_id, checkpoint_id, checkpoint) VALUES ('u', %s, '{}')"
    await rows(saver, beginning, checkpoint_id)
    with pytest.raises(ThreadError, match="exists already"):
        await saver.acopy_thread("t", "u")


# connections


def lose_connections(saver: PostgresSaver) -> None:
    """End every connection of the pool, as a restart of the server does."""
    with psycopg.connect(saver._url.conninfo, application_name="test", autocommit=True) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity WHERE application_name = %s",
            (saver._url.schema,),
        )


async def test_operations_go_on_after_connections_were_lost(saver: PostgresSaver) -> None:
    stored = await put(saver, value=["x"])
    await asyncio.to_thread(lose_connections, saver)
    assert (await get(saver)).config == stored
    await asyncio.to_thread(lose_connections, saver)
    await saver.aput_writes(stored, [("value", "y")], "task")
    await asyncio.to_thread(lose_connections, saver)
    await saver.acopy_thread("t", "u")
    assert len((await get(saver, at("u"))).pending_writes or []) == 1


async def test_a_process_that_hangs_while_it_stores_gives_its_locks_back_and_stores_once_more(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_server, "IDLE_IN_TRANSACTION", 0.5)
    dump, begun, free = PostgresSaver._dump_blobs, threading.Event(), threading.Event()

    def hang(*arguments: Any) -> Any:
        begun.set()
        free.wait(10)
        return dump(*arguments)

    monkeypatch.setattr(PostgresSaver, "_dump_blobs", hang)
    async with PostgresSaver.open(read_url(postgres_url)) as saver:
        await rows(
            saver, "CREATE TABLE leases (thread_id TEXT PRIMARY KEY, epoch BIGINT NOT NULL, held BIGINT NOT NULL)"
        )
        await rows(saver, "INSERT INTO leases VALUES ('t', 7, 1)")
        storing = asyncio.create_task(saver.aput(under(7), checkpoint(value=["x"]), {}, {"value": 1}))
        await asyncio.to_thread(begun.wait)
        async with taking_over(saver):  # which waits for the row that the hanging one has locked
            pass
        free.set()
        with pytest.raises(LeaseLost):
            await storing
        assert await count(saver, "checkpoints") == 0


async def test_a_server_that_stays_away_is_named_and_one_that_comes_back_is_used() -> None:
    with serving() as server:
        if server is None:
            pytest.skip("needs the programs of a PostgreSQL server, initdb among them")
        async with PostgresSaver.open(read_url(server.url), patience=0.2) as saver:
            app = graph(saver)
            await app.ainvoke({"text": "x"}, at(), durability="sync")
            await asyncio.to_thread(server.stop)
            with pytest.raises(StoreUnavailable, match=r"postgresql:///postgres cannot be used: .*resume the thread"):
                await app.ainvoke(Command(resume="yes"), at(), durability="sync")
            saver._patience = 30.0
            resuming = asyncio.create_task(app.ainvoke(Command(resume="yes"), at(), durability="sync"))
            await asyncio.to_thread(server.start)
            assert (await resuming)["done"] == ["work", "yes"]
        with pytest.raises(psycopg.OperationalError, match="closed"):
            await saver.aget_tuple(at())


async def test_a_synchronous_call_on_the_savers_own_loop_is_refused(saver: PostgresSaver) -> None:
    with pytest.raises(WrongThread, match="await the method with `a` before its name"):
        saver.put(at(), checkpoint(), {}, {})

    async def elsewhere() -> CheckpointTuple | None:
        return saver.get_tuple(at())

    stored = await put(saver, value=["x"])
    found = await asyncio.to_thread(lambda: asyncio.run(elsewhere()))
    assert found is not None
    assert found.config == stored


async def test_calls_run_side_by_side(saver: PostgresSaver) -> None:
    async with saver._cursor(), saver._cursor(pipeline=True):
        await asyncio.wait_for(put(saver, value=["x"]), 5.0)


async def test_a_cancelled_put_leaves_no_transaction_open(saver: PostgresSaver) -> None:
    for moment in range(30):
        putting = asyncio.create_task(saver.aput(at(), checkpoint(text=["x"] * 100), {}, {"text": str(moment)}))
        for _ in range(moment):
            await asyncio.sleep(0.0002)
        putting.cancel()
        await asyncio.gather(putting, return_exceptions=True)
    assert await count(saver, "checkpoints") == await count(saver, "checkpoint_blobs")
    idle = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%%' AND application_name = %s"
    assert await rows(saver, idle, saver._url.schema) == [(0,)]


# opening


async def test_setting_up_again_changes_nothing(saver: PostgresSaver) -> None:
    stored = await put(saver, value=["x"])
    await saver.setup()
    assert (await get(saver)).config == stored


async def test_tables_of_a_newer_version_are_refused(saver: PostgresSaver, postgres_url: str) -> None:
    await rows(saver, "INSERT INTO checkpoint_migrations VALUES (99)")
    with pytest.raises(SettingsError, match=r"has version 100 of test_\w+\.checkpoint_migrations.*upgrade tidegate"):
        async with open_checkpointer(postgres_url):
            pass


async def test_several_can_open_a_new_schema_at_once(postgres_url: str) -> None:
    async def use(number: int) -> None:
        async with open_checkpointer(postgres_url) as saver:
            await saver.aput(at(str(number)), checkpoint(), {}, {})

    await asyncio.gather(*(use(number) for number in range(6)))


async def test_tables_that_others_have_in_the_database_are_left_alone(saver: PostgresSaver, postgres_url: str) -> None:
    await put(saver, value=["x"])
    async with open_checkpointer(postgres_url + "_2") as other:
        assert await other.aget_tuple(at()) is None
    await rows(saver, f"DROP SCHEMA {saver._url.schema}_2 CASCADE")
