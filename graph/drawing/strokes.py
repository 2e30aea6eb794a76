"""Lines as they are drawn: rounded corners and arrowheads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import dist
from typing import TypeAlias

from tidegate.graph.drawing.layout import Line, Point

Corner: TypeAlias = tuple[Point, Point, Point]
"""Where a curve begins, the corner that it cuts off, and where it ends."""

_RADIUS = 8.0
_THIN, _THICK = 1.5, 3.0
_ARROW = 9.0


@dataclass(frozen=True, slots=True)
class Stroke:
    """A line from `start` over `corners` to `end`, and the three points of the arrowhead there."""

    start: Point
    corners: tuple[Corner, ...]
    end: Point
    width: float
    arrow: tuple[Point, Point, Point]


def stroke(line: Line) -> Stroke:
    """Return how a line is drawn."""
    width, arrow = (_THICK, _ARROW * 1.3) if line.visited else (_THIN, _ARROW)
    *before, last, tip = line.points
    length = dist(last, tip)
    along = ((tip[0] - last[0]) / length, (tip[1] - last[1]) / length)
    base = (tip[0] - along[0] * arrow, tip[1] - along[1] * arrow)
    side = (-along[1] * arrow / 2, along[0] * arrow / 2)
    points = [*before, last, base]
    corners = tuple(_corner(*points[place : place + 3]) for place in range(len(points) - 2))
    head = (tip, (base[0] + side[0], base[1] + side[1]), (base[0] - side[0], base[1] - side[1]))
    return Stroke(points[0], corners, base, width, head)


def flat(stroke: Stroke, *, steps: int = 6) -> list[Point]:
    """Return the line as points so close that its curves look round."""
    points = [stroke.start]
    for begin, corner, end in stroke.corners:
        for step in range(steps + 1):
            t = step / steps  # a quadratic Bezier curve, as SVG draws it
            weights = ((1 - t) ** 2, 2 * t * (1 - t), t**2)
            x, y = (sum(w * p[axis] for w, p in zip(weights, (begin, corner, end), strict=True)) for axis in (0, 1))
            points.append((x, y))
    return [*points, stroke.end]


def dashes(points: Sequence[Point], on: float, off: float) -> list[list[Point]]:
    """Return the parts of a line that dashes of these lengths leave visible."""
    parts: list[list[Point]] = [[points[0]]]
    drawing, left = True, on
    for here, there in pairwise(points):
        length, done = dist(here, there), 0.0
        while length - done > left:
            done += left
            at = (here[0] + (there[0] - here[0]) * done / length, here[1] + (there[1] - here[1]) * done / length)
            if drawing:
                parts[-1].append(at)
            else:
                parts.append([at])
            drawing, left = not drawing, off if drawing else on
        left -= length - done
        if drawing:
            parts[-1].append(there)
    return parts


def _corner(before: Point, corner: Point, after: Point) -> Corner:
    def towards(other: Point) -> Point:
        length = dist(corner, other)
        part = min(_RADIUS, length / 2) / length if length else 0.0
        return corner[0] + (other[0] - corner[0]) * part, corner[1] + (other[1] - corner[1]) * part

    return towards(before), corner, towards(after)
