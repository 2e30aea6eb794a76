"""What was answered is replayed, what was not is asked for under the same key."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from tidegate.errors import (
    BudgetExceeded,
    CircuitOpen,
    LeaseLost,
    NotFound,
    OutcomeUnknown,
    Permanent,
    RateLimited,
    Refused,
    ServiceError,
    Transient,
)
from tidegate.resilience.guard import Answer, Guard, Keep
from tidegate.resilience.journal import Call, Journal
from tidegate.state import JSON
from tidegate.store.codec import Codec
from tidegate.store.database import Database
from tidegate.store.leases import Leases
from tidegate.store.opening import store_at
from tidegate.store.owner import Owner
from tidegate.store.schema import STORE
from tidegate.testing import ManualClock

CALL = Call.of("api", "enrich", ["Cairo", "LOC"])
TTL, NOT_FOUND_TTL = 1000.0, 100.0
DAY = 86400.0


class Service:
    """Answers how often it was asked, or fails as told; it keeps the idempotency keys of all requests."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.failure: BaseException | None = None
        self.attempts = 1
        self.gate: asyncio.Event | None = None
        self.came = asyncio.Event()

    async def __call__(self, key: str, keep: Keep[JSON]) -> Answer[JSON]:
        self.keys.append(key)
        self.came.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return Answer({"asked": len(self.keys)}, self.attempts)

    def fail(self, kind: type[ServiceError], *, attempts: int = 1) -> None:
        self.failure = kind("api", "as told", attempts=attempts)


@pytest.fixture
async def database(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Database]:
    database = Database(tmp_path / "store.db", STORE, clock=clock)
    yield database
    await database.close()


@pytest.fixture
def leases(database: Database, clock: ManualClock) -> Leases:
    return Leases(database, clock=clock)


@pytest.fixture
def journals(database: Database, leases: Leases) -> Callable[..., Journal]:
    """Journals of several processes on one file."""
    counted = map(str, itertools.count(1))

    def make(**options: Any) -> Journal:
        times = {"ttl": TTL, "not_found_ttl": NOT_FOUND_TTL}
        return Journal(database, leases, new_key=lambda: next(counted), **{**times, **options})

    return make


@pytest.fixture
def journal(journals: Callable[..., Journal]) -> Journal:
    return journals()


@pytest.fixture
def service() -> Service:
    return Service()


async def rows(database: Database) -> int:
    return await database.read(lambda connection: int(connection.execute("SELECT count(*) FROM calls").fetchone()[0]))


async def test_an_answer_is_replayed_by_other_processes_until_its_ttl_is_over(
    journals: Callable[..., Journal], service: Service, clock: ManualClock
) -> None:
    assert await journals().call(CALL, service) == Answer({"asked": 1}, 1)
    clock.advance(TTL - 1)
    assert await journals().call(CALL, service) == Answer({"asked": 1}, 0)
    clock.advance(1)
    assert await journals().call(CALL, service) == Answer({"asked": 2}, 1)
    assert len(set(service.keys)) == 2, "a refresh is a new intent"


async def test_another_question_is_another_call(journal: Journal, service: Service) -> None:
    for call in (CALL, Call.of("api", "enrich", ["cairo", "LOC"]), Call.of("api", "price", ["Cairo", "LOC"])):
        await journal.call(call, service)
    assert len(set(service.keys)) == 3


async def test_that_there_is_no_such_thing_is_replayed_for_a_shorter_time(
    journal: Journal, service: Service, clock: ManualClock
) -> None:
    service.fail(NotFound, attempts=2)
    with pytest.raises(NotFound) as first:
        await journal.call(CALL, service)
    clock.advance(NOT_FOUND_TTL - 1)
    with pytest.raises(NotFound) as replayed:
        await journal.call(CALL, service)
    assert (first.value.attempts, replayed.value.attempts) == (2, 0)
    assert len(service.keys) == 1
    clock.advance(1)
    service.failure = None
    assert (await journal.call(CALL, service)).value == {"asked": 2}


