"""The outbox: results that are kept until each sink has them."""

from __future__ import annotations

import asyncio
import logging

import pytest

from tests.engines import bench, until
from tests.test_inbox import count
from tidegate.store.inbox import Envelope, Inbox
from tidegate.store.outbox import LONGEST_PAUSE, Outbox, Undelivered
from tidegate.store.transactions import Store
from tidegate.testing import ManualClock

SINKS: dict[str, list[str]] = {"files": [], "hook": ["mail"]}


async def publish(store: Store, number: int = 1, revision: int = 1, source: str = "folder") -> str:
    """Take an event in, and put a result of its thread in; return the thread's ID."""
    taken = await Inbox(store, max_queued=99).accept(Envelope(source=source, id=f"{number}", data=b"d", name="n"))
    write = await Outbox(store, SINKS).writing(taken.thread_id, revision, {"revision": revision, "n": number})
    assert write is not None
    await store.write(write)
    await store.write(write)  # as after a crash between checkpoint and registry
    return taken.thread_id


async def test_a_result_goes_to_the_sinks_that_take_those_of_its_trigger_once_a_revision(store: Store) -> None:
    outbox = Outbox(store, SINKS)
    one = await publish(store, 1)
    two = await publish(store, 2, source="mail")
    await publish(store, 2, revision=2, source="mail")
    files = await outbox.claim("files", limit=9, seconds=60.0)
    assert [each.id for each in files] == [f"{one}:1", f"{two}:1", f"{two}:2"]
    [first, *_] = files
    assert (first.trigger, first.event_id, first.attempts, first.result) == ("folder", "1", 1, {"revision": 1, "n": 1})
    assert [each.id for each in await outbox.claim("hook", limit=9, seconds=60.0)] == [f"{two}:1", f"{two}:2"]
    write = await outbox.writing("by-hand", 1, {})
    assert write is not None
    await store.write(write)
    assert await outbox.claim("files", limit=9, seconds=60.0) == [], "who began a thread by hand has its result"
    assert await Outbox(store, {}).writing("t", 1, {}) is None


async def test_a_delivery_is_claimed_by_one_of_many_and_due_again_when_that_is_over(
    store: Store, clock: ManualClock
) -> None:
    for number in range(20):
        await publish(store, number)
    outbox = Outbox(store, SINKS)
    claims = await asyncio.gather(*(outbox.claim("files", limit=3, seconds=60.0) for _ in range(10)))
    rows = [each.row for claim in claims for each in claim]
    rows += [each.row for each in await outbox.claim("files", limit=99, seconds=60.0)]
    assert sorted(rows) == sorted(set(rows))
    assert len(rows) == 20
    assert await outbox.pause_left("files") == pytest.approx(60.0)
    clock.advance(60.0)
    again = await outbox.claim("files", limit=99, seconds=60.0)
    assert [each.attempts for each in again] == [2] * 20


async def test_what_was_delivered_stays_so_whatever_a_slower_process_says(store: Store, clock: ManualClock) -> None:
    outbox = Outbox(store, SINKS)
    await publish(store)
    [slow] = await outbox.claim("files", limit=1, seconds=60.0)
    clock.advance(60.0)
    [fast] = await outbox.claim("files", limit=1, seconds=60.0)
    await outbox.delivered(fast)
    await outbox.failed(slow, "HTTP 503", retry_in=1.0)
    await outbox.postponed(slow, "circuit open", retry_in=1.0)
    clock.advance(3600.0)
    assert await outbox.claim("files", limit=1, seconds=60.0) == []
    assert await outbox.undelivered() == {}
    assert (await outbox.pause_left("files"), await outbox.count("files")) == (None, (0, 0))


