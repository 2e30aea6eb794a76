"""What kind of thing each name of a document is, decided for the whole document at once."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from tidegate.services.recognisers import lexicon
from tidegate.services.recognisers.capitals import Phrase
from tidegate.services.recognisers.clues import FAINT, FIRM, LIKELY, PROOF, Clue, Kind, beside, is_common, own
from tidegate.services.recognisers.names import plain, words
from tidegate.services.recognisers.passages import Passage
from tidegate.services.recognisers.sightings import Sighting
from tidegate.state import EntityType

_CERTAIN: Final = 4.0
"""Weight of a model that takes every mention for the same."""
_ABSTRACT: Final = re.compile(r".{3}(?:ance|ence|ment|tion|sion|ness|ility|ship|ism)s?\Z")
"""How a word ends that is hardly a name by itself."""
_JOINED: Final = re.compile(r"(?!(?:De|Di|Du|Fitz|La|Le|Ma?c|Van)[A-Z][a-z]+\Z).*[a-z][A-Z]")
"""A word made of two, as products have it and people do not: LayoutParser, but McGhee."""
_KINDS: Final[tuple[Kind, ...]] = ("OTHER", "ORG", "LOC", "PERSON")


@dataclass(slots=True)
class Ballot:
    """What speaks for each kind that one name could be. `spans` are its mentions so far, in the document.

    `shown` is what its own words say for an organisation or a place; of its mentions, `inside` do not begin a sentence
    and `articled` stand behind `the`.
    """

    name: str
    votes: Counter[Kind] = field(default_factory=Counter)
    clues: dict[Kind, float] = field(default_factory=dict)
    spans: set[tuple[int, int]] = field(default_factory=set)
    inside: int = 0
    articled: int = 0
    shown: float = 0.0
    inverted: bool = False

    def add(self, clues: Iterable[Clue]) -> None:
        """Keep the heaviest clue of each kind."""
        for kind, weight in clues:
            self.clues[kind] = max(weight, self.clues.get(kind, 0.0))


@dataclass(frozen=True, slots=True)
class Name:
    """One writing of a name, what it is a name of, and its mentions so far.

    `unproven`: nothing but its being a name, or a model, speaks for the type. `inverted`: it stood behind a comma at
    times, as a given name does in a list of references.
    """

    text: str
    type: EntityType
    spans: frozenset[tuple[int, int]]
    unproven: bool
    inverted: bool

    @property
    def first(self) -> int:
        """Where it first stands."""
        return min(self.spans)[0]


class Ballots:
    """The names of a document and what speaks for each kind they could be."""

    def __init__(self, common: frozenset[str], *, modelled: bool) -> None:
        """`common` are the words that the document writes small; `modelled`: a model votes, so that doubt is a no."""
        self._common = common
        self._modelled = modelled
        self._ballots: dict[str, Ballot] = {}

    def phrase(self, passage: Passage, phrase: Phrase) -> None:
        """Count a phrase that is written as a name is."""
        ballot = self._ballot(passage, phrase.start, phrase.end)
        ballot.add(beside(passage.text, phrase.start, phrase.end))
        ballot.inside += not phrase.opens
        ballot.articled += passage.text.endswith(("the ", "The "), 0, phrase.start)
        ballot.inverted |= passage.text.endswith(", ", 0, phrase.start)

    def sighting(self, passage: Passage, sighting: Sighting) -> None:
        """Count the vote of a model."""
        ballot = self._ballot(passage, sighting.start, sighting.end)
        ballot.votes[_kind(sighting.type)] += 1

    def _ballot(self, passage: Passage, start: int, end: int) -> Ballot:
        name = " ".join(passage.text[start:end].split())
        ballot = self._ballots.get(name)
        if ballot is None:
            ballot = self._ballots[name] = Ballot(name)
            ballot.add(own(name, self._common))
            ballot.shown = max(ballot.clues.get("ORG", 0.0), ballot.clues.get("LOC", 0.0))
        ballot.spans.add((passage.start + start, passage.start + end))
        return ballot

    def decide(self) -> list[Name]:
        """Return the names that are entities, in the order in which they were first seen."""
        ordered = sorted(self._ballots.values(), key=lambda ballot: min(ballot.spans))
        self._add_families(ordered)
        titled = {words(b.name)[-1] for b in ordered if b.clues.get("PERSON", 0.0) >= PROOF}
        people = set(titled)
        types: dict[str, EntityType | None] = {}
        for ballot in ordered:
            if " " in ballot.name:
                types[ballot.name] = self._decide(ballot, words(ballot.name)[-1] in titled)
                if types[ballot.name] == "PERSON" and "PERSON" in ballot.clues:
                    people.update(
                        part for part in words(ballot.name) if part not in lexicon.NEVER_ALONE and len(part) > 1
                    )
        for ballot in ordered:
            if " " not in ballot.name:
                types[ballot.name] = self._decide(ballot, plain(ballot.name) in people)
        return [self._name(ballot, type_, people) for ballot in ordered if (type_ := types[ballot.name]) is not None]

    def _add_families(self, ballots: Iterable[Ballot]) -> None:
        """Let `the Kennedys` say that Kennedy is a person."""
        for ballot in ballots:
            if " " not in ballot.name and ballot.articled and ballot.name.endswith("s"):
                member = self._ballots.get(ballot.name[:-1])
                if member is not None:
                    member.add([("PERSON", LIKELY)])

    def _name(self, ballot: Ballot, type_: EntityType, people: set[str]) -> Name:
        proven = (
            ballot.name.isupper()
            or plain(ballot.name) in people
            or (type_ in ballot.clues and ballot.clues[type_] >= FAINT)
        )
        return Name(ballot.name, type_, frozenset(ballot.spans), unproven=not proven, inverted=ballot.inverted)

    def _decide(self, ballot: Ballot, supported: bool) -> EntityType | None:
        if self._is_common(ballot) and max(ballot.clues.values(), default=0.0) < PROOF:
            return None
        scores = self._scores(ballot, supported=supported)
        kind = max(_KINDS, key=lambda kind: scores[kind])
        voted = self._modelled and ballot.votes[kind] and scores[kind] >= LIKELY / 2
        if kind != "OTHER" and (voted or scores[kind] >= LIKELY):
            return kind
        return "ENTITY" if self._is_name(ballot) else None

    def _scores(self, ballot: Ballot, *, supported: bool) -> Mapping[Kind, float]:
        single, cast = " " not in ballot.name, sum(ballot.votes.values())
        scores: dict[Kind, float] = {}
        for kind in _KINDS:
            votes = ballot.votes[kind]
            weight = _CERTAIN * votes / max(cast, len(ballot.spans) / 2) + min(votes, 5) / 5 if votes else 0.0
            if single and not supported and kind not in ballot.clues:
                weight *= _unsupported(kind, ballot)
            clue = ballot.clues.get(kind, 0.0)
            if single and not cast and clue < FIRM and (self._modelled or not ballot.inside):
                clue = min(clue, FAINT)  # Reading, Mark: only the sentence made them big, or the model saw no name
            scores[kind] = weight + clue
        if supported:
            scores["PERSON"] += FIRM
        return scores

    def _is_common(self, ballot: Ballot) -> bool:
        """Say whether the name is made of words that are none, and so but a term that the document sets in capitals."""
        parts = words(ballot.name)
        if len(parts) == 1:
            if ballot.name.isupper() and ballot.shown >= LIKELY:
                return False  # U.S.
            abstract = not ballot.clues and _ABSTRACT.search(parts[0]) is not None
            last = parts[0].rpartition("-")[2]
            return abstract or last in lexicon.NEVER_ALONE or is_common(parts[0], self._common)
        known = lexicon.FUNCTION | lexicon.NEVER_ALONE | lexicon.PEOPLES | lexicon.ORGANISATIONS
        return ballot.shown < LIKELY and all(part in known or is_common(part, self._common) for part in parts)

    def _is_name(self, ballot: Ballot) -> bool:
        """Say whether an undecided phrase is a name at all: no mere first word of a sentence, or one written twice."""
        return "OTHER" not in ballot.clues and ballot.inside > 0 and (" " in ballot.name or len(ballot.spans) > 1)


def _kind(type_: EntityType | None) -> Kind:
    return type_ if type_ in ("PERSON", "ORG", "LOC") else "OTHER"


def _unsupported(kind: Kind, ballot: Ballot) -> float:
    """Return how much of a model's word counts for a single word that nothing else shows to be of this kind.

    Measured on the sample documents, where such words are what the small model gets wrong.
    """
    if kind == "PERSON":
        unlikely = ballot.name.isupper() or 2 * ballot.articled > len(ballot.spans) or _JOINED.match(ballot.name)
        return 0.0 if unlikely else 0.4
    if kind == "LOC":
        return 0.4 if ballot.articled else 0.28
    initials = ballot.name.isupper() and len(ballot.name) < 4 and len(ballot.spans) == 1
    return 0.85 if ballot.inside and not initials else 0.28


def common_words(text: str) -> frozenset[str]:
    """Return the words that a text writes small."""
    return frozenset(re.findall(r"(?<![\w'\u2019.@/-])[a-z]{2,}(?![\w@/])", text))
