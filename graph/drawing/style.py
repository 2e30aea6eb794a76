"""The colours: what is on the path differs in hue and in lightness, and by its thicker lines."""

from __future__ import annotations

from typing import Final

PAPER: Final = "#ffffff"
INK: Final = "#1f2328"
FILL: Final = "#f6f8fa"
LINE: Final = "#6e7781"
NOTE: Final = "#57606a"
PATH_FILL: Final = "#ddf4ff"
PATH_LINE: Final = "#0550ae"

DASH: Final = (6.0, 4.0)
"""Pixels on and off, of conditional edges."""
