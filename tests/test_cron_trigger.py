"""The cron trigger: when it fires, on a clock that is moved, set, and changed to summer time and back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.doors import Doorstep, opened_door, running
from tests.servers.enrichment import EnrichmentServer, Reply
from tidegate.errors import SettingsError, StoreUnavailable
from tidegate.settings.service import CronTrigger as CronSettings
from tidegate.testing import ManualClock
from tidegate.triggers.cron import CronTrigger
from tidegate.triggers.opening import open_trigger
from tidegate.triggers.schedule import Schedule

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC).timestamp()


def moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def fires(schedule: Schedule, after: str, count: int) -> list[str]:
    """The next times in UTC, as `03-29 01:00`."""
    times, time = list[str](), moment(after)
    for _ in range(count):
        time = schedule.after(time)
        times.append(datetime.fromtimestamp(time, UTC).strftime("%m-%d %H:%M"))
    return times


# The schedule


@pytest.mark.parametrize(
    ("expression", "zone", "after", "expected"),
    [
        # Spring: 2:00 to 3:00 is passed over; what is set for then runs when it is over, once.
        ("30 2 * * *", "Europe/Berlin", "2026-03-28T00:00Z", ["03-28 01:30", "03-29 01:00", "03-30 00:30"]),
        ("0,30 2,3 * * *", "Europe/Berlin", "2026-03-29T00:00Z", ["03-29 01:00", "03-29 01:30", "03-30 00:00"]),
        ("0 6 * * *", "Europe/Berlin", "2026-03-28T00:00Z", ["03-28 05:00", "03-29 04:00", "03-30 04:00"]),
        ("30 2 * * *", "America/New_York", "2026-03-07T00:00Z", ["03-07 07:30", "03-08 07:00", "03-09 06:30"]),
        ("*/30 * * * *", "America/New_York", "2026-03-08T06:00Z", ["03-08 06:30", "03-08 07:00", "03-08 07:30"]),
        # Autumn: 2:00 to 3:00, in New York 1:00 to 2:00, comes twice; what is set for then runs the first time.
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00Z", ["10-25 00:30", "10-26 01:30"]),
        ("30 2 * * *", "Europe/Berlin", "2026-10-25T01:10Z", ["10-26 01:30"]),
        ("30 1 * * *", "America/New_York", "2026-10-31T12:00Z", ["11-01 05:30", "11-02 06:30"]),
        ("*/30 * * * *", "Europe/Berlin", "2026-10-25T00:00Z", ["10-25 00:30", "10-25 01:00", "10-25 01:30"]),
        # Lord Howe Island moves by half an hour: 2:00 is 2:30 in October, and in April 1:30 comes twice.
        ("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00Z", ["10-03 15:30", "10-04 15:15"]),
        ("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T00:00Z", ["04-04 14:45", "04-05 15:15"]),
        ("*/30 * * * *", "Australia/Lord_Howe", "2026-04-04T14:29Z", ["04-04 14:30", "04-04 15:00", "04-04 15:30"]),
    ],
)
def test_a_time_of_the_day_comes_once_a_day_when_clocks_change(
    expression: str, zone: str, after: str, expected: list[str]
) -> None:
    assert fires(Schedule(expression, zone), after, len(expected)) == expected


@pytest.mark.slow
@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC", "Asia/Kathmandu"])
@pytest.mark.parametrize("expression", ["*/20 * * * *", "10 * * * *", "5,35 */3 * * *", "30 1 * * *", "15 2 * * *"])
def test_over_a_year_no_time_comes_twice_none_is_left_out_and_the_latest_is_always_known(
    expression: str, zone: str
) -> None:
    schedule = Schedule(expression, zone)
    minutes, hours = expression.split()[:2]
    times, time = list[float](), NEW_YEAR
    while time < NEW_YEAR + 366 * 86400:
        time = schedule.after(time)
        times.append(time)
    assert times == sorted(set(times))
    if hours.isdigit():  # a time of the day: once a day
        days = [datetime.fromtimestamp(each, ZoneInfo(zone)).date() for each in times]
        assert len(set(days)) == len(days)
        assert {after - before for before, after in pairwise(days)} == {timedelta(days=1)}
    elif minutes.startswith("*"):  # at a pace: whenever the clock shows it
        shown = [NEW_YEAR + 60.0 * minute for minute in range(1, 366 * 1440)]
        shown = [each for each in shown if datetime.fromtimestamp(each, ZoneInfo(zone)).minute % 20 == 0]
        assert times[: len(shown)] == shown
    for before, after in zip(times[:-1:97], times[1::97], strict=False):
        assert schedule.latest(before) == before
        assert schedule.latest(after - 0.5) == before
    for change in ("2026-03-29T00:30Z", "2026-10-25T00:30Z", "2026-11-01T05:30Z", "2026-04-04T14:30Z"):
        for minute in range(0, 180, 7):
            now = moment(change) + 60.0 * minute
            assert schedule.latest(now) == max(each for each in times if each <= now)


@pytest.mark.parametrize(
    ("setting", "value", "way_out"),
    [
        ("schedule", "0 0 30 2 *", "never fires"),
        ("schedule", "0 0 31 4,6,9,11 *", "never fires"),
        ("schedule", "61 * * * *", "Bad minute.*write minute, hour, day"),
        ("schedule", "every day", "write minute, hour, day"),
        ("schedule", "", "write minute, hour, day"),
        ("schedule", "@daily", "write minute, hour, day"),
        ("timezone", "Mars/Olympus", "there is no time zone 'Mars/Olympus'; name one as Europe/Berlin"),
        ("timezone", "../../etc/passwd", "there is no time zone"),
        ("timezone", "", "there is no time zone"),
        ("document", "-", "name a file or a URL"),
        ("document", "ftp://host/x", "give an http or https URL"),
        ("document", "http:///x", "give an http or https URL"),
        ("document", "a\0b", "name a file or a URL"),
    ],
)
def test_a_wrong_setting_is_told_with_the_way_out(setting: str, value: str, way_out: str) -> None:
    settings: dict[str, Any] = {"schedule": "0 6 * * *", "document": "x.txt", setting: value}
    with pytest.raises(SettingsError, match=rf"trigger 'cron': .*{way_out}"):
        open_trigger(CronSettings(kind="cron", **settings))


def test_lateness_is_the_same_everywhere_and_never_reaches_the_next_time() -> None:
    one, other = (Schedule("*/10 * * * *", "UTC", jitter=3600.0) for _ in range(2))
    times = [NEW_YEAR + 600.0 * number for number in range(200)]
    late = [one.lateness(time) for time in times]
    assert late == [other.lateness(time) for time in times]
    assert all(0.0 <= each < 600.0 for each in late)
    assert max(late) > 500.0
    assert min(late) < 100.0
    assert Schedule("*/10 * * * *", "UTC").lateness(NEW_YEAR) == 0.0


# The trigger


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(now=moment("2026-06-01T05:59:00Z"))


@pytest.fixture
async def at(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Doorstep]:
    async with opened_door(tmp_path / "store.db", clock) as doorstep:
        yield doorstep


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "prices.txt"
    path.write_text("prices")
    return path


def trigger_on(document: Path | str, **settings: Any) -> CronTrigger:
    made = open_trigger(CronSettings(kind="cron", document=str(document), **{"schedule": "0 6 * * *", **settings}))
    assert isinstance(made, CronTrigger)
    return made


async def go(clock: ManualClock, seconds: float, step: float = 30.0) -> None:
    """Let time pass in steps, and the trigger do in each what is due."""
    await asyncio.wait_for(clock.until_sleeping(), 20)
    while seconds > 0:
        clock.advance(min(step, seconds))
        seconds -= step
        await asyncio.sleep(0)
        await asyncio.wait_for(clock.until_sleeping(), 20)


def ids(at: Doorstep) -> list[str]:
    return [event.id for event in at.queue.events]


async def test_at_each_time_the_document_is_read_and_the_time_is_the_event(
    document: Path, at: Doorstep, clock: ManualClock
) -> None:
    async with running(trigger_on(document, timezone="Europe/Berlin"), at.door):
        await go(clock, 30)
        assert not at.queue.events
        await go(clock, 86400 - 30, step=80)
    assert ids(at) == ["2026-06-02T04:00:00Z"]
    assert at.documents == {str(document): b"prices"}
    assert at.queue.events[0].source == "cron"


async def test_it_fires_on_time_and_not_before(document: Path, at: Doorstep, clock: ManualClock) -> None:
    async with running(trigger_on(document), at.door):
        await go(clock, 59.5, step=7)
        assert not at.queue.events
        await go(clock, 1, step=1)
        assert ids(at) == ["2026-06-01T06:00:00Z"]


async def test_processes_that_run_one_schedule_make_one_thread_a_time_at_one_moment(
    document: Path, at: Doorstep, clock: ManualClock
) -> None:
    triggers = [trigger_on(document, schedule="0 * * * *", jitter=600.0) for _ in range(5)]
    async with contextlib.AsyncExitStack() as stack:
        for trigger in triggers:
            await stack.enter_async_context(running(trigger, at.door))
        for _ in range(300):
            await asyncio.wait_for(clock.until_sleeping(5), 20)
            clock.advance(60)
            await asyncio.sleep(0)
        await asyncio.wait_for(clock.until_sleeping(5), 20)
    assert [event.id for event in at.queue.new] == [f"2026-06-01T{hour:02}:00:00Z" for hour in range(6, 11)]


async def test_what_was_missed_while_nothing_ran_is_skipped_or_run_once(
    document: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for missed, expected in (("skip", []), ("once", ["2026-06-05T06:00:00Z"])):
        mine = ManualClock(now=moment("2026-06-01T05:59:00Z"))
        settings = {"name": missed, "missed": missed}
        async with opened_door(tmp_path / "store.db", mine) as at:
            async with running(trigger_on(document, **settings), at.door):
                await go(mine, 120)
            assert ids(at) == ["2026-06-01T06:00:00Z"]
            mine.advance(4 * 86400)
            for _ in range(2):
                async with running(trigger_on(document, **settings), at.door):
                    await go(mine, 120)
            assert ids(at)[1:] == expected
    assert len([record for record in caplog.records if "were missed" in record.getMessage()]) == 1


async def test_a_new_trigger_has_missed_nothing(document: Path, at: Doorstep, clock: ManualClock) -> None:
    async with running(trigger_on(document, missed="once"), at.door):
        await go(clock, 30)
    assert not at.queue.events


async def test_a_restart_between_a_time_and_its_jitter_loses_nothing(
    document: Path, at: Doorstep, clock: ManualClock
) -> None:
    settings = {"schedule": "0 * * * *", "jitter": 3000.0}
    late = Schedule("0 * * * *", "UTC", jitter=3000.0).lateness(moment("2026-06-01T06:00:00Z"))
    assert late > 120
    clock.advance(120)
    async with running(trigger_on(document, **settings), at.door):
        await go(clock, late - 70)
        assert not at.queue.events
        await go(clock, 60)
        assert ids(at) == ["2026-06-01T06:00:00Z"]


@pytest.mark.parametrize(("missed", "expected"), [("skip", []), ("once", ["2026-06-04T06:00:00Z"])])
async def test_a_machine_that_slept_for_days_does_what_is_set_and_no_more(
    missed: str, expected: list[str], document: Path, at: Doorstep, clock: ManualClock
) -> None:
    async with running(trigger_on(document, missed=missed), at.door):
        await clock.until_sleeping()
        clock.set_back(-(3 * 86400 + 3600))
        await go(clock, 120)
        assert ids(at) == expected
        await go(clock, 86400, step=80)
        assert ids(at) == [*expected, "2026-06-05T06:00:00Z"]


async def test_after_a_leap_of_the_clock_what_is_on_time_runs_and_there_is_no_storm(
    document: Path, at: Doorstep, clock: ManualClock
) -> None:
    async with running(trigger_on(document, schedule="* * * * *"), at.door):
        await go(clock, 60)
        clock.set_back(-86400)
        await go(clock, 60)
    assert ids(at) == ["2026-06-01T06:00:00Z", "2026-06-02T06:00:00Z", "2026-06-02T06:01:00Z"]


async def test_a_clock_that_is_set_back_repeats_nothing_and_goes_on(
    document: Path, at: Doorstep, clock: ManualClock
) -> None:
    async with running(trigger_on(document, schedule="*/10 * * * *"), at.door):
        await go(clock, 1800)
        assert len(ids(at)) == 3
        clock.set_back(3600)
        await go(clock, 3600)
        assert [event.id for event in at.queue.new] == [
            *[f"2026-06-01T06:{minute}0:00Z" for minute in range(3)],
            *[f"2026-06-01T05:{minute}0:00Z" for minute in range(3, 6)],
        ]
        assert at.queue.events == at.queue.new
        await go(clock, 600)
        assert ids(at)[-1] == "2026-06-01T06:30:00Z"


async def test_a_clock_that_was_years_ahead_does_not_stop_the_schedule(
    document: Path, at: Doorstep, clock: ManualClock
) -> None:
    async with running(trigger_on(document), at.door):
        clock.set_back(-3650 * 86400)
        await go(clock, 60)
        clock.set_back(3650 * 86400)
        await go(clock, 120)
    assert ids(at) == ["2036-05-29T06:00:00Z", "2026-06-01T06:00:00Z"]


async def test_a_document_that_cannot_be_read_is_tried_until_the_next_time(
    tmp_path: Path, at: Doorstep, clock: ManualClock
) -> None:
    path = tmp_path / "late.txt"
    async with running(trigger_on(path, schedule="0 * * * *"), at.door):
        await go(clock, 600)
        assert not at.queue.events
        path.write_text("brought")
        await go(clock, 600)
        assert at.documents == {str(path): b"brought"}
        path.unlink()
        await go(clock, 2 * 3600)
    assert ids(at) == ["2026-06-01T06:00:00Z", "2026-06-01T07:00:00Z"]
    assert "does not exist" in at.refused[0]
    assert sorted(record.status for record in await at.registry.threads()) == ["dead", "queued"]


async def test_a_document_that_never_will_be_readable_is_refused_at_once(
    tmp_path: Path, at: Doorstep, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    (tmp_path / "large.txt").write_bytes(bytes(100_001))
    async with EnrichmentServer(then=404) as server:
        for number, document in enumerate([str(tmp_path / "large.txt"), server.url]):
            async with running(trigger_on(document, schedule="* * * * *", name=f"t{number}"), at.door):
                await go(clock, 60)
    assert "is larger than 100000 bytes" in at.refused[0]
    assert "404" in at.refused[1]


async def test_a_document_at_a_url_is_read_with_its_media_type(
    at: Doorstep, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    page = Reply(body=b"<p>Hello", headers={"Content-Type": "text/html"})
    async with EnrichmentServer([503] * 4, then=page) as server, running(trigger_on(server.url), at.door):
        for _ in range(200):
            await go(clock, 5, step=5)
            if at.queue.new:
                break
    [event] = at.queue.new
    assert event.id == "2026-06-01T06:00:00Z"
    assert at.documents == {server.url: b"<p>Hello"}
    assert event.media_type == "text/html"  # type: ignore[union-attr]


async def test_a_store_that_is_away_is_waited_for(document: Path, at: Doorstep, clock: ManualClock) -> None:
    at.queue.failures = [StoreUnavailable("it is away") for _ in range(3)]
    async with running(trigger_on(document), at.door):
        await go(clock, 120, step=5)
    assert ids(at) == ["2026-06-01T06:00:00Z"]
