"""A span as one line of text, in the form of W3C Trace Context."""

from __future__ import annotations

from opentelemetry import trace
from opentelemetry.trace import SpanContext
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_HEADER = "traceparent"
_propagator = TraceContextTextMapPropagator()


def read(text: object) -> SpanContext | None:
    """Return the span that `text` names; None where it names none, for it may come from a damaged store."""
    if not isinstance(text, str):
        return None
    found = trace.get_current_span(_propagator.extract({_HEADER: text})).get_span_context()
    return found if found.is_valid else None


def write(span: SpanContext) -> str | None:
    """Return the line for a span; None for the span of nobody."""
    if not span.is_valid:
        return None
    return f"00-{trace.format_trace_id(span.trace_id)}-{trace.format_span_id(span.span_id)}-{span.trace_flags:02x}"
