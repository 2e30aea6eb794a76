"""Expiry: what is over is forgotten after a while, and no event is run twice before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from tests.engines import Bench, bench, raising, until
from tests.test_inbox import count, event
from tidegate import Pipeline
from tidegate.errors import SettingsError, ThreadNotFound
from tidegate.server.forgetting import EVERY, FIRST, forget_daily
from tidegate.store import expiry
from tidegate.store.documents import Documents
from tidegate.store.inbox import Inbox
from tidegate.store.leases import Leases
from tidegate.store.outbox import Outbox
from tidegate.store.registry import Registry
from tidegate.store.transactions import Store
from tidegate.testing import ManualClock

DAY = 86400.0
WEEK = 7 * DAY


@pytest.fixture(params=["sqlite", "file", "memory", "postgresql"])
async def here(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    urls = {"sqlite": f"sqlite:///{tmp_path}/t.db", "file": f"file:///{tmp_path}/threads", "memory": "memory:"}
    url = urls.get(request.param) or request.getfixturevalue("postgres_url")
    async with bench(url, enrichment={"attempts": 1}) as made:
        made.work()
        yield made


async def over(store: Store, seconds: float = WEEK) -> list[str]:
    return await store.read(lambda connection: expiry.over(connection, seconds, ""))


async def test_a_week_after_it_finished_a_thread_is_gone_with_all_that_was_kept_of_it(here: Bench) -> None:
    receipts = await here.submit("One in Cairo.", "Two in Dover.")
    await here.until_status("complete", *(each.thread_id for each in receipts))
    here.clock.advance(WEEK - 60.0)
    assert await here.pipeline.forget_finished(older_than=WEEK) == 0
    [again] = await here.submit("One in Cairo.")
    assert (again.thread_id, again.is_new) == (receipts[0].thread_id, False), "it is known as long as it is kept"
    here.clock.advance(120.0)
    assert await here.pipeline.forget_finished(older_than=WEEK) == 2
    for receipt in receipts:
        with pytest.raises(ThreadNotFound):
            await here.pipeline.inspect(receipt.thread_id)
        assert await here.pipeline._upkeep._saver.aget_tuple({"configurable": {"thread_id": receipt.thread_id}}) is None
    store = here.pipeline._wired.store
    assert [await count(store, table) for table in ("threads", "documents", "outbox", "leases")] == [0, 0, 0, 2]
    assert await here.pipeline.damage() == []
    [new] = await here.submit("One in Cairo.")
    assert (new.thread_id, new.is_new) == (receipts[0].thread_id, True)
    await here.until_status("complete", new.thread_id)
    assert here.step.begun.count("One") == 2
    here.clock.advance(WEEK + 60.0)
    assert await here.pipeline.forget_finished(older_than=WEEK) == 1
    assert await count(store, "leases") == 1, "of a thread that is gone, it is kept as long again"


async def test_what_is_not_over_stays(here: Bench) -> None:
    here.step.acts = {"Dead": raising(RuntimeError())}
    here.places.fails["Dover"] = lambda *_: RuntimeError()  # type: ignore[assignment]
    complete, dead, other = await here.submit("One in Cairo.", "Dead in Essen.", "Two in Dover.")
    await here.until_status("complete", complete.thread_id)
    await here.until_status("failed", dead.thread_id, other.thread_id)
    assert await here.pipeline.give_up(await here.record(dead.thread_id), "whatever")
    here.clock.advance(WEEK + 60.0)
    lease = await here.pipeline._wired.leases.acquire(complete.thread_id)
    assert await here.pipeline.forget_finished(older_than=WEEK) == 0, "one is run just now"
    await here.pipeline._wired.leases.release(lease)
    assert await here.pipeline.forget_finished(older_than=WEEK) == 1
    assert {each.thread_id for each in await here.pipeline.threads()} == {dead.thread_id, other.thread_id}


@pytest.mark.parametrize("meanwhile", ["retry", "delete"])
async def test_a_thread_that_somebody_saw_to_while_it_was_about_to_be_forgotten_is_left_alone(
    here: Bench, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    here.engine.stop()
    [receipt] = await here.submit("One in Cairo.")
    assert await here.pipeline.cancel(receipt.thread_id)
    here.clock.advance(WEEK + 60.0)
    hold = Leases.hold

    @asynccontextmanager
    async def too_late(leases: Leases, thread_id: str) -> AsyncIterator[Any]:
        monkeypatch.undo()
        await getattr(here.pipeline, meanwhile)(thread_id)
        async with hold(leases, thread_id) as lease:
            yield lease

    monkeypatch.setattr(Leases, "hold", too_late)
    assert await here.pipeline.forget_finished(older_than=WEEK) == 0
    assert [each.status for each in await here.pipeline.threads()] == (["queued"] if meanwhile == "retry" else [])


async def test_a_service_forgets_once_a_day_and_at_first_after_an_hour() -> None:
    clock, asked = ManualClock(auto=True), list[tuple[float, float]]()

    class Noted:
        async def forget_finished(self, *, older_than: float) -> int:
            asked.append((clock.monotonic(), older_than))
            return 1

    forgetting = asyncio.create_task(forget_daily(cast("Pipeline", Noted()), WEEK, clock))
    await until(lambda: len(asked) >= 3)
    forgetting.cancel()
    assert asked[:3] == [(FIRST, WEEK), (FIRST + EVERY, WEEK), (FIRST + 2 * EVERY, WEEK)]


async def test_what_a_killed_process_had_begun_to_forget_is_forgotten_by_the_next(
    here: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    [receipt] = await here.submit("One in Cairo.")
    await here.until_status("complete", receipt.thread_id)
    here.clock.advance(WEEK + 60.0)
    with monkeypatch.context() as patched:
        patched.setattr(expiry, "forget", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await here.pipeline.forget_finished(older_than=WEEK)
    assert await here.pipeline.forget_finished(older_than=WEEK) == 1
    assert await here.pipeline.threads() == []


async def test_nothing_is_forgotten_within_a_day(here: Bench) -> None:
    with pytest.raises(SettingsError, match="kept for 86400 seconds, a day, at least, not 3600"):
        await here.pipeline.forget_finished(older_than=3600.0)


@pytest.mark.parametrize(
    ("changes", "is_over"),
    [
        ({"status": "complete"}, True),
        ({"status": "cancelled"}, True),
        ({"status": "degraded"}, True),
        ({"status": "degraded", "enrichment_at": 1.0}, False),
        ({"status": "degraded", "summary_at": 1.0}, False),
        ({"status": "degraded", "extraction_at": 1.0}, False),
        *(({"status": status}, False) for status in ("queued", "running", "waiting", "failed", "dead")),
    ],
)
async def test_over_is_what_nobody_goes_on_with(
    store: Store, clock: ManualClock, changes: dict[str, Any], is_over: bool
) -> None:
    taken = await Inbox(store, max_queued=9).accept(event())
    record = await Registry(store).get(taken.thread_id)
    assert record is not None
    await Registry(store).put(replace(record, **changes))
    clock.advance(WEEK)
    assert await over(store) == []
    clock.advance(1.0)
    assert await over(store) == ([taken.thread_id] if is_over else [])


async def finished(store: Store, number: object = 1, **changes: Any) -> str:
    """Take an event in, and have its thread be complete; return its ID."""
    taken = await Inbox(store, max_queued=9).accept(event(number, **changes))
    record = await Registry(store).get(taken.thread_id)
    assert record is not None
    await Registry(store).put(replace(record, status="complete"))
    return taken.thread_id


async def forget(store: Store, thread_id: str) -> None:
    await store.write(lambda connection: expiry.forget(connection, thread_id, WEEK))


async def test_a_thread_stays_until_each_sink_has_its_result_or_somebody_discards_it(
    store: Store, clock: ManualClock
) -> None:
    thread_id = await finished(store)
    outbox = Outbox(store, {"one": [], "other": []})
    write = await outbox.writing(thread_id, 1, {})
    assert write is not None
    await store.write(write)
    clock.advance(WEEK + 1.0)
    for sink, end in (("one", outbox.delivered), ("other", partial(outbox.failed, error="full", retry_in=None))):
        assert await over(store) == []
        [delivery] = await outbox.claim(sink, limit=1, seconds=60.0)
        await end(delivery)
    assert await over(store) == [], "one was given up"
    await outbox.discard("other")
    assert await over(store) == [thread_id]


async def test_a_document_stays_while_another_thread_is_about_it_or_may_be_in_a_moment(
    store: Store, clock: ManualClock
) -> None:
    one, other = await finished(store, 1), await finished(store, 2)
    clock.advance(WEEK + 1.0)
    await forget(store, one)
    assert await count(store, "documents") == 1
    await Documents(store).put(b"text")
    await forget(store, other)
    assert await count(store, "documents") == 1, "it was just taken in again"
    third = await finished(store, 3)
    clock.advance(WEEK + 1.0)
    await forget(store, third)
    assert await count(store, "documents") == 0


async def test_events_are_forgotten_when_their_threads_are_gone_but_the_last_of_each_source(
    store: Store, clock: ManualClock
) -> None:
    inbox = Inbox(store, max_queued=9)
    for number, source in ((1, "cron"), (2, "cron"), (3, "cron"), (1, "folder"), (2, "folder"), (3, "folder")):
        thread_id = await finished(store, number, source=source)
        if number != 2:
            await forget(store, thread_id)
    clock.advance(WEEK + 1.0)
    await inbox.keep("folder", ["1", "none"])
    assert await store.write(lambda connection: expiry.forget_events(connection, WEEK)) == 1
    assert await inbox.find("cron", "1") is None
    kept = [("cron", "2"), ("cron", "3"), ("folder", "1"), ("folder", "2"), ("folder", "3")]
    assert [await inbox.find(*each) is not None for each in kept] == [True] * 5
    assert await inbox.latest("cron") == "3"
    clock.advance(WEEK)
    assert await store.write(lambda connection: expiry.forget_events(connection, WEEK)) == 0
    clock.advance(1.0)
    assert await store.write(lambda connection: expiry.forget_events(connection, WEEK)) == 1, "that was kept"


async def test_leases_that_were_given_back_go_after_their_threads(store: Store, clock: ManualClock) -> None:
    leases = Leases(store)
    there = await finished(store)
    for thread_id in (there, "gone", "gone too"):
        await leases.release(await leases.acquire(thread_id))
    await leases.acquire("held")
    clock.advance(WEEK + 1.0)
    assert await store.write(lambda connection: expiry.forget_leases(connection, WEEK)) == 2
    left = await store.read(lambda connection: list(connection.execute("SELECT thread_id FROM leases")))
    assert sorted(row[0] for row in left) == sorted([there, "held"])
