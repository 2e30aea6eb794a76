"""A document's prose in short pieces, with what is no language blanked out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from tidegate.state import Document

LONGEST: Final = 2_000
"""Characters in a passage at most: models want memory by the length of their input."""

_NOISE: Final = re.compile(
    r"\S{100,}|(?:https?://|www\.)\S+|\S+@\S+\.\S+|\[(?:\d{1,3}|[a-z])(?:[,\u2013-] ?\d{1,3})*\]"
)
_BREAK: Final = re.compile(r"(?<=[.!?]) (?=\S)|\n")


class Passage(NamedTuple):
    """A piece of the text. `text[i]` is the document's character at `start + i`, or a space in its place."""

    start: int
    text: str


def passages(document: Document) -> Iterator[Passage]:
    """Yield the paragraphs and list items, cut between sentences where they are long.

    Addresses, reference marks and endless words are blanked out, so that no name reaches into them.
    """
    for block in document.blocks:
        if block.kind in ("paragraph", "list_item"):
            yield from _cut(Passage(block.start, blank(document.slice(block))))


def blank(text: str) -> str:
    """Return the text, as long as it was, with spaces for what is no language."""
    return _NOISE.sub(lambda match: " " * len(match.group()), text)


def _cut(passage: Passage) -> Iterator[Passage]:
    start, text = passage
    position = 0
    while len(text) - position > LONGEST:
        limit = position + LONGEST
        ends = [match.end() for match in _BREAK.finditer(text, position + LONGEST // 2, limit)]
        space = text.rfind(" ", position + 1, limit)
        stop = ends[-1] if ends else space if space > 0 else limit
        yield Passage(start + position, text[position:stop])
        position = stop
    yield Passage(start + position, text[position:])
