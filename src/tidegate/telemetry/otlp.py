"""The OpenTelemetry SDK behind the API, with exporters that complain once and never hold up the exit."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Sequence, Set
from contextlib import suppress
from functools import partial
from threading import Thread
from typing import Any

import requests
from opentelemetry import context, metrics, trace
from opentelemetry._logs import SeverityNumber
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider, ReadableLogRecord
from opentelemetry.sdk._logs.export import (
    BatchLogRecordProcessor,
    ConsoleLogRecordExporter,
    LogRecordExportResult,
)
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

from tidegate.telemetry import content, logs, names
from tidegate.telemetry.collector import LOGGER, Collector, Complaints, heed

_log = logging.getLogger(LOGGER)
_SEVERITIES = {
    logging.INFO: SeverityNumber.INFO,
    logging.WARNING: SeverityNumber.WARN,
    logging.ERROR: SeverityNumber.ERROR,
    logging.CRITICAL: SeverityNumber.FATAL,
}


class SpanExporter(OTLPSpanExporter):
    """Spans over OTLP/HTTP."""

    def __init__(self, collector: Collector) -> None:
        """Send by this session, to where the OTEL_* variables say."""
        super().__init__(session=collector)
        self._collector = collector

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send the spans; repeats what may pass, for as long as OTEL_EXPORTER_OTLP_TIMEOUT says."""
        try:
            result = super().export(spans)
        except requests.RequestException:  # the SDK lets a refused connection through up to 1.39
            result = SpanExportResult.FAILURE
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
        try:
            result = super().export(metrics_data, timeout_millis or 10_000, **kwargs)
        except requests.RequestException:
            result = MetricExportResult.FAILURE
        if result is not MetricExportResult.SUCCESS:
            self._collector.gave_up()
        return result


class LogExporter(OTLPLogExporter):
    """Log records over OTLP/HTTP."""

    def __init__(self, collector: Collector) -> None:
        """Send by this session, to where the OTEL_* variables say."""
        super().__init__(session=collector)
        self._collector = collector

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        """Send the records; repeats what may pass, for as long as OTEL_EXPORTER_OTLP_TIMEOUT says."""
        try:
            result = super().export(batch)
        except requests.RequestException:
            result = LogRecordExportResult.FAILURE
        if result is not LogRecordExportResult.SUCCESS:
            self._collector.gave_up()
        return result


class LogHandler(logging.Handler):
    """Hands Tidegate's records to OpenTelemetry, each in the span that it was made in.

    The SDK's own handler is deprecated, and the one that took its place sends the messages of exceptions along.
    """

    def __init__(self, provider: LoggerProvider) -> None:
        """Take records from INFO on."""
        super().__init__(logging.INFO)
        self._logger = provider.get_logger(names.SCOPE, names.VERSION, names.SCHEMA_URL)

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record, unless it is of the telemetry itself."""
        if record.name.startswith(_log.name):
            return
        place = {key: value for key, value in logs.here().items() if key in ("thread_id", "node")}
        attributes: dict[str, str] = {"logger.name": record.name, **place}
        if error := logs.error_of(record).get("error"):
            attributes[names.EXCEPTION_TYPE] = error["type"]
        self._logger.emit(
            timestamp=int(record.created * 1e9),
            context=context.get_current(),
            severity_number=_SEVERITIES.get(record.levelno, SeverityNumber.UNSPECIFIED),
            severity_text=record.levelname,
            body=content.encodable(logs.message_of(record)),
            attributes=attributes,
        )


def start(
    traces: Set[str], measurements: Set[str], records: Set[str], *, readers: Sequence[MetricReader] = (), grace: float
) -> Callable[[], None]:
    """Make the SDK the process's provider of traces, metrics and logs, each to `otlp`, `console`, both or neither.

    Metrics are read by `readers`, too.

    Returns what sends the rest and stops, in `grace` seconds at most.
    """
    complaints = Complaints()
    heed(complaints)
    resource = _resource()
    stops: list[tuple[Collector, Callable[[], object]]] = []
    for signal, exporters, begin in (
        ("traces", traces, _trace),
        ("metrics", measurements, partial(_measure, readers)),
        ("logs", records, _record),
    ):
        collector = Collector(complaints)
        try:
            if exporters or (signal == "metrics" and readers):
                stops.append((collector, begin(exporters, collector, resource)))
        except Exception as error:  # noqa: BLE001 - what the SDK raises for a variable that it cannot read
            problem = str(error) if isinstance(error, ValueError) else type(error).__name__
            _log.warning("no %s are sent, nothing else is affected: %s", signal, problem)

    # What is wrong with the settings has been said by now. From here on the SDK would report every batch.
    logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
    logging.getLogger("opentelemetry.sdk").setLevel(logging.ERROR)

    def shutdown() -> None:
        # The SDK's shutdown waits out its retries, 7 s for a port that nobody listens on, and takes no smaller limit.
        # Its threads and these are daemons, so that what hangs is left behind.
        threads = [
            (collector, Thread(target=stop, name="tidegate telemetry", daemon=True)) for collector, stop in stops
        ]
        for _, thread in threads:
            thread.start()
        deadline = time.monotonic() + grace
        with suppress(KeyboardInterrupt):  # whoever does not want to wait for this does without it
            for collector, thread in threads:
                thread.join(max(0.0, deadline - time.monotonic()))
                if thread.is_alive():
                    collector.gave_up()

    return shutdown


def _trace(exporters: Set[str], collector: Collector, resource: Resource) -> Callable[[], object]:
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    if "otlp" in exporters:
        provider.add_span_processor(BatchSpanProcessor(SpanExporter(collector), schedule_delay_millis=_delay()))
    if "console" in exporters:
        provider.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter(out=sys.stderr)))
    trace.set_tracer_provider(provider)
    return provider.shutdown


def _measure(
    others: Sequence[MetricReader], exporters: Set[str], collector: Collector, resource: Resource
) -> Callable[[], object]:
    readers = list(others)
    if "otlp" in exporters:
        readers.append(PeriodicExportingMetricReader(MetricExporter(collector)))
    if "console" in exporters:
        readers.append(PeriodicExportingMetricReader(ConsoleMetricExporter(out=sys.stderr)))
    provider = MeterProvider(readers, resource=resource, shutdown_on_exit=False)
    metrics.set_meter_provider(provider)
    return provider.shutdown


def _record(exporters: Set[str], collector: Collector, resource: Resource) -> Callable[[], object]:
    provider = LoggerProvider(resource=resource, shutdown_on_exit=False)
    if "otlp" in exporters:
        provider.add_log_record_processor(BatchLogRecordProcessor(LogExporter(collector)))
    if "console" in exporters:
        provider.add_log_record_processor(BatchLogRecordProcessor(ConsoleLogRecordExporter(out=sys.stderr)))
    ours = logging.getLogger("tidegate")
    ours.addHandler(LogHandler(provider))
    ours.setLevel(logging.INFO)  # what is shown on stderr is its handler's to choose
    return provider.shutdown


def _delay() -> float | None:
    """Return the milliseconds for which spans are gathered: whoever is killed had little time to be seen."""
    return None if "OTEL_BSP_SCHEDULE_DELAY" in os.environ else 1000.0


def _resource() -> Resource:
    named = OTELResourceDetector().detect().attributes  # OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES
    return Resource.create({SERVICE_NAME: "tidegate", SERVICE_VERSION: names.VERSION, **named})
