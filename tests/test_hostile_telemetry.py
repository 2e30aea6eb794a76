"""What an environment, a collector or a hook may do to telemetry, and what an execution notices of it: nothing."""

from __future__ import annotations

import contextlib
import inspect
import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from opentelemetry import baggage, context
from opentelemetry.sdk import _shared_internal

from tests.servers.enrichment import EnrichmentServer
from tests.servers.otlp import collector
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


def python(program: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**inherited, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_a_propagator_that_is_not_installed_does_not_matter() -> None:
    done = python("import tidegate.services.http", OTEL_PROPAGATORS="tracecontext,baggage,b3")
    assert done.returncode == 0, done.stderr


EXECUTION = """
import sys, time
from tidegate.telemetry import logs, setup, spans

logs.set_up("text", verbose=False)
stop = setup.configure()
with spans.run("t", resumed=False):
    for _ in range(int((sys.argv[1:] or [1])[0])):
        with spans.node("enrich"):
            pass
time.sleep(float((sys.argv[2:] or [0])[0]))
began = time.monotonic()
stop()
print(time.monotonic() - began)
"""


class Ended(NamedTuple):
    """How a process ended: seconds that stopping took, and what it said."""

    delay: float
    errors: str


def execute(*arguments: str, **variables: str) -> Ended:
    """Run EXECUTION with so many nodes (1), after which it waits for so many seconds (0)."""
    done = python(EXECUTION, *arguments, **variables)
    assert done.returncode == 0, done.stderr
    return Ended(float(done.stdout), done.stderr)


@contextmanager
def answering(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """Answer each request on loopback by hand; return the URL."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65536)
            with contextlib.suppress(OSError):
                answer(self.request)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "0"),
        ("OTEL_BLRP_SCHEDULE_DELAY", "0"),
    ],
)
def test_a_variable_that_the_sdk_refuses_costs_its_signal_and_nothing_else(variable: str, value: str) -> None:
    with collector() as received:
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": received.url, "OTEL_LOGS_EXPORTER": "otlp", variable: value}
        ended = execute(**variables)
        lost = "metrics" if "METRIC" in variable else "logs" if "BLRP" in variable else "traces"
        assert f"no {lost} are sent, nothing else is affected: " in ended.errors
        assert {"/v1/traces", "/v1/metrics"} - set(received.paths) == {f"/v1/{lost}"} - {"/v1/logs"}


def test_limits_that_the_sdk_cannot_even_be_imported_with_fail_nothing() -> None:
    ended = execute(OTEL_TRACES_EXPORTER="otlp", OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT="many")
    assert ended.errors.startswith("WARNING tidegate.telemetry: no telemetry is sent, nothing else is affected: ")


@pytest.mark.parametrize("seconds", ["inf", "nan"])
def test_an_endless_timeout_does_not_fail_the_exit(seconds: str) -> None:
    ended = execute(
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT="http://127.0.0.1:9/v1/traces", OTEL_EXPORTER_OTLP_TIMEOUT=seconds
    )
    assert ended.delay < 12


def test_a_collector_that_leads_elsewhere_is_not_followed_and_is_named() -> None:
    with answering(lambda to: to.sendall(b"HTTP/1.1 307 X\r\nLocation: http://127.0.0.1:9/\r\n\r\n")) as url:
        ended = execute(OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{url}/v1/traces")
    assert "answers 307 to /v1/traces" in ended.errors


def test_an_answer_without_end_fills_no_memory() -> None:
    taken = 0

    def flood(to: socket.socket) -> None:
        nonlocal taken
        to.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while taken < 100_000_000:
            to.sendall(b"x" * 100_000)
            taken += 100_000

    with answering(flood) as url:
        ended = execute("1", "0.1", OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{url}/v1/traces")
    assert taken < 20_000_000, "more than the sockets' buffers hold"
    assert ended.errors == ""


@pytest.mark.skipif(
    "Queue full" not in inspect.getsource(_shared_internal), reason="this SDK drops spans without a word (1.39)"
)
def test_spans_that_a_slow_collector_left_no_room_for_are_told_of_once() -> None:
    with collector() as received:
        received.answering.clear()
        ended = execute("5000", OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{received.url}/v1/traces")
    assert ended.errors.count("the collector takes too long, and some was dropped") == 1


def test_headers_that_cannot_be_read_are_not_shown() -> None:
    ended = execute(
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT="http://127.0.0.1:9/v1/traces",
        OTEL_EXPORTER_OTLP_HEADERS="Authorization: Bearer s3cr3t,api-key=s3cr3té",
    )
    assert "s3cr3t" not in ended.errors
    assert "Header format invalid" in ended.errors


@pytest.mark.slow
@pytest.mark.parametrize(("impatience", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, -signal.SIGTERM)])
def test_whoever_does_not_wait_for_the_last_spans_has_the_result(
    tmp_path: Path, impatience: signal.Signals, code: int
) -> None:
    (tmp_path / "note.txt").write_text("we met Bob.")
    with collector() as received:
        received.answering.clear()
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "TIDEGATE_"))}
        process = subprocess.Popen(
            [sys.executable, "-m", "tidegate", "run", "note.txt", "--checkpoints", "memory:", "--quiet"],
            cwd=tmp_path,
            env={
                **inherited,
                "OTEL_EXPORTER_OTLP_ENDPOINT": received.url,
                "OTEL_EXPORTER_OTLP_TIMEOUT": "10",
                "TIDEGATE_RECOGNISER": "rules",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = time.monotonic() + 30
        while "/v1/metrics" not in received.paths and time.monotonic() < deadline:  # sent when it ends
            time.sleep(0.01)
        process.send_signal(impatience)
        told, errors = process.communicate(timeout=5)
    assert "complete, revision 1" in told
    assert process.returncode == code, errors
