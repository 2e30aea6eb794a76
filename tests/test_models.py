from __future__ import annotations

import asyncio
import json
import logging
import random
import sys
from collections.abc import Iterator
from typing import Any, cast

import pytest
from langchain_core.exceptions import (
    ContextOverflowError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelInvalidRequestError,
    ModelRateLimitError,
)
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import SecretStr

from tests.fakes import ScriptedChat
from tests.servers.openai import CUT, HANGS, OpenAIServer, Reply, fails, garbage, says
from tests.spans import recording
from tidegate.errors import (
    BudgetExceeded,
    CircuitOpen,
    MissingExtra,
    Permanent,
    RateLimited,
    Refused,
    SettingsError,
    Transient,
)
from tidegate.resilience import faults
from tidegate.resilience.breaker import Breaker
from tidegate.resilience.circuits import MemoryCircuits
from tidegate.resilience.faults import FaultyServer
from tidegate.services import models
from tidegate.services.chat import Bill, Chat
from tidegate.services.models import open_chat
from tidegate.services.providers import address_of, provider_of
from tidegate.settings import SummarySettings
from tidegate.state import Usage
from tidegate.telemetry import spans
from tidegate.testing import ManualClock


@pytest.fixture(scope="module")
def shared_server() -> Iterator[OpenAIServer]:
    """One address for all tests: a client is built once per address, and building one takes 0.2 s."""
    with OpenAIServer([HANGS]) as server:
        yield server


@pytest.fixture
def server(shared_server: OpenAIServer) -> OpenAIServer:
    shared_server.follow([HANGS])
    return shared_server


def chat_with(model: Any, *, clock: ManualClock | None = None, breaker: Breaker | None = None, **settings: Any) -> Chat:
    clock = clock or ManualClock(auto=True)
    breaker = breaker or Breaker("model", MemoryCircuits(clock), clock=clock)
    return open_chat(model, SummarySettings(**settings), breaker=breaker, clock=clock, random=random.Random(1))  # noqa: S311


def chat_on(server: OpenAIServer, *, options: dict[str, Any] | None = None, **settings: Any) -> Chat:
    return chat_with("openai:gpt-test", options={**server.options, **(options or {})}, **settings)


async def ask(chat: Chat, bill: Bill | None = None) -> tuple[str, int]:
    answer = await chat.ask([HumanMessage("Say it.")], lambda said: said or None, bill=bill or Bill())
    return answer.value, answer.attempts


async def test_an_answer_comes_back_with_what_it_cost(server: OpenAIServer) -> None:
    server.follow([says("It is said.", input_tokens=7, output_tokens=3)])
    bill = Bill()
    assert await ask(chat_on(server), bill) == ("It is said.", 1)
    assert bill.usage == Usage(input_tokens=7, output_tokens=3)
    [request] = server.requests
    assert request.body["model"] == "gpt-test"
    assert not request.streamed


async def test_three_503s_are_three_requests_and_then_the_circuit_is_open(server: OpenAIServer) -> None:
    server.follow([fails(503)])
    clock = ManualClock(auto=True)
    breaker = Breaker("model", MemoryCircuits(clock), clock=clock)
    with pytest.raises(CircuitOpen) as failed:
        await ask(chat_on(server, clock=clock, breaker=breaker, attempts=9))
    assert len(server.requests) == 3
    assert failed.value.attempts == 3
    with pytest.raises(CircuitOpen):
        await ask(chat_on(server, clock=clock, breaker=breaker))
    assert len(server.requests) == 3


async def test_each_attempt_is_one_request(server: OpenAIServer) -> None:
    server.follow([fails(503), fails(502), says("At last.")])
    assert await ask(chat_on(server)) == ("At last.", 3)
    assert len(server.requests) == 3


async def test_a_hang_is_cut_off_after_the_attempt_timeout(server: OpenAIServer) -> None:
    server.follow([HANGS, says("Awake.")])
    assert await ask(chat_on(server, attempt_timeout=0.2)) == ("Awake.", 2)


