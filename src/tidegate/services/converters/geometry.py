"""Where text stands on a page: segments, lines, and the order in which columns are read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median

_FOOTNOTE_MARK = re.compile(r"[\d,*†‡§¶\s]{1,8}")
_BEFORE_MARK = re.compile(r"(?:[^\W\d_]{3}|[.,;:!?)\]\"'”’])\s*$")
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


def reading_order(segments: Sequence[Segment], depth: int = 0) -> Iterator[list[Segment]]:
    """Yield the regions of a page in the order a person reads them: what spans the columns, then column by column."""
    gutter = _gutter(segments) if depth < _COLUMN_DEPTH else None
    if gutter is None:
        yield list(segments)
        return
    spanning: list[Segment] = []
    left: list[Segment] = []
    right: list[Segment] = []
    for segment in sorted(segments, key=lambda segment: -segment.baseline):
        if segment.right <= gutter or segment.left >= gutter:
            if spanning:
                yield spanning
                spanning = []
            (left if segment.right <= gutter else right).append(segment)
        else:
            for column in (left, right):
                if column:
                    yield from reading_order(column, depth + 1)
            left, right = [], []
            spanning.append(segment)
    for column in (spanning, left, right):
        if column:
            yield from reading_order(column, depth + 1)


def _gutter(segments: Sequence[Segment]) -> float | None:
    """Find the x that fewest lines cross, if what stands left and right of it are columns of text, not of a table."""
    if len(segments) < 2 * _COLUMN_LINES:
        return None
    size = median(segment.size for segment in segments)
    start, end = min(segment.left for segment in segments), max(segment.right for segment in segments)
    step = max(size / 2, (end - start) / 500, 0.1)
    crossings = [0] * (int((end - start) / step) + 2)
    for segment in segments:
        crossings[int((segment.left - start) / step)] += 1
        crossings[int((segment.right - start) / step) + 1] -= 1
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
    left = [segment for segment in segments if segment.right <= gutter]
    right = [segment for segment in segments if segment.left >= gutter]
    return gutter if _is_column(left, right) and _is_column(right, left) else None


def _runs(places: list[int]) -> list[list[int]]:
    runs: list[list[int]] = []
    for place in places:
        if runs and runs[-1][-1] == place - 1:
            runs[-1].append(place)
        else:
            runs.append([place])
    return runs


def _is_column(segments: list[Segment], others: list[Segment]) -> bool:
    """Whether these are lines of text, side by side with the others: most of them fill their width, as cells do not."""
    if len(segments) < _COLUMN_LINES or len(others) < _COLUMN_LINES:
        return False
    top, bottom = max(other.baseline for other in others), min(other.baseline for other in others)
    beside = [segment for segment in segments if bottom <= segment.baseline <= top]
    width = max(segment.right for segment in segments) - min(segment.left for segment in segments)
    filled = median(segment.right - segment.left for segment in segments)
    return len(beside) >= _COLUMN_LINES and filled >= 0.5 * width and width >= 8 * segments[0].size


def lines(segments: Sequence[Segment]) -> list[Line]:
    """Put segments that share a baseline together, from the top down; what is raised, as a footnote mark is, too."""
    rows: list[_Row] = []
    for segment in sorted(segments, key=lambda segment: -segment.baseline):
        row = rows[-1] if rows else None
        if row and abs(row.baseline - segment.baseline) < 0.5 * max(row.size, segment.size):
            row.segments.append(segment)
            if segment.size > row.size:
                row.baseline, row.size = segment.baseline, segment.size
        else:
            rows.append(_Row(segment.baseline, segment.size, [segment]))
    return [_line(row) for row in rows]


def _line(row: _Row) -> Line:
    parts = sorted(row.segments, key=lambda segment: segment.left)
    cells = [parts[0].text]
    shown = [parts[0]]
    for part in parts[1:]:
        before = shown[-1]
        if part.text == before.text and abs(part.left - before.left) < 0.3 * part.size:
            continue  # printed twice to look bold
        raised = part.size < 0.85 * row.size and part.baseline > row.baseline + 0.1 * row.size
        if raised and _FOOTNOTE_MARK.fullmatch(part.text) and _BEFORE_MARK.search(cells[-1][-8:]):
            before.right = max(before.right, part.right)  # it would be read as part of the word
            continue
        gap = part.left - before.right
        if gap > 2 * row.size:
            cells.append(part.text)
        else:
            space = " " if gap > 0.15 * row.size and not cells[-1].endswith(" ") else ""
            cells[-1] += space + part.text
        shown.append(part)
    weighty = max(shown, key=lambda part: len(part.text))
    return Line(
        cells=[cell.strip() for cell in cells],
        left=shown[0].left,
        right=max(part.right for part in shown),
        baseline=row.baseline,
        size=weighty.size,
        begins_bold=shown[0].bold,
        ends_bold=shown[-1].bold,
        all_bold=all(part.bold for part in shown if part.text.strip()),
    )
