"""The conditional edges do what the gate decided."""

from __future__ import annotations

from typing import Any, cast

import pytest
from langgraph.types import Send

from tidegate.graph.routing import ENRICHMENT_ROUTES, SUMMARY_ROUTES, enrichment_route, summarized_route, summary_route
from tidegate.state import Route, State


def state(gate: str, route: Route, **channels: Any) -> State:
    return cast("State", {"routes": {gate: route.dump()}, **channels})


def test_admission_sends_batches_of_entities_without_their_mentions_and_with_what_is_known_of_them() -> None:
    entities = {key: {"id": key, "text": key.upper(), "mentions": [{"start": 0, "end": 1}]} for key in "abcde"}
    route = Route(to="enrich", reason="circuit closed", entities=tuple("abde"))
    known = {"b": {"status": "deferred"}, "c": {"status": "enriched"}}
    sends = enrichment_route(3)(
        state("enrichment", route, entities=entities, enrichments=known, document={"text": "x"})
    )
    assert isinstance(sends, list)
    assert all(isinstance(send, Send) and send.node == "enrich" for send in sends)
    assert [list(send.arg["entities"]) for send in sends] == [["a", "b", "d"], ["e"]]
    assert [send.arg["enrichments"] for send in sends] == [{"b": {"status": "deferred"}}, {}]
    assert all(set(send.arg) == {"entities", "enrichments"} for send in sends)
    assert all(entity["mentions"] == [] for send in sends for entity in send.arg["entities"].values())


@pytest.mark.parametrize("to", ["await_enrichment", "gate_summary"])
def test_the_enrichment_edge_follows_its_gate(to: str) -> None:
    assert ENRICHMENT_ROUTES[enrichment_route(3)(state("enrichment", Route(to=to, reason="")))] == to  # type: ignore[index]


@pytest.mark.parametrize("to", ["summarize", "summarize_extractive", "await_model", "conclude"])
def test_the_summary_edge_follows_its_gate(to: str) -> None:
    assert SUMMARY_ROUTES[summary_route(state("summary", Route(to=to, reason="")))] == to


def test_a_model_that_brought_no_summary_leads_back_to_the_gate() -> None:
    assert summarized_route(cast("State", {"summary_failures": {"model": {"error": "x"}}})) == "failed"
    assert summarized_route(cast("State", {"summary": {}, "summary_failures": None})) == "summarized"