async def test_a_hang_for_good_says_so(server: OpenAIServer) -> None:
    server.follow([HANGS])
    with pytest.raises(Transient, match="no answer") as failed:
        await ask(chat_on(server, attempt_timeout=0.1, attempts=1))
    assert failed.value.attempts == 1


async def test_a_refused_key_opens_the_circuit_at_once_and_is_not_told(server: OpenAIServer) -> None:
    server.follow([fails(401, message="Incorrect API key provided: test-key")])
    clock = ManualClock(auto=True)
    breaker = Breaker("model", MemoryCircuits(clock), clock=clock)
    with pytest.raises(Refused) as failed:
        await ask(chat_on(server, clock=clock, breaker=breaker))
    assert "test-key" not in str(failed.value)
    assert len(server.requests) == 1
    assert (await breaker.report()).state == "open"


async def test_a_pause_that_is_asked_for_is_kept(server: OpenAIServer) -> None:
    server.follow([fails(429, retry_after="7"), says("Rested.")])
    clock = ManualClock(auto=True)
    assert await ask(chat_on(server, clock=clock)) == ("Rested.", 2)
    assert clock.monotonic() == pytest.approx(7.0)


async def test_a_pause_longer_than_the_budget_ends_the_call(server: OpenAIServer) -> None:
    server.follow([fails(429, retry_after="999")])
    with pytest.raises(BudgetExceeded) as failed:
        await ask(chat_on(server, budget=60))
    assert isinstance(failed.value.__cause__, RateLimited)
    assert len(server.requests) == 1


async def test_an_account_without_credit_is_no_pause(server: OpenAIServer) -> None:
    server.follow([fails(429, code="insufficient_quota")])
    with pytest.raises(Refused, match="no credit"):
        await ask(chat_on(server))
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("reply", "says_what"),
    [
        (fails(400, code="context_length_exceeded", message="context_length_exceeded"), "chunk_tokens"),
        (fails(400), "400"),
        (fails(404, code="model_not_found"), "check that openai:gpt-test exists"),
        (says("", finish="content_filter"), "withheld"),
        (Reply(refusal="I would rather not."), "withheld"),
        (says("", finish="length"), "cut off"),
    ],
)
async def test_what_will_never_succeed_is_asked_once_and_the_circuit_stays_closed(
    server: OpenAIServer, reply: Reply, says_what: str
) -> None:
    server.follow([reply])
    clock = ManualClock(auto=True)
    breaker = Breaker("model", MemoryCircuits(clock), clock=clock)
    with pytest.raises(Permanent, match=says_what):
        await ask(chat_on(server, clock=clock, breaker=breaker))
    assert len(server.requests) == 1
    assert (await breaker.report()).failures == 0


@pytest.mark.parametrize(
    "reply",
    [
        garbage(),
        garbage(b"{}", "application/json"),
        garbage(b"[1, 2]", "application/json"),
        garbage(b"null", "application/json"),
        garbage(b'{"choices": []}', "application/json"),
        garbage(b'{"choi', "application/json"),
        CUT,
        says(""),
    ],
)
async def test_garbage_is_tried_again_and_never_quoted(server: OpenAIServer, reply: Reply) -> None:
    server.follow([reply, says("Sense.")])
    assert await ask(chat_on(server)) == ("Sense.", 2)
    server.follow([reply])
    with pytest.raises(Transient) as failed:
        await ask(chat_on(server, attempts=1))
    assert "works" not in str(failed.value)


async def test_a_server_that_is_not_there_is_transient() -> None:
    with OpenAIServer([says("Gone.")]) as server:
        options = server.options
    with pytest.raises(Transient, match="the connection was refused"):
        await ask(chat_with("openai:gpt-test", options=options, attempts=1))


async def test_answers_that_could_not_be_used_are_paid_for_too() -> None:
    with OpenAIServer(
        [says("no", input_tokens=10, output_tokens=1), says("yes", input_tokens=10, output_tokens=2)]
    ) as server:
        bill = Bill()
        answer = await chat_on(server).ask([HumanMessage("?")], lambda said: said if said == "yes" else None, bill=bill)
    assert (answer.value, answer.attempts, bill.requests) == ("yes", 2, 2)
    assert bill.usage == Usage(input_tokens=20, output_tokens=3)


