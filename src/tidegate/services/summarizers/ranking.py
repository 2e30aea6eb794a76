"""Choosing sentences: TF-IDF centroid, lead bias, and maximal marginal relevance."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from tidegate.services.summarizers.candidates import Candidate
from tidegate.services.summarizers.english import DATE_WORDS
from tidegate.services.summarizers.words import stem

_CENTROID = 200  # terms: what is rarer in the document says little about all of it
_CENTRAL = 20  # terms: a word of the title that is not among them says nothing, as on a cover page
_POOL = 150  # sentences that are compared with one another, which bounds the work at any length
_NOVELTY = 0.35  # how much being different from what was chosen weighs, against being relevant
_LATE = 0.4  # how much less the end weighs than the beginning: details, notes and appendices come last
_OPENING = 12  # sentences among which the one that introduces the subject is looked for
_DATES = frozenset(map(stem, DATE_WORDS))  # in a report they are everywhere, and say nothing

Vector: TypeAlias = Mapping[str, float]


def choose(
    candidates: Sequence[Candidate], title: Sequence[str], names: Mapping[str, float], most: int
) -> list[Candidate]:
    """Return at most `most` sentences in document order, the first of them the one that introduces the subject.

    Half of them are drawn to the beginning, where a document says what it is about; the others come from anywhere.
    `title` holds the terms of the document's title, `names` the terms of its entities with their share of the mentions.
    """
    if len(candidates) <= most:
        return list(candidates)
    vectors = _vectors(candidates)
    scores = _scores(candidates, vectors, title, names)
    chosen = [_introduction(candidates, scores)]
    led = [score * (1 + early) for score, early in zip(scores, _earliness(len(candidates)), strict=True)]
    _add_diverse(chosen, led, vectors, (most + 1) // 2)
    _add_diverse(chosen, scores, vectors, most)
    return [candidates[at] for at in sorted(chosen)]


def most_relevant(candidates: Sequence[Candidate], title: Sequence[str], names: Mapping[str, float]) -> list[Candidate]:
    """Return all sentences, the most relevant first, whatever they share with one another."""
    scores = _scores(candidates, _vectors(candidates), title, names)
    return [candidates[at] for at in sorted(range(len(candidates)), key=lambda at: (-scores[at], at))]


def _scores(
    candidates: Sequence[Candidate], vectors: Sequence[Vector], title: Sequence[str], names: Mapping[str, float]
) -> list[float]:
    centroid = _centroid(vectors)
    central = sorted(centroid, key=lambda term: (-centroid[term], term))[:_CENTRAL]
    subject = set(title).intersection(central)
    return [
        _standing(candidate)
        * (_dot(vector, centroid) + _about(candidate.terms, subject, names))
        * (1 - _LATE * at / max(len(candidates), _POOL))
        for at, (candidate, vector) in enumerate(zip(candidates, vectors, strict=True))
    ]


def _standing(candidate: Candidate) -> float:
    return candidate.fitness * (1.15 if candidate.leads else 1.0) * candidate.introduces


def _about(terms: Sequence[str], subject: set[str], names: Mapping[str, float]) -> float:
    words = set(terms)
    titled = len(words & subject) / len(subject) if subject else 0.0
    named = math.fsum(names[word] for word in words & names.keys())
    return 0.2 * titled + 0.3 * min(named, 0.5)


def _earliness(count: int) -> list[float]:
    """Return for each of so many sentences how early it stands, from 1 down to 0."""
    return [math.exp(-at / (3 + 0.05 * count)) for at in range(count)]


def _vectors(candidates: Sequence[Candidate]) -> list[Vector]:
    frequency = Counter(term for candidate in candidates for term in set(candidate.terms))
    rarity = {term: math.log(1 + len(candidates) / count) for term, count in frequency.items() if term not in _DATES}
    return [_vector(candidate.terms, rarity) for candidate in candidates]


def _vector(terms: Sequence[str], rarity: Vector) -> Vector:
    counts = Counter(term for term in terms if term in rarity)
    return _unit({term: (1 + math.log(count)) * rarity[term] for term, count in counts.items()})


def _centroid(vectors: Sequence[Vector]) -> Vector:
    """Return what the document is about: the sum of its sentences, early ones weighing up to three times as much."""
    total: dict[str, float] = {}
    for vector, early in zip(vectors, _earliness(len(vectors)), strict=True):
        for term, weight in vector.items():
            total[term] = total.get(term, 0.0) + (1 + 2 * early) * weight
    return _unit(dict(sorted(total.items(), key=lambda item: (-item[1], item[0]))[:_CENTROID]))


def _unit(weights: Mapping[str, float]) -> Vector:
    length = math.sqrt(math.fsum(weight * weight for weight in weights.values()))
    return {term: weight / length for term, weight in weights.items()} if length else {}


def _dot(one: Vector, other: Vector) -> float:
    if len(one) > len(other):
        one, other = other, one
    return math.fsum(weight * other[term] for term, weight in one.items() if term in other)


def _introduction(candidates: Sequence[Candidate], scores: Sequence[float]) -> int:
    def promise(at: int) -> float:
        return scores[at] * candidates[at].introduces * math.exp(-at / _OPENING)

    return max(range(min(_OPENING, len(candidates))), key=lambda at: (promise(at), -at))


def _add_diverse(chosen: list[int], scores: Sequence[float], vectors: Sequence[Vector], most: int) -> None:
    """Add to what was chosen by maximal marginal relevance (Carbonell and Goldstein, 1998), from behind the first."""
    behind = (at for at in range(chosen[0] + 1, len(scores)) if at not in chosen)
    pool = sorted(behind, key=lambda at: (-scores[at], at))[:_POOL]
    nearest = {at: max(_dot(vectors[at], vectors[other]) for other in chosen) for at in pool}
    top = max((scores[at] for at in pool), default=0.0) or 1.0
    while nearest and len(chosen) < most:
        best = max(nearest, key=lambda at: ((1 - _NOVELTY) * scores[at] / top - _NOVELTY * nearest[at], -at))
        chosen.append(best)
        del nearest[best]
        for at, near in nearest.items():
            nearest[at] = max(near, _dot(vectors[at], vectors[best]))
