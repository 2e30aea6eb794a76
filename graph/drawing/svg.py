"""The drawing as SVG."""

from __future__ import annotations

from html import escape

from tidegate.graph.drawing import style
from tidegate.graph.drawing.layout import HEIGHT, NOTE_LINE, Box, Layout, Line, Note, Point
from tidegate.graph.drawing.ports import FONT, NOTE_FONT
from tidegate.graph.drawing.strokes import stroke

_BASELINE = 0.35
"""How far below a text's middle its baseline is, in parts of the font size."""


def draw_svg(layout: Layout) -> str:
    """Return the drawing as an SVG document; every text in it is escaped."""
    width, height = f"{layout.width:g}", f"{layout.height:g}"
    steps = ", ".join(box.label for box in layout.boxes if box.visited)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
            ' role="img" font-family="Helvetica, Arial, sans-serif">',
            f"<title>{escape('The path ' + steps if steps else 'The graph')}</title>",
            f'<rect width="{width}" height="{height}" fill="{style.PAPER}"/>',
            *(_line(line) for line in layout.lines),
            *(_box(box) for box in layout.boxes),
            *(_note(note) for note in layout.notes),
            "</svg>\n",
        ]
    )


def _line(line: Line) -> str:
    drawn = stroke(line)
    colour = style.PATH_LINE if line.visited else style.LINE
    curves = "".join(f"L{_at(begin)}Q{_at(corner)} {_at(end)}" for begin, corner, end in drawn.corners)
    dash = f' stroke-dasharray="{style.DASH[0]:g} {style.DASH[1]:g}"' if line.conditional else ""
    return (
        f'<path d="M{_at(drawn.start)}{curves}L{_at(drawn.end)}" fill="none" stroke="{colour}"'
        f' stroke-width="{drawn.width:g}"{dash}/>'
        f'<path d="M{"L".join(_at(point) for point in drawn.arrow)}Z" fill="{colour}"/>'
    )


def _box(box: Box) -> str:
    fill, colour, width = (style.PATH_FILL, style.PATH_LINE, 2.5) if box.visited else (style.FILL, style.LINE, 1.5)
    left, top, radius = box.x - box.width / 2, box.y - HEIGHT / 2, HEIGHT / 2 if box.end else 7
    return (
        f'<rect x="{left:g}" y="{top:g}" width="{box.width:g}" height="{HEIGHT:g}" rx="{radius:g}"'
        f' fill="{fill}" stroke="{colour}" stroke-width="{width:g}"/>'
        f'<text x="{box.x:g}" y="{box.y + FONT * _BASELINE:g}" font-size="{FONT}" text-anchor="middle"'
        f' fill="{style.INK}">{escape(box.label)}</text>'
    )


def _note(note: Note) -> str:
    colour, anchor = style.PATH_LINE if note.visited else style.NOTE, "end" if note.left else "start"
    first = note.y - (len(note.lines) - 1) * NOTE_LINE / 2 + NOTE_FONT * _BASELINE
    return "".join(
        f'<text x="{note.x:g}" y="{first + place * NOTE_LINE:g}" font-size="{NOTE_FONT}" text-anchor="{anchor}"'
        f' fill="{colour}">{escape(text)}</text>'
        for place, text in enumerate(note.lines)
    )


def _at(point: Point) -> str:
    return f"{point[0]:.6g},{point[1]:.6g}"