@pytest.mark.parametrize(
    "failure",
    [
        Transient("api", "503", attempts=4),
        CircuitOpen("api", retry_in=1.0, attempts=1),
        Refused("api", "401", attempts=2),
        asyncio.CancelledError(),
        ValueError("a bug"),
    ],
)
async def test_a_failure_is_not_kept_but_its_idempotency_key_is(
    journals: Callable[..., Journal], service: Service, failure: BaseException
) -> None:
    service.failure = failure
    for _ in range(2):
        with pytest.raises(type(failure)):
            await journals().call(CALL, service)
    service.failure = None
    assert (await journals().call(CALL, service)).value == {"asked": 3}
    assert service.keys[0] == service.keys[1] == service.keys[2]


@pytest.mark.parametrize(
    "failure",
    [
        Permanent("api", "400", attempts=1),
        Refused("api", "401", attempts=1),
        CircuitOpen("api", retry_in=1.0, attempts=0),
    ],
)
async def test_a_key_under_which_nothing_was_done_is_dropped(
    journal: Journal, database: Database, service: Service, failure: ServiceError
) -> None:
    service.failure = failure
    with pytest.raises(type(failure)):
        await journal.call(CALL, service)
    assert await rows(database) == 0
    service.fail(Transient)
    with pytest.raises(Transient):
        await journal.call(CALL, service)
    service.failure = failure
    with pytest.raises(type(failure)):
        await journal.call(CALL, service)
    assert await rows(database) == 1, "what became of the request before is not known"


async def test_callers_of_one_call_share_it(journal: Journal, service: Service) -> None:
    service.gate = asyncio.Event()
    calls = [asyncio.create_task(journal.call(CALL, service)) for _ in range(50)]
    await service.came.wait()
    service.gate.set()
    answers = await asyncio.gather(*calls)
    assert {answer.value["asked"] for answer in answers} == {1}
    assert sorted(answer.attempts for answer in answers) == [0] * 49 + [1]


class Gone(Exception):
    """A mistake in the code that asks."""


@pytest.mark.parametrize("failure", [None, Gone("a bug"), LeaseLost("t", "was taken over")])
async def test_when_the_first_caller_is_cancelled_or_stopped_the_next_one_calls(
    journal: Journal, service: Service, failure: Exception | None
) -> None:
    service.gate = asyncio.Event()
    first, *others = [asyncio.create_task(journal.call(CALL, service)) for _ in range(3)]
    await service.came.wait()
    service.failure = failure
    if failure is None:
        first.cancel()
    service.came.clear()
    service.gate.set()
    with pytest.raises(type(failure) if failure else asyncio.CancelledError):
        await first
    service.failure = None
    assert {(await each).value["asked"] for each in others} == {2}
    assert len(set(service.keys)) == 1


@pytest.mark.parametrize(
    "failure",
    [
        Transient("api", "HTTP 503", attempts=4),
        RateLimited("api", "HTTP 429", retry_after=30.0, attempts=4),
        BudgetExceeded("api", "no success", retry_after=100.0, attempts=1),
        Permanent("api", "HTTP 400", attempts=1),
        Refused("api", "HTTP 401", attempts=1),
        CircuitOpen("api", retry_in=20.0, reason="transient", attempts=2),
    ],
)
async def test_callers_of_one_call_share_its_failure_and_whoever_comes_later_calls(
    journal: Journal, service: Service, failure: ServiceError
) -> None:
    failure.__cause__ = Transient("api", "HTTP 500")
    service.failure, service.gate = failure, asyncio.Event()
    calls = [asyncio.create_task(journal.call(CALL, service)) for _ in range(10)]
    await service.came.wait()
    service.gate.set()
    first, *others = await asyncio.gather(*calls, return_exceptions=True)
    assert first is failure
    assert len({id(each) for each in others} - {id(failure)}) == 9
    for each in others:
        assert isinstance(each, ServiceError)
        assert type(each) is type(failure)
        assert (str(each), each.why, each.retry_after) == (str(failure), failure.why, failure.retry_after)
        assert vars(each) == {**vars(failure), "attempts": 0}
    assert len(service.keys) == 1
    service.failure = None
    assert (await journal.call(CALL, service)).value == {"asked": 2}


