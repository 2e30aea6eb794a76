"""Step 4: document, entities, enrichments -> summary."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from langchain_core.runnables import RunnableConfig

from tidegate.errors import CircuitOpen, ServiceError
from tidegate.state import (
    EXECUTION,
    Document,
    Enrichment,
    Entity,
    State,
    Summary,
    SummaryFailure,
    enrichments_of,
    entities_of,
)
from tidegate.store.clock import Clock, timestamp

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


def summarize_step(summarizer: Summarizer, clock: Clock) -> Step:
    """Return the step.

    Reads `document`, `entities` and `enrichments`, writes `summary` whole. It never raises for an expected failure:
    then it writes `summary_failure`, keeps the summary there was, and the gate decides what to do. The extractive
    summarizer has no failure, and leaves `summary_failure` as the gate wrote it.
    """

    async def summarize(state: State, config: RunnableConfig) -> dict[str, Any]:
        sources = (Document.load(state.get("document")), entities_of(state), enrichments_of(state))
        try:
            summary = await summarizer.summarize(*sources)
        except ServiceError as error:
            inputs = summarizer.inputs(*sources)
            stored = state.get("summary_failure")
            earlier = None if stored is None else SummaryFailure.load(stored)
            if earlier is not None and earlier.inputs != inputs:
                earlier = None
            failure = SummaryFailure(
                error=error.why,
                retryable=error.retryable,
                deferred=isinstance(error, CircuitOpen),
                attempts=(earlier.attempts if earlier else 0) + error.attempts,
                visits=(earlier.visits if earlier else 0) + error.is_of_request,
                since=earlier.since if earlier else timestamp(clock),
                execution=str(config.get("configurable", {}).get(EXECUTION, "")),
                inputs=inputs,
                retry_at=None if error.retry_after is None else clock.now() + error.retry_after,
            )
            return {"summary_failure": failure.dump()}
        update: dict[str, Any] = {"summary": summary.dump()}
        if summary.method == "llm":
            update["summary_failure"] = None
        return update

    return summarize
