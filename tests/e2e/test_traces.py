"""One execution is one trace, with the reason of every route; a resumed one links to the one before."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.fakes import ScriptedChat
from tests.servers.enrichment import EnrichmentServer
from tests.servers.otlp import collector
from tidegate import Pipeline, Settings
from tidegate.telemetry import names, spans
from tidegate.testing import ManualClock

TEXT = "Mr Arne Lund met Ms Berta Moe, Dr Carl Nygaard, Mrs Dina Olsen and Ms Salty Marker in Hamburg."


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(spans, "_tracer", provider.get_tracer(names.SCOPE))
    yield exporter
    provider.shutdown()


def named(found: list[ReadableSpan], name: str) -> list[ReadableSpan]:
    return [span for span in found if span.name == name]


async def test_an_outage_and_its_healing_are_two_linked_traces(tmp_path: Path, exporter: InMemorySpanExporter) -> None:
    clock = ManualClock(auto=True)
    model = ScriptedChat(answer=lambda _: "Arne Lund met Berta Moe in Hamburg. [1]")
    with EnrichmentServer(then=503) as server:
        enrichment: Any = {"adapter": "http", "url": server.url, "types": ["PERSON"], "concurrency": 1, "batch_size": 2}
        settings = Settings.read(checkpoints=f"sqlite:///{tmp_path}/t.db", recogniser="rules", enrichment=enrichment)
        async with Pipeline.open(settings, clock=clock, model=model) as pipeline:
            await pipeline.run(text=TEXT, thread_id="t")
            first = list(exporter.get_finished_spans())
            exporter.clear()
            server.follow(())
            clock.advance(31.0)
            await pipeline.resume("t")
            second = list(exporter.get_finished_spans())

    for found in (first, second):
        (run,) = named(found, names.RUN)
        assert {span.context.trace_id for span in found if span.context} == {run.context.trace_id if run.context else 0}
        ids = {span.context.span_id for span in found if span.context}
        assert [span.name for span in found if span.parent is None or span.parent.span_id not in ids] == [names.RUN]

    (run,) = named(first, names.RUN)
    assert (run.attributes or {})[names.OUTCOME] == "degraded"
    assert len(named(first, "POST")) == 3
    gates = [dict(span.attributes or {}) for span in named(first, "invoke_node gate_enrichment")]
    assert [(gate[names.ROUTE], gate[names.ROUTE_REASON]) for gate in gates] == [
        ("enrich", "circuit closed"),
        ("gate_summary", "circuit open"),
    ]
    events = [event.name for span in first for event in span.events]
    assert events.count(names.CIRCUIT_CHANGED) == 1
    assert names.RETRY_SCHEDULED in events
    assert named(first, f"{names.CHAT} scripted")
    assert len(named(first, names.CHECKPOINT_PUT)) >= 7

    (resumed,) = named(second, names.RUN)
    assert (resumed.attributes or {})[names.RESUMED] is True
    assert [link.context.trace_id for link in resumed.links] == [run.context.trace_id if run.context else 0]
    assert (resumed.attributes or {})[names.OUTCOME] == "complete"

    written = repr(
        [(s.name, dict(s.attributes or {}), [dict(e.attributes or {}) for e in s.events]) for s in first + second]
    )
    assert "Marker" not in repr(written)


def command(tmp_path: Path, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "TIDEGATE_"))}
    return subprocess.Popen(
        [sys.executable, "-m", "tidegate", *arguments],
        env={**inherited, "TIDEGATE_RECOGNISER": "rules", **variables},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_a_killed_run_was_seen_and_its_successor_links_to_it(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text(TEXT)
    with collector() as received, EnrichmentServer(["hang"]) as server:
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": received.url,
            "TIDEGATE_ENRICHMENT__ADAPTER": "http",
            "TIDEGATE_ENRICHMENT__URL": server.url,
            "TIDEGATE_ENRICHMENT__TYPES": '["LOC"]',
        }
        killed = command(tmp_path, "run", "note.txt", "--thread-id", "t", **variables)
        server.wait_for(1)
        wait_until(lambda: any(span.name == names.RUN_STARTED for span in received.spans))
        killed.kill()
        killed.communicate()
        started = next(span for span in received.spans if span.name == names.RUN_STARTED)
        assert started.attributes[names.GEN_AI_CONVERSATION_ID] == "t"
        assert not any(span.name == names.RUN for span in received.spans)  # it never ended

        received.spans.clear()
        server.follow(())
        parent = f"00-{7:032x}-{8:016x}-01"
        resumed = command(tmp_path, "resume", "t", TRACEPARENT=parent, TRACESTATE="vendor=a", **variables)
        _, errors = resumed.communicate(timeout=60)
        assert resumed.returncode == 0, errors
        (run,) = (span for span in received.spans if span.name == names.RUN)
        assert run.links == (started.trace_id,)
        assert run.attributes[names.RESUMED_FROM] == started.trace_id
        assert (run.trace_id, run.parent_id) == (f"{7:032x}", f"{8:016x}")  # the job's that called
        assert {span.trace_id for span in received.spans} == {run.trace_id}
        called = {span.span_id: span.name for span in received.spans}
        inside = [(called.get(span.parent_id, "the job"), span.name) for span in received.spans]
        assert sorted(each for each in inside if each[1] != names.CHECKPOINT_PUT) == sorted(
            [
                ("the job", names.RUN),
                (names.RUN, names.RUN_STARTED),
                (names.RUN, "invoke_node enrich"),
                ("invoke_node enrich", "POST"),
                (names.RUN, "invoke_node gate_enrichment"),
                (names.RUN, "invoke_node gate_summary"),
                (names.RUN, "invoke_node summarize_extractive"),
                (names.RUN, "invoke_node conclude"),
            ]
        )
        assert {parent for parent, name in inside if name == names.CHECKPOINT_PUT} == {names.RUN}
        assert {span.trace_state for span in received.spans} == {"vendor=a"}


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30.0
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)
