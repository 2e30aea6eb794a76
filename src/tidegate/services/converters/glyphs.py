"""The characters of a PDF page, which pdfium offers one by one -> segments of text."""

from __future__ import annotations

import ctypes
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tidegate.services.converters.geometry import Segment
from tidegate.services.converters.lines import SOFT_HYPHEN

_BOLD = re.compile(rb"bold|black|heavy|demi|cmbx", re.IGNORECASE)
_LINE_ENDS = frozenset({10, 13})
_SPACES = frozenset({0xA0, 0xFFFE})
_HYPHEN_AT_LINE_END = 2
_WIDE_GAP = 1.2
"""Of the font size: a wider gap ends a segment. Spaces between justified words stay below, gutters above."""


@dataclass(frozen=True, slots=True)
class _Style:
    size: float
    bold: bool
    quarter_turns: int


_NO_STYLE = _Style(0.0, bold=False, quarter_turns=-1)


def segments(page: Any, count: int) -> list[Segment]:
    """Return the segments of a text page that run in its main direction, turned so that it goes from left to right.

    `page` is pdfium's handle, `count` the number of characters on it.
    """
    by_direction: dict[int, list[Segment]] = {}
    for turns, segment in _Glyphs(page).segments(count):
        by_direction.setdefault(turns, []).append(segment)
    return max(by_direction.values(), key=lambda found: sum(len(segment.text) for segment in found), default=[])


class _Glyphs:
    """One page. Four calls a character, about 7 µs; a page of a book takes 20 ms."""

    def __init__(self, page: Any) -> None:
        from pypdfium2 import raw

        self._raw: Any = raw
        self._page = page
        self._styles: dict[int, _Style] = {}
        self._x, self._y = ctypes.c_double(), ctypes.c_double()
        self._box, self._matrix = raw.FS_RECTF(), raw.FS_MATRIX()
        self._name = ctypes.create_string_buffer(256)
        self._flags = ctypes.c_int()

    def segments(self, count: int) -> Iterator[tuple[int, Segment]]:
        """Yield each segment with the quarter turns by which it was turned back."""
        text: list[str] = []
        style = _NO_STYLE
        left = right = last_x = baseline = 0.0
        last = 0
        for index in range(count):
            code = self._raw.FPDFText_GetUnicode(self._page, index)
            ends = code in _LINE_ENDS
            here, x, y = style, last_x, baseline
            if visible := code > 32 and code not in _SPACES:
                here = self._style(index)
                x, y = self._turned(*self._origin(index), here.quarter_turns)
                ends = here != style or abs(y - baseline) > 0.1 * style.size or self._jumps(code, x, last_x, last, style)
            if ends and text:
                right = max(right, self._right(last, style))
                yield from _segment(text, left, right, baseline, style)
                text = []
            if visible:
                if not text:
                    style, left, right, baseline = here, x, x, y
                text.append(chr(code))
                left, right, last_x, last = min(left, x), max(right, x), x, index
            elif text and not ends:
                text.append(SOFT_HYPHEN if code == _HYPHEN_AT_LINE_END else " ")
        if text:
            yield from _segment(text, left, max(right, self._right(last, style)), baseline, style)

    def _jumps(self, code: int, x: float, last_x: float, last: int, style: _Style) -> bool:
        """Whether a character stands back, or forward beyond a wide gap; Hebrew and Arabic run backwards."""
        if 0x590 <= code <= 0x8FF or 0xFB1D <= code <= 0xFEFC:
            return False
        if x < last_x - 0.5 * style.size:
            return True
        return x - last_x > style.size and x - self._right(last, style) > _WIDE_GAP * style.size

    def _origin(self, index: int) -> tuple[float, float]:
        self._raw.FPDFText_GetCharOrigin(self._page, index, self._x, self._y)
        return self._x.value, self._y.value

    def _right(self, index: int, style: _Style) -> float:
        self._raw.FPDFText_GetLooseCharBox(self._page, index, self._box)
        box = self._box
        corners = ((box.left, box.bottom), (box.right, box.top))
        return max(self._turned(x, y, style.quarter_turns)[0] for x, y in corners)

    @staticmethod
    def _turned(x: float, y: float, quarter_turns: int) -> tuple[float, float]:
        match quarter_turns:
            case 1:
                return y, -x
            case 2:
                return -x, -y
            case 3:
                return -y, x
        return x, y

    def _style(self, index: int) -> _Style:
        """Return the style of a character, the same for all characters of its text object."""
        pointer = self._raw.FPDFText_GetTextObject(self._page, index)
        key = ctypes.addressof(pointer.contents) if pointer else -1
        style = self._styles.get(key)
        if style is None or key < 0:
            raw, page = self._raw, self._page
            raw.FPDFText_GetMatrix(page, index, self._matrix)
            scale = math.hypot(self._matrix.c, self._matrix.d)
            raw.FPDFText_GetFontInfo(page, index, self._name, len(self._name), self._flags)
            style = self._styles[key] = _Style(
                size=round(max(raw.FPDFText_GetFontSize(page, index) * scale, 0.1), 1),
                bold=raw.FPDFText_GetFontWeight(page, index) >= 600 or bool(_BOLD.search(self._name.value)),
                quarter_turns=round(raw.FPDFText_GetCharAngle(page, index) / (math.pi / 2)) % 4,
            )
        return style


def _segment(
    text: list[str], left: float, right: float, baseline: float, style: _Style
) -> Iterator[tuple[int, Segment]]:
    joined = "".join(text).strip()
    if not joined.isascii():  # characters beyond U+FFFF come in halves
        joined = joined.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if joined:
        yield style.quarter_turns, Segment(joined, left, right, baseline, style.size, style.bold)
