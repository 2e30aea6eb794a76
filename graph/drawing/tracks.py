"""Lines that go to the side between two layers, each on a track of its own."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

_APART = 10.0
_OVERLAP = 100


def tracks(sideways: Sequence[tuple[float, float]]) -> list[int]:
    """Return the track of each line, 0 being the uppermost, given where it comes from above and where it goes below.

    Lines on one track do not touch. Which track is above which is chosen for few crossings, by exchanging neighbours.
    """
    order = sorted(range(len(sideways)), key=lambda line: sideways[line])
    exchanged = True
    while exchanged:  # ends, since every exchange makes the sum of the costs smaller
        exchanged = False
        for place, (one, other) in enumerate(pairwise(tuple(order))):
            if order[place] != one:
                continue
            if _cost(sideways[other], sideways[one]) < _cost(sideways[one], sideways[other]):
                order[place], order[place + 1] = other, one
                exchanged = True
    found = [0] * len(sideways)
    for place, line in enumerate(order):
        above = (found[other] + 1 for other in order[:place] if _meet(sideways[line], sideways[other]))
        found[line] = max(above, default=0)
    return found


def _cost(upper: tuple[float, float], lower: tuple[float, float]) -> int:
    """Count how often two lines cross if one's track is above the other's; to run over each other is worse."""
    crossings = (min(upper) < lower[0] < max(upper)) + (min(lower) < upper[1] < max(lower))
    return crossings + (_OVERLAP if abs(upper[1] - lower[0]) < _APART else 0)


def _meet(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return max(min(one), min(other)) < min(max(one), max(other)) + _APART
