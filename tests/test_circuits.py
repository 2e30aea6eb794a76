"""Circuits shared by several callers and processes: one probe, and no way to lose it."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sqlite3
import sys
import threading
import time
import weakref
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from tests.circuits import circuits_at
from tidegate.errors import CircuitOpen, Refused, Transient
from tidegate.resilience.breaker import Breaker, CircuitChange, CircuitReport
from tidegate.resilience.circuits import Circuits, CircuitsUnavailable, FailureWindow, Forced, MemoryCircuits
from tidegate.resilience.shared_circuits import SharedCircuits, SqliteCircuits
from tidegate.store.database import Database
from tidegate.store.live import CIRCUITS, LiveDatabase
from tidegate.testing import ManualClock

FAILURE = Transient("api", "down")
Log: TypeAlias = pytest.LogCaptureFixture
Trouble: TypeAlias = Callable[[LiveDatabase], Awaitable[None]]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(time.time())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tidegate-live.db"


@pytest.fixture
async def database(file: Path, clock: ManualClock) -> AsyncIterator[LiveDatabase]:
    database = LiveDatabase(file, clock=clock)
    yield database
    await database.close()


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def circuits(
    request: pytest.FixtureRequest, clock: ManualClock, database: LiveDatabase
) -> AsyncIterator[Circuits]:
    if request.param != "postgres":
        yield MemoryCircuits(clock) if request.param == "memory" else SqliteCircuits(database)
        return
    circuits, server = circuits_at(request.getfixturevalue("postgres_url"), clock)
    yield circuits
    await server.close()


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, file: Path) -> str:
    return str(file) if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


@pytest.fixture
async def shared(place: str, clock: ManualClock) -> AsyncIterator[SharedCircuits]:
    circuits, database = circuits_at(place, clock)
    yield circuits
    await database.close()


@pytest.fixture
def breaker(circuits: Circuits, clock: ManualClock) -> Breaker:
    return Breaker("api", circuits, clock=clock)


@pytest.fixture
def breaker_in_sqlite(database: LiveDatabase, clock: ManualClock) -> Breaker:
    return Breaker("api", SqliteCircuits(database), clock=clock)


async def open_circuit(breaker: Breaker) -> None:
    for _ in range(3):
        await (await breaker.permit()).failed(FAILURE)


async def refused(breaker: Breaker) -> CircuitOpen:
    with pytest.raises(CircuitOpen) as refusal:
        await breaker.permit()
    return refusal.value


PROBER = """
import asyncio, sys
from tests.circuits import circuits_at
from tidegate.resilience.breaker import Breaker

