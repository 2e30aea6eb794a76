"""Step 3: entities -> enrichments, one branch of the fan-out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypedDict

from langchain_core.runnables import RunnableConfig

from tidegate.errors import CircuitOpen, NotFound, ServiceError
from tidegate.resilience.guard import Answer
from tidegate.resilience.slots import Slots
from tidegate.state import JSON, Enrichment, Entity
from tidegate.store.clock import Clock, timestamp


class Enricher(Protocol):
    """The external API, guarded: retries, limits and the circuit are behind it."""

    @property
    def name(self) -> str:
        """The service, as its circuit is named."""
        ...

    @property
    def source(self) -> str:
        """Where answers come from, as results name it."""
        ...

    def covers(self, entity_type: str) -> bool:
        """Say whether asking about this type of entity makes sense."""
        ...

    async def look_up(self, entity: Entity) -> Answer[JSON]:
        """Return what the API knows of the entity; raises a ServiceError where it does not say.

        `attempts` are the requests that this thread made for it: 0 for an answer that another one was given.
        """
        ...


class Work(TypedDict):
    """What a branch is sent, never the whole state: its entities, and what earlier visits brought, by entity ID."""

    entities: dict[str, JSON]
    enrichments: dict[str, JSON]


def enrich_step(
    enricher: Enricher | None, clock: Clock, in_flight: int
) -> Callable[[Work, RunnableConfig], Awaitable[dict[str, Any]]]:
    """Return the step, which has at most `in_flight` look-ups begun at once, over all branches of a process.

    Takes a batch of entities, returns one outcome record for each under its ID. A branch never raises for an expected
    failure, since that would cancel its siblings (LangGraph 1.2.22): what the service did is in the record's status.
    Without an enricher, which happens when it was taken out of the settings while the thread rested, it does nothing.
    """

    # A look-up's budget runs from its beginning: begun all at once, the last of 1,000 would spend it queueing.
    turns = Slots(in_flight)

    async def enrich(work: Work, config: RunnableConfig) -> dict[str, Any]:
        if enricher is None:
            return {}
        earlier = {key: Enrichment.load(record) for key, record in work["enrichments"].items()}
        entities = [Entity.load(entity) for entity in work["entities"].values()]
        visits = (visit(enricher, entity, earlier.get(entity.id)) for entity in entities)
        records = await asyncio.gather(*visits)
        return {"enrichments": {key: record.dump() for key, record in zip(work["entities"], records, strict=True)}}

    async def visit(enricher: Enricher, entity: Entity, earlier: Enrichment | None) -> Enrichment:
        attempts, visits = (earlier.attempts, earlier.visits) if earlier else (0, 0)
        try:
            async with turns:
                answer = await enricher.look_up(entity)
        except NotFound as error:
            return Enrichment(
                status="not_found", source=enricher.source, attempts=attempts + error.attempts, visits=visits + 1
            )
        except ServiceError as error:
            return Enrichment(
                status="deferred" if isinstance(error, CircuitOpen) or error.retry_after is not None else "failed",
                source=enricher.source,
                attempts=attempts + error.attempts,
                visits=visits + error.counts_as_visit,
                error=error.why,
                retryable=error.retryable,
                retry_at=None if error.retry_after is None else clock.now() + error.retry_after,
                paused_at=None if error.retry_after is None else clock.now(),
                since=(earlier and earlier.since) or timestamp(clock),
            )
        return Enrichment(
            status="enriched",
            source=enricher.source,
            data=answer.value,
            attempts=attempts + answer.attempts,
            visits=visits + 1,
        )

    return enrich
