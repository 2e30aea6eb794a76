"""The policies, for each service, at each moment at which its circuit can open or a pause be asked for.

What was answered before is kept, what was not is listed or waited for, and the thread is completed later.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.servers.enrichment import EnrichmentServer
from tests.worlds import NamesByCapital
from tidegate import Pipeline, Settings
from tidegate.errors import CircuitOpen, Permanent, RateLimited, ServiceError
from tidegate.graph.result import Result
from tidegate.resilience.faults import Behaviour, Course, FaultyChat, RetryAfter, Schedule
from tidegate.settings import Policy
from tidegate.testing import ManualClock

NAMES = ["Balan", "Bemor", "Cirith", "Dosund", "Fuwick"]
FILLER = "it rained and it went on for the whole day. " * 12
TEXT = "\n\n".join(f"in {name} it rained. {FILLER}" for name in NAMES)
"""Of which each paragraph is a part of its own for a model."""

SERVICES = ["extraction", "enrichment", "summary"]
POLICIES: list[Policy] = ["degrade", "wait", "fail"]
MOMENTS = ["before the first call", "by the first calls", "in the middle", "by the probe", "in a pause"]
STEPS = {"extraction": "await_recogniser", "enrichment": "await_enrichment", "summary": "await_model"}


def says(prompt: str) -> str:
    if "You list the names" in prompt:
        return json.dumps([{"text": name, "type": "LOC"} for name in NAMES if name in prompt.split("\n<data-", 1)[1]])
    [first, *_] = re.findall(r"\[(\d+)\]", re.split(r"\n(?:Text|Notes):\n", prompt)[1])
    return f"It rained there all day. [{first}]"


@pytest.fixture(autouse=True)
def local_recogniser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidegate.graph.wiring.open_recogniser", lambda kind: NamesByCapital())


@asynccontextmanager
async def pipeline_with(
    service: str, clock: ManualClock, when_open: Policy
) -> AsyncIterator[tuple[Pipeline, Course[Any]]]:
    """A pipeline of which this service alone is asked, one call at a time, and the course of that service."""
    section: dict[str, Any] = {"when_open": when_open, "concurrency": 1, "budget": 60.0, "batch_size": 2}
    chat = FaultyChat(says=says, clock=clock)
    with EnrichmentServer(clock=clock) as server:
        sections: dict[str, Any] = {"enrichment": {"adapter": "none"}, "summary": {"chunk_tokens": 200}}
        if service == "enrichment":
            sections[service] = {"adapter": "http", "url": server.url, "types": ["LOC"], **section}
        else:
            del section["batch_size"]
            sections.setdefault(service, {}).update(section)
        settings = Settings(
            checkpoints="memory:", recogniser="model" if service == "extraction" else "rules", **sections
        )
        async with Pipeline.open(
            settings,
            model=None if service == "enrichment" else chat,
            recogniser=None if service == "extraction" else NamesByCapital(),
            clock=clock,
        ) as pipeline:
            if service == "extraction":
                await only_names(pipeline)
            yield pipeline, server if service == "enrichment" else chat.course


async def only_names(pipeline: Pipeline) -> None:
    """Let the summary be none of the model's: its circuit is held open."""
    await pipeline.force_circuit("model", "open")


async def bring_to(moment: str, pipeline: Pipeline, course: Course[Any], clock: ManualClock, circuit: str) -> None:
    """Let the service be such that its circuit opens, or a pause is asked for, at this moment of the next execution."""
    answered: list[Behaviour] = [200] * 2 if moment == "in the middle" else []
    fault: Behaviour = RetryAfter(1000.0) if moment == "in a pause" else 503
    if moment in ("before the first call", "by the probe"):
        course.follow(Schedule(then=503))
        with_another = pipeline.run(text=f"{TEXT}\n\nElsewhere too.", thread_id="other", when_open="degrade")
        assert (await with_another).status == "degraded"
        states = {report.name: report.state for report in await pipeline.circuits()}
        assert states[circuit] == "open"
        if moment == "by the probe":
            clock.advance(31.0)
    course.follow(Schedule(answered, then=fault))
    course.requests.clear()


def lacking(result: Result, service: str) -> list[Any]:
    return [item for item in result.missing if item.what == service]


