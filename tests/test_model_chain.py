"""Several chat models, each behind a circuit of its own: the next is asked where the one before cannot be."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.worlds import NamesByCapital
from tidegate import Pipeline, Settings
from tidegate.cli.progress import Progress
from tidegate.errors import CircuitOpen, RateLimited, SettingsError
from tidegate.graph.execution import Executions
from tidegate.graph.result import Result
from tidegate.graph.wiring import connect
from tidegate.nodes.ingest import cleared
from tidegate.resilience.faults import Behaviour, FaultyChat, RetryAfter, Schedule
from tidegate.settings import Policy, in_force
from tidegate.state import State
from tidegate.testing import ManualClock

TEXT = "it rained in Balan, and the ships waited for the whole day."


def says(prompt: str) -> str:
    [first, *_] = re.findall(r"\[(\d+)\]", re.split(r"\n(?:Text|Notes):\n", prompt)[1])
    return f"It rained in Balan all day. [{first}]"


class Chain:
    """A pipeline with two models, `first` and `second`, and their clock."""

    def __init__(self, pipeline: Pipeline, models: list[FaultyChat], clock: ManualClock) -> None:
        self.pipeline, self.clock = pipeline, clock
        self.first, self.second = models

    def do(self, first: Behaviour, second: Behaviour) -> None:
        """From now on, answer like this."""
        self.first.course.follow(Schedule(then=first))
        self.second.course.follow(Schedule(then=second))
        for model in (self.first, self.second):
            model.course.requests.clear()

    @property
    def asked(self) -> tuple[int, int]:
        """The requests to each, since the last `do`."""
        return len(self.first.course.requests), len(self.second.course.requests)

    async def run(self, **options: Any) -> Result:
        return await self.pipeline.run(text=TEXT, thread_id="t", **options)

    async def resume(self, **options: Any) -> Result:
        return await self.pipeline.resume("t", **options)

    async def reasons(self) -> list[str]:
        history = await self.pipeline.history("t")
        return [entry.reason for entry in reversed(history) if entry.ran == ("gate_summary",)]


@asynccontextmanager
async def chain(first: Behaviour = 200, second: Behaviour = 200, **summary: Any) -> AsyncIterator[Chain]:
    clock = ManualClock(auto=True)
    models = [FaultyChat(says=says, clock=clock) for _ in range(2)]
    for name, model in zip(("big", "small"), models, strict=True):
        model.model_name = name
    settings = Settings(checkpoints="memory:", enrichment={"adapter": "none"}, summary=summary)  # type: ignore[arg-type]
    async with Pipeline.open(settings, model=models, recogniser=NamesByCapital(), clock=clock) as pipeline:
        opened = Chain(pipeline, models, clock)
        opened.do(first, second)
        yield opened


def model_of(result: Result) -> str | None:
    assert result.summary is not None
    return result.summary.model


async def states(opened: Chain) -> dict[str, str]:
    return {report.name: report.state for report in await opened.pipeline.circuits()}


async def test_the_first_model_is_asked_while_it_answers() -> None:
    async with chain() as opened:
        result = await opened.run()
        assert (result.status, model_of(result), opened.asked) == ("complete", "tidegate:big", (1, 0))
        assert await opened.reasons() == ["model: circuit closed"]


async def test_while_the_first_circuit_is_open_the_second_model_is_asked_and_the_result_is_complete() -> None:
    async with chain(first=503) as opened:
        result = await opened.run()
        assert (result.status, result.missing, model_of(result)) == ("complete", (), "tidegate:small")
        assert opened.asked == (3, 1)
        assert await states(opened) == {"model": "open", "model-2": "closed"}
        assert await opened.reasons() == ["model: circuit closed", "model: circuit open; model-2: circuit closed"]
        await opened.pipeline.run(text=f"{TEXT} And on.", thread_id="u")
        assert opened.asked == (3, 2)


async def test_on_a_graph_server_each_invocation_asks_anew_every_model_that_failed_before() -> None:
    async with chain(first=500, second=500, attempts=1) as opened:
        graph = opened.pipeline.graph

        async def invoke() -> tuple[str, tuple[int, int]]:
            state = await graph.ainvoke({"text": TEXT, "source": "a.txt"}, {"configurable": {"thread_id": "s"}})
            return state["outcome"]["status"], opened.asked

        assert await invoke() == ("degraded", (1, 1))
        assert await invoke() == ("degraded", (2, 2))
        opened.do(500, 200)
        opened.clock.advance(31.0)
        assert await invoke() == ("complete", (1, 1))


async def test_a_summary_by_the_second_model_is_not_written_again_when_the_first_one_is_back() -> None:
    async with chain(first=503) as opened:
        await opened.run()
        opened.do(200, 200)
        opened.clock.advance(31.0)
        assert [each async for each in opened.pipeline.backfill()] == []
        assert model_of(await opened.resume()) == "tidegate:small"
        assert opened.asked == (0, 0)


@pytest.mark.parametrize("policy", ["degrade", "wait"])
async def test_a_sweep_leaves_a_thread_alone_while_the_only_model_that_may_help_is_down(
    policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    advance, visits = Executions.advance, 0

    async def counted(*arguments: Any, **options: Any) -> Result:
        nonlocal visits
        visits += 1
        return await advance(*arguments, **options)

    async with chain(first=400, second=503, reset_timeout=300.0) as opened:
        result = await opened.run(when_open=policy)
        assert result.status == ("waiting" if policy == "wait" else "degraded")
        opened.do(200, 200)
        monkeypatch.setattr(Executions, "advance", counted)
        async for healed in opened.pipeline.backfill(watch=True):
            assert healed.result is not None
            if healed.result.status == "complete":
                break
        assert (visits, opened.asked) == (2, (0, 1))


@pytest.mark.parametrize("failure", [400, 500, "garbage", RetryAfter(1000.0)])
async def test_a_model_that_fails_by_itself_hands_over_to_the_next(failure: Behaviour) -> None:
    async with chain(first=failure, failure_threshold=9) as opened:
        result = await opened.run()
        assert (result.status, model_of(result)) == ("complete", "tidegate:small")
        assert await opened.reasons() == ["model: circuit closed", "model: the model failed; model-2: circuit closed"]


async def test_where_none_can_be_asked_the_result_says_why_for_each_and_when_one_may_be() -> None:
    async with chain(first=503, second=400) as opened:
        result = await opened.run()
        assert (result.status, model_of(result)) == ("degraded", None)
        [missing] = result.missing
        assert (missing.what, missing.id, missing.retryable) == ("summary", "model", True)
        assert missing.why == (
            "model: answered 503 Service Unavailable, then the circuit was open; "
            "model-2: permanent: answered 400 Bad Request"
        )
        assert missing.attempts == 4
        assert result.retry_in == pytest.approx(30.0, abs=1.0)
        opened.do(200, 200)
        assert (await opened.resume()).status == "degraded"
        assert opened.asked == (0, 0)
        opened.clock.advance(31.0)
        healed = await opened.resume()
        assert (healed.status, healed.revision, model_of(healed)) == ("complete", 2, "tidegate:big")
        assert opened.asked == (1, 0)


async def test_a_sweep_heals_by_whichever_model_is_back() -> None:
    async with chain(first=503, second=503) as opened:
        assert (await opened.run()).status == "degraded"
        opened.do(503, 200)
        opened.clock.advance(31.0)
        [healed] = [each async for each in opened.pipeline.backfill()]
        assert healed.result is not None
        assert (healed.result.status, model_of(healed.result)) == ("complete", "tidegate:small")
        assert opened.asked == (1, 1)  # the first one's probe, and the summary


async def test_a_sweep_leaves_a_thread_alone_that_waits_for_the_one_model_that_may_write_it() -> None:
    async with chain(first=400, second=503) as opened:
        assert (await opened.run()).status == "degraded"
        opened.do(200, 503)
        for _ in range(3):
            [*swept] = [each async for each in opened.pipeline.backfill()]
            assert swept == []
            opened.clock.advance(15.0)
        opened.do(200, 200)
        opened.clock.advance(20.0)
        [healed] = [each async for each in opened.pipeline.backfill()]
        assert healed.result is not None
        assert model_of(healed.result) == "tidegate:small"
        assert opened.asked == (0, 1)


async def test_under_wait_the_thread_waits_only_while_no_model_can_be_asked() -> None:
    async with chain(first=503, second=503, when_open="wait") as opened:
        waiting = await opened.run()
        assert (waiting.status, waiting.next) == ("waiting", ("await_model",))
        assert waiting.reason == "summary: model: circuit open; model-2: circuit open"
        opened.do(503, 200)
        opened.clock.advance(31.0)
        done = await opened.resume()
        assert (done.status, model_of(done)) == ("complete", "tidegate:small")


async def test_under_wait_a_thread_waits_for_the_models_that_may_yet_write_it() -> None:
    async with chain(first=400, second=503, when_open="wait") as opened:
        waiting = await opened.run()
        assert waiting.status == "waiting"
        assert waiting.retry_in == pytest.approx(30.0, abs=1.0)
        assert (await opened.resume()).status == "waiting"  # though the first one's circuit lets calls through
        opened.do(200, 200)
        opened.clock.advance(31.0)
        assert model_of(await opened.resume()) == "tidegate:small"
        assert opened.asked == (0, 1)


async def test_under_fail_the_thread_fails_only_while_no_model_can_be_asked() -> None:
    async with chain(first=503, when_open="fail") as opened:
        assert (await opened.run()).status == "complete"
    async with chain(first=503, second=503, when_open="fail") as opened:
        with pytest.raises(CircuitOpen, match="circuit open"):
            await opened.run()
        opened.do(503, 200)
        opened.clock.advance(31.0)
        assert model_of(await opened.resume()) == "tidegate:small"


async def test_under_fail_a_pause_that_every_model_asks_for_fails_the_thread() -> None:
    async with chain(first=RetryAfter(1000.0), second=RetryAfter(500.0), when_open="fail") as opened:
        with pytest.raises(RateLimited) as raised:
            await opened.run()
        assert raised.value.retry_after == pytest.approx(500.0, abs=5.0)
        opened.do(200, 200)
        opened.clock.advance(501.0)
        assert model_of(await opened.resume()) == "tidegate:small"


async def test_progress_says_why_a_model_did_not_summarize() -> None:
    async with chain(first=400) as opened:
        events = [event async for event in opened.pipeline.stream(text=TEXT, thread_id="t")]
        [first, _] = [event for event in events if event.kind == "finished" and event.step == "summarize"]
        assert first.detail["failed"] == "permanent: answered 400 Bad Request"


async def test_progress_says_which_model_is_asked_next_and_which_one_wrote(capsys: pytest.CaptureFixture[str]) -> None:
    async with chain(first=503) as opened:
        with Progress(shown=True) as progress:
            async for event in opened.pipeline.stream(text=TEXT, thread_id="t"):
                progress.show(event)
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().err.splitlines()]
    told = [text for step, text in lines if step in ("gate_summary", "summarize")]
    assert told[0] == "-> summarize (model: circuit closed)"
    assert told[1].startswith("failed: ")
    assert told[2] == "-> summarize (model: circuit open; model-2: circuit closed)"
    assert told[3].endswith(", by tidegate:small")


def test_another_document_in_the_same_thread_begins_without_failures() -> None:
    assert {"summary_failures", "extraction_failure"} <= cleared().keys() <= State.__annotations__.keys()


async def test_each_circuit_can_be_reset_by_its_name() -> None:
    async with chain(first=503, second=503) as opened:
        await opened.run()
        await opened.pipeline.force_circuit("model-2", None)
        assert await states(opened) == {"model": "open", "model-2": "closed"}
        with pytest.raises(SettingsError, match="enrichment, model, model-2, recogniser"):
            await opened.pipeline.force_circuit("model-3", None)


async def test_a_thread_of_a_chain_that_became_shorter_is_written_by_what_is_left() -> None:
    async with chain(first=503) as opened:
        opened.pipeline.graph.interrupt_before_nodes = ["summarize"]
        await opened.run()
        stopped = await opened.resume()
        assert stopped.next == ("summarize",)
        opened.pipeline._executions._graph.nodes["summarize"] = one_model(opened.first, opened.clock).nodes["summarize"]
        opened.pipeline.graph.interrupt_before_nodes = []
        opened.do(200, 200)
        assert model_of(await opened.resume()) == "tidegate:big"


def one_model(model: FaultyChat, clock: ManualClock) -> Any:
    from tidegate.graph.pipeline import build_graph

    settings = Settings(checkpoints="memory:", enrichment={"adapter": "none"})  # type: ignore[arg-type]
    return build_graph(connect(settings, model=model, clock=clock).services, settings).compile()


def names(settings: Settings) -> Iterable[str]:
    return [getattr(writer.summarizer, "model", "") for writer in connect(settings).services.writers]


def test_fallbacks_are_named_by_strings_or_tables_with_options_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "first")
    monkeypatch.setenv(
        "TIDEGATE_SUMMARY__FALLBACKS", '["openai:gpt-b", {"model": "openai:gpt-c", "options": {"api_key": "third"}}]'
    )
    settings = Settings.read(model="openai:gpt-a", checkpoints="memory:")
    assert names(settings) == ["openai:gpt-a", "openai:gpt-b", "openai:gpt-c"]
    [shown] = [each.value for each in in_force(settings) if each.name == "summary.fallbacks"]
    assert shown == "{model: openai:gpt-b, options: {}}, {model: openai:gpt-c, options: {api_key: (hidden)}}"


def test_options_of_the_model_are_not_those_of_its_fallbacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    settings = Settings.read(
        model="openai:gpt-a",
        checkpoints="memory:",
        summary={"options": {"temperature": 0.5}, "fallbacks": ["openai:gpt-b"]},
    )
    writers: list[Any] = [writer.summarizer for writer in connect(settings).services.writers]
    assert [writer._chat.options for writer in writers] == [{"temperature": 0.5}, {}]


def test_fallbacks_without_a_model_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"summary\.fallbacks are asked where TIDEGATE_MODEL cannot be"):
        connect(Settings.read(checkpoints="memory:", summary={"fallbacks": ["openai:gpt-b"]}))
