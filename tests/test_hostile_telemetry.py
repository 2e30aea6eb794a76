"""What an environment, a collector or a hook may do to telemetry, and what an execution notices of it: nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry import baggage, context

from tests.servers.enrichment import EnrichmentServer
from tests.spans import recording
from tests.worlds import NamesByCapital
from tidegate import Pipeline, Settings
from tidegate.telemetry import content, spans
from tidegate.testing import ManualClock

SECRET = "Iwan Roberts owes 3,000"


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "true")
    with recording(monkeypatch) as exporter:
        yield exporter
    content.redact_with(None)


@pytest.mark.parametrize("redact", [lambda _: None, lambda _: 7, lambda text: text.encode()])
def test_a_redaction_that_returns_no_text_fails_nothing_and_records_nothing(
    recorded: Any, redact: Callable[[str], Any]
) -> None:
    content.redact_with(redact)
    with spans.chat("small", "openai", attempt=1) as chat:
        chat.content([("user", SECRET)], SECRET)
    [span] = recorded.get_finished_spans()
    assert SECRET not in span.to_json()
    assert "[not recorded: the redaction returned" in span.attributes["output.value"]


def test_an_exception_that_has_no_message_reaches_its_caller_as_it_was(recorded: Any) -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise RuntimeError(SECRET)

    with pytest.raises(MuteError), spans.node("enrich"):
        raise MuteError
    [span] = recorded.get_finished_spans()
    [event] = span.events
    assert event.attributes["exception.message"] == "[not recorded: its message raised RuntimeError]"


def test_half_a_character_in_an_answer_does_not_keep_a_batch_from_being_sent(recorded: Any) -> None:
    with spans.chat("small", "openai", attempt=1) as chat:
        chat.content([("user", "caf\udce9")], "so \ud83d")
    [span] = recorded.get_finished_spans()
    for value in span.attributes.values():
        str(value).encode()


async def test_an_api_is_told_the_span_and_not_the_baggage_of_the_app(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ManualClock(auto=True)
    token = context.attach(baggage.set_baggage("user.email", "iwan@example.org"))
    try:
        with recording(monkeypatch), EnrichmentServer(clock=clock) as server:
            section: Any = {"adapter": "http", "url": server.url, "types": ["LOC"], "send_traceparent": True}
            settings = Settings(checkpoints="memory:", enrichment=section)
            async with Pipeline.open(settings, recogniser=NamesByCapital(), clock=clock) as pipeline:
                await pipeline.run(text="we met Bob.")
            [request] = server.requests
    finally:
        context.detach(token)
    assert "traceparent" in request.headers
    assert "baggage" not in request.headers


def python(program: str, **variables: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**inherited, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_a_propagator_that_is_not_installed_does_not_matter() -> None:
    done = python("import tidegate.services.http", OTEL_PROPAGATORS="tracecontext,baggage,b3")
    assert done.returncode == 0, done.stderr
