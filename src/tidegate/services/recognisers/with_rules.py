"""Entities by rules alone: no model, no dependency."""

from __future__ import annotations

import asyncio

from tidegate.services.recognisers.recognition import find_entities
from tidegate.state import Document, Entity

RULES = "rules/2"
"""The version of the rules: raised by one whenever they find something else in the same document."""


class RulesRecogniser:
    """Finds names by how they are written and what stands beside them; what that does not tell apart is an ENTITY."""

    name = RULES

    async def recognise(self, document: Document) -> list[Entity]:
        """Return the entities in the order of their first mentions."""
        return await asyncio.to_thread(find_entities, document)
