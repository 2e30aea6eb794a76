"""The journal under the enrichment API and under a chat model."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.fakes import ScriptedChat
from tests.servers.enrichment import EnrichmentServer
from tests.servers.openai import OpenAIServer, fails, says
from tidegate.errors import NotFound, Permanent, Transient
from tidegate.resilience.breaker import Breaker
from tidegate.resilience.circuits import MemoryCircuits
from tidegate.resilience.journal import Journal
from tidegate.services.chat import Bill, Chat
from tidegate.services.enrichment import HttpEnricher
from tidegate.services.models import open_chat
from tidegate.settings import EnrichmentSettings, SummarySettings
from tidegate.state import Entity, Usage
from tidegate.store.database import Database
from tidegate.store.leases import Leases
from tidegate.store.schema import STORE
from tidegate.telemetry import metrics, names, spans
from tidegate.testing import ManualClock

NORWICH = Entity(id="1", text="Norwich", type="LOC", mentions=())


@pytest.fixture(autouse=True)
def _direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reach the loopback servers directly, whatever proxy this machine has."""
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
async def journal() -> AsyncIterator[Journal]:
    database = Database(":memory:", STORE, clock=ManualClock())
    yield Journal(database, Leases(database))
    await database.close()


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(spans, "_tracer", provider.get_tracer(names.SCOPE))
    yield exporter
    provider.shutdown()


