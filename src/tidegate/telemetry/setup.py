"""Telemetry of the command line: the OpenTelemetry SDK, set up from the standard OTEL_* variables if one is set."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricReader

_log = logging.getLogger("tidegate.telemetry")

EXIT_GRACE = 1.0
"""Seconds that the last spans may take to be sent; OTEL_EXPORTER_OTLP_TIMEOUT, in seconds, overrides it."""

LONGEST_GRACE = 10.0
"""Seconds at most, whatever that says: other SDKs read milliseconds, and 10000 would hold an exit up for hours."""

_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


def configure(readers: Sequence[MetricReader] = ()) -> Callable[[], None]:
    """Start exporting spans, metrics and logs; return what sends the last of them, to be called once before exit.

    Spans go where OTEL_TRACES_EXPORTER says: `otlp` (the default once an endpoint is set), `console` (stderr) or
    `none`; metrics likewise, by OTEL_METRICS_EXPORTER. Log records, from INFO on, go where OTEL_LOGS_EXPORTER says, and
    nowhere without it: most collect a process's log from its stderr. Nothing is imported or started if none of the
    variables is set and there are no `readers`, if OTEL_SDK_DISABLED is `true`, or if the host has set up an SDK
    before. A collector that is down or hangs never fails a command: it is named once in the log, and delays the exit by
    `EXIT_GRACE` at most, or by as long as OTEL_EXPORTER_OTLP_TIMEOUT says.

    Metrics are read by `readers` too, whatever the variables say.

    Where TRACEPARENT and TRACESTATE (W3C Trace Context) name a span, as one of the job that runs this command, runs are
    part of it.
    """
    traces, metrics = _exporters("TRACES"), _exporters("METRICS")
    logs = _exporters("LOGS") if os.environ.get("OTEL_LOGS_EXPORTER", "").strip() else frozenset[str]()
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or not (traces or metrics or logs or readers):
        return _nothing
    from opentelemetry import context, trace

    if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return _nothing

    try:
        from tidegate.telemetry import otlp, traceparent  # half a second of imports
    except ValueError as error:  # the SDK reads the limits of spans when it is imported
        _log.warning("no telemetry is sent, nothing else is affected: %s", error)
        return _nothing

    if (caller := traceparent.read(os.environ.get("TRACEPARENT"), os.environ.get("TRACESTATE"))) is not None:
        context.attach(trace.set_span_in_context(trace.NonRecordingSpan(caller)))
    return otlp.start(traces, metrics, logs, readers=readers, grace=_grace())


def _nothing() -> None:
    """Shut down what was never started."""


def _exporters(signal: str) -> frozenset[str]:
    variable = f"OTEL_{signal}_EXPORTER"
    wanted = os.environ.get(variable, "").strip().lower()
    if not wanted:
        endpoint = os.environ.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT") or os.environ.get(_ENDPOINT)
        wanted = "otlp" if endpoint else "none"
    names = frozenset(name.strip() for name in wanted.split(",")) - {"", "none"}
    if unknown := names - {"otlp", "console"}:
        _log.warning(
            "%s=%s: only otlp, console and none are built in; the rest is ignored", variable, ",".join(sorted(unknown))
        )
    if "otlp" in names:
        protocol = os.environ.get(f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL") or os.environ.get(
            "OTEL_EXPORTER_OTLP_PROTOCOL"
        )
        if protocol not in (None, "http/protobuf"):
            _log.warning("OTLP over %s is not built in; %s go over http/protobuf", protocol, signal.lower())
    return names & {"otlp", "console"}


def _grace() -> float:
    try:
        return min(max(0.0, float(os.environ["OTEL_EXPORTER_OTLP_TIMEOUT"])), LONGEST_GRACE)
    except (KeyError, ValueError):
        return EXIT_GRACE
