"""The graph of Tidegate, readable as a picture."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import cache
from threading import Lock
from typing import Any, cast

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph

from tidegate.graph.compatibility import register_aliases
from tidegate.graph.routing import (
    ENRICHMENT_ROUTES,
    EXTRACTED_ROUTES,
    EXTRACTION_ROUTES,
    SUMMARIZED_ROUTES,
    SUMMARY_ROUTES,
    enrichment_route,
    extracted_route,
    extraction_route,
    summarized_route,
    summary_route,
)
from tidegate.graph.services import Services
from tidegate.nodes.conclude import conclude_step
from tidegate.nodes.enrich import Work, enrich_step
from tidegate.nodes.enrichment_gate import enrichment_gate
from tidegate.nodes.extract import extract_step
from tidegate.nodes.extraction_gate import extraction_gate
from tidegate.nodes.gate import Limits, await_circuit
from tidegate.nodes.ingest import ingest_step
from tidegate.nodes.summarize import Step, summarize_extractive_step, summarize_step
from tidegate.nodes.summary_gate import summary_gate
from tidegate.settings import Settings
from tidegate.state import Input, Output, State
from tidegate.telemetry.spans import traced

ALIASES: Mapping[str, str] = {}
"""Steps that were renamed, former name to present one: threads may wait for them under the former."""

_EXTRACTION_BY_MODEL = ("gate_extraction", "await_recogniser", "extract_locally")
"""Steps that there are only while a model names the entities. Threads that wait for them go on without it, too."""

_OPENING = Lock()


def build_graph(services: Services, settings: Settings) -> StateGraph[State, None, Input, Output]:
    """Return the graph, to be compiled with a checkpointer, or as a subgraph without one.

    Its input is `tidegate.state.Input`: what `Pipeline.take_in` returns.
    """
    clock = services.clock
    enrichment = Limits(settings.enrichment.when_open, settings.max_rounds, settings.max_visits)
    summary = Limits(settings.summary.when_open, settings.max_rounds, settings.max_visits)
    writers = {writer.circuit.name: writer.summarizer for writer in services.writers}
    extractive = summarize_extractive_step(services.extractive)
    steps = {
        "ingest": ingest_step(services.documents, services.convert),
        **_extraction(services, settings),
        "gate_enrichment": enrichment_gate(
            services.enricher,
            services.enrichment_circuit,
            enrichment,
            clock,
            max_failed_share=settings.enrichment.max_failed_share,
            doubt_not_found=settings.enrichment.adapter == "http",
        ),
        "await_enrichment": await_circuit("enrichment", [services.enrichment_circuit], settings.enrichment.when_open),
        "gate_summary": summary_gate(services.writers, services.extractive, summary, clock),
        "summarize": summarize_step(writers, clock) if writers else extractive,
        "summarize_extractive": extractive,
        "await_model": await_circuit("summary", services.model_circuits, settings.summary.when_open),
        "conclude": conclude_step(settings.max_visits),
    }
    graph = StateGraph(State, input_schema=Input, output_schema=Output)
    for name, step in steps.items():
        graph.add_node(
            name, cast("Any", traced(name, step))
        )  # LangGraph's type names the parameters, a Callable cannot
    enrich = cast("Any", traced("enrich", enrich_step(services.enricher, clock, 2 * settings.enrichment.concurrency)))
    graph.add_node("enrich", enrich, input_schema=Work)

    graph.add_edge(START, "ingest")
    if services.model_recogniser is None:
        graph.add_edge("ingest", "extract")
        graph.add_edge("extract", "gate_enrichment")
    else:
        graph.add_edge("ingest", "gate_extraction")
        graph.add_conditional_edges("gate_extraction", extraction_route, EXTRACTION_ROUTES)
        graph.add_edge("await_recogniser", "gate_extraction")
        graph.add_conditional_edges("extract", extracted_route, EXTRACTED_ROUTES)
        graph.add_edge("extract_locally", "gate_enrichment")
    graph.add_conditional_edges("gate_enrichment", enrichment_route(settings.enrichment.batch_size), ENRICHMENT_ROUTES)
    graph.add_edge("enrich", "gate_enrichment")  # the join: the gate decides again
    graph.add_edge("await_enrichment", "gate_enrichment")
    graph.add_conditional_edges("gate_summary", summary_route, SUMMARY_ROUTES)
    graph.add_conditional_edges("summarize", summarized_route, SUMMARIZED_ROUTES)
    graph.add_edge("summarize_extractive", "conclude")
    graph.add_edge("await_model", "gate_summary")
    graph.add_edge("conclude", END)
    register_aliases(graph, ALIASES)
    if services.model_recogniser is None:
        register_aliases(graph, dict.fromkeys(_EXTRACTION_BY_MODEL, "extract"))
    return graph


def _extraction(services: Services, settings: Settings) -> dict[str, Step]:
    model, circuit, clock = services.model_recogniser, services.recogniser_circuit, services.clock
    if model is None:
        return {"extract": extract_step(services.recogniser, clock)}
    limits = Limits(settings.extraction.when_open, settings.max_rounds, settings.max_visits)
    return {
        "gate_extraction": extraction_gate(model, circuit, limits, clock),
        "await_recogniser": await_circuit("extraction", [circuit], settings.extraction.when_open),
        "extract": extract_step(model, clock),
        "extract_locally": extract_step(services.recogniser, clock, stands_in=True),
    }


async def graph() -> CompiledStateGraph[State, None, Input, Output]:
    """Return the graph for a LangGraph server, which brings its own checkpointer and awaits this for every run.

    Settings are those of the process. The services are opened once, in a thread: importing a provider and checking the
    spaCy model take seconds, and the server refuses a factory that blocks its event loop.
    """
    return await asyncio.to_thread(_server_graph)


def _server_graph() -> CompiledStateGraph[State, None, Input, Output]:
    with _OPENING:  # two first runs at once share one set of circuits
        return _opened()


@cache
def _opened() -> CompiledStateGraph[State, None, Input, Output]:
    from tidegate.graph.wiring import connect

    settings = Settings.read()
    return build_graph(connect(settings).services, settings).compile()
