"""A chat model names the entities: the policies while its circuit is open, and how what it did not bring is healed."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.worlds import NamesByCapital
from tidegate import Pipeline, Settings
from tidegate.errors import CircuitOpen, NotFound, SettingsError
from tidegate.graph.result import Result
from tidegate.resilience.faults import FAULTS, Behaviour, FaultyChat
from tidegate.resilience.faults.chat import Prompt
from tidegate.resilience.guard import Answer
from tidegate.state import JSON, Entity
from tidegate.testing import ManualClock

PLACES = ["Balan", "Bemor", "Cirith", "Dosund", "Fuwick"]
FILLER = "it rained and it went on for the whole day. " * 12
TEXT = "\n\n".join(f"In {name} it rained. {FILLER}" for name in PLACES)
"""Of which each paragraph is a part of its own."""


def says(prompt: str) -> str:
    if "You list the names" not in prompt:
        [first, *_] = re.findall(r"\[(\d+)\]", re.split(r"\n(?:Text|Notes):\n", prompt)[1])
        return f"It rained there all day. [{first}]"
    return json.dumps([{"text": name, "type": "LOC"} for name in PLACES if name in prompt.split("\n<data-", 1)[1]])


class Weather:
    """The model's weather: `recogniser` is what becomes of questions for names, from the one numbered `after` on."""

    def __init__(self, clock: ManualClock) -> None:
        self.recogniser: Behaviour = 200
        self.after = 0
        self.names: list[str] = []
        self.model = FaultyChat(self._meet, says=says, clock=clock)

    def _meet(self, prompt: Prompt) -> Behaviour:
        if "You list the names" not in prompt.text:
            return 200
        self.names.append(next(name for name in PLACES if f"In {name}" in prompt.text))
        return self.recogniser if len(self.names) > self.after else 200

    def fails(self, how: Behaviour = 503, *, after: int = 0) -> None:
        self.recogniser, self.after = how, after
        self.names.clear()

    def is_well(self) -> None:
        self.fails(200)


class Facts:
    """An enrichment API that knows everything and counts what it is asked."""

    name = source = "enrichment"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def covers(self, entity_type: str) -> bool:
        return True

    async def look_up(self, entity: Entity) -> Answer[JSON]:
        self.asked.append(entity.text)
        if entity.text == "nowhere":
            raise NotFound(self.name, "as scripted", attempts=1)
        return Answer({"about": entity.text}, 1)


class Tidegate:
    """A pipeline, its model, its API and its clock."""

    def __init__(self, pipeline: Pipeline, weather: Weather, facts: Facts, clock: ManualClock) -> None:
        self.pipeline, self.weather, self.facts, self.clock = pipeline, weather, facts, clock

    async def run(self, **options: Any) -> Result:
        return await self.pipeline.run(text=TEXT, thread_id="t", **options)

    async def history(self) -> list[str]:
        return [step for entry in reversed(await self.pipeline.history("t")) for step in entry.ran]


@asynccontextmanager
async def opened(
    weather: Weather, clock: ManualClock, *, checkpoints: str = "memory:", recogniser: Any = "model", **extraction: Any
) -> AsyncIterator[Tidegate]:
    section = {"concurrency": 1, "attempt_timeout": 5.0, **extraction}
    facts = Facts()
    settings = Settings(
        checkpoints=checkpoints,
        recogniser=recogniser,
        extraction=section,  # type: ignore[arg-type]
        summary={"chunk_tokens": 200, "concurrency": 2},  # type: ignore[arg-type]
    )
    async with Pipeline.open(settings, model=weather.model, enricher=facts, clock=clock) as pipeline:
        yield Tidegate(pipeline, weather, facts, clock)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(auto=True)


@pytest.fixture
def weather(clock: ManualClock) -> Weather:
    return Weather(clock)


