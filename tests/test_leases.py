"""Who runs a thread: one at a time, whatever the clocks do, and a stale one changes nothing."""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from tidegate.errors import LeaseLost, StoreDamaged, ThreadBusy
from tidegate.store import owner as owners
from tidegate.store.database import Database
from tidegate.store.leases import Lease, Leases, check, check_lease, check_lease_in, lease_in, stopping
from tidegate.store.owner import Owner
from tidegate.store.postgres import PostgresDatabase
from tidegate.store.postgres_url import read_url
from tidegate.store.registry import Registry, ThreadRecord, ThreadStatus
from tidegate.store.schema import SERVER_STORE, STORE
from tidegate.store.transactions import Connection
from tidegate.testing import ManualClock

TTL = 30.0
HERE = Owner("here", "boot-1", "pids-1", 1, "100")
BESIDE = Owner("here", "boot-1", "pids-2", 2, "100")
ELSEWHERE = Owner("elsewhere", "boot-2", "pids-1", 3, "100")
UNKNOWN = Owner("unknown", "", "", 4, "")


@pytest.fixture
async def database(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Database]:
    database = Database(tmp_path / "store.db", STORE, clock=clock)
    yield database
    await database.close()


@pytest.fixture
def leases(database: Database, clock: ManualClock) -> Leases:
    return Leases(database, ttl=TTL, owner=HERE, clock=clock)


@pytest.fixture
def rival(database: Database, clock: ManualClock) -> Leases:
    return Leases(database, ttl=TTL, owner=BESIDE, clock=clock)


async def test_a_second_owner_is_told_who_runs_the_thread_and_until_when(
    leases: Leases, rival: Leases, clock: ManualClock
) -> None:
    assert await leases.acquire("t") == Lease("t", 1)
    clock.advance(10.0)
    with pytest.raises(ThreadBusy, match=r"'t' is being run by process 1 on here, until \d\d:\d\d:\d\d UTC") as caught:
        await rival.acquire("t")
    assert caught.value.until == clock.now() + 20.0
    assert pickle.loads(pickle.dumps(caught.value)).until == caught.value.until  # noqa: S301 - our own
    assert await rival.acquire("other") == Lease("other", 1)


async def test_the_next_one_gets_a_lease_that_was_given_back(leases: Leases, rival: Leases) -> None:
    await leases.release(await leases.acquire("t"))
    assert await rival.acquire("t") == Lease("t", 2)


async def test_giving_back_a_lease_that_was_lost_leaves_it_to_its_owner(
    leases: Leases, rival: Leases, clock: ManualClock
) -> None:
    stale = await leases.acquire("t")
    clock.advance(TTL)
    lease = await rival.acquire("t")
    await leases.release(stale)
    await rival.renew(lease)
    with pytest.raises(LeaseLost, match="'t' was taken over"):
        await leases.renew(stale)


@pytest.mark.parametrize(("step", "busy"), [(-1e6, False), (1e6, True), (1.0, True)])
async def test_a_lease_of_another_machine_ends_one_ttl_after_a_clock_set_back_at_the_latest(
    leases: Leases, database: Database, clock: ManualClock, step: float, busy: bool
) -> None:
    await leases.acquire("t")
    clock.set_back(step)
    other = Leases(database, ttl=TTL, owner=ELSEWHERE, clock=clock)
    if busy:
        with pytest.raises(ThreadBusy):
            await other.acquire("t")
        clock.advance(TTL)
    assert await other.acquire("t") == Lease("t", 2)


@pytest.mark.parametrize("step", [-1e6, 1e6])
async def test_on_one_machine_no_step_of_the_clock_counts(
    leases: Leases, rival: Leases, clock: ManualClock, step: float
) -> None:
    await leases.acquire("t")
    clock.set_back(step)
    with pytest.raises(ThreadBusy):
        await rival.acquire("t")
    clock.advance(TTL - 0.001)
    with pytest.raises(ThreadBusy):
        await rival.acquire("t")
    clock.advance(0.001)
    assert await rival.acquire("t") == Lease("t", 2)


