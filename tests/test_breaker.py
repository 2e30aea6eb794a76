"""The rules of the breaker, each by itself and all of them against a model."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

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
from tidegate.resilience.circuits import Circuits, MemoryCircuits
from tidegate.resilience.shared_circuits import SqliteCircuits
from tidegate.store.live import LiveDatabase
from tidegate.testing import ManualClock

TRANSIENT = Transient("api", "down")
REFUSED = Refused("api", "no")
LIMITED = RateLimited("api", "slower", retry_after=1.0)
ALIVE = [NotFound("api", "no such thing"), Permanent("api", "never")]
SAYS_NOTHING = [LIMITED, BudgetExceeded("api", "late"), CircuitOpen("api", retry_in=1.0)]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def changes() -> list[CircuitChange]:
    return []


@pytest.fixture(params=["memory", "sqlite"])
async def circuits(request: pytest.FixtureRequest, clock: ManualClock) -> AsyncIterator[Circuits]:
    database = LiveDatabase(":memory:", clock=clock)
    yield MemoryCircuits(clock) if request.param == "memory" else SqliteCircuits(database)
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
    assert await breaker.report() == CircuitReport("api", "open", 3, clock.now(), 30.0, "transient", 1)
    clock.advance(12.5)
    with pytest.raises(CircuitOpen, match=r"circuit open after transient; try again in 17\.5 s") as refusal:
        await breaker.permit()
    assert (refusal.value.retry_in, refusal.value.reason, refusal.value.attempts) == (17.5, "transient", 0)


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
    await permit.released()
    assert (await breaker.report()).failures == 1
    permit = await breaker.permit()
    await permit.released()
    await permit.failed(REFUSED)
    assert (await breaker.report()).failures == 1


async def test_giving_a_permit_back_needs_no_event_loop(breaker: Breaker, clock: ManualClock) -> None:
    await fail(breaker, 3)
    clock.advance(30.0)
    releasing = (await breaker.permit()).released()
    with pytest.raises(StopIteration):  # a coroutine that never waits can be run where a generator is being closed
        releasing.send(None)
    assert (await breaker.report()).admits


async def test_a_listener_that_fails_is_logged_and_costs_nothing(
    clock: ManualClock, changes: list[CircuitChange], caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: CircuitChange) -> None:
        raise OSError("no space")

    breaker = Breaker("api", MemoryCircuits(clock), clock=clock, listeners=[broken, changes.append])
    await fail(breaker, 3)
    assert len(changes) == 1
    assert "circuit 'api': a listener failed" in caplog.text


@dataclass
class Model:
    """What a circuit should do, said as simply as it can be."""

    threshold: int
    reset_timeout: float
    probe_timeout: float
    time: float = 0.0
    state: str = "closed"
    failures: int = 0
    opened: float = 0.0
    lease: float | None = None
    epoch: object = field(default_factory=object)
    changes: list[str] = field(default_factory=list)

    def change(self, to: str) -> None:
        if (self.state, to) != ("half_open", "half_open"):
            self.changes.append(f"{self.state}-{to}")
        self.state = to
        self.epoch = object()

    @property
    def retry_in(self) -> float:
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

    def verdict(self, epoch: object, error: ServiceError | None, *, released: bool) -> None:
        if epoch is not self.epoch:
            return
        self.lease = None
        if released or isinstance(error, RateLimited):
            return
        if isinstance(error, Transient | Refused):
            self.failures += 1
            if self.state == "half_open" or self.failures >= self.threshold or isinstance(error, Refused):
                self.change("open")
                self.opened = self.time
        else:
            self.failures = 0
            if self.state == "half_open":
                self.change("closed")


class CircuitMachine(RuleBasedStateMachine):
    """Two breakers, as of two processes, over one circuit."""

    permits = Bundle("permits")

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.runner = asyncio.Runner()
        self.changes: list[str] = []
        self.model = Model(threshold=3, reset_timeout=30.0, probe_timeout=60.0)
        self.breakers = [
            Breaker(
                "api",
                circuits,
                failure_threshold=3,
                reset_timeout=30.0,
                probe_timeout=60.0,
                clock=self.clock,
                listeners=[lambda change: self.changes.append(f"{change.from_}-{change.to}")],
            )
            for circuits in self.open_circuits()
        ]

    def open_circuits(self) -> list[Circuits]:
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
        self.run_async(permit.released)

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
                state = "half_open" if self.model.state == "open" and not self.model.retry_in else self.model.state
                assert (report.state, report.failures) == (state, self.model.failures)
                assert report.retry_in == pytest.approx(self.model.retry_in)
                assert report.admits == (not self.model.retry_in)
                assert (report.opened_at is None) == (state == "closed")

        self.run_async(look)
        assert self.changes == self.model.changes

    def teardown(self) -> None:
        self.runner.close()


class SqliteCircuitMachine(CircuitMachine):
    """The same with two connections to one file."""

    def open_circuits(self) -> list[Circuits]:
        self.folder = tempfile.TemporaryDirectory()
        file = Path(self.folder.name) / "tidegate-live.db"
        self.databases = [LiveDatabase(file, clock=self.clock) for _ in range(2)]
        return [SqliteCircuits(database) for database in self.databases]

    async def settle(self) -> None:
        for database in self.databases:  # a permit is given back without waiting, which the other one may see later
            await database.read(lambda _: None)

    def teardown(self) -> None:
        for database in self.databases:
            self.runner.run(database.close())
        self.folder.cleanup()
        super().teardown()


TestCircuitsInMemory = CircuitMachine.TestCase
TestCircuitsInMemory.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
TestCircuitsInSqlite = SqliteCircuitMachine.TestCase
TestCircuitsInSqlite.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)
