"""A span as one line of text, in the form of W3C Trace Context."""

from __future__ import annotations

from collections.abc import MutableMapping

from opentelemetry import trace
from opentelemetry.trace import SpanContext
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_HEADER = "traceparent"
_STATE = "tracestate"
_propagator = TraceContextTextMapPropagator()


def read(text: object, state: object = None) -> SpanContext | None:
    """Return the span that `text` names; None where it names none, for it may come from a damaged store.

    `state` is the `tracestate` that came with it. One that is broken is left out.
    """
    if not isinstance(text, str):
        return None
    carrier = {_HEADER: text, _STATE: state} if isinstance(state, str) else {_HEADER: text}
    found = trace.get_current_span(_propagator.extract(carrier)).get_span_context()
    return found if found.is_valid else None


def inject(headers: MutableMapping[str, str]) -> None:
    """Tell a server by `traceparent` and `tracestate` which span the request is of, and nothing else.

    OTEL_PROPAGATORS is not asked: it would send the app's baggage along to an API of somebody else's, and importing
    `opentelemetry.propagate` fails where it names a propagator that is not installed.
    """
    _propagator.inject(headers)


def write(span: SpanContext) -> str | None:
    """Return the line for a span; None for the span of nobody."""
    if not span.is_valid:
        return None
    return f"00-{trace.format_trace_id(span.trace_id)}-{trace.format_span_id(span.span_id)}-{span.trace_flags:02x}"


def state_of(span: SpanContext) -> str | None:
    """Return the `tracestate` of a span, in which tracing systems note what is theirs; None where there is none."""
    return span.trace_state.to_header() or None
