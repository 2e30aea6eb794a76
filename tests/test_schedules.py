"""Whatever the services do for a while: once they are well, one sweep completes the thread, and nothing was lost."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from tests.servers.enrichment import EnrichmentServer
from tests.test_fault_matrix import FOR_GOOD, SLOW, cite
from tests.worlds import NamesByCapital
from tidegate import Pipeline, Settings
from tidegate.graph.result import Result
from tidegate.resilience.faults import FAULTS, During, FaultyChat, Schedule
from tidegate.testing import ManualClock

TEXT = "\n\n".join(
    f"it rained in {name} and {'the harbour was closed and the ships waited. ' * 25}"
    for name in ("Balan and Bemor", "Cirith and Dosund", "Fuwick")
)
PASSING = [fault for fault in FAULTS if fault not in FOR_GOOD and fault not in SLOW]
LATER = 7200.0
"""Seconds after which a sweep may ask for anything, whatever ailed it before."""

behaviours = st.sampled_from([200, *PASSING])
schedules = st.builds(
    Schedule,
    script=st.lists(behaviours, max_size=12),
    then=behaviours,
    outages=st.just(())
    | st.builds(During, st.floats(0.0, 10.0), st.floats(10.0, 2 * LATER, exclude_min=True)).map(lambda one: [one]),
    seed=st.none() | st.integers(0, 2**32),
    rate=st.floats(0.0, 1.0),
    faults=st.just(PASSING),
)


async def live(api: Schedule, model: Schedule, sweeps: int) -> None:
    """Run a document and sweep, by these schedules; then sweep once more, with services that are well."""
    clock = ManualClock(auto=True)
    chat = FaultyChat(model, says=cite, clock=clock)
    limits = {"concurrency": 2, "budget": 60.0, "attempt_timeout": 20.0}
    with EnrichmentServer(clock=clock) as server:
        options = Settings.read(
            checkpoints="memory:",
            enrichment={"adapter": "http", "url": server.url, "types": ["LOC"], "batch_size": 2, **limits},
            summary={"chunk_tokens": 400, **limits},
        )
        async with Pipeline.open(options, model=chat, recogniser=NamesByCapital(), clock=clock) as tidegate:

            async def swept() -> list[Result]:
                clock.advance(LATER)
                found = [each async for each in tidegate.backfill()]
                assert [each.error for each in found if each.error] == []
                return [each.result for each in found if each.result]

            server.follow(api)
            results = [await tidegate.run(text=TEXT, thread_id="t")]
            for _ in range(sweeps):
                results += await swept()
            server.follow(())
            chat.course.follow(())
            results += await swept()
            assert (results[-1].status, results[-1].missing) == ("complete", ())
            assert await swept() == []
            history = await tidegate.history("t")
    for earlier, later in pairwise(results):
        assert later.revision - earlier.revision in (0, 1)
        assert enriched(earlier) <= enriched(later)
    revisions = [entry.revision for entry in reversed(history)]
    assert revisions == sorted(revisions)
    assert revisions[-1] == results[-1].revision


def enriched(result: Result) -> set[str]:
    return {key for key, record in result.enrichments.items() if record.status == "enriched"}


SLOW_INPUT = [HealthCheck.too_slow, HealthCheck.data_too_large]


@pytest.mark.parametrize(
    "phases",
    [[Phase.explicit], pytest.param([Phase.generate, Phase.shrink], marks=pytest.mark.slow)],
    ids=["one", "many"],
)
def test_whatever_was_scheduled_a_sweep_completes_the_thread_and_revisions_only_grow(phases: list[Phase]) -> None:
    @settings(max_examples=150, deadline=None, phases=phases, suppress_health_check=SLOW_INPUT)
    @example(Schedule([200, 200, "garbage"], then=503), Schedule(["half body"], then=401), 1)
    @given(schedules, schedules, st.integers(0, 2))
    def sooner_or_later(api: Schedule, model: Schedule, sweeps: int) -> None:
        asyncio.run(live(api, model, sweeps))

    sooner_or_later()