class OneHolderAtATime(RuleBasedStateMachine):
    """Owners take, renew and give back one thread's lease, and die, while the clocks run and step."""

    taken: Bundle[tuple[Owner, Lease]] = Bundle("taken")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = ManualClock()
        self.database = Database(":memory:", STORE, clock=self.clock)
        self.dead: set[Owner] = set()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(Owner, "is_dead", lambda owner: owner in self.dead)
        self.holder: tuple[Owner, Lease] | None = None
        self.epoch = 0
        self.renewed = (0.0, 0.0)
        self.issued: list[Lease] = []

    def teardown(self) -> None:
        self.patch.undo()
        self.runner.run(self.database.close())
        self.runner.close()

    def leases(self, owner: Owner) -> Leases:
        return Leases(self.database, ttl=TTL, owner=owner, clock=self.clock)

    def must_wait(self, owner: Owner) -> bool:
        if self.holder is None or self.holder[0] in self.dead:
            return False
        ticks, now = self.clock.monotonic() - self.renewed[0], self.clock.now() - self.renewed[1]
        elapsed = ticks if owner.boot and owner.boot == self.holder[0].boot else now
        return elapsed < TTL

    @rule(target=taken, owner=st.sampled_from([HERE, BESIDE, ELSEWHERE, UNKNOWN]))
    def acquire(self, owner: Owner) -> tuple[Owner, Lease]:
        must_wait = self.must_wait(owner)
        try:
            lease = self.runner.run(self.leases(owner).acquire("t"))
        except ThreadBusy as busy:
            assert must_wait
            assert busy.until <= self.clock.now() + TTL  # noqa: PT017 - where it may be raised
            self.renewed = (self.renewed[0], min(self.renewed[1], self.clock.now()))
            return owner, Lease("t", -1)
        assert not must_wait
        assert lease.epoch > self.epoch
        self.epoch, self.holder = lease.epoch, (owner, lease)
        self.renewed = (self.clock.monotonic(), self.clock.now())
        self.issued.append(lease)
        self.dead.discard(owner)
        return owner, lease

    @rule(one=taken)
    def renew(self, one: tuple[Owner, Lease]) -> None:
        owner, lease = one
        if self.holder is not None and self.holder[1] == lease:
            self.runner.run(self.leases(owner).renew(lease))
            self.renewed = (self.clock.monotonic(), self.clock.now())
        else:
            with pytest.raises(LeaseLost):
                self.runner.run(self.leases(owner).renew(lease))

    @rule(one=taken)
    def release(self, one: tuple[Owner, Lease]) -> None:
        self.runner.run(self.leases(one[0]).release(one[1]))
        if self.holder is not None and self.holder[1] == one[1]:
            self.holder = None

    @rule(owner=st.sampled_from([HERE, BESIDE, ELSEWHERE]))
    def die(self, owner: Owner) -> None:
        self.dead.add(owner)

    @rule(seconds=st.floats(0.0, 2 * TTL))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(seconds=st.floats(-3 * TTL, 3 * TTL))
    def set_clock(self, seconds: float) -> None:
        self.clock.set_back(seconds)

    @invariant()
    def only_the_last_one_passes(self) -> None:
        def passing(connection: Any) -> list[Lease]:
            return [lease for lease in self.issued if passes(connection, lease)]

        expected = [] if self.holder is None else [self.holder[1]]
        assert self.runner.run(self.database.read(passing)) == expected


def passes(connection: Any, lease: Lease) -> bool:
    try:
        check(connection, lease)
    except LeaseLost:
        return False
    return True


TestOneHolderAtATime = OneHolderAtATime.TestCase
TestOneHolderAtATime.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


async def test_the_heartbeat_keeps_a_lease_for_as_long_as_the_block_runs(
    leases: Leases, rival: Leases, clock: ManualClock
) -> None:
    async with leases.hold("t") as lease:
        for _ in range(9):
            await clock.until_sleeping()
            clock.advance(TTL / 3)
        await clock.until_sleeping()
        with pytest.raises(ThreadBusy):
            await rival.acquire("t")
        assert leases.current() == lease
        assert rival.current() is None
    assert leases.current() is None
    await rival.acquire("t")


async def test_losing_the_lease_cancels_the_block(leases: Leases, rival: Leases, clock: ManualClock) -> None:
    went_on = False

    async def work() -> None:
        nonlocal went_on
        async with leases.hold("t"):
            await rival_takes(rival, clock)
            clock.advance(TTL / 3)
            await asyncio.sleep(5)
            went_on = True

    with pytest.raises(LeaseLost):
        await work()
    assert not went_on
    assert not is_cancelled()
    with pytest.raises(ThreadBusy):  # the stale one gave nothing back
        await leases.acquire("t")


def is_cancelled() -> bool:
    task = asyncio.current_task()
    assert task is not None
    return bool(task.cancelling())


