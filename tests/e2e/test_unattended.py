"""The service is killed again and again while all its sources send: every event ends as one thread, its result
delivered, and no answer is asked for twice.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path

import pytest

from tests.e2e.sources import AWS, Source, open_sources
from tests.e2e.unattended import Api, Service, document, names, send_all

EVENTS = 2000
KILLS = 20
IN_FLIGHT = 4
"""Look-ups that can be on their way at a kill: the `concurrency` of the enrichment."""


@pytest.mark.slow
async def test_2000_events_from_all_sources_outlast_20_kills(tmp_path: Path) -> None:
    chance = random.Random(6)  # noqa: S311 - a seed
    with Api() as api:
        async with open_sources(tmp_path) as sources:
            triggers = [source.settings for source in sources if source.settings]
            with Service(tmp_path, api, triggers, environ=AWS, concurrency=8) as service:
                await asyncio.to_thread(service.wait_until_ready)
                events = _shared_out(sources, EVENTS)
                sending = asyncio.gather(
                    *(send_all(source.sender(service), documents, chance) for source, documents in events)
                )
                await _kill_on_the_way(service, api, chance, kills=KILLS)
                await asyncio.wait_for(sending, 600.0)
                await _until(lambda: _is_over(service, EVENTS), 600.0)
                assert service.stop() == 0
                doctor = subprocess.run(
                    [sys.executable, "-m", "tidegate", "doctor"], cwd=tmp_path, capture_output=True, text=True
                )

    threads = dict(service.select("SELECT document_id, count(*) FROM threads GROUP BY 1"))
    assert service.statuses() == {"complete": EVENTS}
    assert set(threads.values()) == {1}
    assert {row[0] for row in service.select("SELECT revision FROM threads")} == {1}
    assert len({result["thread_id"] for result in service.delivered()}) == EVENTS
    assert doctor.returncode == 0, doctor.stdout
    assert service.starts == KILLS + 1
    assert api.asked.total() <= EVENTS + KILLS * IN_FLIGHT


def _shared_out(sources: list[Source], count: int) -> list[tuple[Source, dict[str, str]]]:
    """Give each source its share of the events: an ID and a document of its own for each."""
    places = islice(names(), count)
    documents = {f"event-{number}": document(name) for number, name in enumerate(places)}
    events = list(documents.items())
    return [(source, dict(events[at :: len(sources)])) for at, source in enumerate(sources)]


async def _kill_on_the_way(service: Service, api: Api, chance: random.Random, *, kills: int) -> None:
    """Kill it each time that about as many answers came, and see that none of them is asked for again."""
    paid: dict[str, int] = {}
    for number in range(1, kills + 1):
        await _until(partial(_has_asked, api, EVENTS * number // (kills + 1)), 300.0)
        await asyncio.sleep(chance.random() * 0.2)
        await asyncio.to_thread(service.kill)
        again = {name: api.asked[name] - count for name, count in paid.items() if api.asked[name] > count}
        assert not again, f"answers that were committed are asked for again: {again}"
        committed = service.select("SELECT idempotency_key FROM calls WHERE answered_at IS NOT NULL")
        paid |= api.answered(key for (key,) in committed)
        service.start()
        await asyncio.to_thread(service.wait_until_ready)


def _has_asked(api: Api, names: int) -> bool:
    return len(api.asked) >= names


def _is_over(service: Service, count: int) -> bool:
    return service.statuses() == {"complete": count} and not service.undelivered()


async def _until(holds: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not await asyncio.to_thread(holds):
        assert time.monotonic() < until, "it takes too long"
        await asyncio.sleep(0.05)
