"""The drawing: boxes in layers from top to bottom, lines at right angles between them, notes beside the lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, floor, inf
from typing import TypeAlias

from tidegate.graph.drawing.chart import Chart
from tidegate.graph.drawing.columns import columns
from tidegate.graph.drawing.layers import Segment, layers
from tidegate.graph.drawing.ports import LOOP, NOTE_GAP, Frame, Port, note_width, ports
from tidegate.graph.drawing.tracks import tracks

Point: TypeAlias = tuple[float, float]

MARGIN = 20.0
HEIGHT = 36.0
"""Of a box."""
NOTE_LINE = 15.0

_CHANNEL = 44.0
_NOTE_SPACE = 5.0
_ARROW = 18.0
_TRACK = 12.0
_CORNER = 12.0
_NUDGE = 8.0
_ALMOST = 3.0


@dataclass(frozen=True, slots=True)
class Box:
    """A step, at its middle."""

    label: str
    x: float
    y: float
    width: float
    end: bool
    visited: bool


@dataclass(frozen=True, slots=True)
class Line:
    """An edge, from its source to its target, at whose boxes it ends."""

    points: tuple[Point, ...]
    conditional: bool
    visited: bool


@dataclass(frozen=True, slots=True)
class Note:
    """Why an edge is taken: begins at `x`, or ends there if it stands to the left of its line; `y` is its middle."""

    lines: tuple[str, ...]
    x: float
    y: float
    left: bool
    visited: bool


@dataclass(frozen=True, slots=True)
class Layout:
    """A drawing, in pixels from its upper left corner. What the path went over comes last, so that it lies on top."""

    width: float
    height: float
    boxes: tuple[Box, ...]
    lines: tuple[Line, ...]
    notes: tuple[Note, ...]


@dataclass(frozen=True, slots=True)
class _Run:
    """A segment from where it leaves the upper item to where it meets the lower, going to the side at `track`."""

    segment: Segment
    ports: tuple[Port, Port]
    above: float
    below: float
    track: float = 0.0

    @property
    def straight(self) -> bool:
        return abs(self.above - self.below) <= _ALMOST


def lay_out(chart: Chart) -> Layout:
    """Lay out a chart."""
    layered = layers(chart)
    ends, frames = ports(chart, layered)
    middles = columns(layered, frames, ends, steps=len(chart.steps))
    runs = {segment: _run(segment, pair, middles, frames) for segment, pair in ends.items()}
    levels = {item: level for level, row in enumerate(layered.rows) for item in row}
    channels: list[list[Segment]] = [[] for _ in layered.rows]
    for segment in runs:
        channels[levels[segment.upper]].append(segment)

    tops: list[float] = []
    notes: list[Note] = []
    edge = 0.0
    for channel in channels:
        tops.append(edge)
        edge += HEIGHT
        routed, noted, height = _route([runs[segment] for segment in channel], edge, chart)
        runs |= {run.segment: run for run in routed}
        notes += noted
        edge += height

    boxes = [
        Box(step.label, middles[item], tops[levels[item]] + HEIGHT / 2, frames[item].width, step.end, step.visited)
        for item, step in enumerate(chart.steps)
    ]
    lines: list[Line] = []
    for place, (drawn, chain) in enumerate(zip(chart.edges, layered.chains, strict=True)):
        if chain:
            heights = [tops[levels[chain[0].upper]] + HEIGHT, *(tops[levels[segment.lower]] for segment in chain)]
            points = _points([runs[segment] for segment in chain], heights)
        else:
            box = boxes[drawn.source]
            points = _loop(box)
            if drawn.labels:
                notes.append(Note(drawn.labels, points[1][0] + NOTE_GAP, box.y, False, drawn.visited))
        lines.append(Line(points[::-1] if place in layered.turned else points, drawn.conditional, drawn.visited))
    return _framed(boxes, lines, notes)


def _run(segment: Segment, pair: tuple[Port, Port], middles: Sequence[float], frames: Sequence[Frame]) -> _Run:
    """Place the ends of a segment; one that has a side of its box to itself is moved, to make the segment straight."""
    middle_above, middle_below = middles[segment.upper], middles[segment.lower]
    above, below = middle_above + pair[0].offset, middle_below + pair[1].offset

    def slack(item: int, port: Port) -> float:
        return min(frames[item].width / 2 - _CORNER, _NUDGE if port.note else inf) if port.alone else 0.0

    if abs(above - middle_below) <= slack(segment.lower, pair[1]):
        below = above
    elif abs(below - middle_above) <= slack(segment.upper, pair[0]):
        above = below
    return _Run(segment, pair, above, below)


def _route(runs: Sequence[_Run], top: float, chart: Chart) -> tuple[list[_Run], list[Note], float]:
    """Give the runs between two layers their tracks and notes, below `top`; return the height they need, too."""
    if not runs:
        return [], [], 0.0
    lines = [max(len(run.ports[end].note) for run in runs) for end in (0, 1)]
    room = [count * NOTE_LINE + _NOTE_SPACE if count else 0.0 for count in lines]
    sideways = [run for run in runs if not run.straight]
    on = tracks([(run.above, run.below) for run in sideways])
    needed = _ARROW + room[0] + max(on, default=0) * _TRACK + room[1] + _ARROW
    height = max(_CHANNEL, needed)
    first = top + _ARROW + room[0] + (height - needed) / 2
    routed = [replace(run, track=first + track * _TRACK) for run, track in zip(sideways, on, strict=True)]
    notes = []
    for run in runs:
        for port, x, above in (
            (run.ports[0], run.above, top + _ARROW),
            (run.ports[1], run.below, top + height - _ARROW - lines[1] * NOTE_LINE),
        ):
            if port.note:
                x += -NOTE_GAP if port.left else NOTE_GAP
                middle = above + len(port.note) * NOTE_LINE / 2
                notes.append(Note(port.note, x, middle, port.left, chart.edges[run.segment.edge].visited))
    return routed, notes, height


def _points(runs: Sequence[_Run], heights: Sequence[float]) -> tuple[Point, ...]:
    """Join the runs of an edge, from the top; `heights` are where it starts and where each run ends."""
    points = [(runs[0].above, heights[0])]
    for run, end in zip(runs, heights[1:], strict=True):
        if not run.straight:
            points += [(run.above, run.track), (run.below, run.track)]
        points.append((run.below, end))
    turns = [
        here
        for before, here, after in zip(points, points[1:], points[2:], strict=False)
        if not (before[0] == here[0] == after[0] or before[1] == here[1] == after[1])
    ]
    return points[0], *turns, points[-1]


def _loop(box: Box) -> tuple[Point, ...]:
    """Return an edge that leads from a step to itself."""
    side, out, above, below = (
        box.x + box.width / 2,
        box.x + box.width / 2 + LOOP,
        box.y - HEIGHT / 4,
        box.y + HEIGHT / 4,
    )
    return (side, above), (out, above), (out, below), (side, below)


def _framed(boxes: Sequence[Box], lines: Sequence[Line], notes: Sequence[Note]) -> Layout:
    """Move all inside of a margin."""
    sides = [box.x + side * box.width / 2 for box in boxes for side in (-1, 1)]
    sides += [x for line in lines for x, _ in line.points]
    sides += [note.x + (-1 if note.left else 1) * note_width(note.lines) for note in notes]
    left = MARGIN - floor(min(sides, default=0.0))
    return Layout(
        ceil(max(sides, default=0.0)) + left + MARGIN,
        max((box.y + HEIGHT / 2 for box in boxes), default=0.0) + 2 * MARGIN,
        tuple(replace(box, x=box.x + left, y=box.y + MARGIN) for box in boxes),
        tuple(
            replace(line, points=tuple((x + left, y + MARGIN) for x, y in line.points))
            for line in sorted(lines, key=lambda line: line.visited)
        ),
        tuple(replace(note, x=note.x + left, y=note.y + MARGIN) for note in notes),
    )
