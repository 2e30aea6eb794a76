"""Lines that go to the side between two layers, each on a track of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

_Line: TypeAlias = tuple[float, float]

_APART = 10.0
_WORSE = 1000


def tracks(sideways: Sequence[_Line]) -> list[int]:
    """Return the track of each line, 0 being the uppermost, given where it comes from above and where it goes below.

    Lines on one track do not touch. Which track is above which is chosen so that no line runs over another, unless two
    change places, and then for few crossings, by exchanging neighbours.
    """
    order = _order(sideways)
    exchanged = True
    while exchanged:  # ends, since every exchange makes the sum of the costs smaller
        exchanged = False
        for place in range(len(order) - 1):
            one, other = order[place : place + 2]
            if _cost(sideways[other], sideways[one]) < _cost(sideways[one], sideways[other]):
                order[place : place + 2] = other, one
                exchanged = True
    found = [0] * len(sideways)
    for place, line in enumerate(order):
        above = (found[other] + 1 for other in order[:place] if _meet(sideways[line], sideways[other]))
        found[line] = max(above, default=0)
    return found


def _order(sideways: Sequence[_Line]) -> list[int]:
    """Put a line that comes down close to where another goes down to above that other."""
    left = sorted(range(len(sideways)), key=lambda line: sideways[line])
    order: list[int] = []
    while left:
        for line in left:
            if not any(_overlap(sideways[line], sideways[other]) for other in left if other != line):
                break
        else:
            line = left[0]
        order.append(line)
        left.remove(line)
    return order


def _cost(upper: _Line, lower: _Line) -> int:
    """Count how often two lines cross if one's track is above the other's; to run over each other is worse."""
    crossings = (min(upper) < lower[0] < max(upper)) + (min(lower) < upper[1] < max(lower))
    return crossings + (_WORSE if _overlap(upper, lower) else 0)


def _overlap(upper: _Line, lower: _Line) -> bool:
    return abs(upper[1] - lower[0]) < _APART


def _meet(one: _Line, other: _Line) -> bool:
    return max(min(one), min(other)) < min(max(one), max(other)) + _APART