@pytest.fixture
def meter(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], dict[str, Any]]]:
    """What each instrument was told, as the number of data points, or their sum."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    made = provider.get_meter(names.SCOPE)
    monkeypatch.setattr(metrics, "replays", made.create_counter(names.REPLAYS))
    monkeypatch.setattr(metrics, "chat_tokens", made.create_histogram(names.GEN_AI_TOKENS))

    def read() -> dict[str, Any]:
        data = reader.get_metrics_data()
        assert data is not None
        found = [metric for resource in data.resource_metrics for s in resource.scope_metrics for metric in s.metrics]
        return {m.name: sum(getattr(p, "sum", getattr(p, "value", 0)) for p in m.data.data_points) for m in found}

    yield read
    provider.shutdown()


def breaker(name: str) -> Breaker:
    clock = ManualClock(auto=True)
    return Breaker(name, MemoryCircuits(clock), clock=clock, probe_timeout=65.0)


def enricher(journal: Journal, url: str, **options: Any) -> HttpEnricher:
    options = {"adapter": "http", "url": url, **options}
    clock = ManualClock(auto=True)
    return HttpEnricher(EnrichmentSettings(**options), breaker=breaker("enrichment"), journal=journal, clock=clock)


async def asked(journal: Journal, *questions: tuple[dict[str, Any], Entity]) -> int:
    """Return how many requests it takes to look all of them up."""
    with EnrichmentServer() as server:
        for options, entity in questions:
            options = {**options, "url": server.url + options.get("url", "")}
            api = enricher(journal, **options)
            assert "about" in (await api.look_up(entity)).value
            await api.aclose()
        return len(server.requests)


def like_norwich(**other: Any) -> Entity:
    return NORWICH.model_copy(update=other)


@pytest.mark.parametrize(
    "second",
    [
        ({}, like_norwich(id="2")),
        ({}, like_norwich(text="  Norwich ")),
        ({"headers": {"Authorization": "Bearer other", "X-Api-Key": "other"}}, NORWICH),
    ],
)
async def test_the_same_question_is_asked_once_over_all_documents(
    journal: Journal, second: tuple[dict[str, Any], Entity]
) -> None:
    assert await asked(journal, ({}, NORWICH), second) == 1


@pytest.mark.parametrize(
    ("options", "entity"),
    [
        ({}, like_norwich(text="norwich")),
        ({}, like_norwich(type="ORG")),
        ({}, like_norwich(value={"iso": "1968"})),
        ({"url": "/other"}, NORWICH),
        ({"method": "PUT"}, NORWICH),
        ({"body": {"text": "{text}"}}, NORWICH),
        ({"headers": {"Accept-Language": "de"}}, NORWICH),
    ],
)
async def test_what_may_shape_the_answer_makes_another_question(
    journal: Journal, options: dict[str, Any], entity: Entity
) -> None:
    assert await asked(journal, ({}, NORWICH), (options, entity)) == 2


@pytest.mark.parametrize("options", [{"url": "/{id}"}, {"body": {"text": "{text}", "ids": ["{id}"]}}])
async def test_an_entity_id_counts_only_where_it_was_asked_for(journal: Journal, options: dict[str, Any]) -> None:
    assert await asked(journal, (options, NORWICH), (options, NORWICH), (options, like_norwich(id="2"))) == 2


async def test_that_the_api_knows_no_such_thing_is_replayed(journal: Journal) -> None:
    with EnrichmentServer(then=404) as server:
        api = enricher(journal, server.url)
        for attempts in (1, 0):
            with pytest.raises(NotFound) as caught:
                await api.look_up(NORWICH)
            assert caught.value.attempts == attempts
        await api.aclose()
        assert len(server.requests) == 1


async def test_the_key_stays_through_retries_and_failures_until_the_api_answers(journal: Journal) -> None:
    with EnrichmentServer([503, 503, 503, 200]) as server:
        for attempts in (2, 4):
            api = enricher(journal, server.url, attempts=attempts, failure_threshold=99)
            with contextlib.suppress(Transient):  # as the first one is to fail
                await api.look_up(NORWICH)
            await api.aclose()
        assert len(server.requests) == 4
        assert len({request.headers["idempotency-key"] for request in server.requests}) == 1


async def test_the_gazetteer_is_not_journaled_as_its_answers_are_free(journal: Journal) -> None:
    api = HttpEnricher(EnrichmentSettings(), breaker=breaker("enrichment"), journal=journal)
    assert [(await api.look_up(NORWICH)).attempts for _ in range(2)] == [1, 1]
    await api.aclose()


async def test_a_replay_is_told_and_makes_no_request(
    journal: Journal, exporter: InMemorySpanExporter, meter: Callable[[], dict[str, Any]]
) -> None:
    with EnrichmentServer() as server:
        api = enricher(journal, server.url)
        with spans.node("enrich"):
            await api.look_up(NORWICH)
            await api.look_up(NORWICH)
        await api.aclose()
    request, node = exporter.get_finished_spans()
    assert (request.name, node.name) == ("POST", "invoke_node enrich")
    (event,) = node.events
    assert event.name == names.CALL_REPLAYED
    assert dict(event.attributes or {}) == {names.CALL_SERVICE: "enrichment", names.CALL_OPERATION: "enrich"}
    assert meter()[names.REPLAYS] == 1


def chat(journal: Journal | None, model: Any, **settings: Any) -> Chat:
    return open_chat(
        model, SummarySettings(**settings), breaker=breaker("model"), journal=journal, clock=ManualClock(auto=True)
    )


async def say(chat: Chat, prompt: str = "Say it.", *, only: str = "") -> tuple[str, Bill]:
    bill = Bill()
    answer = await chat.ask([HumanMessage(prompt)], lambda said: said if only in said else None, bill=bill)
    return answer.value, bill


async def test_an_answer_of_a_model_is_replayed_and_its_tokens_are_counted_once(
    journal: Journal, exporter: InMemorySpanExporter, meter: Callable[[], dict[str, Any]]
) -> None:
    model = ScriptedChat(answer=lambda _: "Said.")
    said, bill = await say(chat(journal, model))
    again, replayed = await say(chat(journal, model))
    assert said == again == "Said."
    assert bill.usage == replayed.usage == Usage(input_tokens=100, output_tokens=20)
    assert (bill.requests, replayed.requests) == (1, 0)
    assert len(model.prompts) == 1
    assert [span.name for span in exporter.get_finished_spans()] == ["chat scripted"]
    told = meter()
    assert (told[names.GEN_AI_TOKENS], told[names.REPLAYS]) == (120, 1)


async def test_another_prompt_model_or_parameter_is_another_call(journal: Journal) -> None:
    with OpenAIServer([says("Said.")]) as server:
        for model, temperature, prompt in (
            ("openai:a", 0.0, "Say it."),
            ("openai:b", 0.0, "Say it."),
            ("openai:a", 0.5, "Say it."),
            ("openai:a", 0.0, "Say that."),
        ):
            await say(chat(journal, model, options={**server.options, "temperature": temperature}), prompt)
        assert len(server.requests) == 4
        await say(chat(journal, "openai:a", options={**server.options, "api_key": "other", "temperature": 0.0}))
        assert len(server.requests) == 4
        assert len({request.headers["idempotency-key"] for request in server.requests}) == 4


async def test_an_answer_that_cannot_be_used_is_not_recorded(journal: Journal) -> None:
    with OpenAIServer([says("First."), says("Second.")]) as server:
        said, bill = await say(chat(journal, "openai:a", options=server.options), only="Second")
        assert (said, bill.requests, bill.usage) == ("Second.", 2, Usage(input_tokens=200, output_tokens=40))
        _, replayed = await say(chat(journal, "openai:a", options=server.options), only="Second")
        assert (replayed.requests, replayed.usage) == (0, Usage(input_tokens=100, output_tokens=20))
        assert len({request.headers["idempotency-key"] for request in server.requests}) == 1


async def test_a_recorded_answer_that_cannot_be_used_any_more_is_asked_for_again(journal: Journal) -> None:
    with OpenAIServer([says("First."), says("Second.")]) as server:
        opened = chat(journal, "openai:a", options=server.options)
        assert (await say(opened))[0] == "First."
        assert (await say(opened, only="Second"))[0] == "Second."
        assert (await say(opened))[0] == "Second."
        assert len(server.requests) == 2


async def test_a_failure_of_a_model_is_not_recorded(journal: Journal) -> None:
    with OpenAIServer([fails(400), says("Said.")]) as server:
        opened = chat(journal, "openai:a", options=server.options)
        with pytest.raises(Permanent):
            await say(opened)
        assert (await say(opened))[0] == "Said."


async def test_a_model_without_counted_tokens_is_replayed_without_any(journal: Journal) -> None:
    class Uncounted(ScriptedChat):
        def _usage(self) -> Any:
            return None

    model = Uncounted(answer=lambda _: "Said.")
    for _ in range(2):
        said, bill = await say(chat(journal, model))
        assert (said, bill.usage) == ("Said.", None)


async def test_without_a_journal_a_model_is_asked_each_time() -> None:
    model = ScriptedChat(answer=lambda _: "Said.")
    for requests in (1, 2):
        assert (await say(chat(None, model)))[1].requests == 1
        assert len(model.prompts) == requests
