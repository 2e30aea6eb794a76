"""Leases in executions: who is refused, who stops, and where the lease is seen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypedDict

import pytest
from langgraph.graph import END, START, StateGraph

from tests.checkpoints import at, checkpoint, place
from tests.worlds import NamesByCapital, World
from tidegate import Pipeline, Settings
from tidegate.checkpointers.durable import locked
from tidegate.checkpointers.json_file import JsonFileSaver
from tidegate.checkpointers.json_thread import ThreadFolder
from tidegate.cli import main
from tidegate.errors import LeaseLost, ThreadBusy
from tidegate.graph.execution import Executions
from tidegate.graph.pipeline import build_graph
from tidegate.resilience.guard import Answer
from tidegate.state import JSON, LEASE, Entity
from tidegate.store.database import Database
from tidegate.store.leases import Lease, Leases
from tidegate.store.owner import Owner
from tidegate.store.registry import Registry
from tidegate.store.schema import STORE

TEXT = "Ada and Bob met in Cairo, then Dover, then Essen."


@pytest.fixture
async def world() -> AsyncIterator[World]:
    section = {"concurrency": 1, "batch_size": 1}
    world = World(Settings(checkpoints="memory:", enrichment=section))  # type: ignore[arg-type]
    yield world
    await world.database.close()


async def asked(world: World) -> None:
    """Return once a place was asked for."""
    while not world.places.asked:  # noqa: ASYNC110 - nothing tells
        await asyncio.sleep(0.001)


def in_another_process(world: World) -> Executions:
    """Return what another process on another machine would run the same threads with."""
    graph = build_graph(world.services, world.settings).compile(checkpointer=world.saver)
    leases = Leases(world.database, owner=Owner("there", "other", "", 1, ""), clock=world.clock)
    return Executions(graph, world.services, Registry(world.database), leases)


async def test_a_second_process_is_refused_and_changes_nothing(world: World) -> None:
    start = await world.take_in(TEXT)
    world.places.pause = 0.05
    running = asyncio.create_task(world.executions().advance("t", start))
    await asked(world)
    with pytest.raises(ThreadBusy, match="is being run by process"):
        await in_another_process(world).advance("t", None)
    record = await Registry(world.database).get("t")
    assert record is not None
    assert record.status == "running"
    assert (await in_another_process(world).looks.inspect("t")).status == "unfinished"
    assert await in_another_process(world).looks.history("t", None)
    assert (await running).status == "complete"
    assert len(world.places.asked) == 5


async def test_an_execution_that_lost_its_thread_stops_and_leaves_the_record_to_the_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = await world.take_in(TEXT)
    rival = Leases(world.database, owner=Owner("there", "other", "", 1, ""), clock=world.clock)
    look_up = world.places.look_up

    async def lose(entity: Entity) -> Answer[JSON]:
        monkeypatch.setattr(Owner, "is_dead", lambda _: True)
        await rival.acquire("t")
        return await look_up(entity)

    monkeypatch.setattr(world.places, "look_up", lose)
    executions = world.executions()
    monkeypatch.setattr(executions._leases, "_ttl", 0.03)  # the next beat comes soon
    world.places.pause = 5.0
    with pytest.raises(LeaseLost):
        await executions.advance("t", start)
    record = await Registry(world.database).get("t")
    assert record is not None
    assert (record.status, record.error) == ("running", None)
    assert len(world.places.asked) == 1


async def test_a_thread_whose_execution_failed_or_was_cancelled_can_be_taken_at_once(world: World) -> None:
    start = await world.take_in(TEXT)
    world.places.pause = 5.0
    running = asyncio.create_task(world.executions().advance("t", start))
    await asked(world)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    world.places.pause = 0.0
    assert (await in_another_process(world).advance("t", None)).status == "complete"


class Observer:
    """An enricher that notes under which lease it is asked."""

    name = source = "observer"

    def __init__(self) -> None:
        self.current: Callable[[], Lease | None] = lambda: None
        self.seen: set[Lease | None] = set()

    def covers(self, entity_type: str) -> bool:
        return True

    async def look_up(self, entity: Entity) -> Answer[JSON]:
        self.seen |= {self.current(), await asyncio.to_thread(self.current)}
        return Answer({"found": entity.text}, 1)


@pytest.fixture
def observer() -> Observer:
    return Observer()


def options(url: str = "memory:") -> Settings:
    return Settings.read(checkpoints=url, enrichment={"batch_size": 2})


async def test_the_lease_is_seen_in_every_branch_and_in_nobody_elses(observer: Observer) -> None:
    async with Pipeline.open(options(), recogniser=NamesByCapital(), enricher=observer) as pipeline:
        observer.current = pipeline._wired.leases.current
        await pipeline.run(text=TEXT, thread_id="one")
        assert observer.seen == {Lease("one", 1)}
        observer.seen.clear()
        await asyncio.gather(*(pipeline.run(text=f"{TEXT} {name}", thread_id=name) for name in ("x", "y")))
        assert observer.seen == {Lease("x", 1), Lease("y", 1)}
        assert observer.current() is None


class Outer(TypedDict):
    document: bytes
    thread_id: str
    result: dict[str, Any]


def test_the_lease_is_seen_through_the_synchronous_doors(observer: Observer) -> None:
    with Pipeline.open_sync(options(), recogniser=NamesByCapital(), enricher=observer) as pipeline:
        observer.current = pipeline._wired.leases.current
        pipeline.run_sync(text=TEXT, thread_id="sync")
        graph = StateGraph(Outer)
        graph.add_node("tidegate", pipeline.as_node())
        graph.add_edge(START, "tidegate")
        graph.add_edge("tidegate", END)
        graph.compile().invoke({"document": TEXT.encode(), "thread_id": "node", "result": {}})
    assert observer.seen == {Lease("sync", 1), Lease("node", 1)}


async def test_a_subgraph_of_another_graph_runs_without_a_lease(observer: Observer) -> None:
    async with Pipeline.open(options(), recogniser=NamesByCapital(), enricher=observer) as pipeline:
        observer.current = pipeline._wired.leases.current
        await pipeline.subgraph().ainvoke(await pipeline.take_in(text=TEXT))
    assert observer.seen == {None}


@pytest.mark.parametrize("url", ["memory:", "sqlite:///{}/t.db", "file:///{}/t"])
async def test_the_lease_is_never_stored_with_a_checkpoint(tmp_path: Path, observer: Observer, url: str) -> None:
    async with Pipeline.open(options(url.format(tmp_path)), recogniser=NamesByCapital(), enricher=observer) as pipeline:
        await pipeline.run(text=TEXT, thread_id="t")
        lease = await pipeline._wired.leases.acquire("t")
        await pipeline.graph.aupdate_state(at(**lease.configurable()), {}, as_node="extract")
        saver: Any = pipeline.graph.checkpointer
        found = [each async for each in saver.alist(at())]
        assert len(found) > 5
        assert not any(LEASE in each.metadata or LEASE in each.config["configurable"] for each in found)
    assert not any(LEASE.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


# JSON files: check and rename are one under the thread's lock


@pytest.fixture
async def leases(tmp_path: Path) -> AsyncIterator[Leases]:
    database = Database(tmp_path / "store.db", STORE)
    yield Leases(database)
    await database.close()


async def test_a_stale_execution_changes_no_file(tmp_path: Path, leases: Leases) -> None:
    saver = JsonFileSaver(tmp_path)
    stale = await leases.acquire("t")
    config = at(**stale.configurable())
    stored = await saver.aput(config, checkpoint(x=1), {"step": 0}, {})
    await leases.release(stale)
    lease = await leases.acquire("t")
    before = files(tmp_path)
    with pytest.raises(LeaseLost):
        await saver.aput(config, checkpoint(x=2), {"step": 1}, {})
    written_on = at(checkpoint_id=place(stored)["checkpoint_id"], **stale.configurable())
    with pytest.raises(LeaseLost):
        await saver.aput_writes(written_on, [("x", 3)], "task")
    assert files(tmp_path) == before
    await saver.aput(at(**lease.configurable()), checkpoint(x=4), {"step": 1}, {})
    await saver.aput(at(), checkpoint(x=5), {"step": 2}, {})  # plain LangGraph use


async def test_a_saver_that_finds_the_lease_lost_stops_the_execution(tmp_path: Path, leases: Leases) -> None:
    saver = JsonFileSaver(tmp_path)

    async def execute() -> None:
        async with leases.hold("t") as lease:
            await leases.release(lease)
            saves.append(asyncio.create_task(saver.aput(at(**lease.configurable()), checkpoint(x=1), {"step": 0}, {})))
            await asyncio.sleep(5)

    saves: list[asyncio.Task[Any]] = []  # LangGraph saves in the background
    with pytest.raises(LeaseLost):
        await execute()
    assert isinstance(saves[0].exception(), LeaseLost)
    assert files(tmp_path) == {}


async def test_a_write_that_passed_its_check_lands_before_the_next_execution_reads(
    tmp_path: Path, leases: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    saver = JsonFileSaver(tmp_path)
    lease = await leases.acquire("t")
    loop = asyncio.get_running_loop()
    checked, go_on = asyncio.Event(), asyncio.Event()
    save = ThreadFolder.save

    def slow(*arguments: Any) -> int:
        loop.call_soon_threadsafe(checked.set)
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(10)
        return save(*arguments)

    monkeypatch.setattr(ThreadFolder, "save", slow)
    stale = asyncio.create_task(saver.aput(at(**lease.configurable()), checkpoint(x=1), {"step": 0}, {}))
    await checked.wait()
    await leases.release(lease)
    await leases.acquire("t")
    fence = asyncio.create_task(saver.afence("t"))
    await asyncio.wait([fence], timeout=0.05)
    assert not fence.done()
    go_on.set()
    await fence
    assert len(files(tmp_path)) == 1
    await stale


async def test_executions_pass_the_fence_before_they_read(tmp_path: Path, observer: Observer) -> None:
    url = f"file:///{tmp_path}/t"
    async with Pipeline.open(options(url), recogniser=NamesByCapital(), enricher=observer) as pipeline:
        await pipeline.run(text=TEXT, thread_id="t")
        with locked(tmp_path / "t" / "threads" / "t", exclusive=False):  # readers get in, the fence does not
            again = asyncio.create_task(pipeline.resume("t"))
            await asyncio.wait([again], timeout=0.1)
            assert not again.done()
        assert (await again).status == "complete"


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.glob("threads/**/*.json")}


# the command


def test_the_command_says_who_runs_the_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIDEGATE_RECOGNISER", "rules")
    (tmp_path / "note.txt").write_text(TEXT)

    async def hold() -> None:
        database = Database("tidegate.db", STORE)
        await Leases(database).acquire("t")
        await database.close()

    asyncio.run(hold())
    monkeypatch.setattr("sys.argv", ["tidegate", "run", "note.txt", "--thread-id", "t"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 17
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("tidegate: thread 't' is being run by process")
