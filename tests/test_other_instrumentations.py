"""Tidegate in a process whose LangChain is instrumented by somebody else, as agent apps do it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.fakes import ScriptedChat
from tests.spans import recording
from tests.worlds import NamesByCapital
from tidegate import Pipeline, Settings

theirs = pytest.importorskip("openinference.instrumentation.langchain", reason="needs a development dependency")
utils = pytest.importorskip("opentelemetry.instrumentation.utils", reason="needs a development dependency")


@pytest.fixture
def others() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    instrumentor = theirs.LangChainInstrumentor()
    instrumentor.instrument(tracer_provider=provider)
    yield exporter
    instrumentor.uninstrument()
    provider.shutdown()


@pytest.mark.parametrize("suppressed", [False, True])
async def test_suppressed_around_a_run_they_are_silent_and_ours_are_not(
    others: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch, suppressed: bool
) -> None:
    model = ScriptedChat(answer=lambda _: "They met Bob. [1]")
    settings = Settings(checkpoints="memory:")
    with recording(monkeypatch) as ours:
        async with Pipeline.open(settings, model=model, recogniser=NamesByCapital()) as pipeline:
            with utils.suppress_instrumentation() if suppressed else nullcontext():
                assert (await pipeline.run(text="we met Bob.")).status == "complete"
        names = [span.name for span in ours.get_finished_spans()]
    assert names.count("chat scripted") == names.count("invoke_workflow tidegate") == 1
    found = [span.name for span in others.get_finished_spans()]
    if suppressed:
        assert found == []
    else:  # what the README warns of: each node and each request to the model again
        assert {"ScriptedChat", "summarize", "conclude"} <= set(found)
        assert any("met Bob" in span.to_json() for span in others.get_finished_spans())
