"""Every place where known names stand, in one pass over the text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from tidegate.services.recognisers import lexicon
from tidegate.services.recognisers.names import is_capitalised, plain

_TOKEN: Final = re.compile(r"\w+|[^\w\s]")
_GAPS: Final = frozenset({"", " "})
_PLAIN_MARKS: Final = {"\u2019": "'", "\u2010": "-", "\u2011": "-"}
_BESIDE: Final = (
    lexicon.FUNCTION
    | lexicon.RANKS
    | lexicon.ROLES
    | lexicon.COURTESY
    | lexicon.LABELS
    | lexicon.CALENDAR
    | lexicon.PEOPLES
)
"""Words that may stand big beside a name without being a part of another one."""


def _plain_mark(token: str) -> str:
    return _PLAIN_MARKS.get(token, token)


@dataclass(slots=True)
class _Node:
    """A state of the search: the words that may follow, and the entry of the name that is complete here."""

    following: dict[str, _Node] = field(default_factory=dict)
    entry: int | None = None


class Index:
    """Known names, ready to be found. Time grows with the text, not with the number of names."""

    def __init__(self, names: Mapping[str, int], common: frozenset[str]) -> None:
        """`names` maps each writing to the entry it stands for; `common` are words the document also writes small."""
        self._common = common
        self._root = _Node()
        for name, entry in names.items():
            node = self._root
            for token in _TOKEN.findall(name):
                node = node.following.setdefault(_plain_mark(token), _Node())
            if node is not self._root and node.entry is None:
                node.entry = entry

    def find(self, text: str, offset: int = 0, *, prose: bool) -> Iterator[tuple[int, int, int]]:
        """Yield start, end and entry of each name in `text`, the longest where several begin; `offset` is added.

        In prose, a single word does not count inside a longer phrase that is written as a name.
        """
        tokens = [(match.group(), match.start(), match.end()) for match in _TOKEN.finditer(text)]
        position = 0
        while position < len(tokens):
            found = self._longest(text, tokens, position, prose=prose)
            if found is None:
                position += 1
                continue
            last, entry = found
            yield offset + tokens[position][1], offset + tokens[last][2], entry
            position = last + 1

    def _longest(
        self, text: str, tokens: list[tuple[str, int, int]], first: int, *, prose: bool
    ) -> tuple[int, int] | None:
        node = self._root.following.get(tokens[first][0])
        complete: list[tuple[int, int]] = []
        last = first
        while node is not None:
            if node.entry is not None:
                complete.append((last, node.entry))
            last += 1
            if last >= len(tokens) or text[tokens[last - 1][2] : tokens[last][1]] not in _GAPS:
                break
            node = node.following.get(_plain_mark(tokens[last][0]))
        for last, entry in reversed(complete):
            start, end = tokens[first][1], tokens[last][2]
            if _stands_alone(text, start, end) and not (prose and first == last and self._is_inside(text, start, end)):
                return last, entry
        return None

    def _is_inside(self, text: str, start: int, end: int) -> bool:
        """Say whether a capitalised word beside this one makes both part of a name that is not known."""
        before, after = _WORD_BEFORE.search(text, max(0, start - 30), start), _WORD_AFTER.match(text, end)
        return any(
            word is not None
            and is_capitalised(word[1])
            and plain(word[1]) not in _BESIDE
            and plain(word[1]) not in self._common
            for word in (before, after)
        )


_WORD_BEFORE: Final = re.compile(r"(?<![\w.'\u2019-])(\w[\w'\u2019-]*) \Z")
_WORD_AFTER: Final = re.compile(r" (\w[\w'\u2019-]*)")
_JOINED_BEFORE: Final = re.compile(r"(?:(?<!\w)[A-Z]\w*[-\u2010\u2011]|(?<!\w)\w['\u2019]|[@_])\Z")
_JOINED_AFTER: Final = re.compile(r"[-\u2010\u2011][A-Z]|[@_]|\.(?:com|org|net|edu|gov|info|io|co|uk|de|eu)(?!\w)")


def _stands_alone(text: str, start: int, end: int) -> bool:
    """Say whether the name is no part of a longer word: `Neil` in O'Neil, `Jean` in Jean-Luc."""
    return _JOINED_AFTER.match(text, end) is None and _JOINED_BEFORE.search(text, max(0, start - 20), start) is None


def without_overlap(found: Iterable[tuple[int, int, int]], length: int) -> list[tuple[int, int, int]]:
    """Return the mentions in order, of those that overlap the longest; `length` is that of the text."""
    taken = bytearray(length)
    kept = []
    for start, end, entry in sorted(set(found), key=lambda mention: (mention[0] - mention[1], mention)):
        if not any(taken[start:end]):
            taken[start:end] = b"\x01" * (end - start)
            kept.append((start, end, entry))
    return sorted(kept)
