"""The drawing as PNG, by Pillow."""

from __future__ import annotations

import io

from tidegate.errors import MissingExtra
from tidegate.graph.drawing import style
from tidegate.graph.drawing.layout import HEIGHT, NOTE_LINE, Layout
from tidegate.graph.drawing.ports import FONT, NOTE_FONT
from tidegate.graph.drawing.strokes import dashes, flat, stroke

_SCALE = 2
"""Pixels of the picture to one of the layout: sharp on dense screens."""
_FINER = 2
"""Drawn so many times larger and then reduced, since Pillow's lines have hard edges."""

_COLOURS = 64
"""Enough for smooth edges, at a third of the file's size."""


def draw_png(layout: Layout) -> bytes:
    """Return the drawing as a PNG file.

    Raises:
        MissingExtra: Pillow is not installed.
    """
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError as error:
        raise MissingExtra("a PNG", "png") from error

    scale = _SCALE * _FINER
    image = Image.new("RGB", (round(layout.width * scale), round(layout.height * scale)), style.PAPER)
    pen = ImageDraw.Draw(image)

    for line in layout.lines:
        drawn = stroke(line)
        colour = style.PATH_LINE if line.visited else style.LINE
        points = flat(drawn)
        for part in dashes(points, *style.DASH) if line.conditional else [points]:
            pen.line([(x * scale, y * scale) for x, y in part], colour, round(drawn.width * scale), joint="curve")
        pen.polygon([(x * scale, y * scale) for x, y in drawn.arrow], colour)
    font = ImageFont.load_default(FONT * scale)
    for box in layout.boxes:
        fill, colour, width = (style.PATH_FILL, style.PATH_LINE, 2.5) if box.visited else (style.FILL, style.LINE, 1.5)
        half = width / 2  # Pillow draws an outline inside of its box, SVG on its border
        corners = (
            (box.x - box.width / 2 - half) * scale,
            (box.y - HEIGHT / 2 - half) * scale,
            (box.x + box.width / 2 + half) * scale,
            (box.y + HEIGHT / 2 + half) * scale,
        )
        radius = (HEIGHT / 2 if box.end else 7) * scale
        pen.rounded_rectangle(corners, radius, fill, colour, round(width * scale))
        pen.text((box.x * scale, box.y * scale), box.label, style.INK, font, anchor="mm")
    font = ImageFont.load_default(NOTE_FONT * scale)
    for note in layout.notes:
        colour = style.PATH_LINE if note.visited else style.NOTE
        for place, text in enumerate(note.lines):
            y = note.y + (place - (len(note.lines) - 1) / 2) * NOTE_LINE
            pen.text((note.x * scale, y * scale), text, colour, font, anchor="rm" if note.left else "lm")

    written = io.BytesIO()
    image.reduce(_FINER).quantize(_COLOURS, dither=Image.Dither.NONE).save(written, "PNG")
    return written.getvalue()