async def test_nobody_waits_longer_than_its_own_budget_for_what_others_ask_too(
    database: Database, leases: Leases
) -> None:
    clock = ManualClock(auto=True)
    journal = Journal(database, leases, clock=clock)
    guard = Guard.for_service("api", budget=120.0, clock=clock)
    waits: list[float] = []

    async def fail(attempt: int) -> JSON:
        raise RateLimited("api", "HTTP 429", retry_after=100.0)

    async def one() -> None:
        began = clock.monotonic()
        with pytest.raises(BudgetExceeded):
            await journal.call(CALL, lambda key, keep: guard.call(fail, keep=keep))
        waits.append(clock.monotonic() - began)

    await asyncio.gather(*(one() for _ in range(10)))
    assert len(waits) == 10
    assert max(waits) <= 120.0


def test_callers_on_other_event_loops_do_not_wait_and_use_the_same_key(tmp_path: Path, service: Service) -> None:
    database = Database(tmp_path / "store.db", STORE)
    journal = Journal(database, Leases(database))

    async def twice() -> Answer[JSON]:
        other = asyncio.get_running_loop().run_in_executor(None, lambda: asyncio.run(journal.call(CALL, service)))

        async def ask(key: str, keep: Keep[JSON]) -> Answer[JSON]:
            answered = await service(key, keep)
            await other
            return answered

        return await journal.call(CALL, ask)

    asyncio.run(twice())
    assert len(service.keys) in (1, 2)  # the other one may come when all is done
    assert len(set(service.keys)) == 1
    asyncio.run(database.close())


async def test_the_answer_that_is_recorded_first_is_kept(journals: Callable[..., Journal], service: Service) -> None:
    async def slow(key: str, keep: Keep[JSON]) -> Answer[JSON]:
        await journals().call(CALL, service)  # another process, meanwhile
        return Answer({"asked": "late"}, 1)

    assert (await journals().call(CALL, slow)).value == {"asked": "late"}
    assert (await journals().call(CALL, slow)).value == {"asked": 1}


async def test_an_answer_that_was_kept_by_the_guard_is_not_recorded_again(
    journal: Journal, database: Database, service: Service
) -> None:
    async def keep_and_die(key: str, keep: Keep[JSON]) -> Answer[JSON]:
        await keep({"asked": "once"}, 2)
        raise KeyError("killed")

    with pytest.raises(KeyError):
        await journal.call(CALL, keep_and_die)
    assert (await journal.call(CALL, service)).value == {"asked": "once"}


async def test_that_there_is_nothing_is_not_recorded_again_either(journal: Journal, service: Service) -> None:
    async def keep_nothing(key: str, keep: Keep[JSON]) -> Answer[JSON]:
        await keep(None, 1)
        raise NotFound("api", "no such thing", attempts=1)

    for ask in (keep_nothing, service):
        with pytest.raises(NotFound):
            await journal.call(CALL, ask)
    assert service.keys == []


async def test_giving_up_on_an_intent_without_an_answer(journal: Journal, service: Service) -> None:
    service.fail(Transient)
    with pytest.raises(Transient):
        await journal.call(CALL, service, reconcile="give_up")
    with pytest.raises(OutcomeUnknown, match="look there what became of it") as caught:
        await journal.call(CALL, service, reconcile="give_up")
    assert not caught.value.retryable
    assert len(service.keys) == 1


