"""The gate before, and after, the fan-out to the enrichment API."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol

from langchain_core.runnables import RunnableConfig

from tidegate.errors import CircuitOpen, Permanent, RateLimited, Transient
from tidegate.nodes.gate import Circuit, Execution, Gate, Limits
from tidegate.resilience.breaker import CircuitReport
from tidegate.state import Enrichment, State, enrichments_of, entities_of, none_found
from tidegate.store.clock import Clock, time_left, timestamp

_log = logging.getLogger(__name__)


class Coverage(Protocol):
    """What the enrichment API can be asked about."""

    @property
    def source(self) -> str:
        """Where answers come from."""
        ...

    def covers(self, entity_type: str) -> bool:
        """Say whether asking about this type of entity makes sense."""
        ...


def enrichment_gate(
    enricher: Coverage | None,
    circuit: Circuit,
    limits: Limits,
    clock: Clock,
    *,
    max_failed_share: float | None = None,
    doubt_not_found: bool = False,
) -> Gate:
    """Return the gate before, and after, the fan-out to the enrichment API.

    Reads `entities`, `enrichments` and the circuit; writes `routes["enrichment"]`, marks entities of types that the
    API does not cover `not_found`, and those it goes around `deferred`: while the circuit is open, or until a pause is
    over that the API asked for. In a new execution, failures that are
    retryable are asked again, `max_visits` times in all. A half-open circuit is sent one entity, as the probe.

    Fails, under policy `fail` alone, with CircuitOpen, with RateLimited during a pause, or with Transient when the
    rounds are used up; the thread stays at this gate, and resuming it decides again. `wait` is for circuits alone.
    Fails with Permanent once more than `max_failed_share` of the entities asked about failed for good, unless a
    revision was published before; what the others brought is kept.

    `doubt_not_found` warns where the API knows nothing of a document: so answers a server under a wrong path, too.
    """

    async def gate_enrichment(state: State, config: RunnableConfig) -> dict[str, Any]:
        execution = Execution.of(state, config, "enrichment", limits)
        records = enrichments_of(state)
        if enricher is None:
            given_up = {key: record.model_copy(update={"retryable": False}) for key, record in records.items()}
            return {
                "enrichments": {key: record.dump() for key, record in given_up.items() if records[key].retryable},
                "routes": {"enrichment": execution.route("gate_summary", "no enrichment configured")},
            }
        entities = entities_of(state)
        asked = [entity for entity in entities if enricher.covers(entity.type)]
        changed = {
            entity.id: Enrichment(status="not_found", source=enricher.source)
            for entity in entities
            if not enricher.covers(entity.type) and (entity.id not in records or records[entity.id].retryable)
        }

        def decide(to: str, reason: str, report: CircuitReport | None = None, **details: Any) -> dict[str, Any]:
            return {
                "enrichments": {key: record.dump() for key, record in changed.items()},
                "routes": {"enrichment": execution.route(to, reason, report, **details)},
            }

        if max_failed_share is not None and not state.get("outcome"):
            lost = [records[entity.id] for entity in asked if _failed_for_good(records.get(entity.id), limits)]
            if len(lost) > max_failed_share * len(asked):
                raise Permanent(circuit.name, _too_many(lost, len(asked), max_failed_share))
        again = {entity.id for entity in asked if execution.first and _failed_for_now(records.get(entity.id), limits)}
        waiting = [entity.id for entity in asked if entity.id in again or _unasked(records.get(entity.id))]
        if not waiting:
            if doubt_not_found and not execution.first and (unknown := none_found(records)):
                _log.warning(
                    "%s answered 'not found' for all %d names; is enrichment.url right?", circuit.name, unknown
                )
            return decide("gate_summary", "nothing left to ask")
        report = await circuit.report()
        now = clock.now()
        pause = max((time_left(record.retry_at, record.paused_at, now) for record in records.values()), default=0.0)
        if pause <= 0.0 and report.admits and execution.rounds < limits.max_rounds:
            changed |= {key: records[key].model_copy(update={"status": "deferred"}) for key in again}
            probe = report.state != "closed"
            if probe:  # the one asked least: one that always fails must not keep the circuit open for all others
                waiting = [min(waiting, key=lambda key: records[key].attempts if key in records else 0)]
            return decide(
                "enrich",
                "circuit half-open: one probe" if probe else "circuit closed",
                entities=tuple(waiting),
                rounds=execution.rounds + 1,
            )
        if pause > 0.0:
            reason = "a pause was asked for"
        elif report.forced == "open":
            reason = "circuit held open"
        else:
            reason = "rounds used up" if report.admits else f"circuit {report.state.replace('_', '-')}"
        if execution.when_open == "fail":
            if pause > 0.0:
                raise RateLimited(circuit.name, f"{reason}; resume the thread after it", retry_after=pause)
            raise _refusal(circuit.name, report, reason)
        since = timestamp(clock)
        if execution.when_open == "wait" and not report.admits:
            return decide("await_enrichment", reason, report, since=since)
        changed |= {
            key: Enrichment(status="deferred", source=enricher.source, error=reason, retryable=True, since=since)
            for key in waiting
            if key not in records
        }
        return decide("gate_summary", reason, report, since=since)

    return gate_enrichment


def _unasked(record: Enrichment | None) -> bool:
    return record is None or record.status == "deferred"


def _failed_for_now(record: Enrichment | None, limits: Limits) -> bool:
    return record is not None and record.status == "failed" and record.retryable and record.visits < limits.max_visits


def _failed_for_good(record: Enrichment | None, limits: Limits) -> bool:
    return record is not None and record.status == "failed" and not _failed_for_now(record, limits)


def _too_many(lost: Sequence[Enrichment], asked: int, share: float) -> str:
    counted = Counter(record.error for record in lost)
    return (
        f"{len(lost)} of {asked} entities failed for good (most often: {counted.most_common(1)[0][0]}), and "
        f"enrichment.max_failed_share allows {share:.0%}; raise it and resume the thread, or mend the requests and run "
        "the document again with --fresh"
    )


def _refusal(service: str, report: CircuitReport, reason: str) -> CircuitOpen | Transient:
    """Return the error of policy `fail`."""
    if report.admits:
        return Transient(service, f"{reason}; resume the thread to go on")
    return CircuitOpen(service, retry_in=report.retry_in, reason=report.reason or "")
