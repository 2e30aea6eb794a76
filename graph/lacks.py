"""What a thread lacks, by service, and from when a sweep may ask for it."""

from __future__ import annotations

from collections.abc import Mapping

from tidegate.graph.result import Result
from tidegate.state import ModelFailure, Route, State, summary_failures_of
from tidegate.store.clock import time_left
from tidegate.store.registry import Service

_FIRST_PAUSE = 60.0
_AWAITED: Mapping[str, Service] = {
    "await_recogniser": "extraction",
    "await_enrichment": "enrichment",
    "await_model": "summary",
}
_GROWTH = 4.0  # 1, 4, 16 and 64 minutes: the five visits that an item is given span an hour and a half


def lacked(result: Result) -> set[Service]:
    """Return the services of which a thread lacks something that can be had, or the one whose circuit it waits for."""
    if result.status == "waiting":
        return {service for step, service in _AWAITED.items() if step in result.next}
    return {item.what for item in result.missing if item.retryable} if result.status == "degraded" else set()


def asked_from(result: Result, values: State, now: float) -> dict[Service, float]:
    """Return the times (seconds since 1970) from which a sweep may ask each service for what the thread lacks.

    What an open circuit kept from being asked may be asked as soon as that lets it: the circuit tells when. A pause
    that the service asked for is kept. What the service failed to answer is left alone for a minute, and for four
    times as long after each further visit: a sweep that asked at once would use up all visits within a second.
    """
    return {service: _asked_from(service, result, values, now) for service in lacked(result)}


def _asked_from(service: Service, result: Result, values: State, now: float) -> float:
    if result.status == "waiting":
        return now
    pause = pause_left(service, result, values, now)
    if service == "enrichment":
        lacking = [result.enrichments[item.id] for item in result.missing if item.what == service and item.retryable]
        deferred = any(record.status == "deferred" for record in lacking)
        visits = min(record.visits for record in lacking)
    else:
        failures = _failures(service, values)
        deferred = all(each.deferred for each in failures)  # else the circuit of one that failed for good lets calls in
        visits = min(each.visits for each in failures if each.retryable)
    return now + pause if deferred or pause > 0.0 else now + _FIRST_PAUSE * _GROWTH ** max(visits - 1, 0)


def pause_left(service: Service, result: Result, values: State, now: float) -> float:
    """Return the seconds until the pause is over that a service asked for."""
    if service == "enrichment":
        records = result.enrichments.values()
        return max((time_left(record.retry_at, record.paused_at, now) for record in records), default=0.0)
    failures = [each for each in _failures(service, values) if each.retryable]
    return min((time_left(each.retry_at, each.paused_at, now) for each in failures), default=0.0)


def _failures(service: Service, values: State) -> list[ModelFailure]:
    if service == "extraction":
        return [ModelFailure.load(stored)] if (stored := values.get("extraction_failure")) else []
    return list(summary_failures_of(values).values())


def models_wanted(result: Result, values: State) -> tuple[str, ...]:
    """Return the circuits of the models that may yet write a thread's summary; none where it may be any."""
    if result.status == "degraded":
        return tuple(name for name, failure in summary_failures_of(values).items() if failure.retryable)
    stored = (values.get("routes") or {}).get("summary")
    return () if stored is None else Route.load(stored).circuits
