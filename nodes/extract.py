"""Step 2: document -> entities."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from langchain_core.runnables import RunnableConfig
from langgraph.types import Overwrite

from tidegate.errors import ServiceError
from tidegate.nodes.model_choice import failure_after
from tidegate.state import JSON, Document, Entity, ModelFailure, State, hash_of
from tidegate.store.clock import Clock


class Recogniser(Protocol):
    """What finds the entities of a document. `name` says method and version: another one extracts anew."""

    @property
    def name(self) -> str:
        """The method and its version."""
        ...

    async def recognise(self, document: Document) -> list[Entity]:
        """Return the entities in a fixed order, each with every mention; raises a ServiceError where a model does."""
        ...


def extract_step(
    recogniser: Recogniser, clock: Clock, *, stands_in: bool = False
) -> Callable[[State, RunnableConfig], Awaitable[dict[str, Any]]]:
    """Return the step.

    Reads `document`, writes `entities` and how they came about (`extraction`). Run again over the same document with
    the same recogniser, it does nothing; with another one, it replaces the entities, and keeps what is known of those
    that are found again as they were.
    It never raises for an expected failure, which a local recogniser does not have: where a model brings nothing, it
    writes `extraction_failure`, keeps the entities there were, and the gate decides what to do. A recogniser that
    `stands_in` for the model leaves that as the gate wrote it.
    """

    async def extract(state: State, config: RunnableConfig) -> dict[str, Any]:
        document = Document.load(state.get("document"))
        extraction = {"document": document.id, "recogniser": recogniser.name}
        stored = state.get("extraction_failure")
        settled: dict[str, Any] = {"extraction_failure": None} if stored is not None and not stands_in else {}
        if state.get("extraction") == extraction:
            return settled
        try:
            found = await recogniser.recognise(document)
        except ServiceError as error:
            earlier = None if stored is None else ModelFailure.load(stored)
            failure = failure_after(error, earlier, extraction_inputs(document.id, recogniser), config, clock)
            return {"extraction_failure": failure.dump()}
        entities = {entity.id: entity.dump() for entity in found}
        if not state.get("extraction"):
            return {**settled, "extraction": extraction, "entities": entities}
        known = _still_known(state, entities)
        return {**settled, "extraction": extraction, "entities": Overwrite(entities), "enrichments": Overwrite(known)}

    return extract


def extraction_inputs(document_id: str, recogniser: Recogniser) -> str:
    """Hash all that the entities are made from."""
    return hash_of(document_id, recogniser.name)


def _still_known(state: State, entities: Mapping[str, JSON]) -> dict[str, JSON]:
    """Return the enrichments of entities that were found before, and are the same but for where they stand."""
    before = state.get("entities") or {}
    return {
        key: record
        for key, record in (state.get("enrichments") or {}).items()
        if key in entities and key in before and _asked(entities[key]) == _asked(before[key])
    }


def _asked(entity: JSON) -> JSON:
    return {**entity, "mentions": None}
