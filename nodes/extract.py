"""Step 2: document -> entities."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from langchain_core.runnables import RunnableConfig
from langgraph.types import Overwrite

from tidegate.state import Document, Entity, State


class Recogniser(Protocol):
    """What finds the entities of a document. `name` says method and version: another one extracts anew."""

    @property
    def name(self) -> str:
        """The method and its version."""
        ...

    async def recognise(self, document: Document) -> list[Entity]:
        """Return the entities in a fixed order, each with every mention."""
        ...


def extract_step(recogniser: Recogniser) -> Callable[[State, RunnableConfig], Awaitable[dict[str, Any]]]:
    """Return the step.

    Reads `document`, writes `entities` and how they came about (`extraction`). Run again over the same document with
    the same recogniser, it does nothing; with another one, it replaces the entities and forgets their enrichments.
    It has no failure mode of its own: a document without entities gives none.
    """

    async def extract(state: State, config: RunnableConfig) -> dict[str, Any]:
        document = Document.load(state.get("document"))
        extraction = {"document": document.id, "recogniser": recogniser.name}
        if state.get("extraction") == extraction:
            return {}
        entities = {entity.id: entity.dump() for entity in await recogniser.recognise(document)}
        if not state.get("extraction"):
            return {"extraction": extraction, "entities": entities}
        return {"extraction": extraction, "entities": Overwrite(entities), "enrichments": Overwrite({})}

    return extract