@pytest.mark.parametrize("when_open", POLICIES)
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("service", SERVICES)
async def test_what_an_open_circuit_means(service: str, moment: str, when_open: Policy) -> None:
    clock = ManualClock(auto=True)
    circuit = {"extraction": "recogniser", "summary": "model"}.get(service, service)
    async with pipeline_with(service, clock, when_open) as (pipeline, course):
        await bring_to(moment, pipeline, course, clock, circuit)
        requests = {"before the first call": 0, "by the first calls": 3, "in the middle": 5}.get(moment, 1)
        stops_at = when_open if moment != "in a pause" or when_open == "fail" else "degrade"  # `wait` is for circuits
        if stops_at == "fail":
            error: type[ServiceError] = RateLimited if moment == "in a pause" else CircuitOpen
            with pytest.raises(error):
                await pipeline.run(text=TEXT, thread_id="t")
            result = await pipeline.inspect("t")
            assert (result.status, result.next) == ("unfinished", (f"gate_{service}",))
            assert result.retry_in is not None
            assert result.retry_in > 0.0
        else:
            result = await pipeline.run(text=TEXT, thread_id="t")
            if stops_at == "wait":
                assert (result.status, result.next) == ("waiting", (STEPS[service],))
            else:
                assert result.status == "degraded"
                assert lacking(result, service)
                assert all(item.retryable for item in lacking(result, service))
                assert result.text
        assert len(course.requests) == requests
        if service == "enrichment":  # partial results are kept
            found = [record for record in result.enrichments.values() if record.status == "enriched"]
            assert len(found) == (2 if moment == "in the middle" else 0)

        course.follow(Schedule())
        course.requests.clear()
        clock.advance(1001.0 if moment == "in a pause" else 31.0)
        done = await pipeline.resume("t")
        assert (done.status, lacking(done, service)) == (
            "degraded" if service == "extraction" else "complete",  # whose summary nobody may write
            [],
        )
        everything = {"extraction": 5, "enrichment": 5, "summary": 6}[service]  # five parts, and the summary of notes
        assert len(course.requests) == everything - (2 if moment == "in the middle" else 0)


@pytest.mark.parametrize("moment", ["before the first call", "by the first calls"])
@pytest.mark.parametrize("service", SERVICES)
async def test_the_policy_of_one_execution_takes_the_place_of_the_service_s(service: str, moment: str) -> None:
    clock = ManualClock(auto=True)
    circuit = {"extraction": "recogniser", "summary": "model"}.get(service, service)
    async with pipeline_with(service, clock, "fail") as (pipeline, course):
        await bring_to(moment, pipeline, course, clock, circuit)
        assert (await pipeline.run(text=TEXT, thread_id="t", when_open="wait")).status == "waiting"
        assert (await pipeline.resume("t", when_open="degrade")).status == "degraded"


REFUSED = {"Balan": 400, "Bemor": 422, "Cirith": 400, "Dosund": 503}


def by_name(request: Any) -> Behaviour:
    return REFUSED.get(request.json["text"], 200)


@asynccontextmanager
async def with_quorum(share: float | None, **options: Any) -> AsyncIterator[tuple[Pipeline, EnrichmentServer]]:
    clock = ManualClock(auto=True)
    with EnrichmentServer(by_name, clock=clock) as server:
        section = {"adapter": "http", "url": server.url, "types": ["LOC"], "concurrency": 1, "batch_size": 1}
        settings = Settings(
            checkpoints="memory:",
            enrichment={**section, "max_failed_share": share, **options},  # type: ignore[arg-type]
        )
        async with Pipeline.open(settings, recogniser=NamesByCapital(), clock=clock) as pipeline:
            yield pipeline, server


@pytest.mark.parametrize("share", [None, 0.6, 1.0])
async def test_as_many_entities_may_fail_for_good_as_is_allowed(share: float | None) -> None:
    async with with_quorum(share) as (pipeline, _):
        result = await pipeline.run(text=TEXT, thread_id="t")
        assert result.status == "degraded"
        assert sum(not item.retryable for item in result.missing) == 3


async def test_more_of_them_fail_the_thread_and_what_the_others_brought_is_kept() -> None:
    async with with_quorum(0.5) as (pipeline, server):
        with pytest.raises(Permanent) as raised:
            await pipeline.run(text=TEXT, thread_id="t")
        assert str(raised.value) == (
            "enrichment: 3 of 5 entities failed for good (most often: permanent: answered 400 Bad Request), and "
            "enrichment.max_failed_share allows 50%; raise it and resume the thread, or mend the requests and run the "
            "document again with --fresh"
        )
        stopped = await pipeline.inspect("t")
        assert (stopped.status, stopped.next, stopped.revision) == ("unfinished", ("gate_enrichment",), 0)
        assert [record.status for record in stopped.enrichments.values()].count("enriched") == 1
        [record] = await pipeline.threads()
        assert record.status == "failed"
        server.requests.clear()
        with pytest.raises(Permanent):
            await pipeline.resume("t")
        assert server.requests == []


async def test_what_may_yet_be_had_is_not_failed_for_good() -> None:
    async with with_quorum(0.6, failure_threshold=99) as (pipeline, _):
        result = await pipeline.run(text=TEXT, thread_id="t")
        assert sorted(item.retryable for item in result.missing) == [False, False, False, True]


async def test_what_was_published_is_not_taken_back_by_it() -> None:
    async with with_quorum(0.79, failure_threshold=99, attempts=1) as (pipeline, _):
        result = await pipeline.run(text=TEXT, thread_id="t")
        assert result.status == "degraded"
        for _ in range(6):  # until Dosund was visited as often as it may
            result = await pipeline.resume("t")
        assert [item.retryable for item in result.missing] == [False] * 4
        assert result.status == "degraded"
