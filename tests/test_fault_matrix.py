"""Every fault of the kit, in every service, at every moment: runs end, say what they lack, and are completed later."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.servers.enrichment import EnrichmentServer
from tests.worlds import NamesByCapital
from tidegate import Pipeline, Settings
from tidegate.graph.result import Result
from tidegate.resilience.faults import FAULTS, Behaviour, Course, Delay, FaultyChat, Prompt, RetryAfter, Schedule
from tidegate.testing import ManualClock

NAMES = ["Balan", "Bemor", "Cirith", "Dosund", "Fuwick", "Galan", "Hemor", "Jirith"]
SHOWER = "the harbour was closed and the ships waited. " * 25
TEXT = "\n\n".join(f"it rained in {name} and {SHOWER}" for name in NAMES)
MOMENTS = ["at the first call", "in the middle of the fan-out", "during the probe"]
LONGEST = 10.0
"""Real seconds for one execution. Pauses pass on a clock that jumps, so only attempts that time out take any."""

FOR_GOOD: tuple[Behaviour, ...] = (400, "redirect loop")
"""What no repetition mends: the request is what is wrong, and stays so when the service is well."""

SLOW: tuple[Behaviour, ...] = ("hang", "stall", "slow drip", Delay(1.0))
"""What an attempt that times out is for, in real time."""

HEALINGS = ["backfill", "resume"]
CASES = [
    pytest.param(
        fault,
        moment,
        healing,
        id=f"{fault} {moment}, {healing}",
        marks=[] if (moment, healing) == (MOMENTS[0], HEALINGS[0]) else [pytest.mark.slow],
    )
    for moment in MOMENTS
    for healing in HEALINGS
    for fault in FAULTS
]

Begin = Callable[[Schedule], None]


def cite(prompt: str) -> str:
    """Say of the first passage of a prompt that it rained there."""
    passages = re.split(r"\n(?:Text|Notes):\n", prompt)[1]
    first = re.findall(r"\[(\d+)\]", passages)[0]
    return f"It rained there all day. [{first}]"


@asynccontextmanager
async def pipeline(fault: Behaviour, clock: ManualClock, url: str, model: FaultyChat | None) -> AsyncIterator[Pipeline]:
    limits = {"attempt_timeout": 0.2 if fault in SLOW else 10.0, "budget": 60.0, "concurrency": 2}
    enrichment: dict[str, Any] = {"adapter": "http", "url": url, "types": ["LOC"], "batch_size": 2, **limits}
    summary: dict[str, Any] = {"chunk_tokens": 400, **limits}
    settings = Settings(
        checkpoints="memory:",
        enrichment=enrichment if model is None else {"adapter": "none"},  # type: ignore[arg-type]
        summary=summary,  # type: ignore[arg-type]
    )
    async with Pipeline.open(settings, model=model, recogniser=NamesByCapital(), clock=clock) as opened:
        yield opened


async def in_time(work: Any) -> Result:
    async with asyncio.timeout(LONGEST):
        result: Result = await work
    return result


def check(result: Result, service: str) -> None:
    """Whatever there is not is listed, with its reason."""
    assert result.status == ("degraded" if result.missing else "complete")
    assert result.text
    assert all(item.why for item in result.missing)
    if service == "enrichment":
        found = {key for key, record in result.enrichments.items() if record.status == "enriched"}
        lacking = {item.id for item in result.missing}
        assert found | lacking == {entity.id for entity in result.entities}
        assert not found & lacking
    else:
        assert result.summary is not None
        assert result.summary.method == "llm" or result.missing


async def heal(tidegate: Pipeline, clock: ManualClock, healing: str, known: Result) -> Result:
    """Complete the thread, now that its service is well; a sweep finds what can be had, and leaves all else alone."""
    if healing == "resume":
        clock.advance(31.0)
        return await in_time(tidegate.resume("t"))
    clock.advance(301.0)  # what failed twice by itself is left alone for four minutes
    async with asyncio.timeout(LONGEST):
        swept = [each async for each in tidegate.backfill()]
    if not any(item.retryable for item in known.missing):
        assert swept == []
        return known
    [healed] = swept
    assert healed.result is not None, healed.error
    stored = await tidegate.inspect("t")
    assert (healed.result.status, healed.result.missing) == (stored.status, stored.missing)
    assert [each async for each in tidegate.backfill()] == []
    return healed.result


async def go_through(
    tidegate: Pipeline, clock: ManualClock, begin: Begin, service: str, moment: str, fault: Behaviour, healing: str
) -> None:
    """Run a document into the fault, heal the service, and complete the thread."""
    if moment == "during the probe":
        begin(Schedule(then=503))
        first = await in_time(tidegate.run(text=TEXT, thread_id="t"))
        assert (first.status, [report.state for report in await tidegate.circuits()]) == ("degraded", ["open"])
        clock.advance(31.0)
        begin(Schedule(then=fault))
        result = await in_time(tidegate.resume("t"))
    else:
        answered = [200] * 3 if moment == "in the middle of the fan-out" else []
        begin(Schedule(answered, then=fault))
        result = await in_time(tidegate.run(text=TEXT, thread_id="t"))
    check(result, service)

    begin(Schedule())
    healed = await heal(tidegate, clock, healing, result)
    check(healed, service)
    assert healed.revision >= result.revision
    if fault in FOR_GOOD and moment != "during the probe":
        assert healed.missing
    if fault in FOR_GOOD:
        assert not any(item.retryable for item in healed.missing)
    else:
        assert healed.status == "complete", healed.missing


@pytest.mark.parametrize(("fault", "moment", "healing"), CASES)
async def test_an_enrichment_api_that_misbehaves_costs_no_document(fault: Behaviour, moment: str, healing: str) -> None:
    clock = ManualClock(auto=True)
    with EnrichmentServer(clock=clock) as server:
        async with pipeline(fault, clock, server.url, None) as tidegate:
            await go_through(tidegate, clock, server.follow, "enrichment", moment, fault, healing)
        assert server.most_at_once <= 2


@pytest.mark.parametrize(("fault", "moment", "healing"), CASES)
async def test_a_model_that_misbehaves_costs_no_document(fault: Behaviour, moment: str, healing: str) -> None:
    clock = ManualClock(auto=True)
    model = FaultyChat(says=cite, clock=clock)
    async with pipeline(fault, clock, "", model) as tidegate:
        await go_through(tidegate, clock, model.course.follow, "model", moment, fault, healing)
    assert model.course.most_at_once <= 2


CANCELLED = [
    pytest.param(moment, service, marks=[] if moment == "during the probe" else [pytest.mark.slow])
    for moment in [*MOMENTS, "in the pause before a retry"]
    for service in ("enrichment", "model")
]


@pytest.mark.parametrize(("moment", "service"), CANCELLED)
async def test_a_run_that_is_cancelled_can_be_resumed_and_pays_nothing_twice(moment: str, service: str) -> None:
    """What was on its way, or was to be repeated, is asked again under its idempotency key, and nothing else is."""
    clock = ManualClock(auto=True)
    chat = FaultyChat(says=cite, clock=clock)
    model = chat if service == "model" else None
    with EnrichmentServer(clock=clock) as server:
        course: Course[Any] = server if model is None else chat.course
        async with pipeline(200, clock, server.url, model) as tidegate:
            if moment == "during the probe":
                course.follow(Schedule(then=503))
                await in_time(tidegate.run(text=TEXT, thread_id="t"))
                clock.advance(31.0)
                course.requests.clear()
            answered = 3 if moment in ("in the middle of the fan-out", "in the pause before a retry") else 0
            last: Behaviour = RetryAfter(20.0) if moment == "in the pause before a retry" else "hang"
            course.follow(Schedule([200] * answered, then=last))
            clock.auto = last == "hang"
            running = asyncio.ensure_future(tidegate.run(text=TEXT, thread_id="t"))
            alone = moment in ("during the probe", "in the pause before a retry")
            await asyncio.to_thread(course.wait_for, answered + (1 if alone else 2))
            if last != "hang":
                await clock.until_sleeping()
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            met = len(course.requests)
            assert (await tidegate.inspect("t")).status == "unfinished"

            course.follow(Schedule())
            clock.auto = True
            result = await in_time(tidegate.resume("t"))
            assert (result.status, result.missing) == ("complete", ())
        asked = [asked_of(request) for request in course.requests]
        settled = met - (1 if moment == "during the probe" else 2)  # all but what can be on its way at once
        assert not set(asked[:settled]) & set(asked[settled:])
        repeated = len(asked) - len(set(asked))
        assert repeated == met - settled if last == "hang" else repeated in (1, 2)


def asked_of(request: Any) -> tuple[str, ...]:
    """Return what a request asked, and under which idempotency key, where it can have one."""
    return (request.text,) if isinstance(request, Prompt) else (request.body, request.headers["idempotency-key"])