@pytest.mark.parametrize(
    "usage", ["null", "{}", '{"prompt_tokens": null, "completion_tokens": 3}', '{"prompt_tokens": -1}']
)
async def test_an_answer_counts_even_where_its_tokens_were_not_counted(server: OpenAIServer, usage: str) -> None:
    choice = '{"index": 0, "message": {"role": "assistant", "content": "Heard."}, "finish_reason": "stop"}'
    body = f'{{"id": "1", "object": "chat.completion", "model": "m", "choices": [{choice}], "usage": {usage}}}'
    server.follow([garbage(body.encode(), "application/json")])
    assert await ask(chat_on(server, attempts=1)) == ("Heard.", 1)


async def test_a_bug_of_ours_is_not_taken_for_a_failure_of_the_model(server: OpenAIServer) -> None:
    def read(said: str) -> str:
        raise ZeroDivisionError

    server.follow([says("Fine.")])
    clock = ManualClock(auto=True)
    breaker = Breaker("model", MemoryCircuits(clock), clock=clock)
    with pytest.raises(ZeroDivisionError):
        await chat_on(server, clock=clock, breaker=breaker).ask([HumanMessage("?")], read, bill=Bill())
    assert (await breaker.report()).failures == 0


def test_one_process_may_ask_from_one_event_loop_after_the_other(server: OpenAIServer) -> None:
    server.follow([says("Here.")])
    chat = chat_on(server, attempts=1)
    for _ in range(4):
        assert asyncio.run(ask(chat)) == ("Here.", 1)
    assert len(server.requests) == 4


async def test_every_request_is_a_span_with_its_usage(server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(spans, "_tracer", provider.get_tracer("test"))
    server.follow([fails(503), says("Seen.", input_tokens=5, output_tokens=2)])
    await ask(chat_on(server))
    failed, answered = exporter.get_finished_spans()
    assert failed.name == answered.name == "chat gpt-test"
    assert failed.attributes is not None
    assert failed.attributes["error.type"] == "Transient"
    assert "gen_ai.usage.input_tokens" not in failed.attributes
    assert answered.attributes is not None
    assert answered.attributes["gen_ai.provider.name"] == "openai"
    assert answered.attributes["gen_ai.usage.input_tokens"] == 5
    assert answered.attributes["gen_ai.usage.output_tokens"] == 2


# What each API answers, as far as its client wants it.
_ANTHROPIC = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-test-20261001",
    "content": [{"type": "text", "text": "Said."}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 7, "output_tokens": 3},
}
_OLLAMA = {
    "model": "llama-test:latest",
    "created_at": "2026-10-01T00:00:00Z",
    "message": {"role": "assistant", "content": "Said."},
    "done": True,
    "done_reason": "stop",
    "prompt_eval_count": 7,
    "eval_count": 3,
}
_OPENAI = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1_700_000_000,
    "model": "gpt-test-2026-10-01",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Said."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
}


