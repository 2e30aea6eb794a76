"""The conditional edges: pure functions of state, which do what a gate decided and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from langgraph.types import Send

from tidegate.state import Route, State

EXTRACTION_ROUTES: dict[Hashable, str] = {
    "admitted": "extract",
    "open: wait": "await_recogniser",
    "open: degrade": "extract_locally",
    "up to date": "gate_enrichment",
}
EXTRACTED_ROUTES: dict[Hashable, str] = {"extracted": "gate_enrichment", "failed": "gate_extraction"}
ENRICHMENT_ROUTES: dict[Hashable, str] = {
    "admitted": "enrich",
    "open: wait": "await_enrichment",
    "done, or open: degrade": "gate_summary",
}
SUMMARY_ROUTES: dict[Hashable, str] = {
    "admitted": "summarize",
    "open: wait": "await_model",
    "no model, or open: degrade": "summarize_extractive",
    "up to date": "conclude",
}
SUMMARIZED_ROUTES: dict[Hashable, str] = {"summarized": "conclude", "failed": "gate_summary"}


def extraction_route(state: State) -> Hashable:
    """Follow the gate before a model that names the entities."""
    return _label(EXTRACTION_ROUTES, _decision(state, "extraction").to)


def extracted_route(state: State) -> Hashable:
    """Go on with the model's entities, or back to the gate without them."""
    return "failed" if state.get("extraction_failure") else "extracted"


def enrichment_route(batch_size: int) -> Callable[[State], Hashable | list[Send]]:
    """Return the edge after the enrichment gate: on admission one `Send` for each batch of entities."""

    def route(state: State) -> Hashable | list[Send]:
        decision = _decision(state, "enrichment")
        if decision.to != "enrich":
            return _label(ENRICHMENT_ROUTES, decision.to)
        entities, enrichments = state.get("entities", {}), state.get("enrichments", {})
        batches = [decision.entities[at : at + batch_size] for at in range(0, len(decision.entities), batch_size)]
        return [
            Send(
                "enrich",
                {
                    "entities": {key: entities[key] | {"mentions": []} for key in batch},
                    "enrichments": {key: enrichments[key] for key in batch if key in enrichments},
                },
            )
            for batch in batches
        ]

    return route


def summary_route(state: State) -> Hashable:
    """Follow the summary gate."""
    return _label(SUMMARY_ROUTES, _decision(state, "summary").to)


def summarized_route(state: State) -> Hashable:
    """Go on with a summary, or back to the gate without one."""
    return "failed" if state.get("summary_failures") else "summarized"


def _decision(state: State, gate: str) -> Route:
    return Route.load(state.get("routes", {}).get(gate))


def _label(routes: dict[Hashable, str], to: str) -> Hashable:
    return next(label for label, target in routes.items() if target == to)
