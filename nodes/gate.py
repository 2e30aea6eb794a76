"""The gates: which way round a service, decided from its circuit and from what is still missing.

A gate is a node of its own, because a conditional edge that reads the breaker runs once for every branch before it,
can send one execution down two paths, and cannot record what it decided (LangGraph 1.2.22).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol, cast

from langchain_core.runnables import RunnableConfig
from langgraph.types import interrupt

from tidegate.errors import CircuitOpen, RateLimited, Transient
from tidegate.resilience.breaker import CircuitReport
from tidegate.settings import Policy
from tidegate.state import (
    EXECUTION,
    WHEN_OPEN,
    Document,
    Enrichment,
    Entity,
    ModelFailure,
    Route,
    State,
    Summary,
    SummaryFailure,
    enrichments_of,
    entities_of,
)
from tidegate.store.clock import Clock, timestamp
from tidegate.telemetry import events

Gate = Callable[[State, RunnableConfig], Awaitable[dict[str, Any]]]


class Circuit(Protocol):
    """A breaker, as far as a gate needs it."""

    @property
    def name(self) -> str:
        """The service that it protects."""
        ...

    async def report(self) -> CircuitReport:
        """Say whether a call would be let through now."""
        ...


class Coverage(Protocol):
    """What the enrichment API can be asked about."""

    @property
    def source(self) -> str:
        """Where answers come from."""
        ...

    def covers(self, entity_type: str) -> bool:
        """Say whether asking about this type of entity makes sense."""
        ...


class Summarizer(Protocol):
    """A way to summarize, as far as a gate needs it."""

    def inputs(self, document: Document, entities: list[Entity], enrichments: dict[str, Enrichment]) -> str:
        """Hash all that would go into the summary."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """What a gate allows: its policy, its rounds in one execution, and the visits to one item in all."""

    when_open: Policy
    max_rounds: int
    max_visits: int


@dataclass(frozen=True, slots=True)
class Execution:
    """Where a gate stands in this execution: the rounds it allowed so far, and whether this is its first decision."""

    id: str
    rounds: int
    first: bool
    when_open: Policy

    @classmethod
    def of(cls, state: State, config: RunnableConfig, gate: str, limits: Limits) -> Execution:
        """Read what this gate decided before."""
        configurable = config.get("configurable", {})
        id_ = str(configurable.get(EXECUTION, ""))
        stored = (state.get("routes") or {}).get(gate)
        earlier = None if stored is None else Route.load(stored)
        first = earlier is None or earlier.execution != id_
        rounds = 0 if earlier is None or first else earlier.rounds
        return cls(id_, rounds, first, cast("Policy", configurable.get(WHEN_OPEN) or limits.when_open))

    def route(self, to: str, reason: str, report: CircuitReport | None = None, **details: Any) -> dict[str, Any]:
        """Return the decision for `routes`, and tell of it."""
        shut = report is not None and not report.admits
        events.routed(to, reason)
        route = Route(
            to=to,
            reason=reason,
            retry_in=round(report.retry_in, 3) if report is not None and shut else None,
            execution=self.id,
            **{"rounds": self.rounds, **details},
        )
        return route.dump()


def enrichment_gate(enricher: Coverage | None, circuit: Circuit, limits: Limits, clock: Clock) -> Gate:
    """Return the gate before, and after, the fan-out to the enrichment API.

    Reads `entities`, `enrichments` and the circuit; writes `routes["enrichment"]`, marks entities of types that the
    API does not cover `not_found`, and those it goes around `deferred`: while the circuit is open, or until a pause is
    over that the API asked for. In a new execution, failures that are
    retryable are asked again, `max_visits` times in all. A half-open circuit is sent one entity, as the probe.

    Fails, under policy `fail` alone, with CircuitOpen, with RateLimited during a pause, or with Transient when the
    rounds are used up; the thread stays at this gate, and resuming it decides again. `wait` is for circuits alone.
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

        again = {entity.id for entity in asked if execution.first and _failed_for_now(records.get(entity.id), limits)}
        waiting = [entity.id for entity in asked if entity.id in again or _unasked(records.get(entity.id))]
        if not waiting:
            return decide("gate_summary", "nothing left to ask")
        report = await circuit.report()
        pause = max((record.retry_at or 0.0 for record in records.values()), default=0.0) - clock.now()
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
        else:
            reason = "rounds used up" if report.admits else f"circuit {report.state.replace('_', '-')}"
        if execution.when_open == "fail":
            if pause > 0.0:
                raise RateLimited(circuit.name, f"{reason}; resume the thread after it", retry_after=pause)
            raise refusal(circuit, report, reason)
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


