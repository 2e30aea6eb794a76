from __future__ import annotations

import asyncio
import gc
import gzip
import json
import logging
import random
import uuid
import weakref
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import SecretStr

from tests.servers.enrichment import EnrichmentServer, Reply, Request
from tidegate.errors import (
    BudgetExceeded,
    CircuitOpen,
    NotFound,
    Permanent,
    Refused,
    ServiceError,
    SettingsError,
    Transient,
)
from tidegate.nodes.enrich import enrich_step
from tidegate.resilience.breaker import Breaker
from tidegate.resilience.circuits import MemoryCircuits
from tidegate.resilience.guard import Answer
from tidegate.services.enrichment import MAX_DEPTH, HttpEnricher, open_enricher, read_answer
from tidegate.services.http import BodyError
from tidegate.settings import EnrichmentSettings
from tidegate.state import JSON, Entity, Span
from tidegate.telemetry import spans
from tidegate.testing import ManualClock

NORWICH = Entity(id="0123456789abcdef", text="Norwich", type="LOC", mentions=(Span(start=0, end=7),))


@pytest.fixture(autouse=True)
def _direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reach the loopback servers directly, whatever proxy this machine has."""
    monkeypatch.setenv("NO_PROXY", "*")


def enricher(
    url: str | None = "http://127.0.0.1:1/", *, clock: ManualClock | None = None, **settings: Any
) -> HttpEnricher:
    clock = clock or ManualClock(auto=True)
    settings = {"adapter": "http", "url": url, "headers": {}, **settings}
    breaker = Breaker(
        "enrichment", MemoryCircuits(clock), failure_threshold=settings.get("failure_threshold", 3), clock=clock
    )
    seeded = random.Random(1)  # noqa: S311 - jitter
    opened = open_enricher(EnrichmentSettings(**settings), breaker=breaker, clock=clock, random=seeded)
    assert opened is not None
    return opened


@pytest.fixture
async def server() -> AsyncIterator[EnrichmentServer]:
    async with EnrichmentServer() as server:
        yield server


async def look_up(asked: HttpEnricher, entity: Entity = NORWICH) -> Any:
    try:
        return await asked.look_up(entity)
    finally:
        await asked.aclose()


async def failure_of(asked: HttpEnricher) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await look_up(asked)
    return caught.value


async def test_an_entity_is_posted_as_json_and_the_answer_is_returned(server: EnrichmentServer) -> None:
    answer = await look_up(enricher(server.url))
    assert answer.value == {"name": "Norwich", "about": "what the API knows of Norwich"}
    assert answer.attempts == 1
    (request,) = server.requests
    assert (request.method, request.path) == ("POST", "/enrich")
    assert request.json == {"id": NORWICH.id, "text": "Norwich", "type": "LOC"}
    assert request.headers["content-type"] == "application/json"
    assert uuid.UUID(request.headers["idempotency-key"]).version == 4


async def test_what_a_date_or_an_amount_means_is_sent_along(server: EnrichmentServer) -> None:
    price = Entity(id="1", text="£5", type="MONEY", mentions=(), value={"amount": "5", "currency": "GBP"})
    await look_up(enricher(server.url), price)
    assert server.requests[0].json["value"] == {"amount": "5", "currency": "GBP"}


async def test_every_attempt_carries_the_same_key(server: EnrichmentServer) -> None:
    server.follow([503, "reset"])
    answer = await look_up(enricher(server.url))
    assert answer.attempts == 3
    assert len({request.headers["idempotency-key"] for request in server.requests}) == 1


async def test_after_the_third_failure_no_request_starts(server: EnrichmentServer) -> None:
    server.down(503)
    asked = enricher(server.url, attempts=10, concurrency=1)
    entities = [NORWICH.model_copy(update={"id": str(number)}) for number in range(20)]
    found = await asyncio.gather(*(asked.look_up(entity) for entity in entities), return_exceptions=True)
    await asked.aclose()
    assert len(server.requests) == 3
    assert all(isinstance(outcome, CircuitOpen) for outcome in found)


async def test_no_more_requests_are_in_flight_than_allowed(server: EnrichmentServer) -> None:
    server.follow(lambda _: Reply(json={"a": 1}, every=0.002))
    asked = enricher(server.url, concurrency=3)
    await asyncio.gather(*(asked.look_up(NORWICH) for _ in range(12)))
    await asked.aclose()
    assert server.most_at_once == 3


@pytest.mark.parametrize(
    ("behaviour", "expected", "requests"),
    [
        (400, Permanent, 1),
        (401, Refused, 1),
        (404, NotFound, 1),
        (503, CircuitOpen, 3),
        ("reset", CircuitOpen, 3),
        (Reply(302, headers={"Location": "/login"}), Permanent, 1),
        (Reply(302, headers={"Location": "http://127.0.0.2:1/elsewhere"}), Refused, 1),
        (Reply(429, headers={"Retry-After": "1000"}), BudgetExceeded, 1),
        (Reply(body=b"<html>gateway</html>"), CircuitOpen, 3),
        (Reply(body=b'{"name": "Nor'), CircuitOpen, 3),
        (Reply(body=b'{"name": "Norwich"}', cut=8), CircuitOpen, 3),
        (Reply(json=["Norwich"]), CircuitOpen, 3),
        (Reply(json={"about": "x" * 2_000_000}), CircuitOpen, 3),
        (Reply(json={}), NotFound, 1),
        (Reply(json=[]), NotFound, 1),
        (Reply(body=b"null"), NotFound, 1),
        (Reply(204, body=b"", headers={"Content-Length": None}), NotFound, 1),
    ],
)
async def test_each_failure_is_told_apart(
    server: EnrichmentServer, behaviour: Any, expected: type[ServiceError], requests: int
) -> None:
    server.down(behaviour)
    failure = await failure_of(enricher(server.url))
    assert type(failure) is expected
    assert failure.attempts == len(server.requests) == requests


async def test_an_entity_that_is_being_looked_up_already_is_asked_for_again_under_its_key(
    server: EnrichmentServer,
) -> None:
    server.follow([409] * 5)
    asked = enricher(server.url, attempts=9)
    assert (await look_up(asked)).attempts == 6  # five in a row, and the circuit stays closed
    assert len({request.headers["idempotency-key"] for request in server.requests}) == 1


async def test_a_service_that_is_not_there_is_transient(server: EnrichmentServer) -> None:
    server.down("refuse")
    failure = await failure_of(enricher(server.url, attempts=2))
    assert isinstance(failure, Transient)
    assert failure.problem == "the connection was refused"
    server.up()
    assert (await look_up(enricher(server.url))).attempts == 1


@pytest.mark.parametrize("behaviour", ["hang", Reply(every=10.0)])
async def test_an_answer_that_never_ends_is_cut_off(server: EnrichmentServer, behaviour: Any) -> None:
    server.down(behaviour)
    failure = await failure_of(enricher(server.url, attempts=1, attempt_timeout=0.05))
    assert isinstance(failure, Transient)
    assert "0.05 s" in failure.problem or "in time" in failure.problem


async def test_a_pause_that_is_asked_for_is_kept(server: EnrichmentServer) -> None:
    clock = ManualClock(auto=True)
    server.follow([Reply(429, headers={"Retry-After": "20"})])
    answer = await look_up(enricher(server.url, clock=clock))
    assert answer.attempts == 2
    assert max(clock.slept) == 20.0


async def test_a_request_is_made_after_the_settings(server: EnrichmentServer) -> None:
    asked = enricher(
        server.url + "/{type}/{text}?by={id}",
        method="PUT",
        headers={"X-Key": SecretStr("s3cret"), "accept": "application/ld+json"},
        body={"query": {"name": "{text}", "tags": ["{type}", 7, None]}, "raw": "{ {unknown} {text}/{id}"},
        result="results.0.place",
        types=("LOC",),
    )
    server.follow([Reply(json={"results": [{"place": {"in": "Norfolk"}}]})])
    entity = NORWICH.model_copy(update={"text": "Nor/wich?&{id} ü"})
    assert (await look_up(asked, entity)).value == {"in": "Norfolk"}
    (request,) = server.requests
    assert request.method == "PUT"
    assert request.path == f"/enrich/LOC/Nor%2Fwich%3F%26%7Bid%7D%20%C3%BC?by={NORWICH.id}"
    assert request.headers["x-key"] == "s3cret"
    assert request.headers["accept"] == "application/ld+json"
    assert request.json == {
        "query": {"name": entity.text, "tags": ["LOC", 7, None]},
        "raw": f"{{ {{unknown}} {entity.text}/{NORWICH.id}",
    }
    assert [asked.covers(kind) for kind in ("LOC", "PERSON")] == [True, False]


@pytest.mark.parametrize("text", ["..", ".", "../../admin", "a\r\nb", "%2e%2e", "\ud800", "é" * 200])
async def test_a_name_stays_one_segment_of_the_path(server: EnrichmentServer, text: str) -> None:
    asked = enricher(server.url + "/{text}/end", method="GET")
    await look_up(asked, NORWICH.model_copy(update={"text": text}))
    path = server.requests[0].path
    assert path.startswith("/enrich/")
    assert path.endswith("/end")
    assert path.count("/") == 3
    assert server.requests[0].body == b""


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"url": None}, "enrichment.url is not set"),
        ({"url": "ftp://api.example/"}, "enrichment.url has to begin"),
        ({"url": "api.example/enrich"}, "enrichment.url has to begin"),
        ({"url": "https:///enrich"}, "enrichment.url has to begin"),
        ({"url": "https://{text}.example/"}, "after the host only"),
        ({"url": "https://{id}:x@api.example/"}, "after the host only"),
        ({"url": "https://api.example:port/"}, "no valid address"),
        ({"url": "https://api.example/{name}"}, "holds {name}"),
        ({"url": "https://api.example/", "method": "GET"}, "enrichment.method is GET"),
        ({"url": "https://api.example/{id}", "method": "GET", "body": {}}, "enrichment.body is set"),
        ({"headers": {"X Key": "s3cret"}}, "'X Key'"),
        ({"headers": {"X-Key": "s3cret\r\nEvil: yes"}}, "'X-Key'"),
        ({"headers": {"X-Key": "s3crét"}}, "'X-Key'"),
        ({"headers": {"idempotency-key": "s3cret"}}, "'idempotency-key'"),
        ({"types": ("LOC", "PLACE")}, "'PLACE'"),
        ({"adapter": "gazetteer", "url": "https://user:s3cret@api.example/"}, "enrichment.adapter is 'gazetteer'"),
    ],
)
def test_settings_that_do_not_fit_are_named(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsError, match="enrichment") as caught:
        enricher(**{"url": "https://api.example/", **settings})
    assert named in str(caught.value)
    assert "s3cr" not in str(caught.value)


async def test_secrets_stay_out_of_messages_and_logs(
    server: EnrichmentServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server.down(500)
    url = server.url.replace("http://", "http://user:s3cret@") + "?key=s3cret&q={text}"
    asked = enricher(url, headers={"X-Key": SecretStr("s3cret")}, attempts=1)
    failure = await failure_of(asked)
    assert server.requests[0].headers["authorization"].startswith("Basic ")
    assert asked.source == server.url.split("/")[2]
    for told in (repr(asked), str(asked), str(failure), repr(failure), asked.source, asked.name, caplog.text):
        assert "s3cret" not in told
        assert "Norwich" not in told


def test_no_enricher_is_opened_where_none_is_wanted() -> None:
    clock = ManualClock()
    settings = EnrichmentSettings(adapter="none")
    assert open_enricher(settings, breaker=Breaker("enrichment", MemoryCircuits(clock), clock=clock)) is None


async def test_the_gazetteer_walks_the_path_of_a_remote_api() -> None:
    asked = enricher(adapter="gazetteer", url=None, headers={"X-Key": "for another API"}, result="elsewhere")
    answer = await look_up(asked)
    assert (answer.value["name"], answer.value["country"], answer.attempts) == ("Norwich", "United Kingdom", 1)
    assert [kind for kind in ("PERSON", "ORG", "LOC", "DATE", "MONEY", "ENTITY") if asked.covers(kind)] == [
        "LOC",
        "ENTITY",
    ]
    assert asked.source == "GeoNames"
    missing = NORWICH.model_copy(update={"text": "Carrow Road"})
    with pytest.raises(NotFound) as caught:
        await look_up(asked, missing)
    assert caught.value.attempts == 1


def test_an_enricher_outlives_event_loops() -> None:
    with EnrichmentServer() as server:
        asked = enricher(server.url)
        for _ in range(3):
            answer = asyncio.run(asked.look_up(NORWICH))
            assert answer.value["name"] == "Norwich"


def test_the_step_bounds_what_is_begun_at_once_and_keeps_no_event_loop() -> None:
    began: list[str] = []
    most = running = 0

    class Names:
        name = source = "names"

        def covers(self, entity_type: str) -> bool:
            return True

        async def look_up(self, entity: Entity) -> Answer[JSON]:
            nonlocal most, running
            began.append(entity.id)
            running += 1
            most = max(most, running)
            await asyncio.sleep(0)
            running -= 1
            return Answer({}, 1)

    step = enrich_step(Names(), ManualClock(), in_flight=2)
    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []

    async def main() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        entities = {str(n): NORWICH.model_copy(update={"id": str(n)}).dump() for n in range(6)}
        await step({"entities": entities, "enrichments": {}}, {})

    for _ in range(2):
        asyncio.run(main())
    gc.collect()
    assert (len(began), most) == (12, 2)
    assert [loop() for loop in loops] == [None, None]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"NaN",
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": 18446744073709551616}',
        b'{"a": -9223372036854775809}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"a": ' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}",
        b"\xff\xfe",
        b'"a string"',
        b"7",
        b"false",
        b'{"a": 1} trailing',
    ],
    ids=range(16),
)
def test_an_answer_that_is_no_plain_bounded_object_is_refused(body: bytes) -> None:
    if not body:
        assert read_answer(body, []) is None
        return
    with pytest.raises(BodyError) as caught:
        read_answer(body, [])
    assert "999" not in str(caught.value)


def test_an_answer_of_the_deepest_nesting_is_taken() -> None:
    nested: Any = {}
    for _ in range(MAX_DEPTH - 2):
        nested = [nested]
    assert read_answer(json.dumps({"a": nested}).encode(), []) == {"a": nested}


@pytest.mark.parametrize(
    ("answer", "result", "expected"),
    [
        ({"data": {"x": 1}}, ["data"], {"x": 1}),
        ({"items": [{"x": 1}]}, ["items", "0"], {"x": 1}),
        ({"items": []}, ["items", "0"], None),
        ({"items": [{"x": 1}]}, ["items", "1"], None),
        ({"items": [{"x": 1}]}, ["items", "9" * 5000], None),
        ({"data": None}, ["data", "deeper"], None),
        ({}, ["data"], None),
        ({"0": {"x": 1}}, ["0"], {"x": 1}),
    ],
)
def test_the_result_is_where_its_path_leads(answer: Any, result: list[str], expected: Any) -> None:
    assert read_answer(json.dumps(answer).encode(), result) == expected


@pytest.mark.parametrize("result", [["other"], ["data", "0"], ["data", "x", "y"], ["items", "first"], ["items", "²"]])
def test_a_path_that_leads_nowhere_is_an_unusable_answer(result: list[str]) -> None:
    with pytest.raises(BodyError, match=r"enrichment\.result"):
        read_answer(b'{"data": {"x": 1}, "items": [1]}', result)


def test_broken_text_is_mended() -> None:
    body = rb'{"half \ud83d": "\ud83d\ude00 \ude00 \u0000"}'
    assert read_answer(body, []) == {
        "half \N{REPLACEMENT CHARACTER}": "\N{GRINNING FACE} \N{REPLACEMENT CHARACTER} \N{REPLACEMENT CHARACTER}"
    }


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(), max_size=3), inner, max_size=3)
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.text(st.characters(), max_size=3), json_values, min_size=1, max_size=3))
def test_every_answer_that_is_taken_can_be_stored(answer: dict[str, Any]) -> None:
    try:
        taken = read_answer(json.dumps(answer).encode(), [])
    except BodyError:
        return
    stored = JsonPlusSerializer().dumps_typed(taken)
    assert JsonPlusSerializer().loads_typed(stored) == taken
    assert json.loads(json.dumps(taken, ensure_ascii=False).encode()) == taken


async def test_a_request_tells_what_it_is_in_its_span(server: EnrichmentServer) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spans, "_tracer", provider.get_tracer("test"))
        server.follow([503])
        await look_up(enricher(server.url + "/{text}?key=s3cret"))
        await look_up(enricher(server.url, send_traceparent=True))
    first, second, _ = exporter.get_finished_spans()
    assert first.attributes is not None
    assert second.attributes is not None
    assert first.attributes["error.type"] == "503"
    assert second.attributes["http.response.status_code"] == 200
    assert second.attributes["http.request.resend_count"] == 1
    assert second.attributes["url.full"] == server.url + "/{text}"
    assert ["traceparent" in request.headers for request in server.requests] == [False, False, True]


async def test_a_cancelled_request_gives_its_connection_back(server: EnrichmentServer) -> None:
    seen = asyncio.Event()
    loop = asyncio.get_running_loop()

    def hang(_: Request) -> Any:
        loop.call_soon_threadsafe(seen.set)
        return "hang"

    server.follow(hang)
    asked = enricher(server.url)
    task = asyncio.create_task(asked.look_up(NORWICH))
    await seen.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    server.follow(())
    assert (await look_up(asked)).attempts == 1


def test_this_version_of_httpx_expands_bodies_before_they_can_be_measured() -> None:
    """The reason why `exchange` decompresses by itself; when this fails, it need not."""
    response = httpx.Response(
        200, headers={"Content-Encoding": "gzip"}, stream=httpx.ByteStream(gzip.compress(bytes(10**7)))
    )
    assert len(next(response.iter_bytes())) == 10**7
