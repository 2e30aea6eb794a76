"""Tables: rows of cells -> a table block, or what a table that only lays out a page really is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from tidegate.services.converters.lines import is_heading, marker, unmarked
from tidegate.services.converters.pieces import Piece

_PREFIX = re.compile(r"[(\[]*[$£€¥₹]$|\($")
_SUFFIX = re.compile(r"[)\]]*%?[)\]]*$")
_LONG_CELL = 400
"""Characters beyond which a cell is taken for paragraphs: the longest cell of a table of figures has half of it."""


def table_pieces(rows: Sequence[Sequence[str]]) -> Iterator[Piece]:
    """Yield a table, a row a line, or the list items or paragraphs that were laid out by means of one.

    A line break inside a cell is a space in a table, and an end of paragraph in a layout.
    """
    filled = [cells for row in rows if (cells := _filled(row))]
    if not filled:
        return
    if all(len(cells) == 2 and marker(" ".join(cells)) for cells in filled):
        for cells in filled:
            yield Piece("list_item", unmarked(" ".join(cells)))
    elif all(len(cells) == 1 for cells in filled) or _is_layout(filled):
        for cells in filled:
            for cell in cells:
                for text in cell.split("\n"):
                    yield Piece("heading", text, level=3) if is_heading(text) else Piece("paragraph", text)
    else:
        yield Piece("table", "\n".join(" | ".join(cell.replace("\n", " ") for cell in cells) for cells in filled))


def _is_layout(rows: list[list[str]]) -> bool:
    cells = [cell for row in rows for cell in row]
    return sum(len(cell) for cell in cells if len(cell) > _LONG_CELL) > 0.8 * sum(map(len, cells))


def _filled(row: Sequence[str]) -> list[str]:
    """Drop empty cells, and put a currency sign, a bracket or a percent sign back beside its figure."""
    cells: list[str] = []
    prefix = ""
    for cell in map(str.strip, row):
        if not cell:
            continue
        if cells and not prefix and _SUFFIX.match(cell):
            cells[-1] += cell
        elif _PREFIX.match(cell):
            prefix += cell
        else:
            cells.append(prefix + cell)
            prefix = ""
    return [*cells, prefix] if prefix else cells
