"""The gate before a model that names the entities: ask it, wait for it, or go around it."""

from __future__ import annotations

from typing import Any

from langchain_core.runnables import RunnableConfig

from tidegate.nodes.extract import Recogniser, extraction_inputs
from tidegate.nodes.gate import Circuit, Execution, Gate, Limits, given_up, refusal
from tidegate.resilience.breaker import CircuitReport
from tidegate.state import Document, ExtractionFailure, State
from tidegate.store.clock import Clock, timestamp


def extraction_gate(model: Recogniser, circuit: Circuit, limits: Limits, clock: Clock) -> Gate:
    """Return the gate before the model that names the entities, and after one that did not bring them.

    Reads `extraction`, `extraction_failure` and the model's circuit; writes `routes["extraction"]`, and
    `extraction_failure` when it goes around the model: then the local recogniser names the entities, unless some of
    this document are known already.

    Fails, under policy `fail` alone, with CircuitOpen; resuming the thread decides again.
    """

    async def gate_extraction(state: State, config: RunnableConfig) -> dict[str, Any]:
        execution = Execution.of(state, config, "extraction", limits)
        document_id = Document.load(state.get("document")).id
        extraction = state.get("extraction") or {}

        def decide(
            to: str,
            reason: str,
            report: CircuitReport | None = None,
            failure: ExtractionFailure | None = None,
            **details: Any,
        ) -> dict[str, Any]:
            return {
                "extraction_failure": None if failure is None else failure.dump(),
                "routes": {"extraction": execution.route(to, reason, report, **details)},
            }

        if extraction == {"document": document_id, "recogniser": model.name}:
            return decide("gate_enrichment", "entities up to date")
        inputs = extraction_inputs(document_id, model)
        stored = state.get("extraction_failure")
        failure = None if stored is None else ExtractionFailure.load(stored)
        if failure is not None and failure.inputs != inputs:
            failure = None
        report = await circuit.report()
        pause = 0.0 if failure is None or failure.retry_at is None else failure.retry_at - clock.now()
        is_over = failure is not None and (pause > 0.0 or given_up(failure, execution, limits))
        if report.admits and not is_over:
            reason = "circuit closed" if report.state == "closed" else "circuit half-open: one probe"
            return decide("extract", reason, failure=failure, rounds=execution.rounds + 1)
        since = timestamp(clock)
        if not report.admits and (failure is None or failure.retryable):
            if execution.when_open == "fail":
                raise refusal(circuit, report, f"circuit {report.state}")
            if execution.when_open == "wait":
                return decide("await_recogniser", "circuit open", report, failure=failure, since=since)
        reason = f"circuit {report.state.replace('_', '-')}" if not report.admits else "the model failed"
        failure = failure or ExtractionFailure(
            error=reason,
            retryable=True,
            deferred=True,
            attempts=0,
            visits=0,
            since=since,
            execution=execution.id,
            inputs=inputs,
        )
        kept = extraction.get("document") == document_id
        return decide("gate_enrichment" if kept else "extract_locally", reason, report, failure=failure, since=since)

    return gate_extraction
