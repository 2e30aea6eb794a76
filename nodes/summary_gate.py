"""The gate before the summary: ask a model, wait for one, or go around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.runnables import RunnableConfig

from tidegate.nodes.gate import Circuit, Execution, Gate, Limits
from tidegate.nodes.model_choice import Candidate, choose
from tidegate.nodes.summarize import Summarizer
from tidegate.state import Document, State, Summary, enrichments_of, entities_of, summary_failures_of
from tidegate.store.clock import Clock, timestamp


@dataclass(frozen=True, slots=True)
class Writer:
    """A model that summarizes, and the circuit of the service behind it."""

    summarizer: Summarizer
    circuit: Circuit


def summary_gate(writers: Sequence[Writer], fallback: Summarizer, limits: Limits, clock: Clock) -> Gate:
    """Return the gate before the summary, and after a model that did not bring one.

    Reads `summary`, `summary_failures`, what the summary is made from, and the circuits; writes `routes["summary"]`,
    and `summary_failures` when it goes around. The first of the `writers` that can be asked is; the summary of any of
    them is the whole result, and so is the extractive one where there are none. An earlier summary is kept while a
    better one cannot be had.

    Fails, under policy `fail` alone, with CircuitOpen, or with RateLimited during a pause; resuming the thread decides
    again.
    """

    async def gate_summary(state: State, config: RunnableConfig) -> dict[str, Any]:
        execution = Execution.of(state, config, "summary", limits)
        sources = (Document.load(state.get("document")), entities_of(state), enrichments_of(state))
        stored = state.get("summary")
        summary = None if stored is None else Summary.load(stored)
        extracted = (
            summary is not None and summary.method == "extractive" and summary.inputs == fallback.inputs(*sources)
        )
        if not writers:
            to = "conclude" if extracted else "summarize_extractive"
            return {"summary_failures": None, "routes": {"summary": execution.route(to, "no model configured")}}
        candidates = [Candidate(writer.circuit, writer.summarizer.inputs(*sources)) for writer in writers]
        written = summary is not None and summary.method == "llm"
        if summary is not None and written and summary.inputs in {candidate.inputs for candidate in candidates}:
            return {"summary_failures": None, "routes": {"summary": execution.route("conclude", "summary up to date")}}
        choice = await choose(candidates, summary_failures_of(state), execution, limits, clock)
        if choice.asked is not None:
            details: dict[str, Any] = {"circuits": (choice.asked,), "rounds": execution.rounds + 1}
            to = "summarize"
        elif choice.awaited:
            details = {"circuits": choice.awaited, "since": timestamp(clock)}
            to = "await_model"
        else:
            details = {"since": timestamp(clock)}
            to = "conclude" if extracted or written else "summarize_extractive"
        return {
            "summary_failures": {name: failure.dump() for name, failure in choice.failures.items()} or None,
            "routes": {"summary": execution.route(to, choice.reason, choice.report, **details)},
        }

    return gate_summary
