"""Where text stands on a page: segments, lines, and the order in which columns are read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median

_FOOTNOTE_MARK = re.compile(r"[\d,*†‡§¶\s]{1,8}")
_UNIT = re.compile(r"(?:\d|(?:^|[\s\d/])(?:[cdkmnµ]?m|ft|in|s|x|R))\s*$")
_COLUMN_LINES = 4
_COLUMN_DEPTH = 3


@dataclass(eq=False, slots=True)
class Segment:
    """Text on one baseline without a wide gap. Lengths are in points, the origin is the page's lower left corner."""

    text: str
    left: float
    right: float
    baseline: float
    size: float
    bold: bool


@dataclass(slots=True)
class Line:
    """Segments on one baseline, in cells where wide gaps part them."""

    segments: list[Segment]
    cells: list[str]
    left: float
    right: float
    baseline: float
    size: float
    begins_bold: bool
    ends_bold: bool
    all_bold: bool

    @property
    def text(self) -> str:
        """The line as prose."""
        return " ".join(self.cells)


@dataclass(slots=True)
class _Row:
    baseline: float
    size: float
    segments: list[Segment] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class _Stretch:
    """Segments that follow each other on one line without a wide gap, such as a word in italics among others."""

    segments: list[Segment]
    left: float
    right: float
    baseline: float
    size: float
    length: int


def reading_order(segments: Sequence[Segment]) -> Iterator[list[Segment]]:
    """Yield the regions of a page in the order a person reads them: what spans the columns, then column by column."""
    for region in _ordered(_stretches(segments), 0):
        yield [segment for stretch in region for segment in stretch.segments]


def _stretches(segments: Sequence[Segment]) -> list[_Stretch]:
    stretches: list[_Stretch] = []
    for segment in segments:
        last = stretches[-1] if stretches else None
        size = max(segment.size, last.size) if last else 0.0
        level = last is not None and abs(segment.baseline - last.baseline) < 0.55 * size
        if last and level and -0.3 * size < segment.left - last.right < size:
            last.segments.append(segment)
            last.right = max(last.right, segment.right)
            last.length += len(segment.text)
            if segment.size > last.size:
                last.baseline, last.size = segment.baseline, segment.size
        else:
            new = _Stretch([segment], segment.left, segment.right, segment.baseline, segment.size, len(segment.text))
            stretches.append(new)
    return stretches


def _ordered(stretches: list[_Stretch], depth: int) -> Iterator[list[_Stretch]]:
    gutter = _gutter(stretches) if depth < _COLUMN_DEPTH else None
    if gutter is None:
        yield stretches
        return
    spanning: list[_Stretch] = []
    left: list[_Stretch] = []
    right: list[_Stretch] = []
    for stretch in sorted(stretches, key=lambda stretch: -stretch.baseline):
        if stretch.right <= gutter or stretch.left >= gutter:
            if spanning:
                yield spanning
                spanning = []
            (left if stretch.right <= gutter else right).append(stretch)
        else:
            for column in (left, right):
                if column:
                    yield from _ordered(column, depth + 1)
            left, right = [], []
            spanning.append(stretch)
    if spanning:
        yield spanning
    for column in (left, right):
        if column:
            yield from _ordered(column, depth + 1)


def _gutter(stretches: list[_Stretch]) -> float | None:
    """Find the x that fewest lines cross, if what stands left and right of it are columns of text, not of a table."""
    if len(stretches) < 2 * _COLUMN_LINES:
        return None
    size = median(stretch.size for stretch in stretches)
    start, end = min(stretch.left for stretch in stretches), max(stretch.right for stretch in stretches)
    step = max(size / 2, (end - start) / 500, 0.1)
    crossings = [0] * (int((end - start) / step) + 2)
    for stretch in stretches:
        crossings[int((stretch.left - start) / step)] += 1
        crossings[int((stretch.right - start) / step) + 1] -= 1
    count = 0
    for place, change in enumerate(crossings):
        count += change
        crossings[place] = count
    inner = range(int(len(crossings) * 0.2), int(len(crossings) * 0.8))
    if not inner:
        return None
    fewest = min(crossings[place] for place in inner)
    gaps = _runs([place for place in inner if crossings[place] == fewest])
    widest = max(gaps, key=len)
    gutter = start + (widest[0] + widest[-1] + 1) / 2 * step
    left = [stretch for stretch in stretches if stretch.right <= gutter]
    right = [stretch for stretch in stretches if stretch.left >= gutter]
    return gutter if _is_column(left, right) and _is_column(right, left) else None