async def rival_takes(rival: Leases, clock: ManualClock) -> None:
    """Have the rival think that the owner has died."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Owner, "is_dead", lambda _: True)
        await rival.acquire("t")
    await clock.until_sleeping()


async def test_whoever_finds_the_lease_lost_stops_the_block_too(
    leases: Leases, rival: Leases, database: Database, clock: ManualClock
) -> None:
    async def save(lease: Lease) -> None:
        with stopping():
            await database.write(lambda connection: check(connection, lease))

    async def work() -> None:
        async with leases.hold("t") as lease:
            await rival_takes(rival, clock)
            saving.append(asyncio.create_task(save(lease)))  # LangGraph saves in the background
            await asyncio.sleep(5)

    saving: list[asyncio.Task[None]] = []
    with pytest.raises(LeaseLost):
        await work()
    assert isinstance(saving[0].exception(), LeaseLost)


async def test_a_block_that_ends_by_the_loss_itself_is_not_cancelled_later(
    leases: Leases, rival: Leases, database: Database, clock: ManualClock
) -> None:
    async def work() -> None:
        async with leases.hold("t") as lease:
            await rival_takes(rival, clock)
            with stopping():
                await database.write(lambda connection: check(connection, lease))

    with pytest.raises(LeaseLost):
        await work()
    await asyncio.sleep(0)
    assert not is_cancelled()


async def test_a_block_that_makes_another_error_of_its_cancellation_raises_that(
    leases: Leases, rival: Leases, clock: ManualClock
) -> None:
    async def work() -> None:
        async with leases.hold("t"):
            await rival_takes(rival, clock)
            clock.advance(TTL / 3)
            try:
                await asyncio.sleep(5)
            except asyncio.CancelledError:
                raise KeyError("x") from None

    with pytest.raises(KeyError):
        await work()
    await asyncio.sleep(0)
    assert not is_cancelled()


async def test_a_cancelled_block_is_cancelled_and_gives_the_lease_back(leases: Leases, rival: Leases) -> None:
    async def work() -> None:
        async with leases.hold("t"):
            begun.set()
            await asyncio.sleep(5)

    begun = asyncio.Event()
    task = asyncio.create_task(work())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await rival.acquire("t") == Lease("t", 2)


async def test_a_heartbeat_that_fails_is_tried_again(
    leases: Leases, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    renew = leases.renew

    async def fail(_: Lease) -> None:
        monkeypatch.setattr(leases, "renew", renew)
        raise OSError("disk full")

    monkeypatch.setattr(leases, "renew", fail)
    async with leases.hold("t"):
        for _ in range(5):
            await clock.until_sleeping()
            clock.advance(TTL / 3)
        await clock.until_sleeping()
    assert [record.getMessage() for record in caplog.records] == ["the lease of thread t could not be renewed"]


async def test_a_lease_is_confirmed_from_memory_until_its_ttl_is_over_by_either_clock(
    leases: Leases, rival: Leases, database: Database, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await leases.confirm()  # outside of any execution
    async with leases.hold("t"):
        await rival.confirm()
        reads = 0
        read = database.read

        def counted(work: Callable[[Any], Any]) -> Any:
            nonlocal reads
            reads += 1
            return read(work)

        monkeypatch.setattr(database, "read", counted)
        await leases.confirm()
        assert reads == 0
        clock.set_back(-TTL)
        await leases.confirm()
        assert reads == 1

    async def work() -> None:
        async with leases.hold("t"):
            await rival_takes(rival, clock)
            clock.set_back(-TTL)
            await leases.confirm()

    with pytest.raises(LeaseLost):
        await work()


async def test_the_registry_refuses_what_a_stale_execution_says(
    leases: Leases, rival: Leases, database: Database, clock: ManualClock
) -> None:
    registry = Registry(database)
    stale = await leases.acquire("t")
    clock.advance(TTL)
    current = await rival.acquire("t")
    record = ThreadRecord(thread_id="t", document_id="d", source="s", status="running")
    await registry.put(record, current)
    with pytest.raises(LeaseLost):
        await registry.put(replace(record, status="failed"), stale)
    found = await registry.get("t")
    assert found is not None
    assert found.status == "running"


async def test_a_thread_that_nobody_runs_any_more_is_listed_as_interrupted(
    database: Database, clock: ManualClock
) -> None:
    leases, registry = Leases(database, ttl=TTL, clock=clock), Registry(database)
    for thread_id in ("dead", "run", "silent", "unheld", "done"):
        lease = await leases.acquire(thread_id)
        status: ThreadStatus = "complete" if thread_id == "done" else "running"
        await registry.put(ThreadRecord(thread_id=thread_id, document_id="d", source="s", status=status), lease)
        if thread_id in ("unheld", "done"):
            await leases.release(lease)
    for change in ("started = '1' WHERE thread_id = 'dead'", "renewed_tick = -1e9 WHERE thread_id = 'silent'"):
        await database.write(lambda connection, to=change: connection.execute(f"UPDATE leases SET {to}").rowcount)  # type: ignore[misc]  # noqa: S608
    listed = {each.thread_id: each.status for each in await registry.threads()}
    assert listed == dict.fromkeys(("dead", "silent", "unheld"), "interrupted") | {"run": "running", "done": "complete"}
    assert [each.thread_id for each in await registry.threads(status="running")] == ["run"]
    assert [each.thread_id for each in await registry.threads(status="interrupted", limit=2)] == ["dead", "silent"]
    assert await registry.threads(status="failed") == []


async def test_where_transactions_run_side_by_side_the_first_to_commit_wins(
    database: Database, leases: Leases, rival: Leases
) -> None:
    class Racing:
        """A connection whose reader is overtaken by another before it writes, as can be in Postgres."""

        def __init__(self, connection: Any) -> None:
            self._connection = connection
            self._overtaken = False

        def execute(self, sql: str, values: tuple[Any, ...]) -> Any:
            if "INSERT INTO leases" in sql and not self._overtaken:
                self._overtaken = True
                self._connection.execute(sql, (*values[:1], *vars_of(BESIDE), TTL, values[-1]))
            return self._connection.execute(sql, values)

    class Beside:
        path = "beside"

        def submit(self, work: Callable[[Any], Any]) -> Any:
            return database.submit(lambda connection: work(Racing(connection)))

    racing = Leases(Beside(), ttl=TTL, owner=HERE)  # type: ignore[arg-type]
    with pytest.raises(ThreadBusy, match="process 2"):
        await racing.acquire("t")
    await rival.release(Lease("t", 1))
    with pytest.raises(ThreadBusy, match="process 2"):
        await racing.acquire("t")


def vars_of(owner: Owner) -> tuple[str, str, str, int, str]:
    return owner.host, owner.boot, owner.pid_namespace, owner.pid, owner.started


# what a saver's config carries


async def test_a_config_without_a_lease_and_one_for_another_thread_pass(database: Database, leases: Leases) -> None:
    lease = await leases.acquire("t")
    with_lease: dict[str, Any] = {"configurable": {"thread_id": "t", **lease.configurable()}}
    assert lease_in(with_lease) == lease
    for config in (
        {},
        {"configurable": {"thread_id": "t"}},
        {"configurable": {"thread_id": "u", **lease.configurable()}},
    ):
        assert lease_in(config) is None
        await database.write(lambda connection, config=config: check_lease(connection, config))  # type: ignore[misc]
    await database.write(lambda connection: check_lease(connection, with_lease))
    await leases.release(lease)
    with pytest.raises(LeaseLost):
        await database.write(lambda connection: check_lease(connection, with_lease))


async def test_a_lease_is_checked_from_another_file_too(database: Database, leases: Leases, tmp_path: Path) -> None:
    lease = await leases.acquire("t")
    config: dict[str, Any] = {"configurable": {"thread_id": "t", **lease.configurable()}}
    file = tmp_path / "store.db"
    check_lease_in(file, config)
    check_lease_in(tmp_path / "none.db", {})
    await leases.release(lease)
    for path in (file, tmp_path / "none.db"):
        with pytest.raises(LeaseLost):
            check_lease_in(path, config)
    assert not (tmp_path / "none.db").exists()


@pytest.mark.parametrize(
    ("was", "becomes"), [(b"tableleases", b"table\xffeases"), (b"SQLite format", b"SQLite farmot")]
)
async def test_another_file_that_is_damaged_is_told(
    was: bytes, becomes: bytes, database: Database, leases: Leases, tmp_path: Path
) -> None:
    lease = await leases.acquire("t")
    await database.close()
    file = tmp_path / "store.db"
    file.write_bytes(file.read_bytes().replace(was, becomes, 1))
    config: dict[str, Any] = {"configurable": {"thread_id": "t", **lease.configurable()}}
    with pytest.raises(StoreDamaged, match="restore it from a copy"):
        check_lease_in(file, config)


async def test_in_postgres_whoever_takes_a_lease_over_waits_for_the_write_that_checked_it(postgres_url: str) -> None:
    database = PostgresDatabase(read_url(postgres_url), SERVER_STORE)
    try:
        lease = await Leases(database).acquire("t")
        checked, done = threading.Event(), threading.Event()

        def write(connection: Connection) -> None:
            check(connection, lease)
            checked.set()
            assert done.wait(10)

        writing = asyncio.create_task(database.write(write))
        await asyncio.to_thread(checked.wait, 10)
        releasing = asyncio.create_task(Leases(database).release(lease))
        finished, _ = await asyncio.wait([releasing], timeout=0.2)
        assert not finished
        done.set()
        await asyncio.gather(writing, releasing)
    finally:
        await database.close()


async def test_two_names_of_one_file_are_one_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link.db").symlink_to("t.db")
    first = Database("t.db", STORE)
    leases = Leases(first)
    lease = await leases.acquire("t")
    for name in (str(tmp_path / "t.db"), "link.db"):
        other = Database(name, STORE)
        with pytest.raises(ThreadBusy):
            await Leases(other).acquire("t")
        await other.close()
    await leases.release(lease)
    await first.close()


async def test_a_lease_that_is_given_back_in_one_schema_is_held_on_in_another(postgres_url: str) -> None:
    databases = [PostgresDatabase(read_url(f"{postgres_url}{more}"), SERVER_STORE) for more in ("", "_more")]
    here, there = (Leases(database) for database in databases)
    held, other = await here.acquire("t"), await there.acquire("t")
    assert held == other  # the same thread ID, the same epoch
    await there.release(other)
    with pytest.raises(ThreadBusy):
        await here.acquire("t")
    for database in databases:
        await database.close()


async def test_a_lease_whose_taker_was_cancelled_meanwhile_is_given_back(tmp_path: Path) -> None:
    database = Database(tmp_path / "t.db", STORE)
    blocked = threading.Event()
    writing = database.submit(lambda _: blocked.wait(10))
    acquiring = asyncio.create_task(Leases(database).acquire("t"))
    await asyncio.sleep(0)
    acquiring.cancel()
    await asyncio.gather(acquiring, return_exceptions=True)
    blocked.set()
    await asyncio.wrap_future(writing)
    held = "SELECT count(*) FROM leases WHERE held = 1"
    await database.write(lambda connection: None)  # behind what gives it back
    await database.write(lambda connection: None)
    assert await database.read(lambda connection: connection.execute(held).fetchone()) == (0,)
    await database.close()


async def test_a_cancelled_taker_who_would_have_got_none_leaves_the_lease_to_its_owner(
    leases: Leases, rival: Leases, database: Database
) -> None:
    lease = await leases.acquire("t")
    blocked = threading.Event()
    writing = database.submit(lambda _: blocked.wait(10))
    acquiring = asyncio.create_task(rival.acquire("t"))
    await asyncio.sleep(0)
    acquiring.cancel()
    await asyncio.gather(acquiring, return_exceptions=True)
    blocked.set()
    await asyncio.wrap_future(writing)
    await database.write(lambda connection: check(connection, lease))


# who is dead


def test_this_process_lives() -> None:
    assert Owner.current() == Owner.current()
    assert Owner.current().pid == os.getpid()
    assert not Owner.current().is_dead()


def test_a_process_is_dead_once_it_was_killed_even_before_its_parent_noticed() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        owner = replace(Owner.current(), pid=process.pid, started=owners._started(process.pid) or "")
        assert not owner.is_dead()
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie from here on
        assert owner.is_dead()
    assert owner.is_dead()


def test_a_later_process_of_the_same_pid_is_another_one() -> None:
    assert replace(Owner.current(), started="1").is_dead()


@pytest.mark.parametrize("change", [{"boot": "other"}, {"pid_namespace": "pid:[1]"}, {"started": ""}])
def test_a_process_that_cannot_be_seen_from_here_may_live(change: dict[str, str]) -> None:
    assert not replace(Owner.current(), pid=2**22 - 1, **change).is_dead()


def test_a_process_that_proc_hides_lives(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    here = replace(Owner.current(), started="7")
    monkeypatch.setattr(owners, "_boot", lambda: here.boot)
    monkeypatch.setattr(owners, "_pid_namespace", lambda: here.pid_namespace)
    monkeypatch.setattr(owners, "_PROC", tmp_path)
    assert not here.is_dead()

    def forbid(pid: int, _: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", forbid)
    assert not here.is_dead()

    def miss(pid: int, _: int) -> None:
        raise ProcessLookupError

    monkeypatch.setattr(os, "kill", miss)
    assert here.is_dead()


async def test_where_the_system_tells_nothing_the_ttl_decides(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, database: Database, clock: ManualClock, rival: Leases
) -> None:
    monkeypatch.setattr(owners, "_PROC", tmp_path)
    assert Owner.current().boot == Owner.current().pid_namespace == Owner.current().started == ""
    await Leases(database, ttl=TTL, clock=clock).acquire("t")
    with pytest.raises(ThreadBusy):
        await Leases(database, ttl=TTL, clock=clock).acquire("t")
    clock.advance(TTL)
    assert await rival.acquire("t") == Lease("t", 2)
