"""How far to the right everything stands: as straight below its neighbours as the order in the layers allows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import floor, inf

from tidegate.graph.drawing.layers import Layers, Segment
from tidegate.graph.drawing.ports import Frame, Port

_GAP = 24.0
_ROUNDS = 40
_BEND = 4.0
"""How much more a line's shift to the side weighs for each of its ends that is a bend."""
_FIXED = 1e9


def columns(
    layered: Layers, frames: Sequence[Frame], ends: Mapping[Segment, tuple[Port, Port]], *, steps: int
) -> list[float]:
    """Return the middle of every item, the first `steps` of which are boxes.

    The spine is straight. For the rest, layer by layer, the squares of the lines' shifts to the side are made as small
    as the order and the gaps allow; the rounds are more than the graphs that people draw need to come to rest.
    """
    pulls = defaultdict[int, list[tuple[int, float, float]]](list)
    for segment, (above, below) in ends.items():
        weight = _BEND ** ((segment.upper >= steps) + (segment.lower >= steps))
        shift = above.offset - below.offset
        pulls[segment.lower].append((segment.upper, shift, weight))
        pulls[segment.upper].append((segment.lower, -shift, weight))
    fixed = dict.fromkeys((segment.upper for segment in layered.spine[:1]), 0.0)
    for segment in layered.spine:
        above, below = ends[segment]
        fixed[segment.lower] = fixed[segment.upper] + above.offset - below.offset
    gaps = [
        [frames[item].right + _GAP + frames[following].left for item, following in pairwise(row)]
        for row in layered.rows
    ]
    middles = [0.0] * len(frames)
    for _ in range(_ROUNDS):
        for row, between in zip(layered.rows, gaps, strict=True):
            wishes, weights = [], []
            for item in row:
                weight = sum(weight for _, _, weight in pulls[item])
                wish = sum((middles[other] + shift) * weight for other, shift, weight in pulls[item])
                wishes.append(fixed.get(item, wish / weight if weight else middles[item]))
                weights.append(_FIXED if item in fixed else weight or 1.0)
            _put(middles, row, wishes, weights, between)
    for row, between in zip(layered.rows, gaps, strict=True):
        for place, item in enumerate(row):
            if item >= steps:
                low = middles[row[place - 1]] + between[place - 1] if place else -inf
                high = middles[row[place + 1]] - between[place] if place + 1 < len(row) else inf
                straight = (middles[other] + shift for other, shift, _ in pulls[item])  # one bend instead of two
                middles[item] = next((at for at in straight if low <= at <= high), middles[item])
    return [floor(middle + 0.5) for middle in middles]


def _put(
    middles: list[float], row: Sequence[int], wishes: Sequence[float], weights: Sequence[float], gaps: Sequence[float]
) -> None:
    """Put a layer's items as near to their wishes as the gaps between them allow (isotonic regression)."""
    offsets = [0.0]
    for gap in gaps:
        offsets.append(offsets[-1] + gap)
    blocks: list[tuple[float, float, int]] = []  # items that touch: where the first stands, their weight, how many
    for wish, weight, offset in zip(wishes, weights, offsets, strict=True):
        at, heft, count = wish - offset, weight, 1
        while blocks and blocks[-1][0] > at:
            before, heft_before, count_before = blocks.pop()
            at = (before * heft_before + at * heft) / (heft_before + heft)
            heft, count = heft + heft_before, count + count_before
        blocks.append((at, heft, count))
    stands = [at for at, _, count in blocks for _ in range(count)]
    for item, at, offset in zip(row, stands, offsets, strict=True):
        middles[item] = at + offset
