"""Every execution is one trace: its tree, with routes, retries, circuits, outcome and the link to the one before."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from textwrap import dedent
from typing import Any, TypedDict

import pytest
from langchain_core.outputs import ChatResult
from langgraph.graph import END, START, StateGraph
from opentelemetry import trace
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.fakes import ScriptedChat
from tests.servers.enrichment import EnrichmentServer
from tests.spans import ids, recording, tree
from tests.worlds import NamesByCapital
from tidegate import Pipeline, Settings
from tidegate.errors import CircuitOpen
from tidegate.telemetry import names, spans
from tidegate.testing import ManualClock

TEXT = "we met Bob, Eve, Joe, Kim and Zoe."


class Traced:
    """A pipeline with an API of its own, whose executions are drawn."""

    def __init__(
        self, pipeline: Pipeline, server: EnrichmentServer, clock: ManualClock, exporter: InMemorySpanExporter
    ) -> None:
        self.pipeline, self.server, self.clock, self._exporter = pipeline, server, clock, exporter

    def drawn(self, *, checkpoints: bool = False) -> str:
        """Draw what was recorded since the last time; there are no orphans, and what names nothing is one trace."""
        found = self._exporter.get_finished_spans()
        self._exporter.clear()
        known = {ids(span) for span in found}
        for span in found:
            assert span.parent is None or (span.parent.trace_id, span.parent.span_id) in known
        return tree(found, without=() if checkpoints else (names.CHECKPOINT_PUT,))


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    with recording(monkeypatch) as exporter:
        yield exporter


@asynccontextmanager
async def traced(
    exporter: InMemorySpanExporter, script: Any = (), *, model: Any = None, **enrichment: Any
) -> AsyncIterator[Traced]:
    clock = ManualClock(auto=True)
    with EnrichmentServer(script, clock=clock) as server:
        section = {"url": server.url, "types": ["LOC"], "concurrency": 1, "batch_size": 1, **enrichment}
        settings = Settings(
            checkpoints="memory:",
            enrichment={"adapter": "http", **section},  # type: ignore[arg-type]
        )
        async with Pipeline.open(settings, model=model, recogniser=NamesByCapital(), clock=clock) as pipeline:
            yield Traced(pipeline, server, clock, exporter)


def lines(text: str) -> str:
    return dedent(text).strip("\n")


async def test_a_healthy_run(exporter: InMemorySpanExporter) -> None:
    model = ScriptedChat(answer=lambda _: "They met Bob. [1]")
    async with traced(exporter, model=model) as opened:
        await opened.pipeline.run(text="we met Bob.")
        assert opened.drawn(checkpoints=True) == lines("""
            invoke_workflow tidegate complete revision 1 missing 0
              run started
              checkpoint put step -1
              checkpoint put step 0
              invoke_node ingest
              checkpoint put step 1
              invoke_node extract
              checkpoint put step 2
              invoke_node gate_enrichment -> enrich as circuit closed
              checkpoint put step 3
              invoke_node enrich
                POST 200
              checkpoint put step 4
              invoke_node gate_enrichment -> gate_summary as nothing left to ask
              checkpoint put step 5
              invoke_node gate_summary -> summarize as circuit closed
              checkpoint put step 6
              invoke_node summarize
                chat scripted of tests by scripted-1 id answer-1 ended ('stop',) in 100 out 20
              checkpoint put step 7
              invoke_node conclude
              checkpoint put step 8
            """)


async def test_a_fan_out_with_retries(exporter: InMemorySpanExporter) -> None:
    async with traced(exporter, [200, 503, 200, 200, 503, 200, 200]) as opened:
        await opened.pipeline.run(text=TEXT)
        assert opened.drawn() == lines("""
            invoke_workflow tidegate complete revision 1 missing 0
              run started
              invoke_node ingest
              invoke_node extract
              invoke_node gate_enrichment -> enrich as circuit closed
              invoke_node enrich
                POST 200
              invoke_node enrich
                ! retry.scheduled 1 enrichment Transient
                X POST 503 error 503
                POST resent 1 200
              invoke_node enrich
                POST 200
              invoke_node enrich
                ! retry.scheduled 1 enrichment Transient
                X POST 503 error 503
                POST resent 1 200
              invoke_node enrich
                POST 200
              invoke_node gate_enrichment -> gate_summary as nothing left to ask
              invoke_node gate_summary -> summarize_extractive as no model configured
              invoke_node summarize_extractive
              invoke_node conclude
            """)


async def test_an_outage_and_the_backfill_after_it(exporter: InMemorySpanExporter) -> None:
    async with traced(exporter, [503] * 3) as opened:
        await opened.pipeline.run(text="we met Bob.", thread_id="t")
        assert opened.drawn() == lines("""
            invoke_workflow tidegate degraded revision 1 missing 1
              run started
              invoke_node ingest
              invoke_node extract
              invoke_node gate_enrichment -> enrich as circuit closed
              invoke_node enrich
                ! retry.scheduled 1 enrichment Transient
                ! retry.scheduled 2 enrichment Transient
                ! circuit.state_changed enrichment closed open transient
                X POST 503 error 503
                X POST resent 1 503 error 503
                X POST resent 2 503 error 503
              invoke_node gate_enrichment -> gate_summary as circuit open
              invoke_node gate_summary -> summarize_extractive as no model configured
              invoke_node summarize_extractive
              invoke_node conclude
            """)
        await opened.pipeline.resume("t")  # nothing can be had: nothing runs
        assert opened.drawn() == ""
        await opened.pipeline.run(text="we met Eve.", thread_id="u")
        assert opened.drawn() == lines("""
            invoke_workflow tidegate degraded revision 1 missing 1
              run started
              invoke_node ingest
              invoke_node extract
              invoke_node gate_enrichment -> gate_summary as circuit open
              invoke_node gate_summary -> summarize_extractive as no model configured
              invoke_node summarize_extractive
              invoke_node conclude
            """)
        await opened.pipeline.delete("u")
        opened.clock.advance(31.0)
        [_] = [each async for each in opened.pipeline.backfill()]
        assert opened.drawn() == lines("""
            invoke_workflow tidegate resumed backfill complete revision 2 missing 0
              ~ earlier
              run started
              invoke_node gate_enrichment -> enrich as circuit half-open: one probe
              invoke_node enrich
                ! circuit.state_changed enrichment open half_open
                ! circuit.state_changed enrichment half_open closed
                POST 200
              invoke_node gate_enrichment -> gate_summary as nothing left to ask
              invoke_node gate_summary -> conclude as no model configured
              invoke_node conclude
            """)


async def test_a_thread_that_waits_and_goes_on(exporter: InMemorySpanExporter) -> None:
    async with traced(exporter, [503] * 3, when_open="wait") as opened:
        await opened.pipeline.run(text="we met Bob.", thread_id="t")
        assert opened.drawn() == lines("""
            invoke_workflow tidegate waiting revision 0 missing 0
              run started
              invoke_node ingest
              invoke_node extract
              invoke_node gate_enrichment -> enrich as circuit closed
              invoke_node enrich
                ! retry.scheduled 1 enrichment Transient
                ! retry.scheduled 2 enrichment Transient
                ! circuit.state_changed enrichment closed open transient
                X POST 503 error 503
                X POST resent 1 503 error 503
                X POST resent 2 503 error 503
              invoke_node gate_enrichment -> await_enrichment as circuit open
              invoke_node await_enrichment interrupted
            """)
        opened.clock.advance(31.0)
        await opened.pipeline.resume("t")
        assert opened.drawn() == lines("""
            invoke_workflow tidegate resumed complete revision 1 missing 0
              ~ earlier
              run started
              invoke_node await_enrichment
              invoke_node gate_enrichment -> enrich as circuit half-open: one probe
              invoke_node enrich
                ! circuit.state_changed enrichment open half_open
                ! circuit.state_changed enrichment half_open closed
                POST 200
              invoke_node gate_enrichment -> gate_summary as nothing left to ask
              invoke_node gate_summary -> summarize_extractive as no model configured
              invoke_node summarize_extractive
              invoke_node conclude
            """)


async def test_a_run_that_fails_by_policy(exporter: InMemorySpanExporter) -> None:
    async with traced(exporter, [503] * 3, when_open="fail") as opened:
        with pytest.raises(CircuitOpen):
            await opened.pipeline.run(text="we met Bob.", thread_id="t")
        drawn = opened.drawn().splitlines()
        assert drawn[0] == "X invoke_workflow tidegate failed error CircuitOpen"
        assert drawn[-1] == "  X invoke_node gate_enrichment error CircuitOpen"


async def test_a_run_that_is_cancelled_is_no_error(exporter: InMemorySpanExporter) -> None:
    async with traced(exporter, ["hang"]) as opened:
        running = asyncio.create_task(opened.pipeline.run(text="we met Bob.", thread_id="t"))
        await asyncio.to_thread(opened.server.wait_for, 1)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert opened.drawn() == lines("""
            invoke_workflow tidegate cancelled
              run started
              invoke_node ingest
              invoke_node extract
              invoke_node gate_enrichment -> enrich as circuit closed
              X invoke_node enrich error CancelledError
                X POST error CancelledError
            """)


async def test_a_stream_that_is_left_early_ends_its_spans_and_detaches_its_context(
    exporter: InMemorySpanExporter, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "opentelemetry")
    async with traced(exporter) as opened:
        async with aclosing(opened.pipeline.stream(text="we met Bob.", thread_id="t")) as events:
            async for event in events:
                if event.step == "extract":
                    break
        assert opened.drawn().startswith("invoke_workflow tidegate cancelled\n  run started\n  invoke_node ingest")
        outer = trace.get_current_span()
        async for _ in opened.pipeline.stream(thread_id="t"):
            assert trace.get_current_span() is outer
        assert opened.drawn().startswith(
            "invoke_workflow tidegate resumed complete revision 1 missing 0\n  ~ earlier\n"
        )
        assert not caplog.records


CALLED = lines("""
    agent
      invoke_workflow tidegate complete revision 1 missing 0
        run started
        invoke_node ingest
        invoke_node extract
        invoke_node gate_enrichment -> enrich as circuit closed
        invoke_node enrich
          POST 200
        invoke_node gate_enrichment -> gate_summary as nothing left to ask
        invoke_node gate_summary -> summarize_extractive as no model configured
        invoke_node summarize_extractive
        invoke_node conclude
    """)


async def test_through_the_blocking_door_the_run_is_inside_of_the_caller_s_span(exporter: InMemorySpanExporter) -> None:
    async with traced(exporter) as opened:
        with spans._tracer.start_as_current_span("agent"):
            await asyncio.to_thread(opened.pipeline.run_sync, text="we met Bob.")
        assert opened.drawn() == CALLED


class Outer(TypedDict, total=False):
    document: str
    result: dict[str, Any]


async def test_from_a_synchronous_graph_the_run_is_inside_of_the_caller_s_span(
    exporter: InMemorySpanExporter, tmp_path: Any
) -> None:
    (tmp_path / "note.txt").write_text("we met Bob.")
    async with traced(exporter) as opened:
        outer = StateGraph(Outer)
        outer.add_node("summarize", opened.pipeline.as_node())
        outer.add_edge(START, "summarize")
        outer.add_edge("summarize", END)
        graph: Any = outer.compile()

        def call() -> None:
            with spans._tracer.start_as_current_span("agent"):
                graph.invoke({"document": str(tmp_path / "note.txt")})

        await asyncio.to_thread(call)
        assert opened.drawn() == CALLED


async def test_without_tracing_a_checkpoint_names_no_trace() -> None:
    async with Pipeline.open(Settings(checkpoints="memory:"), recogniser=NamesByCapital()) as pipeline:
        await pipeline.run(text="we met Bob.", thread_id="t")
        async for snapshot in pipeline.graph.aget_state_history({"configurable": {"thread_id": "t"}}):
            assert names.TRACEPARENT not in (snapshot.metadata or {})


async def test_a_request_that_took_too_long_is_told_from_one_that_was_cancelled(exporter: InMemorySpanExporter) -> None:
    async with traced(exporter, ["hang"], attempt_timeout=1.0, attempts=1) as opened:
        await opened.pipeline.run(text="we met Bob.")
        requests = [line.strip() for line in opened.drawn().splitlines() if "POST" in line]
    assert requests == ["X POST error timeout"]


async def test_a_model_that_took_too_long_is_told_from_one_that_was_cancelled(
    exporter: InMemorySpanExporter,
) -> None:
    class Silent(ScriptedChat):
        async def _agenerate(self, *args: Any, **kwargs: Any) -> ChatResult:
            await asyncio.sleep(60)
            raise AssertionError

    model = Silent(answer=str)
    clock = ManualClock(auto=True)
    settings = Settings(checkpoints="memory:", summary={"attempt_timeout": 0.05, "attempts": 1})  # type: ignore[arg-type]
    async with Pipeline.open(settings, model=model, recogniser=NamesByCapital(), clock=clock) as pipeline:
        await pipeline.run(text=TEXT)
    [chat] = [span for span in exporter.get_finished_spans() if span.name.startswith("chat")]
    assert chat.attributes is not None
    assert chat.attributes["error.type"] == "timeout"
