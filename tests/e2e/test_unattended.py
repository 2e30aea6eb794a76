"""The service is killed again and again while all its sources send: every event ends as one thread, its result
delivered, and no answer is asked for twice.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from pathlib import Path

import pytest

from tests.e2e.sources import AWS, PERIOD, Source, open_sources
from tests.e2e.unattended import Api, Send, Service, document, names, send_all

EVENTS = 2000
KILLS = 20
IN_FLIGHT = 4
"""Look-ups that can be on their way at a kill: the `concurrency` of the enrichment."""

Downtime = tuple[datetime, datetime]
"""From a kill until the service is ready again."""


@pytest.mark.slow
async def test_2000_events_from_all_sources_outlast_20_kills(tmp_path: Path) -> None:
    chance = random.Random(6)  # noqa: S311 - a seed
    with Api() as api:
        async with open_sources(tmp_path) as sources:
            triggers = [source.settings for source in sources if source.settings]
            with Service(tmp_path, api, triggers, environ=AWS, concurrency=8) as service:
                await asyncio.to_thread(service.wait_until_ready)
                events = _shared_out(service, sources, EVENTS)
                sending = asyncio.gather(*(send_all(send, documents, chance) for send, documents in events))
                downtimes = await _kill_on_the_way(service, api, chance, kills=KILLS)
                await asyncio.wait_for(sending, 600.0)
                await _until(lambda: _is_between_times() and _is_over(service, EVENTS), 600.0)
                stopped = datetime.now(UTC)
                assert service.stop() == 0
                doctor = subprocess.run(
                    [sys.executable, "-m", "tidegate", "doctor"], cwd=tmp_path, capture_output=True, text=True
                )

    fires = service.fires()
    threads = service.select("SELECT thread_id, document_id FROM threads")
    of_schedule = set(service.select("SELECT thread_id FROM inbox WHERE source = 'cron'"))
    documents = Counter(document for thread, document in threads if (thread,) not in of_schedule)
    assert service.statuses() == {"complete": EVENTS + len(fires)}
    assert len(of_schedule) == len(fires)
    assert set(documents.values()) == {1}
    assert [time for time in fires if time.timestamp() % PERIOD] == []
    assert _lost(fires, downtimes, stopped) == []
    assert {row[0] for row in service.select("SELECT revision FROM threads")} == {1}
    assert len({result["thread_id"] for result in service.delivered()}) == EVENTS + len(fires)
    assert doctor.returncode == 0, doctor.stdout
    assert service.starts == KILLS + 1
    assert api.asked.total() <= EVENTS + 1 + KILLS * IN_FLIGHT  # the one: the schedule's document is always the same


def _shared_out(service: Service, sources: list[Source], count: int) -> list[tuple[Send, dict[str, str]]]:
    """Give each source that is sent to its share of the events: an ID and a document of its own for each."""
    places = islice(names(), count)
    documents = {f"event-{number}": document(name) for number, name in enumerate(places)}
    events = list(documents.items())
    senders = [source.sender(service) for source in sources if source.sender]
    return [(send, dict(events[at :: len(senders)])) for at, send in enumerate(senders)]


async def _kill_on_the_way(service: Service, api: Api, chance: random.Random, *, kills: int) -> list[Downtime]:
    """Kill it each time that about as many answers came, and see that none of them is asked for again."""
    paid: dict[str, int] = {}
    downtimes: list[Downtime] = []
    for number in range(1, kills + 1):
        await _until(partial(_has_asked, api, EVENTS * number // (kills + 1)), 300.0)
        await asyncio.sleep(chance.random() * 0.2)
        killed = datetime.now(UTC)
        await asyncio.to_thread(service.kill)
        again = {name: api.asked[name] - count for name, count in paid.items() if api.asked[name] > count}
        assert not again, f"answers that were committed are asked for again: {again}"
        committed = service.select("SELECT idempotency_key FROM calls WHERE answered_at IS NOT NULL")
        paid |= api.answered(key for (key,) in committed)
        service.start()
        await asyncio.to_thread(service.wait_until_ready)
        downtimes.append((killed, datetime.now(UTC)))
    return downtimes


def _lost(fires: dict[datetime, datetime], downtimes: list[Downtime], until: datetime) -> list[datetime]:
    """Return the times since the first fire that did not run, but for those that a restart passed over: until the kill
    none of the later ones was taken in, and before the restart another one came, of which the last runs.
    """
    period, leeway = timedelta(seconds=PERIOD), timedelta(seconds=1)
    first = min(fires)
    times = [first + n * period for n in range((until - first) // period + 1)]

    def passed_over(time: datetime, downtime: Downtime) -> bool:
        killed, ready = downtime
        in_time = [later for later, taken in fires.items() if later > time and taken < killed]
        return not in_time and time + period < ready + leeway

    return [time for time in times if time not in fires and not any(passed_over(time, each) for each in downtimes)]


def _is_between_times() -> bool:
    """Say whether the schedule's last time is over, and the next one far enough away to stop before it."""
    return 1.0 < time.time() % PERIOD < PERIOD / 2


def _has_asked(api: Api, names: int) -> bool:
    return len(api.asked) >= names


def _is_over(service: Service, count: int) -> bool:
    return service.statuses() == {"complete": count + len(service.fires())} and not service.undelivered()


async def _until(holds: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not await asyncio.to_thread(holds):
        assert time.monotonic() < until, "it takes too long"
        await asyncio.sleep(0.05)