async def test_what_failed_is_due_after_its_pause_and_what_was_given_up_when_it_is_retried(
    store: Store, clock: ManualClock
) -> None:
    outbox = Outbox(store, SINKS)
    await publish(store)
    [delivery] = await outbox.claim("files", limit=1, seconds=60.0)
    await outbox.postponed(delivery, "circuit open", retry_in=5.0)
    clock.advance(5.0)
    [delivery] = await outbox.claim("files", limit=1, seconds=60.0)
    assert delivery.attempts == 1, "one that could not be tried is no attempt"
    await outbox.failed(delivery, "HTTP 503", retry_in=10.0)
    assert await outbox.pause_left("files") == pytest.approx(10.0)
    clock.advance(10.0)
    [delivery] = await outbox.claim("files", limit=1, seconds=60.0)
    await outbox.failed(delivery, "HTTP 500", retry_in=None)
    clock.advance(100_000.0)
    assert await outbox.claim("files", limit=1, seconds=60.0) == []
    found = {"files": Undelivered(waiting=0, given_up=1, oldest=100_015.0, error="HTTP 500")}
    assert await outbox.undelivered() == found == await Outbox(store, {}).undelivered(), "named in the settings or not"
    assert await outbox.retry() == 1
    assert (await outbox.claim("files", limit=1, seconds=60.0))[0].attempts == 1
    assert await outbox.discard("files") == 1
    assert await outbox.undelivered() == {}


async def test_a_sink_with_much_to_be_delivered_holds_up_no_other(store: Store) -> None:
    for number in range(10):
        await publish(store, number)
    last = await publish(store, 11, source="mail")
    outbox = Outbox(store, SINKS)
    assert len(await outbox.claim("files", limit=3, seconds=60.0)) == 3
    assert [each.thread_id for each in await outbox.claim("hook", limit=3, seconds=60.0)] == [last]


async def test_a_clock_that_is_set_back_delays_no_delivery_for_longer_than_a_pause(
    store: Store, clock: ManualClock
) -> None:
    outbox = Outbox(store, SINKS)
    await publish(store)
    [delivery] = await outbox.claim("files", limit=1, seconds=60.0)
    await outbox.failed(delivery, "HTTP 429", retry_in=1e9)
    assert await outbox.pause_left("files") == pytest.approx(LONGEST_PAUSE)
    assert await outbox.claim("files", limit=1, seconds=60.0) == []
    clock.set_back(86400.0)
    assert len(await outbox.claim("files", limit=1, seconds=60.0)) == 1


async def test_a_result_that_is_damaged_is_given_up_and_the_others_are_delivered(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = Outbox(store, SINKS)
    damaged, whole = await publish(store, 1), await publish(store, 2)
    await store.write(lambda c: c.execute("UPDATE outbox SET result = ? WHERE thread_id = ?", (b"no", damaged)))
    with caplog.at_level(logging.ERROR):
        claimed = await outbox.claim("files", limit=9, seconds=60.0)
    assert [each.thread_id for each in claimed] == [whole]
    assert f"a result of thread {damaged} is damaged" in caplog.text
    assert await outbox.count("files") == (1, 1)


async def test_a_thread_s_results_are_put_in_with_its_end_and_go_when_it_is_deleted() -> None:
    sinks = ({"kind": "file", "name": "files", "path": "out"},)
    async with bench(sink=sinks) as here:
        told: list[None] = []
        here.pipeline.outbox.listen(lambda: told.append(None))
        here.work()
        [receipt] = await here.submit("One in Cairo.")
        await here.until_status("complete", receipt.thread_id)
        await until(lambda: told)
        [delivery] = await here.pipeline.outbox.claim("files", limit=9, seconds=60.0)
        assert delivery.id == f"{receipt.thread_id}:1"
        assert delivery.result["status"] == "complete"
        await here.pipeline.run(text="By hand", name="hand", thread_id="hand")
        assert await here.pipeline.outbox.claim("files", limit=9, seconds=60.0) == []
        await here.pipeline.delete(receipt.thread_id)
        assert await here.pipeline.outbox.undelivered() == {}
        assert await count(here.pipeline._wired.store, "outbox") == 0
