"""Phrases that are written as names are: capitalised words, and the small words that hold them together."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final, NamedTuple

from tidegate.services.recognisers import lexicon
from tidegate.services.recognisers.names import WORD, is_capitalised, plain, tidy
from tidegate.services.recognisers.passages import Passage

_SMALL: Final = frozenset({"of", "the", "for", "and"}) | lexicon.PARTICLES
_HEADS: Final = lexicon.ORGANISATIONS | lexicon.PLACES | lexicon.PLACE_OPENERS | lexicon.OTHER
_OFFICES: Final = (lexicon.RANKS | lexicon.ROLES) - frozenset(
    {"general", "major", "justice", "king", "vice", "father", "head"}
)
_LONGEST_RUN: Final = 12


class Phrase(NamedTuple):
    """A phrase that may be a name, `text[start:end]` of the passage. `opens`: it begins a sentence."""

    start: int
    end: int
    opens: bool


class _Word(NamedTuple):
    start: int
    end: int
    text: str
    plain: str


def phrases(passage: Passage) -> Iterator[Phrase]:
    """Yield the phrases of a passage in order."""
    text = passage.text
    found = [_Word(m.start(), m.end(), m.group(), plain(m.group())) for m in WORD.finditer(text)]
    position = 0
    while position < len(found):
        if not is_capitalised(found[position].text):
            position += 1
            continue
        last = _run(text, found, position)
        person = _has_office(found[position : last + 1])
        for span in tidy(text, found[position].start, found[last].end, person=person):
            yield Phrase(*span, opens=span[0] == found[position].start and _opens_sentence(text, span[0]))
        position = last + 1


def _has_office(run: list[_Word]) -> bool:
    """Say whether the phrase is a person's office and name: `French President Emmanuel Macron`."""
    titles = list(itertools.takewhile(lambda word: word.plain in _OFFICES | lexicon.PEOPLES, run))
    named = len(titles) < len(run) and run[-1].plain not in _HEADS | lexicon.CORPORATE
    return named and any(word.plain in _OFFICES for word in titles)


def _run(text: str, found: list[_Word], first: int) -> int:
    """Return the index of the last word of the longest phrase that begins with word `first`."""
    last = first
    while last + 1 < len(found) and last - first < _LONGEST_RUN:
        following = found[last + 1]
        gap = text[found[last].end : following.start]
        if gap == ", " and following.plain in lexicon.CORPORATE | lexicon.GENERATIONS and following.text[0].isupper():
            last += 1
        elif gap != " ":
            break
        elif is_capitalised(following.text):
            last += 1
        else:
            step = _bridge(text, found, first, last)
            if not step:
                break
            last += step
    return last


def _bridge(text: str, found: list[_Word], first: int, last: int) -> int:
    """Return how many words further the phrase goes on behind small words, 0 if it ends here."""
    small: list[str] = []
    index = last + 1
    while index < len(found) and len(small) < 3 and (found[index].plain in _SMALL or found[index].text == "&"):
        if text[found[index - 1].end : found[index].start] != " ":
            return 0
        small.append(found[index].plain if found[index].text != "&" else "&")
        index += 1
    if not small or index >= len(found) or not is_capitalised(found[index].text):
        return 0
    if text[found[index - 1].end : found[index].start] != " ":
        return 0
    return index - last if _holds(text, found, first, last, small, index) else 0


def _holds(text: str, found: list[_Word], first: int, last: int, small: list[str], right: int) -> bool:
    left = [word.plain for word in found[first : last + 1]]
    if small == ["&"] or all(word in lexicon.PARTICLES for word in small):
        return True
    if small in (["of"], ["of", "the"]):
        return left[-1] in _HEADS
    if small in (["for"], ["for", "the"]):
        return any(word in lexicon.ORGANISATIONS for word in left)
    if small == ["and"] and (left[0] == "the" or text.endswith("the ", 0, found[first].start)):
        # "the Securities and Exchange Commission", but not "the Bank and Norwich City"
        end = right
        while (
            end + 1 < len(found)
            and is_capitalised(found[end + 1].text)
            and text[found[end].end : found[end + 1].start] == " "
        ):
            end += 1
        return end > right and found[end].plain in lexicon.ORGANISATIONS and not any(word in _HEADS for word in left)
    return False


def _opens_sentence(text: str, start: int) -> bool:
    before = text[max(0, start - 6) : start].rstrip(" \"'\u2018\u201c([\u2022-\u2013\u2014*")
    return not before or before[-1] in ".!?:;\u2026\n|"
