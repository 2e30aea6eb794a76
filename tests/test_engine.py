"""The engine in process: threads that nobody waits for, and what becomes of those that fail."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace

from tests.engines import Bench, bench, raising, until
from tidegate.engine.patience import LONGEST_POLL, POLL
from tidegate.engine.port import Unreadable
from tidegate.errors import (
    CheckpointDamaged,
    CircuitOpen,
    DocumentTooLarge,
    IncompatibleThread,
    QueueFull,
    Refused,
    StoreError,
    StoreUnavailable,
    ThreadBusy,
    ThreadNotFound,
)
from tidegate.graph.execution import Executions
from tidegate.graph.looking import Looks
from tidegate.graph.verdicts import Verdicts
from tidegate.store.inbox import Envelope
from tidegate.store.registry import Registry, ThreadRecord

SERVE = {"concurrency": 2, "max_attempts": 3, "retry_initial": 10.0, "retry_max": 100.0}


@pytest.fixture
async def here() -> AsyncIterator[Bench]:
    async with bench(serve=SERVE, enrichment={"attempts": 1, "failure_threshold": 1, "reset_timeout": 30.0}) as made:
        yield made


class Gate:
    """Holds executions until it is opened."""

    def __init__(self) -> None:
        self._open = asyncio.Event()

    async def __call__(self) -> None:
        await self._open.wait()

    def open(self) -> None:
        self._open.set()


async def let_pass(here: Bench, seconds: float) -> None:
    """Let time pass as a worker lives it: in steps, after each of which it looks what is due."""
    while seconds > 0.0:
        await here.settled()
        here.clock.advance(min(seconds, 10.0))
        seconds -= 10.0
    await here.settled()


# running


async def test_an_event_becomes_a_thread_that_is_run_to_its_end(here: Bench) -> None:
    here.work()
    [receipt] = await here.submit("One in Cairo.")
    await here.until_status("complete", receipt.thread_id)
    assert (await here.engine.stats()).threads == {"complete": 1}
    [again] = await here.submit("One in Cairo.")
    assert (again.thread_id, again.is_new) == (receipt.thread_id, False)
    await here.settled()
    assert here.step.begun == ["One"]


async def test_no_more_threads_are_run_at_once_than_are_allowed(here: Bench) -> None:
    gate = Gate()
    words = ["One", "Two", "Six", "Ten", "Dot"]
    here.step.acts = dict.fromkeys(words, gate)
    receipts = await here.submit(*words)
    here.work()
    await until(lambda: here.step.running == 2)
    await asyncio.sleep(0.05)
    assert (await here.engine.stats()).executing == here.step.running == 2
    gate.open()
    await here.until_status("complete", *(each.thread_id for each in receipts))
    assert here.step.most == 2
    assert here.step.begun == words


async def test_threads_that_were_interrupted_go_on_at_the_next_start_before_new_ones(here: Bench) -> None:
    gate = Gate()
    here.step.acts = {"One": gate, "Two": gate}
    receipts = await here.submit("One", "Two", "Six")
    worker = here.work()
    await until(lambda: here.step.running == 2)
    worker.cancel()
    with pytest.raises(asyncio.CancelledError):
        await worker
    records = [await here.record(each.thread_id) for each in receipts]
    assert [(each.status, each.attempts) for each in records] == [("running", 0), ("running", 0), ("queued", 0)]
    gate.open()
    here.another().work()
    await here.until_status("complete", *(each.thread_id for each in receipts))
    assert sorted(here.step.begun[2:4]) == ["One", "Two"]


async def test_the_span_that_an_event_was_sent_in_is_the_parent_of_its_thread_s_first_execution(here: Bench) -> None:
    sent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    seen: list[int] = []
    states: list[str] = []

    async def look() -> None:
        span = trace.get_current_span().get_span_context()
        seen.append(span.trace_id)
        states.append(span.trace_state.to_header())
        if len(seen) == 1:
            raise RuntimeError

    here.step.acts = {"One": look}
    here.work()
    receipt = await here.engine.submit(
        Envelope(source="test", id="1", data=b"One", name="one.txt", traceparent=sent, tracestate="vendor=a")
    )
    await here.until_status("failed", receipt.thread_id)
    await let_pass(here, 10.0)
    await here.until_status("complete", receipt.thread_id)
    assert seen == [0x0AF7651916CD43DD8448EB211C80319C, 0], "the second one is linked to the first, not part of it"
    assert states == ["vendor=a", ""]


# failing


async def test_a_thread_that_fails_is_tried_again_after_pauses_that_double(here: Bench) -> None:
    here.step.acts = {"One": raising(RuntimeError("words of the document"), times=2)}
    here.work()
    [receipt] = await here.submit("One in Cairo.")
    pauses = []
    for attempt in (1, 2):
        await here.until_status("failed", receipt.thread_id)
        await here.settled()
        record = await here.record(receipt.thread_id)
        assert (record.attempts, record.error) == (attempt, "RuntimeError")
        assert record.next_at is not None
        pauses.append(record.next_at - here.clock.now())
        here.clock.advance(pauses[-1] - 0.5)
        await here.settled()
        assert len(here.step.begun) == attempt, "it is not due yet"
        here.clock.advance(1.0)
        await here.settled()
        assert len(here.step.begun) == attempt + 1
    await here.until_status("complete", receipt.thread_id)
    assert 5.0 <= pauses[0] <= 10.0 <= pauses[1] <= 20.0
    assert (await here.record(receipt.thread_id)).attempts == 0


async def test_a_thread_is_dead_after_so_many_attempts_at_the_same_step_and_retried_as_if_it_were_new(
    here: Bench,
) -> None:
    here.step.acts = {"One": raising(RuntimeError())}
    here.work()
    [receipt] = await here.submit("One in Cairo.")
    await let_pass(here, 60.0)
    record = await here.record(receipt.thread_id)
    assert (record.status, record.error, record.next_at, len(here.step.begun)) == ("dead", "RuntimeError", None, 3)
    await let_pass(here, 1000.0)
    assert len(here.step.begun) == 3
    here.step.acts.clear()
    await here.pipeline.retry(receipt.thread_id)
    here.engine.wake()
    await here.until_status("complete", receipt.thread_id)


async def test_a_thread_that_gets_further_between_failures_is_not_given_up(here: Bench) -> None:
    here.step.acts = {"One": raising(RuntimeError(), times=2)}
    here.places.fails["Cairo"] = lambda *_: None  # type: ignore[assignment]  # raising None is a bug
    here.work()
    [receipt] = await here.submit("One in Cairo.")
    await let_pass(here, 40.0)
    record = await here.record(receipt.thread_id)
    assert here.step.begun == ["One"] * 3
    assert (record.status, record.attempts) == ("failed", 2), "it counts from its new step on"
    here.places.fails.clear()
    await let_pass(here, 100.0)
    await here.until_status("complete", receipt.thread_id)


@pytest.mark.parametrize("error", [CheckpointDamaged("t", "is damaged"), DocumentTooLarge("a", "is big", "cut it")])
async def test_a_thread_whose_error_will_not_pass_is_dead_at_once(here: Bench, error: Exception) -> None:
    here.step.acts = {"One": raising(error)}
    here.work()
    [receipt] = await here.submit("One")
    await here.until_status("dead", receipt.thread_id)
    assert len(here.step.begun) == 1
    assert type(error).__name__ in ((await here.record(receipt.thread_id)).error or "")


@pytest.mark.parametrize(
    ("error", "pause"),
    [
        (CircuitOpen("model", retry_in=60.0), 60.0),
        (Refused("model", "HTTP 401"), 10.0),
        (StoreUnavailable("the server restarts"), 10.0),
    ],
)
async def test_what_says_nothing_about_a_thread_gives_none_up(
    here: Bench, monkeypatch: pytest.MonkeyPatch, error: Exception, pause: float
) -> None:
    drive, left = Executions._drive, 5

    async def fail(*arguments: Any) -> None:
        nonlocal left
        left -= 1
        if left >= 0:
            raise error
        await drive(*arguments)

    monkeypatch.setattr(Executions, "_drive", fail)
    here.work()
    [receipt] = await here.submit("One")
    await here.until_status("failed", receipt.thread_id)
    record = await here.record(receipt.thread_id)
    assert record.attempts == 0
    assert record.next_at is not None
    assert pause / 2 <= record.next_at - here.clock.now() <= pause
    await let_pass(here, 6 * pause)
    await here.until_status("complete", receipt.thread_id)


@pytest.mark.parametrize("error", [CheckpointDamaged("t", "is damaged"), IncompatibleThread("t", "fits not")])
async def test_a_thread_that_cannot_even_be_looked_at_is_not_run_without_end(
    here: Bench, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    looked = 0

    async def snapshot(*_: Any) -> None:
        nonlocal looked
        looked += 1
        raise error

    monkeypatch.setattr(Looks, "snapshot", snapshot)
    here.work()
    [receipt] = await here.submit("One")
    await let_pass(here, 200.0)
    assert (await here.record(receipt.thread_id)).status == "dead"
    assert looked == (1 if isinstance(error, CheckpointDamaged) else SERVE["max_attempts"])


async def test_an_event_whose_document_cannot_be_read_is_a_dead_thread_until_it_comes_readable(here: Bench) -> None:
    error = DocumentTooLarge("big.pdf", "has 60 MB", "send a smaller one")
    refused = await here.engine.submit(Unreadable(source="test", id="One", error=error))
    record = await here.record(refused.thread_id)
    assert (record.status, record.error) == ("dead", f"DocumentTooLarge: {error}")
    here.work()
    [receipt] = await here.submit("One")  # under another name
    assert (receipt.thread_id, receipt.is_new) == (refused.thread_id, True)
    await here.until_status("complete", receipt.thread_id)
    [again] = await here.submit("One")
    assert (again.thread_id, again.is_new) == (refused.thread_id, False)


async def test_a_full_queue_takes_no_event_in_but_those_that_came_before_are_known() -> None:
    async with bench(serve=SERVE | {"max_queued": 2}) as here:
        first, _ = await here.submit("One", "Two")
        with pytest.raises(QueueFull):
            await here.submit("Six")
        assert (await here.submit("One"))[0].thread_id == first.thread_id
        assert await here.pipeline.inbox.find("test", "Six") is None
        here.work()
        await here.until_status("complete", first.thread_id)
        await until(lambda: len(here.step.begun) == 2)
        await here.submit("Six")


# what others do meanwhile


@pytest.mark.parametrize("meanwhile", ["cancel", "resume", "delete"])
async def test_a_thread_that_somebody_saw_to_while_it_was_about_to_be_run_is_left_alone(
    here: Bench, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    due, seen_to = Registry.due, asyncio.Event()

    async def then(registry: Registry, **options: Any) -> Any:
        found = await due(registry, **options)
        if found and not seen_to.is_set():
            await getattr(here.pipeline, meanwhile)(found[0].thread_id)
            seen_to.set()
        return found

    monkeypatch.setattr(Registry, "due", then)
    [receipt] = await here.submit("One")
    here.work()
    await seen_to.wait()
    await here.settled()
    record = await here.pipeline.registry.get(receipt.thread_id)
    assert (record and record.status) == {"cancel": "cancelled", "resume": "complete", "delete": None}[meanwhile]
    assert len(here.step.begun) == (1 if meanwhile == "resume" else 0)


async def test_a_running_thread_is_stopped_and_cancelled_and_nothing_goes_on_with_it(here: Bench) -> None:
    here.step.acts = {"One": Gate()}
    here.work()
    one, two = await here.submit("One", "Two")
    await here.until_status("complete", two.thread_id)
    await until(lambda: here.step.running == 1)
    assert await here.engine.cancel(one.thread_id)
    assert (here.step.running, (await here.record(one.thread_id)).status) == (0, "cancelled")
    await let_pass(here, 100.0)
    assert here.step.begun.count("One") == 1
    assert not await here.engine.cancel(one.thread_id), "it is already"
    assert not await here.engine.cancel(two.thread_id), "it is finished"
    with pytest.raises(ThreadNotFound):
        await here.engine.cancel("none")
    here.step.acts.clear()
    await here.pipeline.retry(one.thread_id)
    here.engine.wake()
    await here.until_status("complete", one.thread_id)


async def test_a_thread_that_a_sweep_brings_forward_is_cancelled_and_the_sweep_goes_on(here: Bench) -> None:
    here.places.down = True
    here.work()
    one, two = await here.submit("One in Cairo.", "Two in Dover.")
    await here.until_status("degraded", one.thread_id, two.thread_id)
    here.places.down, here.places.pause = False, 10.0
    here.places.asked.clear()

    async def probed() -> bool:
        here.clock.advance(1.0)  # one that the sweep begins to wait for meanwhile is not skipped
        return bool(here.places.asked)

    await until(probed)
    probe = one if here.places.asked[0] in ("One", "Cairo") else two
    assert await here.engine.cancel(probe.thread_id)
    assert (await here.record(probe.thread_id)).status == "cancelled"
    here.places.pause = 0.0
    other = two if probe is one else one

    async def healed() -> bool:
        here.clock.advance(6.0)
        return (await here.record(other.thread_id)).status == "complete"

    await until(healed)
    assert (await here.record(probe.thread_id)).status == "cancelled"


async def test_a_thread_that_somebody_waits_for_is_not_cancelled_under_their_hands(here: Bench) -> None:
    gate = Gate()
    here.step.acts = {"One": gate}
    waiting = asyncio.create_task(here.pipeline.run(text="One", name="one", thread_id="t"))
    await until(lambda: here.step.running == 1)
    with pytest.raises(ThreadBusy):
        await here.engine.cancel("t")
    gate.open()
    assert (await waiting).status == "complete"


async def test_a_thread_that_was_interrupted_is_retried_and_a_finished_one_is_not(here: Bench) -> None:
    here.step.acts = {"One": Gate()}
    worker = here.work()
    [receipt] = await here.submit("One")
    await until(lambda: here.step.running == 1)
    with pytest.raises(ThreadBusy):
        await here.pipeline.retry(receipt.thread_id)
    worker.cancel()
    await asyncio.wait([worker])
    await here.pipeline.retry(receipt.thread_id)
    assert (await here.record(receipt.thread_id)).status == "queued"
    here.step.acts.clear()
    here.another().work()
    await here.until_status("complete", receipt.thread_id)
    with pytest.raises(Exception, match="is complete, and only one that"):
        await here.pipeline.retry(receipt.thread_id)


async def test_a_verdict_on_a_thread_that_got_further_meanwhile_is_not_carried_out(here: Bench) -> None:
    here.step.acts = {"One": raising(RuntimeError())}
    [receipt] = await here.submit("One in Cairo.")
    with pytest.raises(RuntimeError):
        await here.pipeline.resume(receipt.thread_id)
    [seen] = await here.pipeline.registry.due(limit=1)
    here.step.acts.clear()
    here.places.fails["Cairo"] = lambda *_: None  # type: ignore[assignment]  # raising None is a bug
    with pytest.raises(TypeError):
        await here.pipeline.resume(receipt.thread_id)
    assert (await here.record(seen.thread_id)).status == seen.status == "failed"
    assert not await here.pipeline.give_up(seen, "too late"), "it failed further on"
    assert (await here.record(seen.thread_id)).status == "failed"
    assert await here.pipeline.give_up(await here.record(seen.thread_id), "in time")
    assert (await here.record(seen.thread_id)).error == "in time"


# stopping


async def test_a_worker_that_is_told_to_stop_ends_at_the_next_superstep_and_begins_nothing(here: Bench) -> None:
    gate = Gate()
    here.step.acts = dict.fromkeys(["One", "Two"], gate)
    worker = here.work()
    receipts = await here.submit("One in Cairo.", "Two in Dover.", "Six")
    await until(lambda: here.step.running == 2)
    here.engine.stop()
    done, _ = await asyncio.wait([worker], timeout=0.05)
    assert not done, "the steps that run may end"
    gate.open()
    await worker
    records = [await here.record(each.thread_id) for each in receipts]
    assert [(each.status, each.attempts) for each in records] == [("running", 0), ("running", 0), ("queued", 0)]
    assert here.places.asked == []
    here.another().work()
    await here.until_status("complete", *(each.thread_id for each in receipts))
    assert here.step.begun.count("One") == 1, "the step that had ended is not repeated"


async def test_a_worker_that_is_stopped_twice_ends_at_once(here: Bench) -> None:
    here.step.acts = {"One": Gate()}
    worker = here.work()
    [receipt] = await here.submit("One")
    await until(lambda: here.step.running == 1)
    here.engine.stop()
    worker.cancel()
    await asyncio.wait([worker], timeout=5.0)
    assert worker.cancelled()
    assert here.step.running == 0
    assert (await here.record(receipt.thread_id)).attempts == 0, "who stops the process says nothing of the thread"


# outages


@pytest.mark.parametrize("policy", ["degrade", "wait"])
async def test_threads_that_wait_for_a_circuit_go_on_when_it_closes(policy: str) -> None:
    circuit = {"attempts": 1, "failure_threshold": 1, "reset_timeout": 30.0, "when_open": policy}
    async with bench(serve=SERVE, enrichment=circuit) as here:
        here.places.down = True
        here.work()
        receipts = await here.submit("One in Cairo.")
        await here.until_status("degraded", receipts[0].thread_id)  # it was asked about, once
        receipts += await here.submit("Two in Dover.")
        await here.until_status("degraded" if policy == "degrade" else "waiting", receipts[1].thread_id)
        here.places.down = False

        async def healed() -> bool:
            here.clock.advance(6.0)
            return all([(await here.record(each.thread_id)).status == "complete" for each in receipts])

        await until(healed)


async def test_a_thread_whose_healing_failed_is_healed_when_it_can_be_not_an_hour_later(here: Bench) -> None:
    here.places.down = True
    here.work()
    [receipt] = await here.submit("One in Cairo.")
    await here.until_status("degraded", receipt.thread_id)
    here.places.down = False
    here.places.fails["Cairo"] = lambda *_: None  # type: ignore[assignment]  # raising None is a bug

    async def passing(status: str) -> float:
        began = here.clock.monotonic()

        async def reached() -> bool:
            here.clock.advance(2.0)
            return (await here.record(receipt.thread_id)).status == status

        await until(reached)
        return here.clock.monotonic() - began

    await passing("failed")
    here.places.fails.clear()
    here.places.down = True
    await passing("degraded")
    here.places.down = False
    assert await passing("complete") < 600.0


async def test_a_store_that_is_away_is_asked_less_and_less_and_then_work_goes_on(
    here: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    due, asked = Registry.due, 0

    async def away(*_: Any, **__: Any) -> Any:
        nonlocal asked
        asked += 1
        raise StoreUnavailable("the server restarts") if asked % 2 else StoreError("t.db", "is full", "make room")

    monkeypatch.setattr(Registry, "due", away)
    here.work()
    [receipt] = await here.submit("One")
    for _ in range(100):  # 200 s
        await here.resting()
        here.engine.wake()
        here.clock.advance(POLL)
    assert 4 <= asked <= 8, "2, 4, 8, 16, 32, 60 s"
    monkeypatch.setattr(Registry, "due", due)
    here.clock.advance(LONGEST_POLL)
    await here.until_status("complete", receipt.thread_id)


async def test_an_outage_that_several_executions_meet_is_one(here: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = asyncio.Event()

    async def away(*_: Any, **__: Any) -> Any:
        await gate.wait()
        raise StoreUnavailable("the server restarts")

    with monkeypatch.context() as patched:
        patched.setattr(Executions, "advance", away)
        here.work()
        receipts = await here.submit("One", "Two")
        await until(lambda: len(here.engine._running) == 2)
        gate.set()
        await until(lambda: not here.engine._running)
    assert here.engine._away_until - here.clock.monotonic() <= POLL
    here.clock.advance(POLL)
    await here.until_status("complete", *(each.thread_id for each in receipts))


async def test_an_idle_worker_looks_once_a_poll_and_no_more(here: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    due, asked = Registry.due, 0

    async def counted(registry: Registry, **options: Any) -> Any:
        nonlocal asked
        asked += 1
        return await due(registry, **options)

    monkeypatch.setattr(Registry, "due", counted)
    here.work()
    await here.resting()
    await asyncio.sleep(0.1)
    assert asked == 1
    here.clock.advance(POLL)
    await until(lambda: asked == 2)


async def test_a_bug_that_one_thread_meets_outside_of_its_steps_stops_no_other(
    here: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    give_up: Callable[..., Any] = Verdicts.give_up
    monkeypatch.setattr(Verdicts, "give_up", lambda *_: 1 / 0)
    here.step.acts = {"One": raising(RuntimeError())}
    here.work()
    [one] = await here.submit("One")
    await here.until_status("failed", one.thread_id)
    record = await here.record(one.thread_id)
    await here.pipeline.registry.put(ThreadRecord(**{**_fields(record), "attempts": 3, "next_at": None}))
    here.engine.wake()
    await until(lambda: "could not be run: ZeroDivisionError" in caplog.text)
    [two] = await here.submit("Two")
    await here.until_status("complete", two.thread_id)
    monkeypatch.setattr(Verdicts, "give_up", give_up)
    await let_pass(here, 10.0)
    await here.until_status("dead", one.thread_id)


def _fields(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__slots__}


async def test_nothing_of_threads_is_kept_in_memory_once_they_are_over(here: Bench) -> None:
    here.step.acts = {"One": raising(RuntimeError())}
    here.work()
    receipts = await here.submit("One", *(f"Number{n}" for n in range(20)))
    await here.until_status("complete", *(each.thread_id for each in receipts[1:]))
    await let_pass(here, 60.0)
    executions = here.pipeline._executions
    kept = (here.engine._running, here.engine._resting, here.engine._suspects, executions._turns, executions._stoppable)
    assert [len(each) for each in kept] == [0] * 5


async def test_the_event_loop_is_free_while_a_large_document_comes_in(here: Bench) -> None:
    here.work()
    longest, last = 0.0, time.perf_counter()

    async def beat() -> None:
        nonlocal longest, last
        while True:
            last = time.perf_counter()
            await asyncio.sleep(0.001)
            longest = max(longest, time.perf_counter() - last)

    beating = asyncio.create_task(beat())
    data = bytes(range(256)) * 40_000  # 10 MB, packed in a thread
    await here.engine.submit(Envelope(source="test", id="big", data=data, name="big.bin"))
    beating.cancel()
    assert longest < 0.5, "on a machine that is busy; packed on the loop, it is 1 s and more"


@pytest.mark.parametrize("where", ["sqlite", "file", "postgresql"])
async def test_threads_are_run_given_up_cancelled_and_retried_wherever_they_live(
    request: pytest.FixtureRequest, tmp_path: Path, where: str
) -> None:
    urls = {"sqlite": f"sqlite:///{tmp_path}/t.db", "file": f"file:///{tmp_path}/threads"}
    url = urls[where] if where in urls else request.getfixturevalue("postgres_url")
    async with bench(url, serve=SERVE) as here:
        here.step.acts = {"Fails": raising(RuntimeError()), "Hangs": Gate()}
        here.work()
        runs, fails, hangs = await here.submit("Runs in Cairo.", "Fails in Dover.", "Hangs in Essen.")
        await here.until_status("complete", runs.thread_id)
        await until(lambda: here.step.running == 1)
        assert await here.engine.cancel(hangs.thread_id)

        async def given_up() -> bool:
            here.clock.advance(5.0)
            return (await here.record(fails.thread_id)).status == "dead"

        await until(given_up)
        assert here.step.begun.count("Fails") == 3
        here.step.acts.clear()
        assert await here.pipeline.retry_all() == [fails.thread_id]
        await here.pipeline.retry(hangs.thread_id)
        here.engine.wake()
        await here.until_status("complete", fails.thread_id, hangs.thread_id)
        assert (await here.engine.stats()).threads == {"complete": 3}


@pytest.mark.parametrize("policy", ["wait", "fail"])
async def test_a_published_thread_that_is_asked_again_stays_published_whatever_the_policy_is(policy: str) -> None:
    circuit = {"attempts": 1, "failure_threshold": 1, "reset_timeout": 30.0, "when_open": policy, "concurrency": 1}
    async with bench(serve=SERVE, enrichment=circuit | {"batch_size": 1}) as here:
        here.places.down = True
        [receipt] = await here.submit("One in Cairo and Dover.")
        first = await here.pipeline.resume(receipt.thread_id, when_open="degrade")
        assert (first.status, first.revision) == ("degraded", 1)
        await here.pipeline.registry.put(replace(await here.record(receipt.thread_id), when_open=None))
        here.clock.advance(31.0)
        here.places.asked.clear()
        assert await here.pipeline.ask_again(receipt.thread_id)
        here.work()
        await until(lambda: here.places.asked)
        await here.settled()
        record = await here.record(receipt.thread_id)
        assert (record.status, record.outcome, record.revision) == ("degraded", "degraded", 1)
