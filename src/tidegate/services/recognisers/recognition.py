"""document -> entities: candidates from the prose, one decision a name, then every mention everywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from tidegate.services.recognisers import lexicon
from tidegate.services.recognisers.ballots import Ballots, Name, common_words
from tidegate.services.recognisers.capitals import phrases
from tidegate.services.recognisers.clues import is_common
from tidegate.services.recognisers.dates import find_dates
from tidegate.services.recognisers.mentions import Index, without_overlap
from tidegate.services.recognisers.money import find_money
from tidegate.services.recognisers.names import WORD, plain
from tidegate.services.recognisers.passages import Passage, blank, passages
from tidegate.services.recognisers.places import standing
from tidegate.services.recognisers.sightings import Sighting
from tidegate.services.recognisers.variants import Group, bring_together
from tidegate.state import Document, Entity, EntityType, Span, entity_id

Model: TypeAlias = Callable[[Sequence[Passage]], Iterator[Iterable[Sighting]]]
"""What looks for names: for each passage in turn the names it sees there, with offsets into the passage."""

_SHORTEST_ALONE: Final = 4
"""Letters of the shortest word that is looked for although it never stood alone: Acme for Acme Corp."""


@dataclass(slots=True)
class _Entry:
    """An entity in the making; `value` is that of a date or a sum, which has no names."""

    type: EntityType
    names: list[str]
    value: dict[str, str] | None = None
    spans: list[Span] = field(default_factory=list)
    within: str | None = None


def find_entities(document: Document, model: Model | None = None) -> list[Entity]:
    """Return the entities of a document in the order of their first mentions. Blocks, for seconds if it is long.

    New names are looked for in prose alone, so that headings and tables bring none; what is known is then found
    everywhere but in code. The ID of a date or a sum is made of its value, since the same words can mean two things
    ("$5" in "$5-7 million").
    """
    common = common_words(document.text)
    groups = bring_together(_names(document, model, common), document.text, common)
    if model is not None:  # what it does not know and is short for nothing is hardly a name
        groups = [found for found in groups if found.type != "ENTITY"]
    return _entities(document, groups, common)


def find_named(document: Document, names: Iterable[Name]) -> list[Entity]:
    """Return the entities that have these names, and dates and sums, as `find_entities` does. Blocks as that."""
    common = common_words(document.text)
    return _entities(document, bring_together(names, document.text, common), common)


def _entities(document: Document, groups: Sequence[Group], common: frozenset[str]) -> list[Entity]:
    entries = [_Entry(found.type, [name.text for name in found.names]) for found in groups]
    found = [(*span, number) for number, group in enumerate(groups) for name in group.names for span in name.spans]
    index = Index(_writings(groups, common), common)
    values: dict[tuple[str, ...], int] = {}
    for block in document.blocks:
        if block.kind == "code":
            continue
        text = blank(document.slice(block))
        found += index.find(text, block.start, prose=block.kind in ("paragraph", "list_item"))
        for type_, amounts in (("DATE", find_dates(text, table=block.kind == "table")), ("MONEY", find_money(text))):
            for start, end, value in amounts:
                number = values.setdefault((type_, *value.values()), len(entries))
                if number == len(entries):
                    entries.append(_Entry("DATE" if type_ == "DATE" else "MONEY", [], value))
                found.append((block.start + start, block.start + end, number))
    for start, end, number in without_overlap(found, len(document.text)):
        entries[number].spans.append(Span(start=start, end=end))
    mentioned = [entry for entry in entries if entry.spans]
    _locate(document.text, [entry for entry in mentioned if entry.type == "LOC"])
    return [_entity(document, entry) for entry in sorted(mentioned, key=lambda entry: entry.spans[0].start)]


def _locate(text: str, places: Sequence[_Entry]) -> None:
    """Note which area a place lies in, as the first mention says that does: Bangor, Wales."""
    areas = {span.start: text[span.start : span.end] for entry in places for span in entry.spans}
    for entry in places:
        following = (areas[at] for span in entry.spans if text[span.end : (at := span.end + 2)] == ", " and at in areas)
        entry.within = next((area for area in following if standing(area) == "area"), None)


def _names(document: Document, model: Model | None, common: frozenset[str]) -> list[Name]:
    ballots = Ballots(common, modelled=model is not None)
    prose = list(passages(document))
    for passage in prose:
        for phrase in phrases(passage):
            ballots.phrase(passage, phrase)
    if model is not None:
        for passage, sightings in zip(prose, model(prose), strict=True):
            for sighting in sightings:
                ballots.sighting(passage, sighting)
    return ballots.decide()


def _writings(groups: Sequence[Group], common: frozenset[str]) -> dict[str, int]:
    """Return the writings to look for with the number of their group: those seen, and those to be expected."""
    known: dict[str, int] = {}
    for number, found in enumerate(groups):
        for text in [*(name.text for name in found.names), *found.aliases]:
            if " " in text or text.isupper() or not is_common(plain(text), common):
                known.setdefault(text, number)
    expected: dict[str, set[int]] = {}
    for number, found in enumerate(groups):
        for name in found.names:
            short = _short(name.text, found)
            if short is not None and short not in known and (" " in short or not is_common(plain(short), common)):
                expected.setdefault(short, set()).add(number)
    known |= {text: min(numbers) for text, numbers in expected.items() if len(numbers) == 1}
    known |= {text.upper(): number for text, number in known.items() if " " in text and text.upper() not in known}
    return known


def _short(name: str, found: Group) -> str | None:
    """Return what a name is likely to be shortened to: a person's surname, a company without its `Inc.`."""
    parts = list(WORD.finditer(name))
    if found.type == "PERSON":
        while len(parts) > 1 and plain(parts[-1].group()) in lexicon.GENERATIONS:
            parts.pop()
        if len(parts) < 2:
            return None
        short = parts[-1].group()
    elif found.type == "ORG":
        kept = len(parts)
        while kept > 1 and plain(parts[kept - 1].group()) in lexicon.CORPORATE:
            kept -= 1
        if kept == len(parts):
            return None
        short = name[: parts[kept - 1].end()]
    else:
        return None
    if " " not in short and (
        len(short) < _SHORTEST_ALONE or plain(short) in lexicon.NEVER_ALONE or standing(short) != "none"
    ):
        return None
    return short


def _entity(document: Document, entry: _Entry) -> Entity:
    if entry.value is None:
        text = identity = max(entry.names, key=lambda name: (not name.isupper(), len(WORD.findall(name)), len(name)))
    else:
        text, identity = max(map(document.slice, entry.spans), key=len), " ".join(entry.value.values())
    return Entity(
        id=entity_id(document.id, entry.type, identity),
        text=text,
        type=entry.type,
        mentions=tuple(entry.spans),
        value=entry.value,
        within=entry.within,
    )
