"""The OpenTelemetry SDK behind the API, with exporters that complain once and never hold up the exit."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Sequence, Set
from importlib.metadata import version
from threading import Lock, Thread
from typing import Any
from urllib.parse import urlsplit

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

_log = logging.getLogger("tidegate.telemetry")
_SEVERITIES = {
    logging.INFO: SeverityNumber.INFO,
    logging.WARNING: SeverityNumber.WARN,
    logging.ERROR: SeverityNumber.ERROR,
    logging.CRITICAL: SeverityNumber.FATAL,
}


class Complaints:
    """What is wrong with the collector, each thing said once, whichever exporter meets it first."""

    def __init__(self) -> None:
        """Begin with nothing to complain about."""
        self._said: set[str] = set()
        self._lock = Lock()

    def say(self, problem: str) -> None:
        """Log the problem, unless that was done before."""
        with self._lock:
            known = problem in self._said
            self._said.add(problem)
        if not known:
            _log.warning("telemetry is lost, nothing else is affected: %s", problem)


class Collector(requests.Session):
    """The HTTP session of one exporter, which knows what is wrong with the collector."""

    def __init__(self, complaints: Complaints) -> None:
        """Complain here."""
        super().__init__()
        self._complaints = complaints
        self._problem = ""

    def request(self, method: str, url: str | bytes, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a request and remember what was wrong with it, if anything was."""
        address = urlsplit(str(url))
        where = address.netloc.rpartition("@")[2] or "the collector"  # without credentials
        self._problem = self._problem or f"{where} does not answer"
        try:
            response = super().request(method, url, *args, **kwargs)
        except requests.RequestException as error:
            self._problem = f"{where} does not answer ({type(error).__name__})"
            raise
        self._problem = "" if response.ok else f"{where} answers {response.status_code} to {address.path}"
        return response

    def gave_up(self) -> None:
        """Say why something was not sent."""
        self._complaints.say(self._problem or "there was not enough time to send it")


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
        self._logger = provider.get_logger(names.SCOPE)

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


def start(traces: Set[str], measurements: Set[str], records: Set[str], *, grace: float) -> Callable[[], None]:
    """Make the SDK the process's provider of traces, metrics and logs, each to `otlp`, `console`, both or neither.

    Returns what sends the rest and stops, in `grace` seconds at most.
    """
    complaints = Complaints()
    tracing, metering, logging_ = Collector(complaints), Collector(complaints), Collector(complaints)
    stops: list[tuple[Collector, Callable[[], object]]] = []
    if traces:
        tracer_provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        if "otlp" in traces:
            tracer_provider.add_span_processor(
                BatchSpanProcessor(SpanExporter(tracing), schedule_delay_millis=_delay())
            )
        if "console" in traces:
            tracer_provider.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter(out=sys.stderr)))
        trace.set_tracer_provider(tracer_provider)
        stops.append((tracing, tracer_provider.shutdown))
    if measurements:
        readers: list[MetricReader] = []
        if "otlp" in measurements:
            readers.append(PeriodicExportingMetricReader(MetricExporter(metering)))
        if "console" in measurements:
            readers.append(PeriodicExportingMetricReader(ConsoleMetricExporter(out=sys.stderr)))
        meter_provider = MeterProvider(readers, resource=_resource(), shutdown_on_exit=False)
        metrics.set_meter_provider(meter_provider)
        stops.append((metering, meter_provider.shutdown))
    if records:
        logger_provider = LoggerProvider(resource=_resource(), shutdown_on_exit=False)
        if "otlp" in records:
            logger_provider.add_log_record_processor(BatchLogRecordProcessor(LogExporter(logging_)))
        if "console" in records:
            logger_provider.add_log_record_processor(BatchLogRecordProcessor(ConsoleLogRecordExporter(out=sys.stderr)))
        ours = logging.getLogger("tidegate")
        ours.addHandler(LogHandler(logger_provider))
        ours.setLevel(logging.INFO)  # what is shown on stderr is its handler's to choose
        stops.append((logging_, logger_provider.shutdown))

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
        for collector, thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                collector.gave_up()

    return shutdown


def _delay() -> float | None:
    """Return the milliseconds for which spans are gathered: whoever is killed had little time to be seen."""
    return None if "OTEL_BSP_SCHEDULE_DELAY" in os.environ else 1000.0


def _resource() -> Resource:
    named = OTELResourceDetector().detect().attributes  # OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES
    return Resource.create({SERVICE_NAME: "tidegate", SERVICE_VERSION: version("tidegate"), **named})