@pytest.mark.parametrize(
    ("model", "path", "body", "provider", "by", "id_", "finish"),
    [
        ("openai:gpt-test", "/v1", _OPENAI, "openai", "gpt-test-2026-10-01", "chatcmpl-1", "stop"),
        ("azure_openai:gpt-test", "", _OPENAI, "azure.ai.openai", "gpt-test-2026-10-01", "chatcmpl-1", "stop"),
        ("anthropic:claude-test", "", _ANTHROPIC, "anthropic", "claude-test-20261001", "msg_1", "end_turn"),
        ("ollama:llama-test", "", _OLLAMA, "ollama", "llama-test:latest", None, "stop"),
    ],
)
async def test_a_span_says_who_answered_where_and_why_the_answer_ended(
    model: str,
    path: str,
    body: dict[str, Any],
    provider: str,
    by: str,
    id_: str | None,
    finish: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    name = model.partition(":")[2]
    reply = faults.Reply(200, body=json.dumps(body).encode(), headers={"Content-Type": "application/json"})
    with recording(monkeypatch) as exporter, FaultyServer(lambda _: reply) as server:
        url = server.url.replace("//", "//user:hidden@")
        options = {"base_url": f"{url}{path}", "api_key": "test-key"}
        if provider == "ollama":
            del options["api_key"]
        if provider.startswith("azure"):
            options = {"azure_endpoint": url, "api_key": "test-key", "api_version": "2024-10-21"}
        chat = chat_with(model, options=options)
        assert await ask(chat) == ("Said.", 1)
        if provider != "ollama":  # the garbage collector would close the client, on another event loop
            built = cast("Any", chat._model)
            await (built._async_client if provider == "anthropic" else built.root_async_client).close()
        [span] = exporter.get_finished_spans()
        port = int(server.url.rpartition(":")[2])
    told = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": provider,
        "gen_ai.request.model": name,
        "server.address": "127.0.0.1",
        "server.port": port,
        "tidegate.attempt": 1,
        "openinference.span.kind": "LLM",
        "gen_ai.response.model": by,
        "gen_ai.response.finish_reasons": (finish,),
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 3,
    }
    assert dict(span.attributes or {}) == told | ({"gen_ai.response.id": id_} if id_ else {})


async def test_a_streamed_answer_says_who_gave_it(server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.follow([says("Seen in words.")])
    with recording(monkeypatch) as exporter:
        await ask(chat_on(server, options={"streaming": True}))
    assert server.requests[0].streamed
    [span] = exporter.get_finished_spans()
    assert span.attributes is not None
    assert span.attributes["gen_ai.response.model"] == "gpt-test"
    assert span.attributes["gen_ai.response.finish_reasons"] == ("stop",)


@pytest.mark.parametrize(
    ("package", "name", "provider"),
    [
        ("langchain_aws.chat_models", "ChatBedrockConverse", "aws.bedrock"),
        ("langchain_azure_ai.chat_models", "AzureAIChat", "azure.ai.inference"),
        ("langchain_google_genai", "ChatGoogleGenerativeAI", "gcp.gemini"),
        ("langchain_google_vertexai", "ChatVertexAI", "gcp.vertex_ai"),
        ("langchain_mistralai", "ChatMistralAI", "mistral_ai"),
        ("langchain_groq", "ChatGroq", "groq"),
        ("my_models", "MyChat", "my_models"),
    ],
)
def test_a_provider_is_named_as_the_conventions_name_it(package: str, name: str, provider: str) -> None:
    kind = type(name, (ScriptedChat,), {"__module__": package})
    assert provider_of(kind(answer=str)) == provider
    extended = type("Mine", (kind,), {"__module__": "my_app" if provider != "my_models" else package})
    assert provider_of(extended(answer=str)) == provider


def test_a_model_tells_where_its_requests_go_if_it_does() -> None:
    assert address_of(ChatOpenAI(model="gpt-test", api_key=lambda: "k")) == "https://api.openai.com/v1/"
    assert address_of(ScriptedChat(answer=str)) == ""

    class OnOneServer(ScriptedChat):
        base_url: str = "gpu:11434"

    assert spans.server_of(address_of(OnOneServer(answer=str))) == {"server.address": "gpu", "server.port": 11434}


def test_an_injected_model_that_retries_by_itself_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        chat_with(ChatOpenAI(model="gpt-test", api_key=lambda: "test-key"))
    [record] = caplog.records
    assert "openai:gpt-test retries by itself" in record.getMessage()
    caplog.clear()
    chat_with(ChatOpenAI(model="gpt-test", api_key=lambda: "test-key", max_retries=0))
    chat_with(ScriptedChat(answer=lambda _: "x"))
    assert not caplog.records


async def test_an_injected_model_is_asked_as_it_is() -> None:
    chat = chat_with(ScriptedChat(answer=lambda prompt: prompt.upper()))
    assert chat.model == "tests:scripted"
    assert await ask(chat) == ("SAY IT.", 1)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TimeoutError(), Transient),
        (ConnectionResetError(), Transient),
        (KeyError("choices"), Transient),
        (type("StatusError", (Exception,), {"status_code": 529})(), Transient),
        (type("StatusError", (Exception,), {"status_code": 200})(), Transient),  # told inside a stream
        (type("StatusError", (Exception,), {"status_code": 422})(), Permanent),
        (type("StatusError", (Exception,), {"status_code": 402})(), Refused),
        (type("StatusError", (Exception,), {"code": 403})(), Refused),
        (ModelAuthenticationError(), Refused),
        (ModelRateLimitError(), RateLimited),
        (ModelInvalidRequestError(), Permanent),
        (ModelConnectionError(), Transient),
        (ContextOverflowError(), Permanent),
        (type("StatusError", (Exception,), {"code": 429})(), RateLimited),
    ],
)
async def test_failures_are_told_apart_whatever_library_raises_them(
    error: Exception, expected: type[Exception]
) -> None:
    with pytest.raises(expected):
        await ask(chat_with(ScriptedChat(answer=lambda _: error), attempts=1))


