"""Segments of PDF pages -> headings, paragraphs, lists and tables that run on from column to column and page to page."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median

from tidegate.services.converters.characters import tidy
from tidegate.services.converters.geometry import Line, Segment, lines, reading_order
from tidegate.services.converters.lines import (
    continues,
    ends_sentence,
    is_caption,
    is_heading,
    marker,
    unmarked,
    unwrap,
    words_of,
)
from tidegate.services.converters.pieces import Piece
from tidegate.state import BlockKind

_PAGE_NUMBER = re.compile(r"(?:page\s*)?[-–—\s]*(?:\d{1,4}|[ivxl]{1,6})[-–—\s]*(?:(?:of|/)\s*\d{1,4})?", re.IGNORECASE)
_FURNITURE_LINES = 2
"""Lines at the top and at the bottom of a page that may be its header and footer."""
