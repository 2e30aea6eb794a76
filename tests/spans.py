"""Spans as a test reads them: recorded in this process, and drawn as a tree."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from tidegate.telemetry import names, spans

_SHOWN = {
    names.RESUMED: "resumed",
    names.BACKFILL: "backfill",
    names.OUTCOME: "",
    names.REVISION: "revision",
    names.MISSING: "missing",
    names.ROUTE: "->",
    names.ROUTE_REASON: "as",
    names.NODE_INTERRUPTED: "interrupted",
    names.HTTP_RESEND_COUNT: "resent",
    names.HTTP_STATUS: "",
    names.CHECKPOINT_STEP: "step",
    names.GEN_AI_PROVIDER: "of",
    names.GEN_AI_RESPONSE_MODEL: "by",
    names.GEN_AI_RESPONSE_ID: "id",
    names.GEN_AI_RESPONSE_FINISH: "ended",
    names.GEN_AI_USAGE_INPUT: "in",
    names.GEN_AI_USAGE_OUTPUT: "out",
    names.ERROR_TYPE: "error",
}
_OF_EVENTS = (
    names.RETRY_ATTEMPT,
    names.CIRCUIT_NAME,
    names.CIRCUIT_FROM,
    names.CIRCUIT_TO,
    names.CIRCUIT_REASON,
    names.CALL_SERVICE,
    names.ERROR_TYPE,
)


@contextmanager
def recording(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """Record Tidegate's spans, those of a tracer provider of this test alone."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with monkeypatch.context() as patch:
        patch.setattr(spans, "_tracer", provider.get_tracer(names.SCOPE))
        yield exporter
    provider.shutdown()


def ids(span: ReadableSpan) -> tuple[int, int]:
    """Return the IDs of trace and span."""
    assert span.context is not None
    return span.context.trace_id, span.context.span_id


def tree(found: Sequence[ReadableSpan], *, without: Collection[str] = ()) -> str:
    """Draw spans as a tree, children in the order of their beginning, with what tells them apart.

    Those of names in `without` are left out. `X` stands before a span whose status is an error, `!` before an event,
    `~` before a link, whose trace is `earlier` if it is none of these.
    """
    found = [span for span in found if span.name not in without]
    known = {ids(span)[1] for span in found}
    roots = [span for span in found if span.parent is None or span.parent.span_id not in known]
    traces = {ids(span)[0]: f"trace {number}" for number, span in enumerate(roots, 1)}
    return "\n".join(line for root in roots for line in _lines(root, found, traces, 0))


def _lines(span: ReadableSpan, found: Sequence[ReadableSpan], traces: dict[int, str], depth: int) -> Iterator[str]:
    indent = "  " * depth
    error = "X " if span.status.status_code is StatusCode.ERROR else ""
    yield indent + " ".join([error + span.name, *_told(span.attributes or {})])
    for link in span.links:
        yield f"{indent}  ~ {traces.get(link.context.trace_id, 'earlier')}"
    for event in span.events:
        told = [str((event.attributes or {})[key]) for key in _OF_EVENTS if key in (event.attributes or {})]
        yield f"{indent}  ! {' '.join([event.name.removeprefix('tidegate.'), *told])}"
    children = [each for each in found if each.parent is not None and each.parent.span_id == ids(span)[1]]
    for child in sorted(children, key=lambda each: each.start_time or 0):
        yield from _lines(child, found, traces, depth + 1)


def _told(attributes: Any) -> Iterable[str]:
    for key, word in _SHOWN.items():
        value = attributes.get(key)
        if value is True:
            yield word
        elif value is not None and value is not False:
            yield f"{word} {value}".strip()