@pytest.mark.parametrize("known", [True, False])
async def test_asking_the_service_about_an_intent_without_an_answer(
    journal: Journal, service: Service, known: bool
) -> None:
    asked: list[str] = []

    async def look(key: str) -> JSON | None:
        asked.append(key)
        return {"found": key} if known else None

    service.fail(Transient)
    with pytest.raises(Transient):
        await journal.call(CALL, service, reconcile=look)
    assert asked == []
    service.failure = None
    answer = await journal.call(CALL, service, reconcile=look)
    assert asked == service.keys[:1]
    assert answer == (Answer({"found": asked[0]}, 0) if known else Answer({"asked": 2}, 1))
    assert (await journal.call(CALL, service, reconcile=look)).value == answer.value


async def test_the_service_may_say_that_there_is_no_such_thing(journal: Journal, service: Service) -> None:
    async def look(_: str) -> JSON | None:
        raise NotFound("api", "no trace")

    service.fail(Transient)
    with pytest.raises(Transient):
        await journal.call(CALL, service)
    for _ in range(2):
        with pytest.raises(NotFound):
            await journal.call(CALL, service, reconcile=look)
    assert len(service.keys) == 1


async def test_an_answer_that_is_of_no_use_any_more_is_asked_for_again(journal: Journal, service: Service) -> None:
    await journal.call(CALL, service)
    answer = await journal.call(CALL, service, usable=lambda answer: answer["asked"] > 1)
    assert answer.value == {"asked": 2}
    assert len(set(service.keys)) == 2


async def test_under_a_key_answers_cannot_be_read_in_the_file(tmp_path: Path, service: Service) -> None:
    database = store_at(tmp_path / "t.db", key=b"sixteen bytes it")
    try:
        journal = Journal(database, Leases(database))
        first = await journal.call(CALL, service)
        assert (await journal.call(CALL, service)).value == first.value == {"asked": 1}
    finally:
        await database.close()
    assert b"asked" not in (tmp_path / "t.db").read_bytes()


@pytest.mark.parametrize("damage", [b"{", b"[1]", Codec().pack(b"{"), Codec().pack(b"[1]")])
async def test_a_damaged_answer_is_asked_for_again(
    journal: Journal, database: Database, service: Service, damage: bytes
) -> None:
    await journal.call(CALL, service)
    await database.write(lambda connection: connection.execute("UPDATE calls SET answer = ?", (damage,)))
    assert (await journal.call(CALL, service)).value == {"asked": 2}


async def test_a_clock_that_was_set_back_keeps_an_answer_for_one_ttl_more_at_most(
    journal: Journal, service: Service, clock: ManualClock
) -> None:
    await journal.call(CALL, service)
    clock.set_back(TTL - 1)
    await journal.call(CALL, service)
    assert len(service.keys) == 1
    clock.set_back(1)
    await journal.call(CALL, service)
    assert len(service.keys) == 2


async def test_what_is_too_old_is_deleted_by_the_next_process(
    journals: Callable[..., Journal], database: Database, service: Service, clock: ManualClock
) -> None:
    await journals().call(CALL, service)
    service.fail(Transient)
    other = Call.of("api", "enrich", "other")
    with pytest.raises(Transient):
        await journals().call(other, service)
    clock.advance(TTL + 1)
    service.failure = None
    await journals().call(Call.of("api", "enrich", "third"), service)
    assert await rows(database) == 2, "the intent without an answer and the new one"


async def test_one_that_lives_long_deletes_each_day_what_is_too_old(
    database: Database, leases: Leases, service: Service, clock: ManualClock
) -> None:
    journal = Journal(database, leases, ttl=30 * DAY, not_found_ttl=DAY, clock=clock)
    service.fail(Transient)
    with pytest.raises(Transient):
        await journal.call(Call.of("api", "enrich", "never answered"), service)
    service.fail(NotFound)
    with pytest.raises(NotFound):
        await journal.call(Call.of("api", "enrich", "not found"), service)
    service.failure = None
    await journal.call(Call.of("api", "enrich", "found"), service)
    left = []
    for day in (0.5, 1.5, 29.0):
        clock.advance(day * DAY)
        await journal.call(CALL, service)
        left.append(await rows(database))
    assert left == [4, 3, 1], "what was not found goes after a day, all else after thirty"


