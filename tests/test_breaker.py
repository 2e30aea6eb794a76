"""The rules of the breaker, each by itself and all of them against a model."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from tests.circuits import circuits_at
from tidegate.errors import (
    BudgetExceeded,
    CircuitOpen,
    NotFound,
    Permanent,
    RateLimited,
    Refused,
    ServiceError,
    Transient,
)
from tidegate.resilience.breaker import Breaker, CircuitChange, CircuitReport, Permit
from tidegate.resilience.circuits import Circuits, FailureWindow, Forced, MemoryCircuits
from tidegate.resilience.postgres_circuits import PostgresCircuits
from tidegate.store.live import LiveDatabase
from tidegate.store.live_postgres import LivePostgres
from tidegate.store.postgres_url import read_url
from tidegate.testing import ManualClock

TRANSIENT = Transient("api", "down")
REFUSED = Refused("api", "no")
LIMITED = RateLimited("api", "slower", retry_after=1.0)
ALIVE = [NotFound("api", "no such thing"), Permanent("api", "never")]
SAYS_NOTHING = [LIMITED, BudgetExceeded("api", "late"), CircuitOpen("api", retry_in=1.0)]


@pytest.fixture
def changes() -> list[CircuitChange]:
    return []


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def circuits(request: pytest.FixtureRequest, clock: ManualClock) -> AsyncIterator[Circuits]:
    if request.param == "memory":
        yield MemoryCircuits(clock)
        return
    place = ":memory:" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    circuits, database = circuits_at(place, clock)
    yield circuits
    await database.close()


@pytest.fixture
def breaker(circuits: Circuits, clock: ManualClock, changes: list[CircuitChange]) -> Breaker:
    return Breaker("api", circuits, clock=clock, listeners=[changes.append])


async def fail(breaker: Breaker, times: int = 1, error: ServiceError = TRANSIENT) -> None:
    for _ in range(times):
        await (await breaker.permit()).failed(error)


async def test_three_consecutive_failures_open_the_circuit(breaker: Breaker, clock: ManualClock) -> None:
    await fail(breaker, 2)
    assert (await breaker.report()).state == "closed"
    await fail(breaker)
    assert await breaker.report() == CircuitReport("api", "open", 3, clock.now(), 30.0, "transient", 1, problem="down")
    clock.advance(12.5)
    with pytest.raises(CircuitOpen, match=r"circuit open after transient; try again in 17\.5 s") as refusal:
        await breaker.permit()
    assert (refusal.value.retry_in, refusal.value.reason, refusal.value.attempts) == (17.5, "transient", 0)


async def test_what_a_failure_says_is_kept_as_any_store_takes_it_until_the_circuit_closes(
    breaker: Breaker, clock: ManualClock
) -> None:
    await fail(breaker, 3, Transient("api", "a\0b\ud800\x1b[31m\nc" + "x" * 1000))
    said = (await breaker.report()).problem
    assert said == "a b  [31m c".ljust(200, "x")
    clock.advance(31.0)
    await (await breaker.permit()).succeeded()
    assert (await breaker.report()).problem is None


@pytest.mark.parametrize("error", [None, *ALIVE])
async def test_an_answer_between_failures_starts_the_count_again(breaker: Breaker, error: ServiceError | None) -> None:
    await fail(breaker, 2)
    permit = await breaker.permit()
    await (permit.succeeded() if error is None else permit.failed(error))
    report = await breaker.report()
    assert (report.failures, report.reason) == (0, None)
    await fail(breaker, 2)
    assert (await breaker.report()).state == "closed"


@pytest.mark.parametrize("error", SAYS_NOTHING)
async def test_what_says_nothing_of_the_service_changes_nothing(breaker: Breaker, error: ServiceError) -> None:
    await fail(breaker, 2)
    await fail(breaker, 5, error)
    assert (await breaker.report()).failures == 2


async def test_refused_credentials_open_the_circuit_at_once(
    breaker: Breaker, changes: list[CircuitChange], clock: ManualClock
) -> None:
    await fail(breaker, error=REFUSED)
    assert (await breaker.report()).reason == "refused"
    clock.advance(30.0)
    await fail(breaker)
    assert [change.to for change in changes] == ["open", "half_open", "open"]


async def test_a_probe_that_succeeds_closes_the_circuit(
    breaker: Breaker, clock: ManualClock, changes: list[CircuitChange]
) -> None:
    await fail(breaker, 3)
    clock.advance(30.0)
    assert (await breaker.report()).admits
    probe = await breaker.permit()
    report = await breaker.report()
    assert (report.state, report.admits, report.retry_in) == ("half_open", False, 60.0)
    await probe.succeeded()
    assert await breaker.report() == CircuitReport("api", generation=3)
    assert changes == [
        CircuitChange("api", "closed", "open", "transient"),
        CircuitChange("api", "open", "half_open", None),
        CircuitChange("api", "half_open", "closed", None),
    ]


async def test_a_probe_that_fails_opens_the_circuit_for_as_long_again(breaker: Breaker, clock: ManualClock) -> None:
    await fail(breaker, 3)
    clock.advance(30.0)
    await fail(breaker)
    report = await breaker.report()
    assert (report.state, report.failures, report.opened_at, report.retry_in) == ("open", 4, clock.now(), 30.0)


async def test_a_probe_that_was_rate_limited_leaves_the_circuit_half_open(
    breaker: Breaker, clock: ManualClock, changes: list[CircuitChange]
) -> None:
    await fail(breaker, 3)
    clock.advance(30.0)
    await fail(breaker, 2, LIMITED)
    report = await breaker.report()
    assert (report.state, report.admits) == ("half_open", True)
    assert [change.to for change in changes] == ["open", "half_open"]


async def test_late_news_of_an_earlier_state_changes_nothing(breaker: Breaker, clock: ManualClock) -> None:
    late = [await breaker.permit() for _ in range(4)]
    await fail(breaker, 3)
    await late[0].succeeded()
    await late[1].failed(TRANSIENT)
    assert (await breaker.report()).state == "open"
    assert (await breaker.report()).failures == 3
    clock.advance(30.0)
    probe = await breaker.permit()
    await late[2].failed(REFUSED)
    await probe.succeeded()
    await late[3].failed(REFUSED)
    assert (await breaker.report()).failures == 0


async def test_the_first_verdict_counts(breaker: Breaker) -> None:
    permit = await breaker.permit()
    await permit.failed(TRANSIENT)
    await permit.failed(TRANSIENT)
    await permit.succeeded()
    permit.released()
    assert (await breaker.report()).failures == 1
    permit = await breaker.permit()
    permit.released()
    await permit.failed(REFUSED)
    assert (await breaker.report()).failures == 1


async def test_giving_a_permit_back_awaits_nothing(breaker: Breaker, clock: ManualClock) -> None:
    await fail(breaker, 3)
    clock.advance(30.0)
    (await breaker.permit()).released()  # as where a coroutine is being closed
    assert (await breaker.report()).admits


async def test_a_listener_may_come_later(clock: ManualClock, changes: list[CircuitChange]) -> None:
    breaker = Breaker("api", MemoryCircuits(clock), clock=clock)
    breaker.listeners.append(changes.append)
    await fail(breaker, 3)
    assert [change.to for change in changes] == ["open"]


async def test_a_listener_that_fails_is_logged_and_costs_nothing(
    clock: ManualClock, changes: list[CircuitChange], caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: CircuitChange) -> None:
        raise OSError("no space")

    breaker = Breaker("api", MemoryCircuits(clock), clock=clock, listeners=[broken, changes.append])
    await fail(breaker, 3)
    assert len(changes) == 1
    assert "circuit 'api': a listener failed" in caplog.text


# held open or closed


async def test_a_circuit_that_is_forced_open_stays_so_until_it_is_reset(
    breaker: Breaker, clock: ManualClock, changes: list[CircuitChange]
) -> None:
    late = await breaker.permit()
    await breaker.force_open()
    for _ in range(3):
        with pytest.raises(CircuitOpen, match=r"circuit open by force; try again in 30\.0 s"):
            await breaker.permit()
        clock.advance(30.0)
    await late.succeeded()
    report = await breaker.report()
    assert (report.state, report.forced, report.reason, report.retry_in) == ("open", "open", "forced", 30.0)
    assert (report.admits, report.opened_at) == (False, clock.now() - 90.0)
    await breaker.reset()
    assert await breaker.report() == CircuitReport("api", generation=2)
    await fail(breaker, 3)
    assert (await breaker.report()).state == "open"
    assert [(change.from_, change.to, change.reason) for change in changes] == [
        ("closed", "open", "forced"),
        ("open", "closed", None),
        ("closed", "open", "transient"),
    ]


async def test_a_circuit_that_is_forced_closed_ignores_failures_until_it_is_reset(
    breaker: Breaker, clock: ManualClock
) -> None:
    await fail(breaker, 3)
    await breaker.force_close()
    await fail(breaker, 5)
    await fail(breaker, error=REFUSED)
    assert await breaker.report() == CircuitReport("api", generation=2, forced="closed")
    await breaker.reset()
    assert await breaker.report() == CircuitReport("api", generation=3)
    await fail(breaker, 3)
    assert (await breaker.report()).state == "open"


async def test_a_reset_circuit_need_not_be_waited_for_and_ignores_those_on_their_way(
    breaker: Breaker, clock: ManualClock
) -> None:
    await fail(breaker, 3)
    clock.advance(30.0)
    probe = await breaker.permit()
    await breaker.reset()
    permits = [await breaker.permit() for _ in range(3)]
    await probe.failed(TRANSIENT)
    assert await breaker.report() == CircuitReport("api", generation=3)
    await permits[0].failed(TRANSIENT)
    assert (await breaker.report()).failures == 1


# the failure window


async def report_back(breaker: Breaker, outcomes: str) -> None:
    """Make a call for each character, which fails where that is an F."""
    for outcome in outcomes:
        permit = await breaker.permit()
        await (permit.failed(TRANSIENT) if outcome == "F" else permit.succeeded())


HALF_OF_TEN = FailureWindow(0.5, calls=10, minimum=4)


@pytest.mark.parametrize(
    ("outcomes", "state"),
    [
        ("FFF", "closed"),  # too few to be judged
        ("SFF", "closed"),
        ("SFSF", "open"),
        ("SSSFF", "closed"),
        ("SSSFFF", "open"),
        ("S" * 5 + "FFSSFF", "closed"),
        ("S" * 5 + "FFSSFFF", "open"),  # 5 of the last 10
        ("S" * 50 + "FFFF", "closed"),
        ("S" * 50 + "FFFFF", "open"),
        ("FF" + "S" * 20 + "FSFSF", "closed"),
    ],
)
async def test_too_many_failures_among_the_last_calls_open_the_circuit(
    circuits: Circuits, clock: ManualClock, outcomes: str, state: str
) -> None:
    breaker = Breaker("api", circuits, failure_threshold=100, window=HALF_OF_TEN, clock=clock)
    await report_back(breaker, outcomes)
    assert (await breaker.report()).state == state


async def test_calls_that_are_too_long_ago_do_not_count(circuits: Circuits, clock: ManualClock) -> None:
    window = FailureWindow(0.5, calls=10, seconds=60.0, minimum=4)
    breaker = Breaker("api", circuits, failure_threshold=100, window=window, clock=clock)
    await report_back(breaker, "FFF")
    clock.advance(60.0)
    await report_back(breaker, "FFF")
    clock.set_back(3600.0)
    clock.advance(59.0)
    assert (await breaker.report()).state == "closed"
    await report_back(breaker, "F")
    assert (await breaker.report()).state == "open"


async def test_a_circuit_that_closed_again_has_an_empty_window(circuits: Circuits, clock: ManualClock) -> None:
    breaker = Breaker("api", circuits, failure_threshold=100, window=HALF_OF_TEN, clock=clock)
    late = [await breaker.permit() for _ in range(4)]
    await report_back(breaker, "FFFF")
    clock.advance(30.0)
    await report_back(breaker, "S")
    for permit in late:
        await permit.failed(TRANSIENT)
    await report_back(breaker, "FFF")
    assert (await breaker.report()).state == "closed"
    await report_back(breaker, "F")
    assert (await breaker.report()).state == "open"


async def test_what_opens_at_a_rate_opens_at_exactly_that_rate(circuits: Circuits, clock: ManualClock) -> None:
    window = FailureWindow(0.07, calls=100, minimum=100)  # 0.07 * 100 is more than 7
    breaker = Breaker("api", circuits, failure_threshold=100, window=window, clock=clock)
    await report_back(breaker, "S" * 93 + "F" * 6)
    assert (await breaker.report()).state == "closed"
    await report_back(breaker, "F")
    assert (await breaker.report()).state == "open"


@dataclass
class Model:
    """What a circuit should do, said as simply as it can be."""

    threshold: int
    reset_timeout: float
    probe_timeout: float
    window: FailureWindow | None = None
    time: float = 0.0
    state: str = "closed"
    forced: Forced | None = None
    failures: int = 0
    opened: float = 0.0
    lease: float | None = None
    epoch: object = field(default_factory=object)
    calls: list[tuple[float, bool]] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)

    def change(self, to: str) -> None:
        if (self.state, to) != ("half_open", "half_open"):
            self.changes.append(f"{self.state}-{to}")
        self.state = to
        self.epoch = object()
        self.calls = []

    @property
    def seen_as(self) -> str:
        return "half_open" if self.state == "open" and not self.retry_in else self.state

    @property
    def retry_in(self) -> float:
        if self.forced == "open":
            return self.reset_timeout
        if self.state == "open":
            return max(0.0, self.opened + self.reset_timeout - self.time)
        return 0.0 if self.lease is None else max(0.0, self.lease - self.time)

    def permit(self) -> object | None:
        if self.retry_in:
            return None
        if self.state != "closed":
            self.change("half_open")
            self.lease = self.time + self.probe_timeout
        return self.epoch

    def force(self, to: Forced | None) -> None:
        self.state = self.seen_as
        if self.state != (to or "closed"):
            self.change(to or "closed")
        self.epoch, self.calls = object(), []
        self.failures, self.lease, self.opened, self.forced = 0, None, self.time, to

    def verdict(self, epoch: object, error: ServiceError | None, *, released: bool) -> None:
        if epoch is not self.epoch or self.forced:
            return
        self.lease = None
        if released or isinstance(error, RateLimited):
            return
        failed = isinstance(error, Transient | Refused)
        self.calls.append((self.time, failed))
        if failed:
            self.failures += 1
            at_once = self.state == "half_open" or isinstance(error, Refused)
            if at_once or self.failures >= self.threshold or self.exceeds():
                self.change("open")
                self.opened = self.time
        else:
            self.failures = 0
            if self.state == "half_open":
                self.change("closed")

    def exceeds(self) -> bool:
        if self.window is None:
            return False
        longest = self.window.seconds or 1e9
        recent = [failed for at, failed in self.calls[-self.window.calls :] if self.time - at < longest]
        return len(recent) >= self.window.minimum and sum(recent) >= self.window.rate * len(recent)


WINDOWS = [None, FailureWindow(0.5, calls=6, minimum=4), FailureWindow(0.5, calls=8, seconds=45.0, minimum=3)]


class CircuitMachine(RuleBasedStateMachine):
    """Two breakers, as of two processes, over one circuit."""

    permits = Bundle("permits")

    def __init__(self) -> None:
        super().__init__()
        self.clock = self.new_clock()
        self.runner = asyncio.Runner()
        self.changes: list[str] = []

    def new_clock(self) -> ManualClock:
        return ManualClock()

    @initialize(window=st.sampled_from(WINDOWS))
    def begin(self, window: FailureWindow | None) -> None:
        self.model = Model(threshold=3, reset_timeout=30.0, probe_timeout=60.0, window=window)
        self.breakers = [
            Breaker(
                "api",
                circuits,
                failure_threshold=3,
                reset_timeout=30.0,
                probe_timeout=60.0,
                window=window,
                clock=self.clock,
                listeners=[lambda change: self.changes.append(f"{change.from_}-{change.to}")],
            )
            for circuits in self.open_circuits()
        ]

    def open_circuits(self) -> Sequence[Circuits]:
        return [MemoryCircuits(self.clock)] * 2

    def run_async(self, work: Callable[[], Awaitable[None]]) -> None:
        async def run() -> None:
            await work()
            await self.settle()

        self.runner.run(run())

    async def settle(self) -> None:
        """Wait until all have done what they were told."""

    @rule(target=permits, who=st.sampled_from([0, 1]))
    def ask(self, who: int) -> object:
        admitted: list[tuple[Permit, object]] = []

        async def ask() -> None:
            expected = self.model.permit()
            if expected is not None:
                admitted.append((await self.breakers[who].permit(), expected))
                return
            with pytest.raises(CircuitOpen) as refusal:
                await self.breakers[who].permit()
            assert refusal.value.retry_in == self.model.retry_in

        self.run_async(ask)
        return multiple(*admitted)

    @rule(target=permits, admitted=consumes(permits))
    def keep(self, admitted: tuple[Permit, object]) -> tuple[Permit, object]:
        return admitted  # so that old permits are drawn as often as new ones

    @rule(
        admitted=consumes(permits),
        error=st.sampled_from([None, TRANSIENT, TRANSIENT, TRANSIENT, REFUSED, LIMITED, *ALIVE]),
    )
    def report_back(self, admitted: tuple[Permit, object], error: ServiceError | None) -> None:
        permit, epoch = admitted
        self.model.verdict(epoch, error, released=False)
        self.run_async(permit.succeeded if error is None else lambda: permit.failed(error))

    @rule(admitted=consumes(permits))
    def give_back(self, admitted: tuple[Permit, object]) -> None:
        permit, epoch = admitted
        self.model.verdict(epoch, None, released=True)

        async def release() -> None:
            permit.released()

        self.run_async(release)

    @rule(to=st.sampled_from(["open", "closed", None, None]), who=st.sampled_from([0, 1]))
    def force(self, to: Forced | None, who: int) -> None:
        breaker = self.breakers[who]
        self.model.force(to)
        self.run_async({"open": breaker.force_open, "closed": breaker.force_close, None: breaker.reset}[to])

    @rule(count=st.integers(1, 4))
    def fail(self, count: int) -> None:
        for _ in range(count):
            epoch = self.model.permit()
            if epoch is not None:
                self.model.verdict(epoch, TRANSIENT, released=False)
                self.run_async(lambda: fail(self.breakers[0]))

    @rule(seconds=st.sampled_from([1.0, 29.0, 30.0, 59.0, 60.0]))
    def wait(self, seconds: float) -> None:
        self.model.time += seconds
        self.clock.advance(seconds)

    @rule(seconds=st.sampled_from([5.0, 3600.0]))
    def set_the_clock_back(self, seconds: float) -> None:
        self.clock.set_back(seconds)

    @invariant()
    def all_see_the_same(self) -> None:
        async def look() -> None:
            for breaker in self.breakers:
                report = await breaker.report()
                state = self.model.seen_as
                assert (report.state, report.failures) == (state, self.model.failures)
                assert report.forced == self.model.forced
                assert report.retry_in == pytest.approx(self.model.retry_in)
                assert report.admits == (not self.model.retry_in)
                assert (report.opened_at is None) == (state == "closed")

        self.run_async(look)
        assert self.changes == self.model.changes

    def teardown(self) -> None:
        self.runner.close()


class SharedCircuitMachine(CircuitMachine):
    """The same with two connections to one place, as two processes have them."""

    databases: Sequence[LiveDatabase | LivePostgres]

    async def settle(self) -> None:
        for database in self.databases:  # a permit is given back without waiting, which the other one may see later
            await database.read(lambda _: None)


class SqliteCircuitMachine(SharedCircuitMachine):
    """A new file each time."""

    def open_circuits(self) -> Sequence[Circuits]:
        self.folder = tempfile.TemporaryDirectory()
        file = Path(self.folder.name) / "tidegate-live.db"
        opened = [circuits_at(str(file), self.clock) for _ in range(2)]
        self.databases = [database for _, database in opened]
        return [circuits for circuits, _ in opened]

    def teardown(self) -> None:
        for database in self.databases:
            self.runner.run(database.close())
        self.folder.cleanup()
        super().teardown()


class PostgresCircuitMachine(SharedCircuitMachine):
    """The same tables each time, emptied: making them takes longer than a run of the machine."""

    clock_of_all = ManualClock()
    servers: ClassVar[list[LivePostgres]]

    def new_clock(self) -> ManualClock:
        return self.clock_of_all

    def open_circuits(self) -> Sequence[Circuits]:
        self.databases = self.servers
        return [PostgresCircuits(server, clock=self.clock) for server in self.servers]

    def teardown(self) -> None:
        self.runner.run(self.servers[0].write(lambda c: c.execute("TRUNCATE circuits, circuit_calls")))
        super().teardown()


TestCircuitsInMemory = CircuitMachine.TestCase
TestCircuitsInMemory.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
TestCircuitsInSqlite = SqliteCircuitMachine.TestCase
TestCircuitsInSqlite.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)


@pytest.mark.parametrize(("examples", "steps"), [(15, 25), pytest.param(100, 40, marks=pytest.mark.slow)])
def test_circuits_in_postgresql(postgres_url: str, examples: int, steps: int) -> None:
    machine = PostgresCircuitMachine
    machine.servers = [LivePostgres(read_url(postgres_url), clock=machine.clock_of_all) for _ in range(2)]
    run_state_machine_as_test(
        machine, settings=settings(max_examples=examples, stateful_step_count=steps, deadline=None)
    )
    for server in machine.servers:
        asyncio.run(server.close())
