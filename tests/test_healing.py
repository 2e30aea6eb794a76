"""Healing: sweeps that bring threads forward once their services are back, and what they leave alone."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Callable
from copy import deepcopy
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.servers.enrichment import EnrichmentServer
from tests.worlds import World
from tidegate.cli import main
from tidegate.errors import CheckpointDamaged, RateLimited, Refused, StoreError, StoreUnavailable, Transient
from tidegate.graph.healing import FAILED_REST, POLL, Healed, SlowStart, Sweep
from tidegate.resilience.breaker import CircuitReport
from tidegate.settings import Settings
from tidegate.store.leases import Leases
from tidegate.store.registry import Registry, ThreadRecord
from tidegate.telemetry import metrics

TEXT = "Ada and Bob met Xenia in Cairo, then Dover, then Essen; Ada stayed."
PLACES = ["Ada", "Bob", "Cairo", "Dover", "Essen"]


@pytest.fixture
async def worlds() -> AsyncIterator[Any]:
    made: list[World] = []

    def make(*, with_model: bool = False, **enrichment: Any) -> World:
        section = {"concurrency": 1, "batch_size": 2, "reset_timeout": 30.0, **enrichment}
        settings = Settings(checkpoints="memory:", enrichment=section, summary={"concurrency": 1})  # type: ignore[arg-type]
        made.append(World(settings, with_model=with_model))
        return made[-1]

    yield make
    for world in made:
        await world.database.close()


class Sweeping:
    """A sweep in a task of its own, as another process would be doing it. Time passes when it sleeps, and then only."""

    def __init__(self, world: World, *, watch: bool, limit: int = 8) -> None:
        self.healed: list[Healed] = []
        self._clock = world.clock
        self._clock.auto = False
        self._sweep = Sweep(
            world.executions(),
            Registry(world.database),
            world.services.circuits,
            limits=dict.fromkeys(world.services.circuits, limit),
            clock=world.clock,
            watch=watch,
        )
        self.task = asyncio.create_task(self._sweep.run(self.healed.append))

    async def until(self, enough: Callable[[], bool]) -> None:
        """Return once it is so, letting the sweep sleep as often as it wants to."""
        while not enough():
            if self.task.done():
                self.task.result()
            if self._clock.sleeping and not self._sweep._running:
                self._clock.advance(self._clock.slept[-1])
            await asyncio.sleep(0)

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])

    @property
    def told(self) -> dict[str, str]:
        """By thread, what it came to last."""
        return {each.thread_id: outcome(each) for each in self.healed}


def outcome(healed: Healed) -> str:
    return healed.result.status if healed.result else type(healed.error).__name__


async def sweep(world: World, *, limit: int = 8) -> list[Healed]:
    """Sweep once."""
    sweeping = Sweeping(world, watch=False, limit=limit)
    await sweeping.task
    return sweeping.healed


async def degraded(world: World, *thread_ids: str, text: str = TEXT) -> None:
    """Have threads degraded by an outage, after which the service is back and the circuit still open."""
    world.clock.auto = True
    world.places.down = True
    for thread_id in thread_ids:
        result = await world.executions().advance(thread_id, await world.take_in(text))
        assert result.status in ("degraded", "waiting")
    world.places.down = False
    world.places.asked.clear()


async def test_a_sweep_completes_what_is_missing_and_asks_for_nothing_else(worlds: Any) -> None:
    world = worlds()
    world.places.goes_down_after = 2
    first = await world.executions().advance("t", await world.take_in(TEXT))
    assert (first.status, first.revision) == ("degraded", 1)
    world.places.goes_down_after, world.places.down = None, False
    world.places.asked.clear()
    world.clock.advance(31.0)
    [healed] = await sweep(world)
    assert healed.result is not None
    assert (healed.thread_id, healed.result.status, healed.result.revision) == ("t", "complete", 2)
    assert sorted(world.places.asked) == PLACES[2:]
    history = await world.executions().looks.history("t", None)
    assert {1, 2} <= {entry.revision for entry in history}
    assert await sweep(world) == []


async def test_a_thread_is_healed_whether_or_not_its_circuit_can_be_looked_at_afterwards(
    worlds: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = worlds()
    await degraded(world, "t")
    world.clock.advance(31.0)
    sweeping = Sweeping(world, watch=False)
    circuits = sweeping._sweep._circuits

    class Away:
        async def report(self) -> CircuitReport:
            raise StoreUnavailable("the server is away")

    async def lose_sight(*arguments: Any) -> None:
        sweeping._sweep._circuits = {service: Away() for service in circuits}  # type: ignore[misc]
        try:
            await learn(*arguments)
        finally:
            sweeping._sweep._circuits = circuits

    learn = sweeping._sweep._learn
    monkeypatch.setattr(sweeping._sweep, "_learn", lose_sight)
    await sweeping.task
    assert sweeping.told == {"t": "complete"}


async def test_a_sweep_does_nothing_while_the_circuit_is_open(worlds: Any) -> None:
    world = worlds()
    await degraded(world, "t")
    assert await sweep(world) == []
    assert world.places.asked == []


async def test_an_idle_process_heals_its_thread_when_the_api_is_back(worlds: Any) -> None:
    world = worlds()
    await degraded(world, "t")
    report = await world.services.enrichment_circuit.report()
    began = world.clock.monotonic()
    watching = Sweeping(world, watch=True)
    await watching.until(lambda: bool(watching.healed))
    assert watching.told == {"t": "complete"}
    assert world.clock.monotonic() - began == pytest.approx(report.retry_in, abs=1.0)
    assert sorted(world.places.asked) == PLACES
    await watching.stop()


async def test_a_watching_sweep_tells_the_meter_once_a_poll_of_the_thread_that_is_left_lying(
    worlds: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[float] = []
    monkeypatch.setattr(metrics.unfinished_oldest, "set", told.append)
    world = worlds()
    record = ThreadRecord(thread_id="t", document_id="d", source="s", status="waiting")
    await Registry(world.database).put(record)
    world.clock.advance(100.0)
    assert await sweep(world) == []
    assert told == []
    watching = Sweeping(world, watch=True)
    await watching.until(lambda: len(told) == 3)
    assert told == [100.0, 100.0 + POLL, 100.0 + 2 * POLL]
    await watching.stop()


async def test_a_sweep_that_is_woken_between_two_polls_does_not_ask_the_registry_for_the_meter(
    worlds: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[float] = []
    monkeypatch.setattr(metrics.unfinished_oldest, "set", told.append)
    world = worlds(reset_timeout=2.0)
    await degraded(world, "t")
    watching = Sweeping(world, watch=True)
    await watching.until(lambda: bool(watching.healed))
    assert told == [0.0]
    await watching.stop()


async def test_what_becomes_degraded_while_a_sweep_watches_is_healed_too(worlds: Any) -> None:
    world = worlds(attempts=1)
    watching = Sweeping(world, watch=True)
    await world.clock.until_sleeping()
    await degraded(world, "t")
    await watching.until(lambda: bool(watching.healed))
    assert watching.told == {"t": "complete"}
    await watching.stop()


async def test_the_first_thread_is_the_probe_and_an_outage_that_lasts_costs_one_request_each_time(worlds: Any) -> None:
    world = worlds()
    await degraded(world, "a", "b", "c")
    world.places.down = True
    watching = Sweeping(world, watch=True)
    await watching.until(lambda: len(watching.healed) == 6)
    assert len(world.places.asked) == 6
    assert sorted(each.thread_id for each in watching.healed) == ["a", "a", "b", "b", "c", "c"]  # they take turns
    world.places.down = False
    await watching.until(lambda: "complete" in watching.told.values() and len(watching.told) == 3)
    await watching.until(lambda: set(watching.told.values()) == {"complete"})
    await watching.stop()


async def test_a_waiting_thread_goes_on_and_keeps_the_policy_it_was_run_under(worlds: Any) -> None:
    world = worlds()
    world.places.down = True
    waiting = await world.executions().advance("t", await world.take_in(TEXT), when_open="wait")
    assert waiting.status == "waiting"
    world.clock.advance(31.0)
    [still] = await sweep(world)
    assert still.result is not None
    assert still.result.status == "waiting"
    world.places.down = False
    world.clock.advance(31.0)
    [done] = await sweep(world)
    assert done.result is not None
    assert (done.result.status, done.result.revision) == ("complete", 1)


async def test_a_published_thread_stays_published_though_the_policy_is_to_fail(worlds: Any) -> None:
    world = worlds(when_open="fail")
    world.places.down = True
    await world.executions().advance("t", await world.take_in(TEXT), when_open="degrade")
    world.clock.advance(31.0)
    [healed] = await sweep(world)
    assert healed.result is not None
    assert (healed.result.status, healed.result.revision) == ("degraded", 1)
    record = await Registry(world.database).get("t")
    assert record is not None
    assert (record.status, record.outcome) == ("degraded", "degraded")


async def test_a_summary_is_written_anew_once_the_model_is_back(worlds: Any) -> None:
    world = worlds(with_model=True)
    world.writer.down = True
    result = await world.executions().advance("t", await world.take_in(TEXT))
    assert [item.what for item in result.missing] == ["summary"]
    world.writer.down = False
    world.places.asked.clear()
    watching = Sweeping(world, watch=True)
    await watching.until(lambda: bool(watching.healed))
    assert watching.told == {"t": "complete"}
    assert world.places.asked == []
    await watching.stop()


async def test_what_fails_by_itself_is_visited_five_times_with_longer_and_longer_pauses(worlds: Any) -> None:
    world = worlds(attempts=1)
    times: list[float] = []

    def fail(service: str, problem: str) -> Transient:
        times.append(world.clock.monotonic())
        return Transient(service, problem)

    world.places.fails["Bob"] = fail
    first = await world.executions().advance("t", await world.take_in(TEXT))
    assert [item.why for item in first.missing] == ["transient: as scripted"]
    watching = Sweeping(world, watch=True)
    await watching.until(lambda: len(watching.healed) == 4)
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert pauses == pytest.approx([60.0, 240.0, 960.0, 3840.0], abs=5.0)
    record = await Registry(world.database).get("t")
    assert record is not None
    assert (record.status, record.retryable_missing, record.enrichment_at) == ("degraded", 0, None)
    await watching.stop()


async def test_a_pause_that_the_service_asked_for_is_kept(worlds: Any) -> None:
    world = worlds(budget=10.0)
    world.places.fails["Bob"] = lambda service, problem: RateLimited(service, problem, retry_after=600.0)
    await world.executions().advance("t", await world.take_in("we met Bob."))
    world.places.fails.clear()
    began = world.clock.monotonic()
    watching = Sweeping(world, watch=True)
    await watching.until(lambda: bool(watching.healed))
    assert watching.told == {"t": "complete"}
    assert world.clock.monotonic() - began == pytest.approx(600.0, abs=1.0)
    await watching.stop()


@pytest.mark.parametrize("step", [100.0, 600.0, 86400.0])
@pytest.mark.parametrize("lacks", ["enrichment", "summary"])
async def test_a_clock_that_is_set_back_makes_a_pause_twice_as_long_at_most(
    worlds: Any, lacks: str, step: float
) -> None:
    world = worlds(budget=10.0, with_model=lacks == "summary")
    if lacks == "enrichment":
        world.places.fails["Bob"] = lambda service, problem: RateLimited(service, problem, retry_after=600.0)
    world.writer.asks_for_a_pause = 600.0
    await world.executions().advance("t", await world.take_in("we met Bob."))
    world.places.fails.clear()
    world.writer.asks_for_a_pause = None
    world.clock.set_back(step)
    began = world.clock.monotonic()
    watching = Sweeping(world, watch=True)
    await watching.until(lambda: "complete" in watching.told.values() or world.clock.monotonic() - began > 1300.0)
    assert world.clock.monotonic() - began <= 1200.0 + POLL
    assert watching.told == {"t": "complete"}
    await watching.stop()


async def test_a_clock_that_is_set_back_does_not_keep_a_thread_from_being_healed(worlds: Any) -> None:
    world = worlds()
    await degraded(world, "t")
    world.clock.set_back(86400.0)
    await degraded(world, "later", text="we met Bob.")  # whose time is told before that of the other
    world.clock.advance(61.0)
    assert {each.thread_id: outcome(each) for each in await sweep(world)} == {"t": "complete", "later": "complete"}


async def test_a_thread_that_another_process_runs_is_passed_over(worlds: Any) -> None:
    world = worlds()
    await degraded(world, "busy", "free")
    leases = Leases(world.database)
    world.clock.advance(31.0)
    lease = await leases.acquire("busy")
    assert [each.thread_id for each in await sweep(world)] == ["free"]
    await leases.release(lease)
    assert [each.thread_id for each in await sweep(world)] == ["busy"]


async def test_a_thread_that_fails_is_told_of_and_left_alone_and_the_others_go_on(worlds: Any) -> None:
    world = worlds()
    await degraded(world, "a-damaged", "fine")
    for each in list(world.saver.storage["a-damaged"][""]):
        del world.saver.storage["a-damaged"][""][each]
    watching = Sweeping(world, watch=True)
    await watching.until(lambda: len(watching.told) == 2)
    assert watching.told == {"a-damaged": "CheckpointDamaged", "fine": "complete"}
    began = world.clock.monotonic()
    await watching.until(lambda: len(watching.healed) == 3)
    assert isinstance(watching.healed[2].error, CheckpointDamaged)
    assert world.clock.monotonic() - began == pytest.approx(FAILED_REST, abs=40.0)
    await watching.stop()


async def test_an_error_that_is_not_ours_does_not_stop_a_sweep(worlds: Any) -> None:
    world = worlds()
    await degraded(world, "t")

    def break_down(service: str, problem: str) -> Any:
        return ZeroDivisionError("a mistake in an enricher")

    world.places.fails["Ada"] = break_down
    world.clock.advance(31.0)
    [healed] = await sweep(world)
    assert isinstance(healed.error, ZeroDivisionError)
    record = await Registry(world.database).get("t")
    assert record is not None
    assert (record.status, record.outcome) == ("failed", "degraded")
    assert record.enrichment_at is not None
    watching = Sweeping(world, watch=True)
    await watching.until(lambda: len(watching.healed) == 2)
    began = world.clock.monotonic()
    world.places.fails.clear()  # what failed is for somebody to look at, and then it is healed
    await watching.until(lambda: len(watching.healed) == 3)
    assert watching.told == {"t": "complete"}
    assert world.clock.monotonic() - began == pytest.approx(FAILED_REST, abs=POLL)
    await watching.stop()


async def test_a_mistake_before_anything_is_published_is_for_somebody_to_look_at(worlds: Any) -> None:
    world = worlds()
    world.places.down = True
    await world.executions().advance("t", await world.take_in(TEXT), when_open="wait")
    world.places.down = False
    world.places.fails["Ada"] = lambda service, problem: ZeroDivisionError("a mistake in an enricher")
    world.clock.advance(31.0)
    [healed] = await sweep(world)
    assert isinstance(healed.error, ZeroDivisionError)
    assert await sweep(world) == []


@pytest.mark.parametrize("lost", [StoreUnavailable("failover"), StoreError("a.db", "is full", "make room")])
@pytest.mark.parametrize("policy", ["degrade", "wait"])
async def test_a_store_that_is_lost_in_the_middle_of_healing_delays_it(
    worlds: Any, monkeypatch: pytest.MonkeyPatch, policy: Any, lost: Exception
) -> None:
    world = worlds()
    world.places.down = True
    await world.executions().advance("t", await world.take_in(TEXT), when_open=policy)
    world.places.down = False
    world.clock.advance(31.0)
    put, puts = world.saver.aput, 0

    async def aput(*arguments: Any) -> Any:
        nonlocal puts
        puts += 1
        if puts == 3:
            raise lost
        return await put(*arguments)

    monkeypatch.setattr(world.saver, "aput", aput)
    watching = Sweeping(world, watch=True)
    began = world.clock.monotonic()
    await watching.until(lambda: len(watching.healed) == 1 and not watching._sweep._running)
    record = await Registry(world.database).get("t")
    assert record is not None
    assert (record.status, record.enrichment_at is None) == ("failed", False)
    await watching.until(lambda: len(watching.healed) == 2)
    assert [outcome(each) for each in watching.healed] == [type(lost).__name__, "complete"]
    rest = POLL if isinstance(lost, StoreUnavailable) else FAILED_REST
    assert world.clock.monotonic() - began == pytest.approx(rest, abs=POLL / 2)
    await watching.stop()


async def test_a_sweep_that_was_cancelled_in_the_middle_leaves_its_threads_to_the_next(worlds: Any) -> None:
    world = worlds()
    await degraded(world, "a", "b", "c")
    world.clock.advance(31.0)
    world.places.pause = 60.0  # for longer than anything here takes
    sweeping = Sweeping(world, watch=False)
    await sweeping.until(lambda: bool(world.places.asked))
    await sweeping.stop()
    [stopped] = [each for each in await Registry(world.database).threads() if each.status == "interrupted"]
    assert stopped.enrichment_at is not None
    world.places.pause = 0.0
    world.clock.advance(61.0)  # the probe was given back, or its lease is over
    assert {each.thread_id: outcome(each) for each in await sweep(world)} == dict.fromkeys("abc", "complete")


async def test_two_sweeps_at_once_run_no_thread_twice(worlds: Any) -> None:
    world = worlds()
    names = [f"t{number}" for number in range(12)]
    await degraded(world, *names, text="we met Bob.")
    world.clock.advance(31.0)
    world.places.pause = 0.001
    one, other = await asyncio.gather(sweep(world), sweep(world))
    # One may find its thread's circuit with the other's probe out: that thread stays degraded, and asked for nothing.
    while len(done := [each.thread_id for each in one + other if outcome(each) == "complete"]) < len(names):
        one += await sweep(world)
    assert sorted(done) == sorted(names)
    assert world.places.asked == ["Bob"] * 12


async def waiting_threads(world: World, count: int, text: str = "we met Bob.") -> None:
    """Have so many threads wait, all but the first of them copies."""
    world.places.down = True
    await world.executions().advance("t0", await world.take_in(text), when_open="wait")
    world.places.down = False
    world.places.asked.clear()
    registry = Registry(world.database)
    record = await registry.get("t0")
    assert record is not None
    assert record.status == "waiting"
    saver = world.saver
    writes = [(key, value) for key, value in saver.writes.items() if key[0] == "t0"]
    blobs = [(key, value) for key, value in saver.blobs.items() if key[0] == "t0"]
    copies = [replace(record, thread_id=f"t{number}") for number in range(1, count)]
    for thread_id in (copy.thread_id for copy in copies):
        saver.storage[thread_id] = deepcopy(saver.storage["t0"])
        saver.writes.update({(thread_id, *key[1:]): value for key, value in writes})
        saver.blobs.update({(thread_id, *key[1:]): value for key, value in blobs})
    await asyncio.gather(*map(registry.put, copies))


async def first_second(world: World, expected: list[int]) -> None:
    """Have a sweep see that its circuit admits calls; in each 0.1 s, so many are to be on their way, and no more."""
    world.clock.advance(31.0)
    answering = world.places.answer_after = 1.0 / len(expected)
    watching = Sweeping(world, watch=True)
    at_once: list[int] = []
    for calls in expected:
        await world.clock.until_sleeping(calls + 1)  # the calls, and the sweep
        for _ in range(50):  # no more than these come, though there is time
            await asyncio.sleep(0)
        at_once.append(world.places.in_flight)
        world.clock.advance(answering)
    assert at_once == expected
    assert len(world.places.asked) == sum(at_once)
    await watching.stop()


async def test_a_thousand_waiting_threads_do_not_rush_a_service_that_came_back(worlds: Any) -> None:
    world = worlds(concurrency=8)
    await waiting_threads(world, 1000)
    await first_second(world, [1, 2, 8, 8, 8, 8, 8, 8, 8, 8])


async def test_a_sweep_reads_no_more_for_each_thread_the_more_there_are(
    worlds: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = 0
    lacking = Registry.lacking

    async def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal read
        rows = await lacking(*arguments, **options)
        read += len(rows)
        return rows

    monkeypatch.setattr(Registry, "lacking", counted)
    world = worlds(concurrency=8)
    await waiting_threads(world, 200)
    world.clock.advance(31.0)
    assert {outcome(each) for each in await sweep(world)} == {"complete"}
    assert read <= 3 * 200


async def test_threads_of_several_entities_begin_one_at_a_time_too(worlds: Any) -> None:
    """Threads are what doubles: one makes its calls side by side, as its probe has closed the circuit."""
    world = worlds(concurrency=8)
    await waiting_threads(world, 100, "Ada met Bob in Cairo.")
    await first_second(world, [1, 2, 6, 8, 8, 8, 8, 8, 8, 8])


def test_resumes_double_with_each_success_and_begin_anew_when_the_circuit_opens() -> None:
    start = SlowStart(8)
    allowed = [start.room]
    for _ in range(5):
        start.succeeded()
        allowed.append(start.room)
    assert allowed == [1, 2, 4, 8, 8, 8]
    start.look(CircuitReport("api", generation=0))
    assert start.room == 8
    start.running = 3
    start.look(CircuitReport("api", "open", generation=1))
    assert start.room == 0
    start.running = 0
    assert start.room == 1


async def test_a_circuit_that_opens_again_sets_the_sweep_back_to_one(worlds: Any) -> None:
    world = worlds(concurrency=8)
    await degraded(world, *(f"t{number}" for number in range(9)), text="we met Bob.")
    world.clock.advance(31.0)
    watching = Sweeping(world, watch=True)
    await watching.until(lambda: len(watching.healed) >= 3)
    assert watching._sweep._starts["enrichment"]._allowed > 1
    world.places.fails["Bob"] = Refused
    await watching.until(lambda: "degraded" in watching.told.values() and not watching._sweep._running)
    world.places.asked.clear()
    before = len(watching.healed)
    await watching.until(lambda: len(watching.healed) == before + 3)
    assert world.places.asked == ["Bob"] * 3  # a probe at a time
    assert watching._sweep._starts["enrichment"]._allowed == 1
    await watching.stop()


def test_the_command_prints_a_line_for_each_thread_and_a_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def tidegate(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tidegate", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    monkeypatch.chdir(tmp_path)
    with EnrichmentServer() as server:
        Path("tidegate.toml").write_text(
            f'recogniser = "rules"\n[enrichment]\nadapter = "http"\nurl = "{server.url}"\ntypes = ["PERSON"]\n'
            "concurrency = 1\nbackoff_initial = 0.0\nreset_timeout = 0.05\n"
        )
        Path("note.txt").write_text("Mr Arne Lund met Ms Berta Moe and Dr Carl Nygaard.")
        server.down(503)
        for thread_id in ("a", "b"):
            assert tidegate("run", "-q", "--thread-id", thread_id, "note.txt")[0] == 0
        server.up()
        time.sleep(0.05)
        assert tidegate("backfill") == (0, "a  complete, revision 2\nb  complete, revision 2\n", "2 complete\n")
        assert tidegate("backfill") == (0, "", "no thread could be brought forward\n")
        server.down(503)
        Path("tidegate-live.db").unlink()
        Path("new.txt").write_text("Mr Ivar Lie met Ms Kari Moen.")
        assert tidegate("run", "-q", "--thread-id", "e", "new.txt")[0] == 0
        server.up()
        for part in Path().glob("tidegate-live.db*"):
            part.unlink()
        Path("tidegate-live.db").mkdir()  # of no use, and a sweep does without it
        code, _, err = tidegate("backfill")
        assert (code, err.splitlines()[-1]) == (0, "1 complete")
        Path("tidegate-live.db").rmdir()
        server.down(503)
        Path("other.txt").write_text("Mr Dag Eide met Ms Frida Quist and Dr Grete Holm.")
        assert tidegate("run", "-q", "--thread-id", "c", "other.txt")[0] == 0
        with sqlite3.connect("tidegate.db") as connection:
            connection.execute("DELETE FROM checkpoints WHERE thread_id = 'c'")
        time.sleep(0.05)
        code, out, err = tidegate("backfill", "--json")
        row = json.loads(out)
        assert (code, row["thread_id"], row["status"], err) == (9, "c", "failed", "1 failed\n")
        assert "its checkpoints are gone" in row["error"]
