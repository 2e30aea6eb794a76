"""Different writings of one name, brought together where there is no doubt."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from tidegate.services.gazetteer import fold
from tidegate.services.recognisers import lexicon
from tidegate.services.recognisers.aliases import find_aliases
from tidegate.services.recognisers.ballots import Name
from tidegate.services.recognisers.given_names import SHORT_FORMS
from tidegate.services.recognisers.names import words
from tidegate.state import EntityType

_SAME: Final = {
    "us": "united states",
    "usa": "united states",
    "united states of america": "united states",
    "uk": "united kingdom",
    "eu": "european union",
    "un": "united nations",
}
_FOUNDED_IN_A_PLACE: Final = lexicon.ORGANISATIONS - lexicon.GENERIC_HEADS - lexicon.CLUBS
"""Last words before which the first is likely a place or a people: the Otago Daily Times, the Zurich Orchestra."""
_MOST_NAMESAKES: Final = 50
"""Names among which the one that a shorter one is short for is looked for; among more of them, it is not clear."""


@dataclass(slots=True)
class Group:
    """The names of one thing; `key` is what they are compared by, `aliases` what else the text calls it."""

    type: EntityType
    key: tuple[str, ...]
    names: list[Name] = field(default_factory=list)
    aliases: list[str] = field(default_factory=list)

    @property
    def first(self) -> int:
        """Where the thing is first named."""
        return min(name.first for name in self.names)


def bring_together(names: Iterable[Name], text: str, common: frozenset[str]) -> list[Group]:
    """Return the things that these are names of, in the order in which they are first named.

    A short form joins a long one only if it can be short for no other: with two people called Roberts in the document,
    `Roberts` stays by itself.
    """
    names = list(names)
    legal = {_organisation(name.text) for name in names if name.type == "ORG" and _has_legal_form(name)}
    groups: dict[tuple[EntityType, tuple[str, ...]], Group] = {}
    for name in names:
        type_, key = _key(name, legal)
        groups.setdefault((type_, key), Group(type_, key)).names.append(name)
    people = _join_people([found for found in groups.values() if found.type == "PERSON"])
    rest = [found for found in groups.values() if found.type != "PERSON"]
    together = _join_organisations([*rest, *people], text, common)
    return sorted(together, key=lambda found: (found.first, found.type))


def _key(name: Name, legal: set[tuple[str, ...]]) -> tuple[EntityType, tuple[str, ...]]:
    """Return what all writings of a name have in common; a company's without its `Inc.` is the company's."""
    if name.type == "ORG" or _organisation(name.text) in legal:
        key = _organisation(name.text)
        return "ORG", tuple(_SAME.get(" ".join(key), " ".join(key)).split())
    if name.type == "LOC":
        place = fold(name.text)
        return "LOC", tuple(_SAME.get(place, place).split()) or words(name.text)
    return name.type, _person(name.text) if name.type == "PERSON" else words(name.text)


def _organisation(name: str) -> tuple[str, ...]:
    parts = words(name)
    while len(parts) > 1 and parts[-1] in lexicon.CORPORATE:
        parts = parts[:-1]
    return parts


def _has_legal_form(name: Name) -> bool:
    return words(name.text)[-1] in lexicon.CORPORATE


def _person(name: str) -> tuple[str, ...]:
    parts = words(name)
    while len(parts) > 1 and parts[0] in lexicon.RANKS | lexicon.COURTESY:
        parts = parts[1:]
    while len(parts) > 1 and parts[-1] in lexicon.GENERATIONS:
        parts = parts[:-1]
    return parts


def _join_people(groups: list[Group]) -> list[Group]:
    """Let each name join the longer name that it is short for, the longest names first."""
    kept: list[Group] = []
    by_word: dict[str, list[Group]] = defaultdict(list)
    for found in sorted(groups, key=lambda g: (-len(g.key), g.first)):
        near = {id(g): g for word in (found.key[0], found.key[-1]) for g in by_word[word][: _MOST_NAMESAKES + 1]}
        longer = [g for g in near.values() if _is_short_for(found, g)] if len(near) <= _MOST_NAMESAKES else []
        if len(longer) == 1:
            longer[0].names += found.names
            continue
        kept.append(found)
        for word in {found.key[0], found.key[-1]}:
            by_word[word].append(found)
    return kept


def _is_short_for(short: Group, long: Group) -> bool:
    a, b = short.key, long.key
    if len(a) == 1:
        given = a[0] == b[0] and short.first > long.first and not any(name.inverted for name in short.names)
        return len(b) > 1 and (a[0] == b[-1] or given)
    if a == b[: len(a)]:
        return True
    if a[-1] != b[-1] or not _is_same_given_name(a[0], b[0]):
        return False
    middle = iter(b[1:-1])
    return all(any(_abbreviates(part, other) or _abbreviates(other, part) for other in middle) for part in a[1:-1])


def _is_same_given_name(a: str, b: str) -> bool:
    return SHORT_FORMS.get(a, a) == SHORT_FORMS.get(b, b) or _abbreviates(a, b) or _abbreviates(b, a)


def _abbreviates(a: str, b: str) -> bool:
    return a == b or (len(a) == 1 and b.startswith(a))


def _join_organisations(groups: list[Group], text: str, common: frozenset[str]) -> list[Group]:
    """Let short names that the text explains, and a first word that begins one organisation's name alone, join it."""
    organisations = [found for found in groups if found.type == "ORG"]
    owners = find_aliases(((name, found) for found in organisations for name in found.names), text, common)
    explained = {words(alias): owner for alias, owner in owners.items()}
    begun: dict[str, list[Group]] = defaultdict(list)
    for found in organisations:
        if len(found.key) > 1 and (any(map(_has_legal_form, found.names)) or found.key[-1] not in _FOUNDED_IN_A_PLACE):
            begun[found.key[0]].append(found)
    parents: dict[int, Group] = {}

    def root(found: Group) -> Group:
        while id(found) in parents:
            found = parents[id(found)]
        return found

    for found in groups:
        longer = begun[found.key[0]] if len(found.key) == 1 and all(name.unproven for name in found.names) else []
        target = explained.get(found.key) or (longer[0] if len(longer) == 1 else None)
        if target is not None and root(target) is not found:
            parents[id(found)] = target
    for alias, owner in owners.items():
        root(owner).aliases.append(alias)
    for found in groups:
        if id(found) in parents:
            root(found).names += found.names
    return [found for found in groups if id(found) not in parents]
