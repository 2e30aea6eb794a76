"""Plain text: hard-wrapped lines -> paragraphs, headings, list items and tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from tidegate.errors import DocumentTooLarge
from tidegate.services.converters.characters import clean, spaced
from tidegate.services.converters.lines import (
    breaks_off,
    continues,
    ends_sentence,
    is_caption,
    is_heading,
    is_row,
    marker,
    ordinals,
    unmarked,
    unwrap,
    words_of,
)
from tidegate.services.converters.pieces import Converted, Piece
from tidegate.state import BlockKind

MAX_LINES = 1_000_000
"""Lines that are read, at about 20 µs each: nobody reads a text as long."""

_CELL_GAP = re.compile(r"\t+| {3,}| \| ")
_RULE = re.compile(r"[\s\W_]{3,}$")
_SENTENCE_OPENERS = frozenset("After Although As At Before By During For From In On Since When While With".split())
_NEIGHBOURS = 8
_WIDEST_WRAP = 200
"""Nobody wraps text wider than this; a longer line is a whole paragraph."""


@dataclass(slots=True)
class _Group:
    """Lines that belong together: of a paragraph, of a list item, or the rows of a table."""

    kind: Literal["flow", "item", "rows"]
    lines: list[str]
    aside: list[str] = field(default_factory=list)
    """Lines that stood in the midst of this paragraph and are none of it."""

    def text(self, words: frozenset[str]) -> str:
        if self.kind == "rows":
            return "\n".join(self.lines)
        return unwrap(self.lines, words)


def convert(text: str, *, source: str) -> Converted:
    """Find the blocks of a plain text, whether or not blank lines part its paragraphs.

    Raises:
        DocumentTooLarge: more lines than are read.
    """
    text = clean(text.replace("\n\f", "\n"))
    count = text.count("\n")
    if count > MAX_LINES:
        raise DocumentTooLarge(source, f"it has {count:,} lines, more than {MAX_LINES:,}", "split it")
    words = words_of(text) if "-\n" in text else frozenset[str]()
    pieces: list[Piece] = []
    for chunk in _chunks(text):
        pieces += _pieces(chunk, words, first=not pieces)
    for index in range(len(pieces) - 1, -1, -1):  # a heading has something below it
        if pieces[index].kind != "heading":
            break
        pieces[index] = replace(pieces[index], kind="paragraph", level=0)
    return Converted(pieces, "text/1", why_empty=("it holds no words", "give a document with content"))


def _chunks(text: str) -> Iterator[list[str]]:
    """Split at blank lines and drawn rules; lines keep what parts their cells, but not their indentation."""
    chunk: list[str] = []
    for line in text.split("\n"):
        stripped = line.strip()
        if stripped and not (len(stripped) < 1000 and _RULE.match(stripped)):
            chunk.append(stripped)
        elif chunk:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _pieces(chunk: list[str], words: frozenset[str], *, first: bool) -> Iterator[Piece]:
    groups = list(_groups(chunk))
    has_prose = any(_is_prose(group) for group in groups)
    index = 0
    while index < len(groups):
        group = groups[index]
        if group.kind == "rows":
            rows = (" | ".join(_CELL_GAP.split(line)) for line in group.lines)
            yield _piece("table", "\n".join(rows))
        elif group.kind == "item":
            text = unmarked(group.text(words))
            title = len(chunk) == len(group.lines) == 1 and is_heading(text)
            yield _heading(text) if title else _piece("list_item", text)
            yield from _set_aside(group.aside)
        elif _is_prose(group):
            text = group.text(words)
            yield _piece("caption" if is_caption(text) else "paragraph", text)
            yield from _set_aside(group.aside)
        else:
            end = index + 1
            while end < len(groups) and groups[end].kind == "flow" and not _is_prose(groups[end]):
                end += 1
            labels = [group.text(words) for group in groups[index:end]]
            yield from _labelled(labels, first=first and index == 0, followed=end < len(groups), alone=not has_prose)
            index = end - 1
        index += 1


def _labelled(labels: list[str], *, first: bool, followed: bool, alone: bool) -> Iterator[Piece]:
    """Tell headings, infobox rows and addresses apart among short lines that are no sentences.

    `alone`: the blank lines around them part them from all prose, so that several of them are an address, a
    signature or a list of names, and headings only where prose is near.
    """
    if first and is_heading(labels[0]):
        yield _piece("heading", labels.pop(0), level=1)
    elif followed and len(labels) > 1 and is_heading(labels[0]) and not is_row(labels[0]) and is_row(labels[1]):
        yield _heading(labels.pop(0))
    last = labels.pop() if followed and labels and is_heading(labels[-1]) and not is_row(labels[-1]) else None
    if sum(map(is_row, labels)) >= max(3, 0.4 * len(labels)):
        yield _piece("table", "\n".join(labels))
    elif len(labels) == 1 or not alone:
        for label in labels:
            kind: BlockKind = "caption" if is_caption(label) or not alone else "paragraph"
            yield _heading(label) if is_heading(label) else _piece(kind, label)
    elif labels:
        yield _piece("paragraph", "\n".join(labels))
    if last:
        yield _heading(last)


def _piece(kind: BlockKind, text: str, level: int = 0) -> Piece:
    return Piece(kind, spaced(text), level, ready=True)


def _set_aside(lines: list[str]) -> Iterator[Piece]:
    if lines and is_heading(lines[0]) and not any(map(continues, lines)):
        yield from map(_heading, lines)
    elif lines:
        yield _piece("caption", " ".join(lines))


def _heading(text: str) -> Piece:
    number = re.match(r"\d+(?:\.\d+)*", text)
    return _piece("heading", text, level=min(6, number[0].count(".") + 2) if number else 2)


def _is_prose(group: _Group) -> bool:
    if group.kind != "flow":
        return group.kind == "item"
    size = sum(map(len, group.lines))
    tail = " ".join(group.lines[-2:])
    return size > 120 or (ends_sentence(tail) and (size > 50 or len(tail.split()) >= 4))


def _groups(lines: list[str]) -> Iterator[_Group]:
    group: _Group | None = None
    item = ""
    widths = _widths(lines)
    index = 0
    while index < len(lines):
        line = lines[index]
        cells = _has_cells(line)
        if group and group.kind == "rows" and cells:
            group.lines.append(line)
        elif cells and index + 1 < len(lines) and _has_cells(lines[index + 1]):
            if group:
                yield group
            group = _Group("rows", [line])
        elif _starts_item(line, item, group, widths[index]):
            if group:
                yield group
            item = line
            group = _Group("item", [line])
        elif group and group.kind != "rows" and (skip := _insertion(lines, index, group, widths)):
            group.aside += lines[index : index + skip]
            index += skip
            group.lines.append(lines[index])
        elif group and group.kind != "rows" and _goes_on(group.lines[-1], line, widths[index]):
            group.lines.append(line)
        else:
            if group:
                yield group
            group = _Group("flow", [line])
        index += 1
    if group:
        yield group


def _has_cells(line: str) -> bool:
    return ("   " in line or "\t" in line or " | " in line) and len(line) < 1000


def _widths(lines: list[str]) -> list[int]:
    """Return how wide the text around each line is wrapped, 0 where it is not wrapped; alike for eight at a time.

    The width is that of the widest neighbour, or of the next to it where there are many: one line may be two that a
    careless tool joined. Where few neighbours begin as prose goes on, with a small letter, they may be rows or verses
    of like length, and the width counts as 60 at least, so that none of them seems full.
    """
    widths: list[int] = []
    for start in range(0, len(lines), _NEIGHBOURS):
        near = lines[max(0, start - _NEIGHBOURS) : start + 2 * _NEIGHBOURS]
        lengths = sorted(len(line) for line in near if len(line) <= _WIDEST_WRAP)
        width = 0
        if 2 * len(lengths) >= len(near):
            wrapped = sum(line[0].islower() for line in near) >= 0.3 * len(lengths)
            width = max(25 if wrapped else 60, lengths[-2 if len(lengths) >= _NEIGHBOURS else -1])
        widths += [width] * min(_NEIGHBOURS, len(lines) - start)
    return widths


def _is_full(line: str, following: str, width: int) -> bool:
    """Whether the line was broken since the next word did not fit; 15 % off for proportional fonts."""
    return len(line) + 1 + len(following.partition(" ")[0]) > 0.85 * width


def _goes_on(last: str, line: str, width: int) -> bool:
    if not width or len(last) > _WIDEST_WRAP:
        return False
    if continues(line) or _is_full(last, line, width) or breaks_off(last):
        return True
    return len(last) > 60 and not ends_sentence(last)


def _starts_item(line: str, item: str, group: _Group | None, width: int) -> bool:
    """Whether the line begins a list item; `item` is the beginning of the last one, which may lie further back."""
    found = marker(line)
    if not found:
        return False
    last = group.lines[-1] if group else ""
    fresh = not last or ((ends_sentence(last) or last.endswith(":")) and not _is_full(last, line, width))
    before = marker(item)
    if found["bullet"]:
        another = bool(group and group.kind == "item" and before and before["bullet"] == found["bullet"])
        return fresh or another or not (found["bullet"] in "–—-" or _is_full(last, line, width))
    expected = {1, *(number + 1 for number in ordinals(before))} if before else {1}
    return not last or bool(ordinals(found) & expected) or (fresh and found[0][:1].isdigit())


def _insertion(lines: list[str], index: int, group: _Group, widths: list[int]) -> int:
    """Count the lines from `index` on that stand in the midst of a sentence: a caption or headings from elsewhere.

    Text taken out of pages with columns has them: the sentence stops without an end, short lines follow, and then a
    long line that can only be its continuation. A sentence may have come no further than `In November`.
    """
    width = widths[index]
    last = group.lines[-1]
    end = index
    while end < len(lines) and end - index < 6 and len(lines[end]) < 0.5 * width:
        end += 1
    if end == index or end == len(lines) or width < 60 or not lines[index][0].isupper() or marker(lines[end]):
        return 0
    following = lines[end]
    opening = len(last) < 60 and len(last.split()) <= 4 and last.partition(" ")[0] in _SENTENCE_OPENERS
    if ends_sentence(last) or not (opening or len(last) > 0.6 * width) or len(following) < 0.5 * width:
        return 0
    words = following[:500].split()
    if sum(word[0].islower() for word in words) < 0.4 * len(words):
        return 0  # a row of a table, not prose
    certain = following[0].islower() or following[0].isdigit()
    return end - index if certain or (is_heading(lines[index]) and not ends_sentence(lines[end - 1])) else 0