async def main():
    await Breaker("api", circuits_at(sys.argv[1])[0]).permit()
    print("probing", flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


async def test_a_killed_prober_does_not_wedge_the_circuit(
    place: str, shared: SharedCircuits, clock: ManualClock
) -> None:
    breaker = Breaker("api", shared, reset_timeout=0.001, clock=clock)
    await open_circuit(breaker)
    clock.advance(0.001)
    prober = await asyncio.create_subprocess_exec(sys.executable, "-c", PROBER, place, stdout=PIPE)
    assert prober.stdout is not None
    assert await prober.stdout.readline() == b"probing\n"
    prober.send_signal(signal.SIGKILL)
    await prober.wait()
    clock.set_back(clock.now() - time.time())

    assert 0.0 < (await refused(breaker)).retry_in <= 60.0
    clock.advance(60.0)
    assert (await breaker.report()).admits
    await (await breaker.permit()).succeeded()
    assert (await breaker.report()).state == "closed"


async def test_a_prober_that_never_comes_back_loses_its_lease(breaker: Breaker, clock: ManualClock) -> None:
    await open_circuit(breaker)
    clock.advance(30.0)
    lost = await breaker.permit()
    clock.advance(59.0)
    assert (await refused(breaker)).retry_in == pytest.approx(1.0)
    clock.advance(1.0)
    probe = await breaker.permit()
    await lost.failed(FAILURE)  # its successor alone is heard now
    await probe.succeeded()
    assert (await breaker.report()).state == "closed"


async def test_a_probe_that_outlives_its_lease_is_heard_while_nobody_took_its_place(
    breaker: Breaker, clock: ManualClock
) -> None:
    await open_circuit(breaker)
    clock.advance(30.0)
    probe = await breaker.permit()
    clock.advance(61.0)
    await probe.succeeded()
    assert (await breaker.report()).state == "closed"


async def test_a_cancelled_probe_gives_its_permit_back(breaker: Breaker, clock: ManualClock) -> None:
    await open_circuit(breaker)
    clock.advance(30.0)

    probing = asyncio.Event()

    async def probe() -> None:
        permit = await breaker.permit()
        probing.set()
        try:
            await asyncio.Event().wait()
        finally:
            permit.released()

    prober = asyncio.create_task(probe())
    await probing.wait()
    assert not (await breaker.report()).admits
    prober.cancel()
    await asyncio.gather(prober, return_exceptions=True)
    report = await breaker.report()
    assert (report.state, report.admits, report.failures) == ("half_open", True, 3)


@pytest.mark.parametrize("laps", range(8))
async def test_a_caller_cancelled_while_it_asks_for_the_probe_has_not_got_it(
    shared: SharedCircuits, clock: ManualClock, laps: int
) -> None:
    breaker = Breaker("api", shared, clock=clock)
    await open_circuit(breaker)
    clock.advance(30.0)
    asking = asyncio.create_task(breaker.permit())
    for _ in range(laps):
        await asyncio.sleep(0.0005)
    asking.cancel()
    outcome = (await asyncio.gather(asking, return_exceptions=True))[0]
    if not isinstance(outcome, BaseException):  # it was too late to cancel
        outcome.released()
    await shared.read("api")  # the lease may be given yet, before this is read, and is given back right after it
    assert (await breaker.report()).admits


@pytest.mark.parametrize("laps", [0, 1])
async def test_a_lease_given_while_the_caller_is_being_cancelled_is_given_back(
    database: LiveDatabase, clock: ManualClock, laps: int
) -> None:
    circuits = SqliteCircuits(database)
    await open_circuit(Breaker("api", circuits, clock=clock))
    clock.advance(30.0)
    asking = asyncio.create_task(circuits.probe("api", 1, lease=60.0))
    await asyncio.sleep(0)
    while _generation(database.path) == 1:  # the event loop stands still, and cannot tell the caller
        pass
    for _ in range(laps):
        await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    report = await circuits.read("api")
    assert (report.generation, report.admits) == (2, True)


def _generation(path: str) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT generation FROM circuits").fetchone()[0])


async def test_a_verdict_is_recorded_though_its_caller_is_cancelled(shared: SharedCircuits, clock: ManualClock) -> None:
    breaker = Breaker("api", shared, failure_threshold=1, clock=clock)
    permit = await breaker.permit()
    failing = asyncio.create_task(permit.failed(FAILURE))
    await asyncio.sleep(0)
    failing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await failing
    assert (await breaker.report()).state == "open"


async def test_of_fifty_callers_of_a_half_open_circuit_one_is_let_through(breaker: Breaker, clock: ManualClock) -> None:
    await open_circuit(breaker)
    clock.advance(30.0)
    outcomes = await asyncio.gather(*(breaker.permit() for _ in range(50)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes].count(CircuitOpen) == 49


CALLERS = """
import asyncio, sys
from tidegate.errors import CircuitOpen
from tests.circuits import circuits_at
from tidegate.resilience.breaker import Breaker

async def main():
    breaker = Breaker("api", circuits_at(sys.argv[1])[0])
    await breaker.report()
    print("ready", flush=True)
    sys.stdin.readline()
    outcomes = await asyncio.gather(*(breaker.permit() for _ in range(13)), return_exceptions=True)
    assert all(not isinstance(outcome, BaseException) or type(outcome) is CircuitOpen for outcome in outcomes), outcomes
    print(sum(not isinstance(outcome, BaseException) for outcome in outcomes), flush=True)

asyncio.run(main())
"""


@pytest.mark.slow
async def test_of_four_processes_with_thirteen_callers_each_one_caller_is_let_through(
    place: str, shared: SharedCircuits, clock: ManualClock
) -> None:
    await open_circuit(Breaker("api", shared, reset_timeout=0.001, clock=clock))
    processes = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", CALLERS, place, stdin=PIPE, stdout=PIPE)
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
    admitted = [int((await process.communicate())[0]) for process in processes]
    assert sum(admitted) == 1


async def test_the_failures_of_all_processes_add_up(place: str, shared: SharedCircuits, clock: ManualClock) -> None:
    ours = Breaker("api", shared, clock=clock)
    circuits, neighbours = circuits_at(place, clock)
    theirs = Breaker("api", circuits, clock=clock)
    await (await ours.permit()).failed(FAILURE)
    await (await theirs.permit()).failed(FAILURE)
    await (await ours.permit()).failed(FAILURE)
    assert (await refused(theirs)).retry_in == 30.0
    await neighbours.close()


async def test_one_window_holds_the_calls_of_all_processes(
    place: str, shared: SharedCircuits, clock: ManualClock
) -> None:
    window = FailureWindow(0.5, calls=4, minimum=4)
    circuits, neighbours = circuits_at(place, clock)
    ours, theirs = (
        Breaker("api", each, failure_threshold=100, window=window, clock=clock) for each in (shared, circuits)
    )
    for _ in range(4):
        await (await ours.permit()).succeeded()
    await (await theirs.permit()).failed(FAILURE)
    await (await ours.permit()).succeeded()
    assert (await ours.report()).state == "closed"
    await (await theirs.permit()).failed(FAILURE)
    await refused(ours)
    await neighbours.close()


async def test_fifty_calls_at_once_that_fail_open_the_circuit_once(
    place: str, shared: SharedCircuits, clock: ManualClock
) -> None:
    changes: list[CircuitChange] = []
    window = FailureWindow(0.5, calls=50, minimum=50)
    circuits, neighbours = circuits_at(place, clock)
    breakers = [
        Breaker("api", each, failure_threshold=100, window=window, clock=clock, listeners=[changes.append])
        for each in (shared, circuits)
    ]
    permits = [await breakers[number % 2].permit() for number in range(50)]
    await asyncio.gather(*(permit.failed(FAILURE) for permit in permits))
    assert [change.to for change in changes] == ["open"]
    await neighbours.close()


async def test_nothing_is_written_while_all_goes_well(file: Path, database: LiveDatabase, clock: ManualClock) -> None:
    breaker = Breaker("api", SqliteCircuits(database), clock=clock)
    await (await breaker.permit()).failed(FAILURE)
    await (await breaker.permit()).succeeded()
    with closing(sqlite3.connect(file)) as observer:

        def version() -> int:
            return int(observer.execute("PRAGMA data_version").fetchone()[0])

        before = version()
        for _ in range(20):
            await (await breaker.permit()).succeeded()
            (await breaker.permit()).released()
            await breaker.report()
        assert version() == before
        await (await breaker.permit()).failed(FAILURE)
        assert version() != before


async def test_what_is_written_costs_no_wait_for_the_disk(database: LiveDatabase) -> None:
    modes = ("journal_mode", "synchronous")
    found = await database.read(lambda c: [c.execute(f"PRAGMA {mode}").fetchone()[0] for mode in modes])
    assert found == ["wal", 1]  # 1 is NORMAL: the file is synced when the log is moved into it, not at each commit


async def test_a_wall_clock_that_is_set_back_does_not_keep_a_circuit_open(breaker: Breaker, clock: ManualClock) -> None:
    await open_circuit(breaker)
    clock.advance(20.0)
    for seconds in (10.0, 3600.0):
        clock.set_back(seconds)
        assert (await refused(breaker)).retry_in == pytest.approx(10.0)
    clock.advance(10.0)
    await breaker.permit()
    clock.advance(50.0)
    clock.set_back(20.0)
    assert (await refused(breaker)).retry_in == pytest.approx(10.0)


async def test_a_restarted_machine_goes_by_the_wall_clock(
    file: Path, database: LiveDatabase, clock: ManualClock
) -> None:
    clock.advance(1_000_000.0)
    await open_circuit(Breaker("api", SqliteCircuits(database), clock=clock))
    restarted = ManualClock(clock.now() + 20.0)  # its monotonic time is below that of the failure
    again = LiveDatabase(file, clock=restarted)
    breaker = Breaker("api", SqliteCircuits(again), clock=restarted)
    assert (await refused(breaker)).retry_in == pytest.approx(10.0)
    restarted.set_back(3600.0)  # now no clock can tell: better a probe too early
    assert (await breaker.report()).admits
    await again.close()


async def test_nothing_that_was_decided_in_another_generation_is_done(
    circuits: Circuits, breaker: Breaker, clock: ManualClock
) -> None:
    await open_circuit(breaker)
    clock.advance(30.0)
    await breaker.permit()
    before = await circuits.read("api")
    for generation in (before.generation - 1, before.generation + 1):
        assert await circuits.probe("api", generation, lease=60.0) == 0
        assert not await circuits.fail("api", generation, reason="refused", threshold=1, reset_timeout=1.0)
        assert not await circuits.clear("api", generation)
        circuits.release("api", generation)
        assert await circuits.read("api") == before
    assert await circuits.probe("unknown", 0, lease=60.0) == 0
    assert not await circuits.clear("unknown", 0)
    circuits.release("unknown", 0)


async def test_circuits_that_failed_are_listed_by_name(circuits: Circuits, clock: ManualClock) -> None:
    assert await circuits.read_all() == []
    await (await Breaker("b", circuits, clock=clock).permit()).failed(FAILURE)
    await (await Breaker("a", circuits, clock=clock).permit()).failed(Refused("a", "no"))
    await (await Breaker("healthy", circuits, clock=clock).permit()).succeeded()
    first, second = await circuits.read_all()
    assert (first.name, first.state, first.opened_at, first.reason) == ("a", "open", clock.now(), "refused")
    assert (second.name, second.state, second.failures, second.opened_at) == ("b", "closed", 1, None)


class SlowClock(ManualClock):
    """Takes its time to tell it, while other threads run."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.may_answer = threading.Event(), threading.Event()

    def now(self) -> float:
        self.asked.set()
        self.may_answer.wait()
        return super().now()


async def test_no_thread_sees_a_circuit_half_changed_by_another() -> None:
    clock = SlowClock()
    clock.advance(1000.0)
    circuits = MemoryCircuits(clock)
    failing = circuits.fail("api", 0, reason="transient", threshold=1, reset_timeout=30.0)
    changing = asyncio.create_task(asyncio.to_thread(asyncio.run, failing))
    await asyncio.to_thread(clock.asked.wait)
    reading = asyncio.create_task(asyncio.to_thread(asyncio.run, circuits.read("api")))
    await asyncio.wait([reading], timeout=0.02)
    clock.may_answer.set()
    assert await changing
    assert (await reading).retry_in == 30.0


class BrokenCircuits(MemoryCircuits):
    """Fails on demand, as a full disk does."""

    broken: frozenset[str] = frozenset()

    def _check(self, what: str) -> None:
        if what in self.broken:
            raise CircuitsUnavailable("disk full")

    async def read(self, name: str) -> CircuitReport:
        self._check("read")
        return await super().read(name)

    async def probe(self, name: str, generation: int, *, lease: float) -> int:
        self._check("probe")
        return await super().probe(name, generation, lease=lease)

    async def fail(self, name: str, generation: int, **values: Any) -> bool:
        self._check("fail")
        return await super().fail(name, generation, **values)

    async def clear(self, name: str, generation: int, *, window: FailureWindow | None = None) -> bool:
        self._check("clear")
        return await super().clear(name, generation, window=window)

    async def force(self, name: str, to: Forced | None, *, reset_timeout: float) -> None:
        self._check("force")
        await super().force(name, to, reset_timeout=reset_timeout)


ALL = frozenset({"read", "probe", "fail", "clear", "force"})


async def test_without_its_store_a_breaker_goes_on_alone_and_says_so_now_and_then(
    clock: ManualClock, caplog: Log
) -> None:
    circuits = BrokenCircuits(clock)
    changes: list[CircuitChange] = []
    breaker = Breaker("api", circuits, clock=clock, listeners=[changes.append])
    circuits.broken = ALL
    await open_circuit(breaker)
    await refused(breaker)
    assert [(change.from_, change.to) for change in changes] == [("closed", "open")]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "circuit 'api' is kept by this process alone for now: disk full" in caplog.text

    clock.advance(30.0)
    await (await breaker.permit()).succeeded()
    assert (await breaker.report()).state == "closed"
    assert len(caplog.records) == 1
    clock.advance(30.0)
    await breaker.report()
    assert len(caplog.records) == 2

    circuits.broken = frozenset()
    clock.advance(5.0)
    await open_circuit(breaker)
    assert (await circuits.read("api")).state == "open"


async def test_a_circuit_held_open_stays_open_without_its_store(clock: ManualClock) -> None:
    circuits = BrokenCircuits(clock)
    breaker = Breaker("api", circuits, clock=clock)
    await breaker.force_open()
    await refused(breaker)
    circuits.broken = ALL
    assert (await refused(breaker)).reason == "forced"
    circuits.broken = frozenset()
    await breaker.reset()
    await breaker.permit()
    circuits.broken = ALL
    await breaker.permit()


async def test_holding_a_circuit_needs_its_store(clock: ManualClock) -> None:
    circuits = BrokenCircuits(clock)
    breaker = Breaker("api", circuits, clock=clock)
    for broken in ({"read"}, {"force"}):
        circuits.broken = frozenset(broken)
        for hold in (breaker.force_open, breaker.force_close, breaker.reset):
            with pytest.raises(CircuitsUnavailable):
                await hold()
    circuits.broken = frozenset()
    assert (await breaker.report()).forced is None


@pytest.mark.parametrize("broken", [frozenset({"fail"}), frozenset({"fail", "clear", "probe"})])
async def test_failures_that_the_store_cannot_take_are_counted_all_the_same(
    clock: ManualClock, broken: frozenset[str]
) -> None:
    circuits = BrokenCircuits(clock)
    circuits.broken = broken
    breaker = Breaker("api", circuits, clock=clock)
    await open_circuit(breaker)
    assert (await breaker.report()).state == "open"


async def test_a_probe_whose_failure_the_store_cannot_take_opens_the_breakers_own_circuit(clock: ManualClock) -> None:
    circuits = BrokenCircuits(clock)
    changes: list[CircuitChange] = []
    breaker = Breaker("api", circuits, clock=clock, listeners=[changes.append])
    await open_circuit(breaker)
    clock.advance(30.0)
    probe = await breaker.permit()
    circuits.broken = ALL
    await probe.failed(Refused("api", "no"))
    assert (changes[-1].from_, changes[-1].to) == ("half_open", "open")
    assert (await refused(breaker)).reason == "refused"


async def test_a_circuit_that_is_open_as_its_store_is_lost_stays_so_for_the_rest_of_its_time(
    clock: ManualClock,
) -> None:
    circuits = BrokenCircuits(clock)
    changes: list[CircuitChange] = []
    breaker = Breaker("api", circuits, clock=clock, listeners=[changes.append])
    await open_circuit(breaker)
    clock.advance(10.0)
    await refused(breaker)
    clock.advance(10.0)
    circuits.broken = ALL
    refusal = await refused(breaker)
    assert (refusal.retry_in, refusal.reason) == (10.0, "transient")
    clock.advance(5.0)  # the store is tried again, in vain
    assert (await refused(breaker)).retry_in == 5.0
    clock.advance(5.0)
    probe = await breaker.permit()
    await refused(breaker)
    await probe.succeeded()
    assert [change.to for change in changes] == ["open", "half_open", "closed"]


async def test_a_circuit_that_this_breaker_opened_is_open_though_the_store_is_lost_at_once(clock: ManualClock) -> None:
    circuits = BrokenCircuits(clock)
    breaker = Breaker("api", circuits, clock=clock)
    await open_circuit(breaker)
    circuits.broken = ALL
    assert (await refused(breaker)).retry_in == 30.0


async def test_a_probe_of_others_holds_a_breaker_that_loses_its_store(clock: ManualClock) -> None:
    circuits = BrokenCircuits(clock)
    here, there = (Breaker("api", circuits, clock=clock) for _ in range(2))
    await open_circuit(there)
    clock.advance(30.0)
    await there.permit()
    await refused(here)
    circuits.broken = ALL
    assert (await refused(here)).retry_in == 60.0


async def test_a_circuit_that_was_closed_as_its_store_was_lost_goes_on_where_it_was_alone(clock: ManualClock) -> None:
    circuits = BrokenCircuits(clock)
    breaker = Breaker("api", circuits, clock=clock)
    await breaker.permit()
    circuits.broken = ALL
    await open_circuit(breaker)
    circuits.broken = frozenset()
    clock.advance(5.0)
    await breaker.permit()
    circuits.broken = ALL
    assert (await refused(breaker)).retry_in == 25.0


async def test_a_probe_whose_lease_cannot_be_written_goes_through_the_breakers_own_circuit(clock: ManualClock) -> None:
    circuits = BrokenCircuits(clock)
    breaker = Breaker("api", circuits, clock=clock)
    await open_circuit(breaker)
    clock.advance(30.0)
    circuits.broken = frozenset({"probe"})
    await (await breaker.permit()).succeeded()


async def test_a_success_that_the_store_cannot_take_is_no_error(clock: ManualClock) -> None:
    circuits = BrokenCircuits(clock)
    breaker = Breaker("api", circuits, clock=clock)
    await (await breaker.permit()).failed(FAILURE)
    for broken in ({"clear"}, {"read"}):
        permit = await breaker.permit()
        circuits.broken = frozenset(broken)
        await permit.succeeded()
        circuits.broken = frozenset()
        clock.advance(5.0)


@pytest.mark.parametrize("is_open", [True, False])
def test_no_event_loop_is_kept_by_reads_that_were_shared(file: Path, is_open: bool) -> None:
    database = LiveDatabase(file)
    circuits = SqliteCircuits(database)
    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []

    async def main() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        await asyncio.gather(*(circuits.read("api") for _ in range(3)), return_exceptions=True)

    if not is_open:
        asyncio.run(database.close())
    for _ in range(2):
        asyncio.run(main())
    if is_open:
        asyncio.run(database.close())
    gc.collect()
    assert [loop() for loop in loops] == [None, None]


async def close(database: LiveDatabase) -> None:
    await database.close()


async def drop(database: LiveDatabase) -> None:
    with closing(sqlite3.connect(database.path)) as connection:
        connection.execute("DROP TABLE circuits")


@pytest.mark.parametrize("trouble", [close, drop])
async def test_a_database_that_fails_in_use_is_a_store_that_is_down(
    breaker_in_sqlite: Breaker, database: LiveDatabase, clock: ManualClock, trouble: Trouble, caplog: Log
) -> None:
    breaker = breaker_in_sqlite
    await open_circuit(breaker)
    clock.advance(30.0)
    probe = await breaker.permit()
    await trouble(database)
    await probe.succeeded()
    assert (await breaker.report()).state == "closed"
    await open_circuit(breaker)
    await refused(breaker)
    assert "is kept by this process alone" in caplog.text


@pytest.mark.parametrize("trouble", [close, drop])
async def test_a_probe_given_back_to_a_store_that_is_down_is_no_error(
    breaker_in_sqlite: Breaker, database: LiveDatabase, clock: ManualClock, trouble: Trouble
) -> None:
    await open_circuit(breaker_in_sqlite)
    clock.advance(30.0)
    probe = await breaker_in_sqlite.permit()
    await trouble(database)
    probe.released()
    report = await breaker_in_sqlite.report()
    assert (report.state, report.admits) == ("half_open", True)


async def test_a_database_that_cannot_be_opened_is_a_store_that_is_down(
    tmp_path: Path, file: Path, clock: ManualClock, caplog: Log
) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA user_version = 99")
    for path, problem in ((tmp_path / "none" / "live.db", "its folder does not exist"), (file, "schema version 99")):
        database = LiveDatabase(path, clock=clock)
        breaker = Breaker("api", SqliteCircuits(database), clock=clock)
        await open_circuit(breaker)
        await refused(breaker)
        assert problem in caplog.text
        await database.close()


async def test_a_process_that_hangs_in_a_transaction_holds_nobody_up_for_long(
    file: Path, database: LiveDatabase, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidegate.store.live.LIVE_BUSY_TIMEOUT", 0.02)
    breaker = Breaker("api", SqliteCircuits(database), clock=clock)
    await breaker.report()
    with closing(sqlite3.connect(file, isolation_level=None)) as stuck:
        stuck.execute("BEGIN IMMEDIATE")
        await open_circuit(breaker)
    assert (await breaker.report()).state == "open"


async def test_a_file_of_an_earlier_version_is_brought_up_to_date(file: Path, clock: ManualClock) -> None:
    earlier = Database(file, [CIRCUITS], synchronous="NORMAL", clock=clock)
    opened = "INSERT INTO circuits (name, open, failures, failed_at, reset_timeout) VALUES ('api', 1, 3, ?, 30)"
    await earlier.write(lambda connection: connection.execute(opened, (clock.now(),)))
    await earlier.close()
    database = LiveDatabase(file, clock=clock)
    circuits = SqliteCircuits(database)
    assert (await circuits.read("api")).state == "open"
    await circuits.force("api", None, reset_timeout=30.0)
    assert (await circuits.read("api")).state == "closed"
    await database.close()


Damage = Callable[[Path], None]


def _garbage(file: Path) -> None:
    file.write_bytes(b"garbage" * 2000)


def _bad_page(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[4096:8192] = b"\xff" * 4096
    file.write_bytes(data)


def _half(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:5000])


def _no_name(file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(b"circuitscircuits", b"circu\xfftscircuits"))


@pytest.mark.parametrize("damage", [_garbage, _bad_page, _half, _no_name])
async def test_a_damaged_file_is_replaced_when_it_is_opened(file: Path, clock: ManualClock, damage: Damage) -> None:
    first = LiveDatabase(file, clock=clock)
    await open_circuit(Breaker("api", SqliteCircuits(first), clock=clock))
    await first.close()
    damage(file)
    was = file.read_bytes()
    database = LiveDatabase(file, clock=clock)
    circuits = SqliteCircuits(database)
    assert await circuits.read_all() == []
    assert file.with_name(f"{file.name}.damaged").read_bytes() == was, "it may be somebody else's"
    await open_circuit(Breaker("api", circuits, clock=clock))
    await database.close()
    again = LiveDatabase(file, clock=clock)
    assert [report.state for report in await SqliteCircuits(again).read_all()] == ["open"]
    await again.close()


async def test_a_sound_file_is_opened_again_without_a_file_beside_it(file: Path) -> None:
    for _ in range(2):
        database = LiveDatabase(file)
        await database.open()
        await database.close()
    assert list(file.parent.iterdir()) == [file]


async def test_of_all_who_find_a_file_damaged_at_once_one_replaces_it(file: Path) -> None:
    for _ in range(20):
        _garbage(file)
        was = file.read_bytes()
        databases = [LiveDatabase(file) for _ in range(8)]
        await asyncio.gather(*(database.open() for database in databases))
        for number, database in enumerate(databases):
            await SqliteCircuits(database).force(str(number), "open", reset_timeout=1.0)
        assert len(await SqliteCircuits(databases[0]).read_all()) == 8
        for database in databases:
            await database.close()
        assert file.with_name(f"{file.name}.damaged").read_bytes() == was


class Slow(LiveDatabase):
    """Tells what was read when the test says so."""

    def __init__(self, file: Path, clock: ManualClock) -> None:
        super().__init__(file, clock=clock)
        self.asked, self.told = asyncio.Event(), asyncio.Event()
        self.reads = 0

    async def read(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        self.reads += 1
        self.asked.set()
        result = await super().read(work)
        await self.told.wait()
        return result


@pytest.fixture
async def slow(file: Path, clock: ManualClock) -> AsyncIterator[Slow]:
    slow = Slow(file, clock)
    await slow.open()
    yield slow
    await slow.close()


async def test_callers_who_ask_before_a_read_begins_share_it(slow: Slow) -> None:
    circuits = SqliteCircuits(slow)
    slow.told.set()
    reports = await asyncio.gather(*(circuits.read("api") for _ in range(50)), circuits.read("other"))
    assert reports == [CircuitReport("api")] * 50 + [CircuitReport("other")]
    assert slow.reads == 2


async def test_whoever_asks_after_a_read_began_sees_what_was_written_since(slow: Slow) -> None:
    circuits = SqliteCircuits(slow)
    early = asyncio.create_task(circuits.read("api"))
    await slow.asked.wait()
    await circuits.fail("api", 0, reason="transient", threshold=1, reset_timeout=30.0)  # written behind that read
    late = asyncio.create_task(circuits.read("api"))
    slow.told.set()
    assert (await early).state == "closed"
    assert (await late).state == "open"


async def test_a_caller_who_is_cancelled_leaves_the_read_to_the_others(slow: Slow) -> None:
    circuits = SqliteCircuits(slow)
    first, second = (asyncio.create_task(circuits.read("api")) for _ in range(2))
    await slow.asked.wait()
    first.cancel()
    slow.told.set()
    assert await second == CircuitReport("api")
    assert first.cancelled()
