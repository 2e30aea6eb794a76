"""Segments of PDF pages -> headings, paragraphs, lists and tables, joined where columns and pages cut them."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tidegate.services.converters.characters import tidy
from tidegate.services.converters.geometry import Line, Segment, lines, reading_order
from tidegate.services.converters.lines import (
    SOFT_HYPHEN,
    continues,
    ends_sentence,
    is_caption,
    is_heading,
    marker,
    seam,
    unmarked,
    unwrap,
    words_of,
)
from tidegate.services.converters.pieces import Piece
from tidegate.state import BlockKind

_PAGE_NUMBER = re.compile(r"(?:page\s*)?[-–—\s]*(?:\d{1,4}|[ivxl]{1,6})[-–—\s]*(?:(?:of|/)\s*\d{1,4})?", re.IGNORECASE)
_FURNITURE_LINES = 2
"""Lines at the top and at the bottom of a page that may be its header and footer."""


@dataclass(frozen=True, slots=True)
class _Part:
    """How many of a block's lines stand in one region of a page, and how far to the right the region goes."""

    page: int
    lines: int
    right: float


@dataclass(slots=True)
class _Block:
    """Lines that make one block, in one or more parts."""

    kind: BlockKind
    lines: list[Line]
    size: float
    parts: list[_Part]
    begins: bool = False
    """Whether it is the first prose of its region, and below, whether it is the last."""
    ends: bool = False


def arranged(pages: Sequence[Sequence[Segment]]) -> Iterator[Piece]:
    """Yield the blocks of a document, given the segments of its pages."""
    sizes: Counter[float] = Counter()
    for segments in pages:
        for segment in segments:
            sizes[segment.size] += len(segment.text)
    if not sizes:
        return
    body = sizes.most_common(1)[0][0]
    regions = [
        (number, lines(region))
        for number, segments in enumerate(_without_furniture(pages, body), start=1)
        for region in reading_order(segments)
        if region
    ]
    leading = _leading([found for _, found in regions])
    blocks: list[_Block] = []
    for number, found in regions:
        groups = _grouped(found, leading)
        right = max(line.right for line in found)
        here = [
            _Block(_kind(group, body), group, group[0].size, [_Part(number, len(group), right)]) for group in groups
        ]
        if prose := [block for block in here if _is_body(block, body)]:
            prose[0].begins = prose[-1].ends = True
        blocks += here
    heading_sizes = sorted({_rank(block) for block in blocks if block.kind == "heading"}, reverse=True)
    words = words_of("\n".join(line.text for _, found in regions for line in found))
    for block in _stitched(blocks, body):
        level = min(heading_sizes.index(_rank(block)) + 1, 6) if block.kind == "heading" else 0
        yield _piece(block, level, words)


def _without_furniture(pages: Sequence[Sequence[Segment]], body: float) -> Iterator[list[Segment]]:
    """Leave out page numbers, and the headers and footers that pages repeat, but for the first of a header in words."""
    edges: list[list[Line]] = []
    seen: Counter[str] = Counter()
    for segments in pages:
        found = lines(segments)
        edge = found[:_FURNITURE_LINES] + found[max(_FURNITURE_LINES, len(found) - _FURNITURE_LINES) :]
        edges.append(edge)
        seen.update({_pattern(line) for line in edge})
    repeated = 2 if len(pages) <= 4 else 3
    shown: set[str] = set()
    for number, (segments, edge) in enumerate(zip(pages, edges, strict=True), start=1):
        left_out: set[int] = set()
        for place, line in enumerate(edge):
            pattern = _pattern(line)
            again = seen[pattern] >= repeated and ("#" in pattern or pattern in shown)
            shown.add(pattern)
            ends = line.text.split()
            small = line.size < 0.97 * body and len(ends) <= 10
            running = small and str(number) in {ends[0], ends[-1]} and (not place or not ends_sentence(line.text))
            if again or running or _PAGE_NUMBER.fullmatch(line.text):
                left_out.update(map(id, line.segments))
        yield [segment for segment in segments if id(segment) not in left_out]