@pytest.fixture(autouse=True)
def rules_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the local recogniser be the quick one that says `Bemor` alone, whatever is installed."""
    local = OneByCapital()
    monkeypatch.setattr("tidegate.graph.wiring.open_recogniser", lambda kind: local)


class OneByCapital(NamesByCapital):
    """A local recogniser that finds the first two places, and takes one more word for a place."""

    name = "local/1"

    async def recognise(self, document: Any) -> list[Entity]:
        return [each for each in await super().recognise(document) if each.text in ("In", "Balan", "Bemor")]


def texts(result: Result) -> set[str]:
    return {entity.text for entity in result.entities}


def lacks(result: Result) -> list[tuple[str, str, bool]]:
    return [(item.what, item.id, item.retryable) for item in result.missing]


def is_whole(tidegate: Tidegate, result: Result) -> bool:
    assert result.document is not None
    named = {result.document.slice(span) for entity in result.entities for span in entity.mentions}
    return (result.status, texts(result), named) == ("complete", set(PLACES), set(PLACES))


async def test_the_model_names_the_entities(weather: Weather, clock: ManualClock) -> None:
    async with opened(weather, clock) as tidegate:
        assert is_whole(tidegate, await tidegate.run())
        assert weather.names == PLACES
        assert (await tidegate.history())[:4] == ["__start__", "ingest", "gate_extraction", "extract"]


@pytest.mark.parametrize(
    "after",
    [
        pytest.param(0, id="at the first call"),
        pytest.param(2, id="in the middle"),
        pytest.param(4, id="at the last call", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("policy", ["degrade", "wait", "fail"])
async def test_an_outage_goes_by_the_policy_and_is_healed_by_resuming(
    weather: Weather, clock: ManualClock, policy: str, after: int
) -> None:
    weather.fails(after=after)
    async with opened(weather, clock, when_open=policy) as tidegate:
        if policy == "fail":
            with pytest.raises(CircuitOpen, match="recogniser"):
                await tidegate.run()
            stopped = await tidegate.pipeline.inspect("t")
            assert (stopped.status, stopped.next) == ("unfinished", ("gate_extraction",))
            assert stopped.retry_in == pytest.approx(30.0, abs=1.0)
        elif policy == "wait":
            stopped = await tidegate.run()
            assert (stopped.status, stopped.next) == ("waiting", ("await_recogniser",))
            assert stopped.reason == "extraction: circuit open"
        else:
            stopped = await tidegate.run()
            assert (stopped.status, stopped.revision) == ("degraded", 1)
            assert texts(stopped) == {"In", "Balan", "Bemor"}
            assert lacks(stopped) == [("extraction", "recogniser", True)]
            assert stopped.missing[0].attempts == after + 3
            assert stopped.summary is not None
        assert len(weather.names) == after + 3  # and then the circuit was open
        assert await in_time(tidegate.pipeline.inspect("t")) == stopped
        asked_before = len(tidegate.facts.asked)
        weather.is_well()
        clock.advance(31.0)
        healed = await tidegate.pipeline.resume("t")
        assert is_whole(tidegate, healed)
        assert weather.names == PLACES[after:]  # the parts that were answered are replayed
        if policy == "degrade":
            assert healed.revision == 2
            assert tidegate.facts.asked[asked_before:] == PLACES[2:]  # what is known of the others is kept
            assert len(healed.enrichments) == len(PLACES)


async def in_time(work: Any) -> Result:
    async with asyncio.timeout(10.0):
        result: Result = await work
    return result


async def test_an_open_circuit_costs_no_request_before_and_one_as_the_probe(
    weather: Weather, clock: ManualClock
) -> None:
    async with opened(weather, clock, concurrency=4) as tidegate:
        await tidegate.pipeline.force_circuit("recogniser", "open")
        first = await tidegate.run()
        assert (lacks(first), weather.names) == ([("extraction", "recogniser", True)], [])
        assert first.missing[0].why == "circuit open"
        await tidegate.pipeline.force_circuit("recogniser", None)
        weather.fails()
        assert (await tidegate.pipeline.resume("t")).status == "degraded"
        weather.fails()
        clock.advance(31.0)
        still = await tidegate.pipeline.resume("t")
        assert (lacks(still), still.revision) == ([("extraction", "recogniser", True)], 1)
        assert len(weather.names) == 1
        weather.is_well()
        clock.advance(31.0)
        assert is_whole(tidegate, await tidegate.pipeline.resume("t"))


async def test_a_sweep_heals_what_the_model_did_not_name(weather: Weather, clock: ManualClock) -> None:
    weather.fails()
    async with opened(weather, clock) as tidegate:
        await tidegate.run()
        assert [each async for each in tidegate.pipeline.backfill()] == []
        weather.is_well()
        clock.advance(31.0)
        [healed] = [each async for each in tidegate.pipeline.backfill()]
        assert healed.result is not None
        assert is_whole(tidegate, healed.result)
        assert [each async for each in tidegate.pipeline.backfill()] == []


async def test_a_sweep_brings_on_a_thread_that_waits_for_the_model(weather: Weather, clock: ManualClock) -> None:
    weather.fails()
    async with opened(weather, clock) as tidegate:
        assert (await tidegate.run(when_open="wait")).status == "waiting"
        weather.is_well()
        clock.advance(31.0)
        [healed] = [each async for each in tidegate.pipeline.backfill()]
        assert healed.result is not None
        assert is_whole(tidegate, healed.result)


async def test_on_a_graph_server_each_invocation_asks_the_model_anew(weather: Weather, clock: ManualClock) -> None:
    weather.fails("garbage")
    async with opened(weather, clock, attempts=1) as tidegate:
        graph = tidegate.pipeline.graph

        async def invoke() -> tuple[str, int]:
            state = await graph.ainvoke({"text": TEXT, "source": "a.txt"}, {"configurable": {"thread_id": "s"}})
            return state["outcome"]["status"], len(weather.names)

        assert await invoke() == ("degraded", 1)
        assert await invoke() == ("degraded", 2)
        weather.is_well()
        assert await invoke() == ("complete", len(PLACES))


async def test_a_model_that_answers_garbage_is_visited_five_times_in_all(weather: Weather, clock: ManualClock) -> None:
    weather.fails("garbage")
    async with opened(weather, clock, attempts=1, failure_threshold=100) as tidegate:
        result = await tidegate.run()
        for visit in range(1, 5):
            assert lacks(result) == [("extraction", "recogniser", True)]
            assert len(weather.names) == visit
            result = await tidegate.pipeline.resume("t")
        assert (lacks(result), result.revision, result.retry_in) == ([("extraction", "recogniser", False)], 1, None)
        await tidegate.pipeline.resume("t")
        assert len(weather.names) == 5


async def test_what_the_model_declines_is_left_to_the_local_recogniser_for_good(
    weather: Weather, clock: ManualClock
) -> None:
    weather.fails(400)
    async with opened(weather, clock) as tidegate:
        result = await tidegate.run()
        assert lacks(result) == [("extraction", "recogniser", False)]
        assert (texts(result), len(weather.names)) == ({"In", "Balan", "Bemor"}, 1)


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=str)
async def test_whatever_fault_the_model_has_the_run_ends_and_what_it_lacks_is_healed(
    weather: Weather, clock: ManualClock, fault: Behaviour
) -> None:
    weather.fails(fault, after=1)
    async with opened(weather, clock, attempt_timeout=0.5, budget=60.0, concurrency=2) as tidegate:
        result = await in_time(tidegate.run())
        assert result.status == ("degraded" if result.missing else "complete")
        assert weather.model.course.most_at_once <= 2
        weather.is_well()
        clock.advance(31.0)
        healed = await in_time(tidegate.pipeline.resume("t"))
        if fault in (400, "redirect loop"):  # what no repetition mends
            assert lacks(healed) == [("extraction", "recogniser", False)]
        else:
            assert is_whole(tidegate, healed)


async def test_a_crash_costs_the_call_in_flight_and_no_other(
    weather: Weather, clock: ManualClock, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/t.db"
    weather.fails("hang", after=3)
    async with opened(weather, clock, checkpoints=url, attempt_timeout=3600.0, budget=3600.0) as tidegate:
        running = asyncio.create_task(tidegate.run())
        await asyncio.to_thread(weather.model.course.wait_for, 4)
        running.cancel()
        await asyncio.wait([running])
    assert weather.names == PLACES[:4]
    weather.is_well()
    async with opened(weather, clock, checkpoints=url) as tidegate:
        assert is_whole(tidegate, await tidegate.pipeline.resume("t"))
        assert weather.names == PLACES[3:]


@pytest.mark.parametrize("policy", ["degrade", "wait", "fail"])
async def test_a_thread_that_lacks_the_models_names_goes_on_when_the_model_was_taken_out_of_the_settings(
    weather: Weather, clock: ManualClock, tmp_path: Path, policy: str
) -> None:
    url = f"sqlite:///{tmp_path}/t.db"
    weather.fails()
    async with opened(weather, clock, checkpoints=url, when_open=policy) as tidegate:
        try:
            await tidegate.run()
        except CircuitOpen:
            assert policy == "fail"
    clock.advance(31.0)
    async with opened(weather, clock, checkpoints=url, recogniser="auto") as tidegate:
        weather.fails()
        result = await tidegate.pipeline.resume("t")
        assert (result.status, texts(result), result.missing) == ("complete", {"In", "Balan", "Bemor"}, ())
        assert weather.names == []


async def test_without_it_the_graph_is_as_it_was(weather: Weather, clock: ManualClock) -> None:
    async with opened(weather, clock, recogniser="auto") as tidegate:
        assert (await tidegate.run()).status == "complete"
        assert (await tidegate.history())[:4] == ["__start__", "ingest", "extract", "gate_enrichment"]
        led_to = {edge.target for edge in tidegate.pipeline.graph.get_graph().edges}
        assert not led_to & {"gate_extraction", "await_recogniser", "extract_locally"}
        assert [report.name for report in await tidegate.pipeline.circuits()] == ["enrichment", "model"]


async def test_a_thread_that_was_extracted_before_is_not_extracted_again(
    weather: Weather, clock: ManualClock, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/t.db"
    async with opened(weather, clock, checkpoints=url, recogniser="auto") as tidegate:
        before = await tidegate.run()
    async with opened(weather, clock, checkpoints=url) as tidegate:
        assert await tidegate.pipeline.resume("t") == before
        assert weather.names == []


def test_the_model_as_a_recogniser_needs_a_model() -> None:
    opening = Pipeline.open_sync(Settings(checkpoints="memory:", recogniser="model"))
    with pytest.raises(SettingsError, match="recogniser 'model' needs a chat model; set TIDEGATE_MODEL"), opening:
        pass
