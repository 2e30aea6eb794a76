"""Steps in layers: the first three phases of the method of Sugiyama, Tagawa and Toda (1981).

Cycles are broken by turning edges round, every edge then leads to a lower layer, edges that skip layers get a bend in
each of them, and every layer is ordered so that few edges cross.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import TypeAlias

from tidegate.graph.drawing.chart import Chart

_Arcs: TypeAlias = list[tuple[int, int]]
_Neighbours: TypeAlias = defaultdict[int, list[int]]
_SWEEPS = 8


@dataclass(frozen=True, slots=True)
class Segment:
    """The part of an edge between two neighbouring layers, whose items it connects."""

    edge: int
    upper: int
    lower: int


@dataclass(frozen=True, slots=True)
class Layers:
    """Items are the chart's steps, by their places, and after them the bends of long edges.

    `rows` are the layers from the top, each its items from the left. `chains` are the segments of each edge from the
    top, none for an edge that leads back to its own step. `turned` are the edges that lead up. `spine` are the segments
    of one of the longest ways through the graph, from the top, which is to be drawn straight.
    """

    rows: tuple[tuple[int, ...], ...]
    chains: tuple[tuple[Segment, ...], ...]
    turned: frozenset[int]
    spine: tuple[Segment, ...]


def layers(chart: Chart) -> Layers:
    """Assign every step to a layer, and order the layers."""
    count = len(chart.steps)
    ends = [(edge.source, edge.target) for edge in chart.edges]
    turned = _turned(count, ends)
    arcs = [(target, source) if place in turned else (source, target) for place, (source, target) in enumerate(ends)]
    levels = _levels(count, arcs)
    chains: list[tuple[Segment, ...]] = []
    for place, (top, bottom) in enumerate(arcs):
        stops = [top]
        for level in range(levels[top] + 1, levels[bottom]):
            stops.append(len(levels))
            levels.append(level)
        stops.append(bottom)
        chains.append(() if top == bottom else tuple(Segment(place, upper, lower) for upper, lower in pairwise(stops)))
    segments = [segment for chain in chains for segment in chain]
    spine = _spine(levels, segments, count)
    sizes = [len(step.label) for step in chart.steps] + [0] * (len(levels) - count)
    rows = _ordered(levels, sizes, segments, spine)
    return Layers(tuple(tuple(row) for row in rows), tuple(chains), frozenset(turned), tuple(spine))


def _turned(count: int, arcs: _Arcs) -> set[int]:
    """Return the arcs that close a cycle when the graph is searched depth first from its first step."""
    leaving = defaultdict[int, list[tuple[int, int]]](list)
    for place, (source, target) in enumerate(arcs):
        leaving[source].append((place, target))
    turned: set[int] = set()
    open_, done = set[int](), set[int]()
    for root in range(count):
        stack = [(root, iter(leaving[root]))] if root not in done else []
        open_ |= {root} - done
        while stack:
            step, rest = stack[-1]
            place, target = next(rest, (-1, -1))
            if place < 0:
                stack.pop()
                open_.discard(step)
                done.add(step)
            elif target in open_:
                if target != step:
                    turned.add(place)
            elif target not in done:
                open_.add(target)
                stack.append((target, iter(leaving[target])))
    return turned


def _levels(count: int, arcs: _Arcs) -> list[int]:
    """Return each step's layer: the length of the longest way to it."""
    leaving, entering = defaultdict[int, list[int]](list), [0] * count
    for top, bottom in arcs:
        if top != bottom:
            leaving[top].append(bottom)
            entering[bottom] += 1
    levels = [0] * count
    ready = [step for step in range(count) if not entering[step]]
    for step in ready:
        for below in leaving[step]:
            levels[below] = levels[step] + 1  # the last of those above is the lowest: they come layer by layer
            entering[below] -= 1
            if not entering[below]:
                ready.append(below)
    return levels


def _spine(levels: list[int], segments: Sequence[Segment], count: int) -> list[Segment]:
    """Return a longest way, over steps rather than bends."""
    above = defaultdict[int, list[Segment]](list)
    for segment in segments:
        if segment.upper < count:
            above[segment.lower].append(segment)
    item = max(range(count), key=lambda item: levels[item], default=0)
    spine: list[Segment] = []
    while above[item]:
        spine.append(min(above[item], key=lambda segment: segment.upper))
        item = spine[-1].upper
    return spine[::-1]


def _ordered(
    levels: list[int], sizes: list[int], segments: Sequence[Segment], spine: Iterable[Segment]
) -> list[list[int]]:
    neighbours: tuple[_Neighbours, _Neighbours] = defaultdict(list), defaultdict(list)
    above, below = neighbours
    for segment in segments:
        above[segment.lower].append(segment.upper)
        below[segment.upper].append(segment.lower)
    best = _first_order(levels, sizes, above, below, spine)
    fewest = _crossings(best, below)
    rows = best
    for sweep in range(_SWEEPS):
        if not fewest:
            break
        rows = [list(row) for row in rows]
        upwards = sweep % 2
        for fixed, row in pairwise(reversed(rows) if upwards else rows):
            _sort_by_mean(row, neighbours[upwards], {item: place for place, item in enumerate(fixed)})
        if (crossings := _crossings(rows, below)) < fewest:
            best, fewest = rows, crossings
    return best


def _sort_by_mean(row: list[int], neighbours: _Neighbours, places: Mapping[int, int]) -> None:
    own = {item: place for place, item in enumerate(row)}

    def mean(item: int) -> float:
        others = [places[other] for other in neighbours[item]]
        return sum(others) / len(others) if others else own[item]

    row.sort(key=mean)


def _first_order(
    levels: list[int], sizes: list[int], above: _Neighbours, below: _Neighbours, spine: Iterable[Segment]
) -> list[list[int]]:
    """Order by descent: an item's successors are a group, the longest way down in the middle, both sides as wide."""
    depth = [0] * len(levels)
    for item in sorted(range(len(levels)), key=lambda item: -levels[item]):
        depth[item] = max((depth[successor] + 1 for successor in below[item]), default=0)
    main = {item for segment in spine for item in (segment.upper, segment.lower)}
    rows: list[list[int]] = [[] for _ in range(max(levels, default=-1) + 1)]
    placed: set[int] = set()

    def place(group: Iterable[int]) -> None:
        middle_out = sorted(set(group) - placed, key=lambda item: (item not in main, -depth[item], item))
        placed.update(middle_out)
        left, right = list[int](), middle_out[:1]
        for item in middle_out[1:]:
            narrow = min(left, right[1:], key=lambda side: sum(sizes[item] for item in side))
            (left if narrow is left else right).append(item)
        for item in [*reversed(left), *right]:
            rows[levels[item]].append(item)

    place(item for item in range(len(levels)) if not above[item])
    for row in rows:
        for item in row:
            place(below[item])
    return rows


def _crossings(rows: list[list[int]], below: _Neighbours) -> int:
    crossings = 0
    for upper, lower in pairwise(rows):
        places = {item: place for place, item in enumerate(lower)}
        lines = [(above, places[item]) for above, from_ in enumerate(upper) for item in below[from_]]
        crossings += sum((one[0] - other[0]) * (one[1] - other[1]) < 0 for one, other in combinations(lines, 2))
    return crossings