async def test_without_a_journal_each_call_is_made_under_a_key_of_its_own(
    journals: Callable[..., Journal], database: Database, service: Service
) -> None:
    off = journals(enabled=False)
    await off.call(CALL, service)
    await off.call(CALL, service)
    assert len(set(service.keys)) == 2
    assert await rows(database) == 0


# under a lease


async def test_a_replay_counts_the_attempts_of_its_own_thread_only(
    journal: Journal, leases: Leases, service: Service
) -> None:
    service.attempts = 3
    async with leases.hold("one"):
        assert (await journal.call(CALL, service)).attempts == 3
    async with leases.hold("one"):
        assert (await journal.call(CALL, service)).attempts == 3
    async with leases.hold("two"):
        assert (await journal.call(CALL, service)).attempts == 0


@pytest.mark.parametrize("moment", ["before", "during", "failing"])
async def test_an_execution_that_lost_its_lease_makes_no_call_and_records_nothing(
    journal: Journal,
    leases: Leases,
    database: Database,
    service: Service,
    clock: ManualClock,
    moment: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rival = Leases(database, owner=Owner("there", "other", "", 1, ""), clock=clock)

    async def lose(*_: object) -> None:
        monkeypatch.setattr(Owner, "is_dead", lambda _: True)
        await rival.acquire("t")

    async def ask(key: str, keep: Keep[JSON]) -> Answer[JSON]:
        if moment != "before":
            await lose()
        if moment == "failing":
            service.fail(Permanent)
        return await service(key, keep)

    async def execute() -> None:
        async with leases.hold("t"):
            if moment == "before":
                await lose()
            await journal.call(CALL, ask)

    with pytest.raises(LeaseLost):
        await execute()
    assert len(service.keys) == (0 if moment == "before" else 1)
    assert await rows(database) == (0 if moment == "before" else 1)
    found = await database.read(lambda connection: connection.execute("SELECT answered_at FROM calls").fetchone())
    assert found in (None, (None,))


async def test_an_answer_is_recorded_though_its_caller_is_cancelled(
    journal: Journal, database: Database, service: Service
) -> None:
    async def ask(key: str, keep: Keep[JSON]) -> Answer[JSON]:
        answer = await service(key, keep)
        task.cancel()  # arrives when the answer is being recorded
        return answer

    task = asyncio.create_task(journal.call(CALL, ask))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await journal.call(CALL, service) == Answer({"asked": 1}, 0)


async def test_the_lease_reaches_the_journal_through_tasks_and_threads(journal: Journal, leases: Leases) -> None:
    async def ask(key: str, keep: Keep[JSON]) -> Answer[JSON]:
        return Answer({"lease": leases.current() is not None}, 1)

    def in_a_thread() -> bool:
        return leases.current() is not None

    async with leases.hold("t"):
        assert (await asyncio.create_task(journal.call(CALL, ask))).value == {"lease": True}
        assert await asyncio.to_thread(in_a_thread)
    assert not await asyncio.to_thread(in_a_thread)


async def test_where_transactions_run_side_by_side_both_use_the_key_that_was_committed_first(
    database: Database, leases: Leases, journal: Journal, service: Service
) -> None:
    class Racing:
        """A connection whose reader is overtaken by another before it writes, as can be in Postgres."""

        def __init__(self, connection: Any) -> None:
            self._connection = connection
            self._overtaken = False

        def execute(self, sql: str, values: tuple[Any, ...]) -> Any:
            if "INSERT INTO calls" in sql and not self._overtaken:
                self._overtaken = True
                self._connection.execute(sql, (*values[:3], "theirs", *values[4:]))
            return self._connection.execute(sql, values)

    class Beside:
        async def write(self, work: Callable[[Any], Any]) -> Any:
            return await database.write(lambda connection: work(Racing(connection)))

        submit, queue = staticmethod(database.submit), staticmethod(database.queue)
        codec = database.codec

    await Journal(Beside(), leases, new_key=lambda: "ours").call(CALL, service)  # type: ignore[arg-type]
    assert service.keys == ["theirs"]


class NothingIsPaidForTwice(RuleBasedStateMachine):
    """Any number of processes, which die between any two steps, make calls to a service; clocks run and step."""

    questions = st.sampled_from("abc")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = ManualClock()
        self.database = Database(":memory:", STORE, clock=self.clock)
        self.journal = self.process()
        self.requests: list[tuple[str, str]] = []
        self.answered: dict[str, tuple[JSON | None, float]] = {}
        self.open: dict[str, str] = {}

    def process(self) -> Journal:
        self.prunes = True
        leases = Leases(self.database, clock=self.clock)
        return Journal(self.database, leases, ttl=TTL, not_found_ttl=NOT_FOUND_TTL)

    def prune(self) -> None:
        """With its first call a process prunes: what is too old then is gone, wherever the clock goes afterwards."""
        if self.prunes:
            self.prunes = False
            self.answered = {
                question: (answer, at)
                for question, (answer, at) in self.answered.items()
                if self.clock.now() - at <= (TTL if answer is not None else NOT_FOUND_TTL)
            }

    def teardown(self) -> None:
        self.runner.run(self.database.close())
        self.runner.close()

    def is_fresh(self, question: str) -> bool:
        answer, at = self.answered.get(question, (None, -math.inf))
        return abs(self.clock.now() - at) < (TTL if answer is not None else NOT_FOUND_TTL)

    def ask(self, question: str, outcome: Callable[[str], Awaitable[Answer[JSON]]]) -> object:
        self.prune()
        was_fresh, requested = self.is_fresh(question), len(self.requests)

        async def request(key: str, keep: Keep[JSON]) -> Answer[JSON]:
            assert self.open.setdefault(question, key) == key
            assert all(key != other for asked, other in self.requests if asked != question)
            self.requests.append((question, key))
            return await outcome(key)

        async def call() -> Answer[JSON]:
            return await self.journal.call(Call.of("api", "enrich", question), request)

        try:
            found: object = self.runner.run(call()).value
        except (ServiceError, KeyError) as error:
            found = error
        assert (len(self.requests) == requested) == was_fresh
        if was_fresh:
            known = self.answered[question][0]
            assert found == known if known is not None else isinstance(found, NotFound)
        else:
            self.answered.pop(question, None)  # the new intent took its place, whatever the clock says later
        return found

    @rule(question=questions, value=st.integers())
    def answer(self, question: str, value: int) -> None:
        async def outcome(_: str) -> Answer[JSON]:
            return Answer({"value": value}, 1)

        if not self.is_fresh(question):
            assert self.ask(question, outcome) == {"value": value}
            self.answered[question] = ({"value": value}, self.clock.now())
            del self.open[question]
        else:
            self.ask(question, outcome)

    @rule(question=questions)
    def find_nothing(self, question: str) -> None:
        async def outcome(_: str) -> Answer[JSON]:
            raise NotFound("api", "no such thing", attempts=1)

        was_fresh = self.is_fresh(question)
        self.ask(question, outcome)
        if not was_fresh:
            self.answered[question] = (None, self.clock.now())
            del self.open[question]

    @rule(question=questions, error=st.sampled_from([Transient("api", "503", attempts=2), KeyError("killed")]))
    def fail(self, question: str, error: Exception) -> None:
        async def outcome(_: str) -> Answer[JSON]:
            raise error

        self.ask(question, outcome)

    @rule()
    def die(self) -> None:
        self.journal = self.process()

    @rule(seconds=st.floats(0.0, TTL))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(seconds=st.floats(-TTL, TTL))
    def set_clock(self, seconds: float) -> None:
        self.clock.set_back(seconds)


TestNothingIsPaidForTwice = NothingIsPaidForTwice.TestCase
TestNothingIsPaidForTwice.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
