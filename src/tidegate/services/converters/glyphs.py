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
# Runs of letters, of digits and of other signs, and what is between them. pdfium puts a space or a line end wherever
# text leaves a gap, and fonts hardly ever meet within such a run, so only its first character is asked for its place.
_RUN = re.compile("[\\s\x00-\x20\ufffe]+|[^\\W\\d_]+|\\d+|[^\\w\\s\x00-\x20\ufffe]+|_+")
_HYPHEN_AT_LINE_END = re.compile("[\x02\ufffe]")
_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufefc]")
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
    """One page, read a run of characters at a time: asking for each of them takes five times as long."""

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
        left = baseline = 0.0
        last = 0
        for run in _RUN.finditer(self._text(count)):
            sign = run[0]
            if sign[0] <= " " or sign[0].isspace() or sign[0] == "\ufffe":
                if text and _HYPHEN_AT_LINE_END.search(sign):
                    text.append(SOFT_HYPHEN)
                elif text and ("\r" in sign or "\n" in sign):
                    yield from self._segment(text, left, last, baseline, style)
                    text = []
                elif text:
                    text.append(" ")
                continue
            here = self._style(run.start())
            x, y = self._turned(*self._origin(run.start()), here.quarter_turns)
            if text and (here != style or abs(y - baseline) > 0.1 * style.size or self._jumps(sign, x, last, style)):
                yield from self._segment(text, left, last, baseline, style)
                text = []
            if not text:
                style, left, baseline = here, x, y
            text.append(sign)
            left, last = min(left, x), run.end() - 1
        if text:
            yield from self._segment(text, left, last, baseline, style)

    def _text(self, count: int) -> str:
        """Return all characters, each at its index; pdfium's own text leaves those out that it cannot name."""
        buffer = (ctypes.c_ushort * (2 * count + 2))()
        if self._raw.FPDFText_GetText(self._page, 0, count, buffer) == count + 1:
            return "".join(map(chr, buffer[:count]))
        return "".join(chr(self._raw.FPDFText_GetUnicode(self._page, index)) for index in range(count))

    def _jumps(self, sign: str, x: float, last: int, style: _Style) -> bool:
        """Whether a run stands back, or forward beyond a wide gap; Hebrew and Arabic run backwards."""
        if _RIGHT_TO_LEFT.match(sign):
            return False
        start, end = self._extent(last, style)
        return x < start - 0.5 * style.size or x > end + _WIDE_GAP * style.size

    def _origin(self, index: int) -> tuple[float, float]:
        self._raw.FPDFText_GetCharOrigin(self._page, index, self._x, self._y)
        return self._x.value, self._y.value

    def _extent(self, index: int, style: _Style) -> tuple[float, float]:
        self._raw.FPDFText_GetLooseCharBox(self._page, index, self._box)
        box = self._box
        one, _ = self._turned(box.left, box.bottom, style.quarter_turns)
        other, _ = self._turned(box.right, box.top, style.quarter_turns)
        return min(one, other), max(one, other)

    @staticmethod
    def _turned(x: float, y: float, quarter_turns: int) -> tuple[float, float]:
        match quarter_turns:  # clockwise
            case 1:
                return -y, x
            case 2:
                return -x, -y
            case 3:
                return y, -x
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
        self, text: list[str], left: float, last: int, baseline: float, style: _Style
    ) -> Iterator[tuple[int, Segment]]:
        joined = "".join(text).strip()
        if not joined.isascii():  # characters beyond U+FFFF come in halves
            joined = joined.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        start, end = self._extent(last, style)
        if joined and all(map(math.isfinite, (left, start, end, baseline, style.size))):
            yield style.quarter_turns, Segment(joined, min(left, start), end, baseline, style.size, style.bold)
