"""The gate before a model that names the entities: ask it, wait for it, or go around it."""

from __future__ import annotations

from typing import Any

from langchain_core.runnables import RunnableConfig

from tidegate.nodes.extract import Recogniser, extraction_inputs
from tidegate.nodes.gate import Circuit, Execution, Gate, Limits
from tidegate.nodes.model_choice import Candidate, choose
from tidegate.state import Document, ModelFailure, State
from tidegate.store.clock import Clock, timestamp


def extraction_gate(model: Recogniser, circuit: Circuit, limits: Limits, clock: Clock) -> Gate:
    """Return the gate before the model that names the entities, and after one that did not bring them.

    Reads `extraction`, `extraction_failure` and the model's circuit; writes `routes["extraction"]`, and
    `extraction_failure` when it goes around the model: then the local recogniser names the entities, unless some of
    this document are known already.

    Fails, under policy `fail` alone, with CircuitOpen, or with RateLimited during a pause; resuming the thread decides
    again.
    """

    async def gate_extraction(state: State, config: RunnableConfig) -> dict[str, Any]:
        execution = Execution.of(state, config, "extraction", limits)
        document_id = Document.load(state.get("document")).id
        extraction = state.get("extraction") or {}
        if extraction == {"document": document_id, "recogniser": model.name}:
            route = execution.route("gate_enrichment", "entities up to date")
            return {"extraction_failure": None, "routes": {"extraction": route}}
        stored = state.get("extraction_failure")
        failures = {} if stored is None else {circuit.name: ModelFailure.load(stored)}
        candidate = Candidate(circuit, extraction_inputs(document_id, model))
        choice = await choose([candidate], failures, execution, limits, clock)
        details: dict[str, Any] = {"since": timestamp(clock)}
        if choice.asked is not None:
            details = {"rounds": execution.rounds + 1}
            to = "extract"
        elif choice.awaited:
            to = "await_recogniser"
        else:
            to = "gate_enrichment" if extraction.get("document") == document_id else "extract_locally"
        failure = choice.failures.get(circuit.name)
        return {
            "extraction_failure": None if failure is None else failure.dump(),
            "routes": {"extraction": execution.route(to, choice.reason, choice.report, **details)},
        }

    return gate_extraction
