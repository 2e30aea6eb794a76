"""Where lines touch boxes: side by side, with room for the notes beside them."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil

from tidegate.graph.drawing.chart import Chart
from tidegate.graph.drawing.layers import Layers, Segment

FONT = 14
NOTE_FONT = 12
NOTE_GAP = 7.0
"""Between a line and the note beside it."""
LOOP = 22
"""How far a line stands out that leads back to its own step."""

_PADDING = 18
_PORT_GAP = 18
_CORNER = 14


@dataclass(slots=True)
class Frame:
    """An item's room: the width of its box, an even number, and how far it and its notes reach from its middle."""

    width: int
    left: float
    right: float


@dataclass(frozen=True, slots=True)
class Port:
    """Where a segment touches an item: `offset` from its middle. The note, if any, stands `left` or right of the line.

    `alone` says that no other segment touches this side of the item.
    """

    offset: int
    note: tuple[str, ...] = ()
    left: bool = False
    alone: bool = False

    @property
    def reach(self) -> tuple[float, float]:
        """How far the note reaches to both sides of the middle."""
        width = note_width(self.note)
        return self.offset - (width if self.left else 0), self.offset + (0 if self.left else width)


def ports(chart: Chart, layered: Layers) -> tuple[dict[Segment, tuple[Port, Port]], list[Frame]]:
    """Return the ports of every segment, at its upper and at its lower item, and the frame of every item."""
    places = {item: place for row in layered.rows for place, item in enumerate(row)}
    below, above = defaultdict[int, list[Segment]](list), defaultdict[int, list[Segment]](list)
    for chain in layered.chains:
        for segment in chain:
            below[segment.upper].append(segment)
            above[segment.lower].append(segment)
    for item in places:
        below[item].sort(key=lambda segment: (places[segment.lower], segment.edge))
        above[item].sort(key=lambda segment: (places[segment.upper], segment.edge))

    notes_below, notes_above = dict[Segment, tuple[str, ...]](), dict[Segment, tuple[str, ...]]()
    for place, (edge, chain) in enumerate(zip(chart.edges, layered.chains, strict=True)):
        if edge.labels and chain:
            segment = chain[-1 if place in layered.turned else 0]  # the part at the edge's source
            crowded = len(below[segment.upper]) >= len(above[segment.lower])
            (notes_above if crowded else notes_below)[segment] = edge.labels

    frames = [Frame(0, 0, 0) for _ in places]
    for item, step in enumerate(chart.steps):
        width = 2 * ceil(text_width(step.label, FONT) / 2 + _PADDING)
        frames[item] = Frame(width, width / 2, width / 2)
    found: dict[Segment, tuple[Port, Port]] = {}
    lower: dict[Segment, Port] = {}
    upper: dict[Segment, Port] = {}
    for item, frame in enumerate(frames):
        for segments, notes, ends in ((below[item], notes_below, upper), (above[item], notes_above, lower)):
            spread = _spread([notes.get(segment, ()) for segment in segments])
            ends.update(zip(segments, spread, strict=True))
            if spread and item < len(chart.steps):
                frame.width = max(frame.width, 2 * (max(spread[-1].offset, -spread[0].offset) + _CORNER))
            frame.left = max([frame.left, frame.width / 2, *(-port.reach[0] for port in spread)])
            frame.right = max([frame.right, frame.width / 2, *(port.reach[1] for port in spread)])
    for edge, chain in zip(chart.edges, layered.chains, strict=True):
        if not chain:
            frames[edge.source].right += LOOP + note_width(edge.labels)
    for segment, port in upper.items():
        found[segment] = (port, lower[segment])
    return found, frames


def _spread(notes: Sequence[tuple[str, ...]]) -> list[Port]:
    """Return ports from left to right, about their item's middle; notes stand on the outer sides."""
    left = [place < len(notes) // 2 for place in range(len(notes))]
    offsets = [0][: len(notes)]
    for place, following in pairwise(range(len(notes))):
        room = (0 if left[place] else note_width(notes[place])) + (
            note_width(notes[following]) if left[following] else 0
        )
        offsets.append(offsets[-1] + ceil(max(_PORT_GAP, room)))
    middle = offsets[-1] // 2 if offsets else 0
    alone = len(notes) == 1
    return [Port(offset - middle, note, side, alone) for offset, note, side in zip(offsets, notes, left, strict=True)]


def note_width(note: tuple[str, ...]) -> float:
    """Return the width of a note with the gap to its line and to what is next."""
    return max(text_width(line, NOTE_FONT) for line in note) + 2 * NOTE_GAP if note else 0.0


def text_width(text: str, size: float) -> float:
    """Return about how wide the text is in a sans-serif font, rather too much than too little."""
    return size * sum(_em(character) for character in text)


def _em(character: str) -> float:
    if unicodedata.east_asian_width(character) in "WF":
        return 1.0
    if character in "iljtfI.,:;|!' ()[]":
        return 0.33
    if character in "mwMW@%":
        return 0.9
    return 0.7 if character.isupper() else 0.57
