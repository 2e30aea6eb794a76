"""Whether the evidence that a sentence cites carries it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal
from itertools import zip_longest

from tidegate.services.summarizers.words import is_content, number, stem, terms, tokens

_SHARE = 0.33  # of a sentence's words that must stand in its evidence: a summary may put things in words of its own
_PREFIX = 5  # letters by which longer words of one family are known: manage, manager, management
_IDIOMS = frozenset({Decimal(0), Decimal(1), Decimal(2)})  # "one of", "two halves": as words, these count nothing
_MAGNITUDES = {
    **dict.fromkeys(("hundred", "hundreds"), 2),
    **dict.fromkeys(("thousand", "thousands", "k"), 3),
    **dict.fromkeys(("million", "millions", "m", "mn"), 6),
    **dict.fromkeys(("billion", "billions", "bn", "b"), 9),
    **dict.fromkeys(("trillion", "trillions"), 12),
}
# German writes every noun with a capital, so that there a capital tells no name.
_GERMAN = frozenset({"der", "die", "das", "und", "ist", "nicht", "ein", "eine", "mit", "von", "zu"})


def is_supported(sentence: str, evidence: Iterable[str], context: Iterable[str]) -> bool:
    """Say whether the cited `evidence` carries a sentence: all its numbers, all its names, and a third of its words.

    Names may also stand in the `context` (the title, what comes before a cited passage, the full names of those whom it
    mentions), since a summary says "Roberts" where the text says "he". What a sentence denies or confuses is not seen.
    """
    cited, around = "\n".join(evidence), "\n".join(context)
    figures = _figures(cited)
    if not all(_is_among(figure, figures) for figure in _figures(sentence, strict=True)):
        return False
    stems = set(terms(cited))
    beginnings = {word[:_PREFIX] for word in stems if len(word) > _PREFIX}
    if not _writes_nouns_large(cited):
        known = stems | set(terms(around))
        if any(stem(name) not in known for name in _names(sentence)):
            return False
    said = terms(sentence)
    carried = sum(word in stems or (len(word) > _PREFIX and word[:_PREFIX] in beginnings) for word in said)
    return bool(said) and carried >= _SHARE * len(said)


def _figures(text: str, *, strict: bool = False) -> list[tuple[Decimal, Decimal]]:
    """Return the numbers of a text, each with how far it may have been rounded; `strict` leaves out idioms."""
    words = tokens(text)
    found: list[tuple[Decimal, Decimal]] = []
    for word, following in zip_longest(words, words[1:], fillvalue=""):
        value = number(word)
        if value is None or (strict and value in _IDIOMS and not word[0].isdigit()):
            continue
        exponent = _MAGNITUDES.get(following.casefold())
        if exponent is None:
            found.append((value, Decimal(0)))
        else:
            unit = Decimal(1).scaleb(exponent)
            digits = -int(value.as_tuple().exponent)
            found.append((value * unit, unit.scaleb(-digits) / 2))
    return found


def _is_among(figure: tuple[Decimal, Decimal], others: Iterable[tuple[Decimal, Decimal]]) -> bool:
    value, slack = figure
    return any(abs(value - other) <= max(slack, rounded) for other, rounded in others)


def _names(sentence: str) -> Iterator[str]:
    """Yield the words with a capital; the first one tells a name only if the second has one too."""
    words = tokens(sentence)
    large = [word[0].isupper() and is_content(word) for word in words]
    for place, word in enumerate(words):
        if large[place] and (place or large[1:2] == [True]):
            yield word


def _writes_nouns_large(text: str) -> bool:
    words = tokens(text)
    return sum(word in _GERMAN for word in words) > sum(word in ("the", "and", "of", "to", "is", "a") for word in words)
