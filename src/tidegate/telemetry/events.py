"""What the span that is current should tell: retries, replays, circuits, and where a gate sent the thread."""

from __future__ import annotations

import logging

from opentelemetry import trace

from tidegate.errors import FORCED
from tidegate.telemetry import metrics, names

_log = logging.getLogger("tidegate")


def retry_scheduled(*, service: str, attempt: int, delay: float, error_type: str) -> None:
    """Say that `attempt` failed, the first being 1, and that the next one starts in `delay` seconds."""
    _log.info("%s: attempt %d failed (%s), the next one starts in %.1f s", service, attempt, error_type, delay)
    metrics.retries.add(1, {names.ERROR_TYPE: error_type})
    trace.get_current_span().add_event(
        names.RETRY_SCHEDULED,
        {
            names.CALL_SERVICE: service,
            names.RETRY_ATTEMPT: attempt,
            names.RETRY_DELAY: delay,
            names.ERROR_TYPE: error_type,
        },
    )


def retry_refused(*, service: str, attempt: int, error_type: str) -> None:
    """Say that `attempt` failed, and that no further one is made since the retry budget is spent."""
    _log.info("%s: attempt %d failed (%s), and the retry budget is spent", service, attempt, error_type)
    trace.get_current_span().add_event(
        names.RETRY_REFUSED,
        {
            names.CALL_SERVICE: service,
            names.RETRY_ATTEMPT: attempt,
            names.RETRY_REASON: "retry budget spent",
            names.ERROR_TYPE: error_type,
        },
    )


def pause_asked(service: str, seconds: float) -> None:
    """Say that a service asked for a pause, which holds all calls of it: whoever watches would see nothing happen."""
    _log.warning("%s asked for a pause of %.3g s", service, seconds)


def replayed(service: str, operation: str) -> None:
    """Say that a call was answered from the journal: it made no request and cost nothing."""
    call = {names.CALL_SERVICE: service, names.CALL_OPERATION: operation}
    metrics.replays.add(1, call)
    trace.get_current_span().add_event(names.CALL_REPLAYED, call)


def circuit_changed(name: str, from_: str, to: str, reason: str | None) -> None:
    """Say that a circuit changed its state; `reason` is the kind of the failure that moved it, or FORCED.

    An outage is a warning once: a probe that failed says no more than that it goes on.
    """
    change = {names.CIRCUIT_NAME: name, names.CIRCUIT_FROM: from_, names.CIRCUIT_TO: to}
    level = logging.WARNING if to == "open" and (from_ == "closed" or reason == FORCED) else logging.INFO
    because = "" if reason is None else " by force" if reason == FORCED else f" after {reason}"
    _log.log(level, "circuit %s: %s to %s%s", name, from_, to, because)
    metrics.circuit_transitions.add(1, change)
    trace.get_current_span().add_event(
        names.CIRCUIT_CHANGED, change if reason is None else {**change, names.CIRCUIT_REASON: reason}
    )


def routed(to: str, reason: str) -> None:
    """Record on a gate's span the step that comes next, and why, in the gate's own words."""
    _log.info("goes to %s: %s", to, reason)
    trace.get_current_span().set_attributes({names.ROUTE: to, names.ROUTE_REASON: reason})
