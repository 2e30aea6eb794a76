"""Step 4: document, entities, enrichments -> summary."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from langchain_core.runnables import RunnableConfig

from tidegate.errors import ServiceError
from tidegate.nodes.model_choice import failure_after
from tidegate.state import (
    Document,
    Enrichment,
    Entity,
    Route,
    State,
    Summary,
    enrichments_of,
    entities_of,
    summary_failures_of,
)
from tidegate.store.clock import Clock

Step = Callable[[State, RunnableConfig], Awaitable[dict[str, Any]]]


class Summarizer(Protocol):
    """A way to summarize: by a chat model, guarded, or by the document's own sentences."""

    def inputs(self, document: Document, entities: list[Entity], enrichments: dict[str, Enrichment]) -> str:
        """Hash all that goes into the summary."""
        ...

    async def summarize(
        self, document: Document, entities: list[Entity], enrichments: dict[str, Enrichment]
    ) -> Summary:
        """Summarize; raises a ServiceError where the model does not."""
        ...


def summarize_step(writers: Mapping[str, Summarizer], clock: Clock) -> Step:
    """Return the step that has a model summarize: of the `writers`, by circuit, the one that the gate chose.

    Reads `document`, `entities`, `enrichments` and the route, writes `summary` whole. It never raises for an expected
    failure: then it writes `summary_failures`, keeps the summary there was, and the gate decides what to do.
    """

    async def summarize(state: State, config: RunnableConfig) -> dict[str, Any]:
        sources = _sources(state)
        chosen = Route.load((state.get("routes") or {}).get("summary")).circuits
        # A thread may have been stored before the settings named other models, or when there was but one.
        name = next((name for name in chosen if name in writers), next(iter(writers)))
        try:
            summary = await writers[name].summarize(*sources)
        except ServiceError as error:
            failures = summary_failures_of(state)
            failures[name] = failure_after(error, failures.get(name), writers[name].inputs(*sources), config, clock)
            return {"summary_failures": {name: failure.dump() for name, failure in failures.items()}}
        return {"summary": summary.dump(), "summary_failures": None}

    return summarize


def summarize_extractive_step(summarizer: Summarizer) -> Step:
    """Return the step that summarizes without a model: reads what the other one does, writes `summary` whole.

    It has no failure mode, and leaves `summary_failures` as the gate wrote it.
    """

    async def summarize_extractive(state: State, config: RunnableConfig) -> dict[str, Any]:
        return {"summary": (await summarizer.summarize(*_sources(state))).dump()}

    return summarize_extractive


def _sources(state: State) -> tuple[Document, list[Entity], dict[str, Enrichment]]:
    return Document.load(state.get("document")), entities_of(state), enrichments_of(state)