def _runs(places: list[int]) -> list[list[int]]:
    runs: list[list[int]] = []
    for place in places:
        if runs and runs[-1][-1] == place - 1:
            runs[-1].append(place)
        else:
            runs.append([place])
    return runs


def _is_column(stretches: list[_Stretch], others: list[_Stretch]) -> bool:
    """Whether these are lines of text, side by side with the others: most of them fill their width, as cells do not."""
    if len(stretches) < _COLUMN_LINES or len(others) < _COLUMN_LINES:
        return False
    top, bottom = max(other.baseline for other in others), min(other.baseline for other in others)
    beside = [stretch for stretch in stretches if bottom <= stretch.baseline <= top]
    width = max(stretch.right for stretch in stretches) - min(stretch.left for stretch in stretches)
    full = sum(stretch.length for stretch in stretches if stretch.right - stretch.left > 0.5 * width)
    most = full >= 0.6 * sum(stretch.length for stretch in stretches)
    return len(beside) >= _COLUMN_LINES and most and width >= 8 * stretches[0].size


def lines(segments: Sequence[Segment]) -> list[Line]:
    """Put segments that share a baseline together, from the top down; what is raised, as a footnote mark is, too."""
    rows: list[_Row] = []
    for segment in sorted(segments, key=lambda segment: -segment.baseline):
        row = rows[-1] if rows else None
        if row and abs(row.baseline - segment.baseline) < _reach(row, segment):
            row.segments.append(segment)
            if segment.size > row.size:
                row.baseline, row.size = segment.baseline, segment.size
        else:
            rows.append(_Row(segment.baseline, segment.size, [segment]))
    return [_line(row) for row in rows]


def _reach(row: _Row, segment: Segment) -> float:
    """How far apart the baselines of one line may be: a footnote mark is raised by up to half its text's height."""
    smaller, size = (segment, row.size) if segment.size < row.size else (row.segments[-1], segment.size)
    raised = smaller.size < 0.8 * size and _FOOTNOTE_MARK.fullmatch(smaller.text)
    return 0.55 * size if raised else 0.25 * (row.size + segment.size)


def _line(row: _Row) -> Line:
    parts = sorted(row.segments, key=lambda segment: segment.left)
    cells = [parts[0].text]
    shown = [parts[0]]
    for part in parts[1:]:
        before = shown[-1]
        if part.text == before.text and abs(part.left - before.left) < 0.3 * part.size:
            continue  # printed twice to look bold
        raised = part.size < 0.85 * row.size and part.baseline > row.baseline + 0.1 * row.size
        if raised and _FOOTNOTE_MARK.fullmatch(part.text) and not _UNIT.search(cells[-1][-8:]):
            before.right = max(before.right, part.right)  # it would be read as part of the word
            continue
        gap = part.left - before.right
        if gap > 2 * row.size:
            cells.append(part.text)
        else:
            marked = len(shown) == 1 and before.size < 0.85 * row.size and _FOOTNOTE_MARK.fullmatch(before.text)
            space = " " if (marked or gap > 0.15 * row.size) and not cells[-1].endswith(" ") else ""
            cells[-1] += space + part.text
        shown.append(part)
    weighty = max(shown, key=lambda part: len(part.text))
    return Line(
        segments=row.segments,
        cells=[cell.strip() for cell in cells],
        left=shown[0].left,
        right=max(part.right for part in shown),
        baseline=row.baseline,
        size=weighty.size,
        begins_bold=shown[0].bold,
        ends_bold=shown[-1].bold,
        all_bold=all(part.bold for part in shown if part.text.strip()),
    )