@pytest.mark.parametrize("model", ["gpt-4o-mini", ":gpt", "openai:", "nowhere:gpt"])
def test_a_name_that_cannot_be_right_says_what_one_looks_like(model: str) -> None:
    with pytest.raises(SettingsError, match="openai:gpt-4o-mini"):
        chat_with(model)


@pytest.mark.parametrize(
    ("model", "package", "extra"),
    [
        ("openai:gpt", "langchain_openai", "openai"),
        ("anthropic:claude", "langchain_anthropic", "anthropic"),
        ("ollama:llama", "langchain_ollama", "ollama"),
        ("openai:gpt", "langchain.chat_models", "openai"),
    ],
)
def test_a_missing_package_names_its_extra(
    model: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=rf"tidegate\[{extra}\]"):
        chat_with(model, options={"api_key": "x"})


def test_a_missing_key_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(SettingsError, match="OPENAI_API_KEY"):
        chat_with("openai:gpt-test")


def test_a_wrong_option_is_named_and_the_key_is_not() -> None:
    with pytest.raises(SettingsError, match="temperature") as failed:
        chat_with("openai:gpt-test", options={"temperature": "warm", "api_key": "sk-secret"})
    assert "sk-secret" not in str(failed.value)


def test_retries_of_the_models_own_cannot_be_asked_for() -> None:
    with pytest.raises(SettingsError, match=r"summary\.attempts"):
        chat_with("openai:gpt-test", options={"api_key": "x", "max_retries": 2})


def test_each_provider_is_given_its_timeout_and_no_retries() -> None:
    settings = SummarySettings(attempt_timeout=7.0, chunk_tokens=1000, options={"temperature": 0.5})
    for provider in ("openai", "anthropic", "mistralai"):
        given = models._arguments(provider, settings)
        assert (given["timeout"], given["max_retries"], given["temperature"]) == (7.0, 0, 0.5)
    ollama = models._arguments("ollama", settings)
    assert ollama["client_kwargs"]["timeout"] == 7.0
    assert ollama["num_ctx"] > settings.chunk_tokens  # Ollama cuts what does not fit, and says nothing
    assert models._arguments("ollama", SummarySettings(options={"num_ctx": 9}))["num_ctx"] == 9


def test_a_key_that_anthropic_would_miss_only_when_asked_is_missed_at_once() -> None:
    class Keyless(ScriptedChat):
        anthropic_api_key: SecretStr = SecretStr("")

    model = Keyless(answer=str)
    assert not models._has_key(model, SummarySettings())
    assert models._has_key(model, SummarySettings(options={"default_headers": {"Authorization": "Bearer x"}}))
    assert models._has_key(Keyless(answer=str, anthropic_api_key=SecretStr("k")), SummarySettings())


@pytest.mark.parametrize("tokens", [-1, 10**30])
async def test_a_count_of_tokens_that_cannot_be_one_is_not_taken(tokens: int) -> None:
    bill = Bill()
    await ask(chat_with(ScriptedChat(answer=str, input_tokens=tokens)), bill)
    assert bill.usage is None
