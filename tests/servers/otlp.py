"""A collector on loopback: what came over OTLP/HTTP, decoded."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import TypeAlias

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import ScopeLogs
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric as ReceivedMetric
from opentelemetry.proto.metrics.v1.metrics_pb2 import ScopeMetrics
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans

Value: TypeAlias = str | bool | int | float | None
Attributes: TypeAlias = dict[str, Value]


@dataclass(frozen=True)
class ReceivedSpan:
    """One span. IDs are in hex, `parent_id` is empty for a root, `links` are trace IDs, `error` is the status."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: int
    attributes: Attributes
    events: tuple[tuple[str, Attributes], ...]
    links: tuple[str, ...]
    error: bool
    resource: Attributes
    trace_state: str


@dataclass(frozen=True)
class Metric:
    """One metric: `points` are the attributes of each of its series."""

    unit: str
    points: tuple[Attributes, ...]


@dataclass(frozen=True)
class Record:
    """One log record; IDs are in hex."""

    severity: str
    body: str
    trace_id: str
    span_id: str
    attributes: Attributes


@dataclass
class Collector:
    """What was received. `status` is the answer to every request; `answering` cleared lets requests hang."""

    url: str
    status: int = 200
    spans: list[ReceivedSpan] = field(default_factory=list)
    metrics: dict[str, Metric] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    bodies: list[tuple[str, bytes]] = field(default_factory=list)
    scopes: set[tuple[str, str, str, str]] = field(default_factory=set)
    """By path: name, version and schema of the instrumentation."""
    answering: Event = field(default_factory=Event)

    def receive(self, path: str, body: bytes) -> None:
        self.paths.append(path)
        self.bodies.append((path, body))
        if path == "/v1/traces":
            traces = ExportTraceServiceRequest.FromString(body)
            self.spans += _spans(traces)
            self._see(path, (scope for each in traces.resource_spans for scope in each.scope_spans))
        elif path == "/v1/logs":
            logs = ExportLogsServiceRequest.FromString(body)
            self.records += _records(logs)
            self._see(path, (scope for each in logs.resource_logs for scope in each.scope_logs))
        elif path == "/v1/metrics":
            request = ExportMetricsServiceRequest.FromString(body)
            scopes = [scope for resource in request.resource_metrics for scope in resource.scope_metrics]
            self.metrics |= {metric.name: _metric(metric) for scope in scopes for metric in scope.metrics}
            self._see(path, scopes)

    def _see(self, path: str, scopes: Iterable[ScopeSpans | ScopeMetrics | ScopeLogs]) -> None:
        self.scopes |= {(path, each.scope.name, each.scope.version, each.schema_url) for each in scopes}


@contextmanager
def collector() -> Iterator[Collector]:
    """Run a collector on a free port, in threads."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            running.receive(self.path, body)
            running.answering.wait()
            self.send_response(running.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - named by its parent
            """Keep quiet."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """Clients that give up are what the tests are about."""

    with Server(("127.0.0.1", 0), Handler) as server:
        running = Collector(f"http://127.0.0.1:{server.server_port}")
        running.answering.set()
        thread = Thread(target=lambda: server.serve_forever(poll_interval=0.01), daemon=True)
        thread.start()
        try:
            yield running
        finally:
            running.answering.set()
            server.shutdown()
            thread.join()


def _spans(request: ExportTraceServiceRequest) -> Iterator[ReceivedSpan]:
    for batch in request.resource_spans:
        resource = _attributes(batch.resource.attributes)
        for span in (span for scope in batch.scope_spans for span in scope.spans):
            yield ReceivedSpan(
                name=span.name,
                trace_id=span.trace_id.hex(),
                span_id=span.span_id.hex(),
                parent_id=span.parent_span_id.hex(),
                kind=span.kind,
                attributes=_attributes(span.attributes),
                events=tuple((event.name, _attributes(event.attributes)) for event in span.events),
                links=tuple(link.trace_id.hex() for link in span.links),
                error=span.status.code == span.status.STATUS_CODE_ERROR,
                resource=resource,
                trace_state=span.trace_state,
            )


def _records(request: ExportLogsServiceRequest) -> Iterator[Record]:
    for scope in (scope for batch in request.resource_logs for scope in batch.scope_logs):
        for record in scope.log_records:
            yield Record(
                record.severity_text,
                record.body.string_value,
                record.trace_id.hex(),
                record.span_id.hex(),
                _attributes(record.attributes),
            )


def _metric(metric: ReceivedMetric) -> Metric:
    points = (*metric.sum.data_points, *metric.histogram.data_points)
    return Metric(metric.unit, tuple(_attributes(point.attributes) for point in points))


def _attributes(pairs: Iterable[KeyValue]) -> Attributes:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Value:
    match value.WhichOneof("value"):
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "int_value":
            return value.int_value
        case "double_value":
            return value.double_value
        case _:
            return None