def _pattern(line: Line) -> str:
    return re.sub(r"\d+", "#", line.text.casefold())


def _leading(regions: Sequence[Sequence[Line]]) -> dict[float, float]:
    """Return the usual distance of baselines for each font size."""
    distances: defaultdict[float, list[float]] = defaultdict(list)
    for found in regions:
        for above, below in pairwise(found):
            distance = above.baseline - below.baseline
            if above.size == below.size and 0.8 * above.size < distance < 2.2 * above.size:
                distances[above.size].append(distance)
    return {size: sorted(found)[len(found) // 4] for size, found in distances.items()}  # gaps are above, not below


def _grouped(found: Sequence[Line], leading: dict[float, float]) -> list[list[Line]]:
    """Part the lines of a region into blocks."""
    groups: list[list[Line]] = []
    for index, line in enumerate(found):
        above = found[index - 1] if index else None
        below = found[index + 1] if index + 1 < len(found) else None
        if above is None or _parts(groups[-1], above, line, below, leading):
            groups.append([line])
        else:
            groups[-1].append(line)
    return groups


def _parts(group: list[Line], above: Line, line: Line, below: Line | None, leading: dict[float, float]) -> bool:
    """Whether a new block begins with this line."""
    size = above.size
    distance = above.baseline - line.baseline
    rows = len(above.cells) > 1 and len(line.cells) > 1
    if not 0.93 < line.size / size < 1.08 or distance > 1.25 * leading.get(size, 1.25 * size) + 0.5:
        return not (rows and distance < 3 * size)
    if (len(above.cells) > 1) != (len(line.cells) > 1):
        neighbour = (group[-2] if len(group) > 1 else None) if len(above.cells) > 1 else below
        if neighbour and len(neighbour.cells) > 1:  # one line in cells is prose with a wide gap, two are a table
            return True
    if (above.all_bold and not line.begins_bold) or (line.all_bold and not above.ends_bold):
        return True
    first = group[0]
    listed = marker(first.text) is not None
    finished = ends_sentence(above.text)
    aligned = (listed and abs(line.left - first.left) < size) or line.left < first.left - size
    if marker(line.text) and (finished or aligned):
        return True
    if not finished or continues(line.text):
        return False
    if not listed and line.left > above.left + 0.8 * size and line.left < above.left + 6 * size:
        return True  # its first line is indented
    if listed and line.left < above.left - 0.8 * size and len(group) > 1:
        return True  # the hanging indent of the list item ends
    edge = max(line.right, *(member.right for member in group))
    word = line.text.partition(" ")[0]
    return above.right + 0.5 * size * (len(word) + 1) < edge and not rows  # the next word would have fitted


def _kind(group: list[Line], body: float) -> BlockKind:
    text = " ".join(line.text for line in group)
    rows = sum(len(line.cells) > 1 for line in group)
    if rows >= max(2, 0.6 * len(group)) or (len(group) == 1 and len(group[0].cells) > 2):
        return "table"
    if is_caption(text):
        return "caption"
    if group[0].size < 0.8 * body:
        return "list_item" if marker(text) else "paragraph"
    large = group[0].size >= 1.15 * body
    bold = all(line.all_bold for line in group)
    short = len(text) <= (250 if large else 150) and len(group) <= 4
    if (large or bold) and short and not text.endswith((".", ",", ";")):
        return "heading" if re.search(r"[^\W\d_]{2}", text) else "paragraph"
    if marker(text):
        return "list_item"
    return "heading" if len(group) == 1 and text.isupper() and is_heading(text) else "paragraph"


def _rank(block: _Block) -> float:
    return round(block.size, 0)


def _stitched(blocks: list[_Block], body: float) -> Iterator[_Block]:
    """Join paragraphs that were cut by the end of a column or page.

    One that goes on on the next page moves there, behind the footnotes of its first page and before the figures of
    its second, so that pages stay in order.
    """
    gone: set[int] = set()
    moved: defaultdict[int, list[tuple[int, _Block]]] = defaultdict(list)
    for place, block in enumerate(blocks):
        arrived = moved.pop(place, [])
        for index, whole in arrived if place in gone else [*arrived, (place, block)]:
            while (later := _continuation(blocks, index, whole, gone, body)) is not None:
                other = blocks[later]
                gone.add(later)
                turned = other.parts[0].page != whole.parts[-1].page
                whole.lines += other.lines
                whole.parts += other.parts
                whole.ends, index = other.ends, later
                if turned:
                    while blocks[later - 1].parts[0].page == other.parts[0].page:
                        later -= 1
                    moved[later].append((index, whole))
                    break
            else:
                yield whole


def _continuation(blocks: list[_Block], index: int, block: _Block, gone: set[int], body: float) -> int | None:
    """Return where a paragraph goes on that stops in the midst of a sentence at the end of its column, if it does."""
    if not block.ends or not _is_body(block, body) or ends_sentence(block.lines[-1].text):
        return None
    page = block.parts[-1].page
    for later in range(index + 1, min(index + 100, len(blocks))):
        other = blocks[later]
        if other.parts[0].page > page + 1:
            return None
        text = other.lines[0].text
        goes_on = continues(text) or (text[0].isdigit() and not marker(text))
        if later not in gone and other.begins and other.kind == "paragraph" and goes_on:
            return later
    return None


def _is_body(block: _Block, body: float) -> bool:
    return block.kind in {"paragraph", "list_item"} and abs(block.size - body) < 0.05 * body


def _piece(block: _Block, level: int, words: frozenset[str]) -> Piece:
    if block.kind == "table":
        rows = "\n".join(" | ".join(line.cells) for line in block.lines)
        return Piece("table", rows, page=block.parts[0].page)
    texts: list[str] = []
    turns: list[tuple[int, int]] = []
    length = count = 0
    for part in block.parts:
        here = block.lines[count : count + part.lines]
        listed = block.kind == "list_item" and not count
        count += part.lines
        text = tidy(_prose(here, part.right, words, listed=listed))
        if not text:
            continue
        if texts:
            length -= len(texts[-1])
            texts[-1], gap = seam(texts[-1], text, words)
            length += len(texts[-1]) + len(gap)
            texts.append(gap)
        turns.append((length, part.page))
        texts.append(text)
        length += len(text)
    turns = [turn for before, turn in pairwise(turns) if turn[1] != before[1]]
    whole = "".join(texts).replace(SOFT_HYPHEN, "-")
    return Piece(block.kind, whole, level, block.parts[0].page, tuple(turns), ready=block.kind != "heading")


def _prose(part: Sequence[Line], right: float, words: frozenset[str], *, listed: bool) -> str:
    """Unwrap lines that end at `right`, but for ends that leave much of the width free, as those of an address do."""
    left = min(line.left for line in part)
    widest = max(line.right - line.left for line in part)
    centred = len(part) > 2 and _is_centred(part)
    texts = [line.text for line in part]
    if listed:
        texts[0] = unmarked(texts[0])
    unbroken: list[list[str]] = [[]]
    for index, (line, text) in enumerate(zip(part, texts, strict=True)):
        unbroken[-1].append(text)
        if index + 1 < len(part):
            word = 0.5 * line.size * (len(texts[index + 1].partition(" ")[0]) + 1)
            ragged = right - line.right > 0.33 * (right - left) + word and not ends_sentence(text)
            if ragged or (centred and line.right - line.left + word < widest):
                unbroken.append([])
    return "\n".join(unwrap(lines, words) for lines in unbroken)


def _is_centred(block: Sequence[Line]) -> bool:
    middles = [(line.left + line.right) / 2 for line in block]
    lefts = [line.left for line in block[1:]]  # the first may be indented
    return max(middles) - min(middles) < block[0].size < max(lefts) - min(lefts)
