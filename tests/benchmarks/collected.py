"""What a collector got: how many spans, of how many traces, how many without their parent, and what leaked."""

from __future__ import annotations

import operator
from contextlib import ExitStack
from dataclasses import astuple, dataclass

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.servers.otlp import Collector, collector

_open = ExitStack()
_running: Collector | None = None  # of the process that collects: its CPU must not count as the contender's


@dataclass(frozen=True, slots=True)
class Collected:
    """`orphans` are spans whose parent never came, `leaked` spans, and batches of metrics or logs, with a marker."""

    spans: int = 0
    traces: int = 0
    orphans: int = 0
    leaked: int = 0

    def __add__(self, other: Collected) -> Collected:
        return Collected(*map(operator.add, astuple(self), astuple(other)))


def worker_collects() -> str:
    """Begin to collect in the process that calls this; returns the address."""
    global _running
    _running = _open.enter_context(collector())
    return _running.url


def worker_stops() -> None:
    """Stop collecting there: a process that ends first would wait for its server for ever."""
    _open.close()


def worker_collected(marker: str) -> Collected:
    """Return what came since the last time."""
    assert _running is not None
    bodies, _running.bodies = _running.bodies, []
    _running.spans.clear()
    _running.records.clear()
    _running.paths.clear()
    return collected(bodies, marker)


def collected(bodies: list[tuple[str, bytes]], marker: str) -> Collected:
    """Count what is in the bodies of OTLP requests, each with the path that it came to."""
    spans = [
        span
        for path, body in bodies
        if path == "/v1/traces"
        for batch in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in batch.scope_spans
        for span in scope.spans
    ]
    known = {(span.trace_id, span.span_id) for span in spans}
    salt = marker.encode()
    return Collected(
        spans=len(spans),
        traces=len({span.trace_id for span in spans}),
        orphans=sum(bool(span.parent_span_id) and (span.trace_id, span.parent_span_id) not in known for span in spans),
        leaked=sum(salt in span.SerializeToString() for span in spans)
        + sum(salt in body for path, body in bodies if path != "/v1/traces"),
    )
