"""The OpenTelemetry SDK behind the API, with exporters that complain once and never hold up the exit."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Sequence, Set
from importlib.metadata import version
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import requests
from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    ConsoleMetricExporter,
    MetricExportResult,
    MetricReader,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExportResult

_log = logging.getLogger("tidegate.telemetry")


class Collector(requests.Session):
    """The HTTP session of one exporter, which knows what came of its last request."""

    def __init__(self, complaints: set[str]) -> None:
        """Share `complaints` between exporters, so that a collector that is down is named once, not once a signal."""
        super().__init__()
        self._complaints = complaints
        self._last = "it does not answer"

    def request(self, method: str, url: str | bytes, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a request and remember what came of it."""
        address = urlsplit(str(url))
        where = address.netloc.rpartition("@")[2]  # without credentials
        self._last = f"{where} does not answer"
        try:
            response = super().request(method, url, *args, **kwargs)
        except requests.RequestException as error:
            self._last = f"{where} does not answer ({type(error).__name__})"
            raise
        self._last = f"{where} answers {response.status_code} to {address.path}"
        return response

    def gave_up(self) -> None:
        """Say, once, why something was not sent."""
        if self._last not in self._complaints:
            self._complaints.add(self._last)
            _log.warning("telemetry is lost, nothing else is affected: %s", self._last)


class SpanExporter(OTLPSpanExporter):
    """Spans over OTLP/HTTP."""

    def __init__(self, collector: Collector) -> None:
        """Send by this session, to where the OTEL_* variables say."""
        super().__init__(session=collector)
        self._collector = collector

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send the spans; repeats what may pass, for as long as OTEL_EXPORTER_OTLP_TIMEOUT says."""
        result = super().export(spans)
        if result is not SpanExportResult.SUCCESS:
            self._collector.gave_up()
        return result


class MetricExporter(OTLPMetricExporter):
    """Metrics over OTLP/HTTP."""

    def __init__(self, collector: Collector) -> None:
        """Send by this session, to where the OTEL_* variables say."""
        super().__init__(session=collector)
        self._collector = collector

    def export(
        self, metrics_data: MetricsData, timeout_millis: float | None = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        """Send the metrics; repeats what may pass, for as long as OTEL_EXPORTER_OTLP_TIMEOUT says."""
        result = super().export(metrics_data, timeout_millis or 10_000, **kwargs)
        if result is not MetricExportResult.SUCCESS:
            self._collector.gave_up()
        return result


def start(traces: Set[str], measurements: Set[str], *, grace: float) -> Callable[[], None]:
    """Make the SDK the process's provider of traces and metrics, each to `otlp`, `console`, both or neither.

    Returns what sends the rest and stops, in `grace` seconds at most.
    """
    complaints: set[str] = set()
    collectors: list[Collector] = []
    stops: list[Callable[[], object]] = []

    def collector() -> Collector:
        collectors.append(Collector(complaints))
        return collectors[-1]

    if traces:
        tracing = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        if "otlp" in traces:
            tracing.add_span_processor(BatchSpanProcessor(SpanExporter(collector())))
        if "console" in traces:
            tracing.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter(out=sys.stderr)))
        trace.set_tracer_provider(tracing)
        stops.append(tracing.shutdown)
    if measurements:
        readers: list[MetricReader] = []
        if "otlp" in measurements:
            readers.append(PeriodicExportingMetricReader(MetricExporter(collector())))
        if "console" in measurements:
            readers.append(PeriodicExportingMetricReader(ConsoleMetricExporter(out=sys.stderr)))
        metering = MeterProvider(readers, resource=_resource(), shutdown_on_exit=False)
        metrics.set_meter_provider(metering)
        stops.append(metering.shutdown)

    # What the settings are wrong about has been said by now. From here on the SDK would report every batch.
    logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
    logging.getLogger("opentelemetry.sdk").setLevel(logging.ERROR)

    def shutdown() -> None:
        # The SDK's shutdown waits out its retries, 7 s for a port that nobody listens on, and takes no smaller limit.
        # Its threads and these are daemons, so that what hangs is left behind.
        threads = [Thread(target=stop, name="tidegate telemetry", daemon=True) for stop in stops]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + grace
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if any(thread.is_alive() for thread in threads):
            for unfinished in collectors:
                unfinished.gave_up()

    return shutdown


def _resource() -> Resource:
    named = OTELResourceDetector().detect().attributes  # OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES
    return Resource.create({SERVICE_NAME: "tidegate", SERVICE_VERSION: version("tidegate"), **named})
