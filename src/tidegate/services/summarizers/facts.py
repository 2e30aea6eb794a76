"""What enrichment found about a document's entities, as numbered lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tidegate.state import Enrichment, Entity

_MOST = 30  # entities, those with most mentions first
_LONGEST = 300  # characters of one line
_DEEPEST = 3  # levels of an answer's objects that are read
_ITEMS = 5  # items of a list that are read


@dataclass(frozen=True, slots=True)
class Fact:
    """An entity, and what enrichment found about it; nothing is `known` of most."""

    entity_id: str
    name: str
    known: str

    @property
    def text(self) -> str:
        """The whole line, without its number."""
        return f"{self.name}: {self.known}" if self.known else self.name


def facts(entities: Sequence[Entity], enrichments: Mapping[str, Enrichment]) -> list[Fact]:
    """Return the entities most mentioned, those of which something is known first.

    Dates and amounts of which nothing is known are left out: they speak for themselves.
    """
    found: list[Fact] = []
    for entity in sorted(entities, key=lambda entity: (-len(entity.mentions), entity.id)):
        enrichment = enrichments.get(entity.id)
        known = ""
        if enrichment is not None and enrichment.status == "enriched" and enrichment.data:
            known = "; ".join(_flattened(enrichment.data))[:_LONGEST]
        if known or entity.type not in ("DATE", "MONEY"):
            found.append(Fact(entity.id, f"{entity.text[:_LONGEST]} ({entity.type})", known))
    return sorted(found[:_MOST], key=lambda fact: not fact.known)


def _flattened(value: object, path: str = "", depth: int = 0) -> Iterator[str]:
    """Yield `name: value` for what an answer holds, whatever its shape."""
    if isinstance(value, Mapping):
        if depth < _DEEPEST:
            for key, item in value.items():
                yield from _flattened(item, f"{path} {key}".strip(), depth + 1)
    elif isinstance(value, (list, tuple)):
        plain = [str(item) for item in value if isinstance(item, (str, int, float))][:_ITEMS]
        if plain:
            yield f"{path}: {', '.join(plain)}"
    elif isinstance(value, bool):
        yield f"{path}: {'yes' if value else 'no'}"
    elif isinstance(value, (str, int, float)) and value != "":
        yield f"{path}: {value}"