def summary_gate(
    model: Summarizer | None, fallback: Summarizer, circuit: Circuit, limits: Limits, clock: Clock
) -> Gate:
    """Return the gate before the summary, and after a model that did not bring one.

    Reads `summary`, `summary_failure`, what the summary is made from, and the model's circuit; writes
    `routes["summary"]`, and `summary_failure` when it goes around the model. `model` is None where none is configured:
    then the extractive summary is the whole result. An earlier summary is kept while a better one cannot be had.

    Fails, under policy `fail` alone, with CircuitOpen; resuming the thread decides again.
    """

    async def gate_summary(state: State, config: RunnableConfig) -> dict[str, Any]:
        execution = Execution.of(state, config, "summary", limits)
        sources = (Document.load(state.get("document")), entities_of(state), enrichments_of(state))
        stored = state.get("summary")
        summary = None if stored is None else Summary.load(stored)

        def decide(
            to: str,
            reason: str,
            report: CircuitReport | None = None,
            failure: SummaryFailure | None = None,
            **details: Any,
        ) -> dict[str, Any]:
            return {
                "summary_failure": None if failure is None else failure.dump(),
                "routes": {"summary": execution.route(to, reason, report, **details)},
            }

        extracted = summary is not None and (summary.method, summary.inputs) == (
            "extractive",
            fallback.inputs(*sources),
        )
        if model is None:
            return decide("conclude" if extracted else "summarize_extractive", "no model configured")
        inputs = model.inputs(*sources)
        if summary is not None and (summary.method, summary.inputs) == ("llm", inputs):
            return decide("conclude", "summary up to date")
        failure = _failure_of(state, inputs)
        report = await circuit.report()
        pause = 0.0 if failure is None or failure.retry_at is None else failure.retry_at - clock.now()
        is_over = failure is not None and (pause > 0.0 or given_up(failure, execution, limits))
        if report.admits and not is_over:
            reason = "circuit closed" if report.state == "closed" else "circuit half-open: one probe"
            return decide("summarize", reason, failure=failure, rounds=execution.rounds + 1)
        since = timestamp(clock)
        if not report.admits and (failure is None or failure.retryable):
            if execution.when_open == "fail":
                raise refusal(circuit, report, f"circuit {report.state}")
            if execution.when_open == "wait":
                return decide("await_model", "circuit open", report, failure=failure, since=since)
        reason = f"circuit {report.state.replace('_', '-')}" if not report.admits else "the model failed"
        failure = failure or SummaryFailure(
            error=reason,
            retryable=True,
            deferred=True,
            attempts=0,
            visits=0,
            since=since,
            execution=execution.id,
            inputs=inputs,
        )
        kept = extracted or (summary is not None and summary.method == "llm")
        return decide("conclude" if kept else "summarize_extractive", reason, report, failure=failure, since=since)

    return gate_summary


def await_circuit(circuit: Circuit, when_open: Policy) -> Gate:
    """Return the step that waits for a circuit: under policy `wait` it interrupts the thread while that is open.

    The interrupt's value is `{"circuit": name, "retry_in": seconds}`. Resuming needs no value: `ainvoke(None, config)`.
    Once a call would be let through, or under another policy, the step lets the thread go on to its gate.
    """

    async def await_circuit(state: State, config: RunnableConfig) -> dict[str, Any]:
        report = await circuit.report()
        policy = config.get("configurable", {}).get(WHEN_OPEN) or when_open
        if policy == "wait" and not report.admits:
            interrupt({"circuit": circuit.name, "retry_in": round(report.retry_in, 3)})
        return {}

    return await_circuit


def _unasked(record: Enrichment | None) -> bool:
    return record is None or record.status == "deferred"


def _failed_for_now(record: Enrichment | None, limits: Limits) -> bool:
    return record is not None and record.status == "failed" and record.retryable and record.visits < limits.max_visits


def _failure_of(state: State, inputs: str) -> SummaryFailure | None:
    stored = state.get("summary_failure")
    failure = None if stored is None else SummaryFailure.load(stored)
    return failure if failure is not None and failure.inputs == inputs else None


def given_up(failure: ModelFailure, execution: Execution, limits: Limits) -> bool:
    """Say whether a model that failed is not to be asked again in this execution."""
    if not failure.retryable or failure.visits >= limits.max_visits:
        return True
    if failure.execution != execution.id:
        return False
    return not failure.deferred or execution.rounds >= limits.max_rounds


def refusal(circuit: Circuit, report: CircuitReport, reason: str) -> CircuitOpen | Transient:
    """Return the error of policy `fail`."""
    if report.admits:
        return Transient(circuit.name, f"{reason}; resume the thread to go on")
    return CircuitOpen(circuit.name, retry_in=report.retry_in, reason=report.reason or "")
