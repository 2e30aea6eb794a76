"""What is to be drawn: steps, the edges between them, and which of both a thread has been over."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from itertools import pairwise

from langchain_core.runnables.graph import Graph
from langgraph.constants import END, START

MAX_LABEL = 40
"""Characters of a name or a reason that are drawn."""


@dataclass(frozen=True, slots=True)
class Path:
    """The steps that a thread took, and the edges it went over, as pairs of step names."""

    steps: frozenset[str] = frozenset()
    edges: frozenset[tuple[str, str]] = frozenset()


@dataclass(frozen=True, slots=True)
class Step:
    """A step of the graph, or one of its two ends."""

    name: str
    label: str
    end: bool
    visited: bool


@dataclass(frozen=True, slots=True)
class Edge:
    """An edge between two steps, given by their places in the chart; `labels` say why a conditional one is taken."""

    source: int
    target: int
    labels: tuple[str, ...] = ()
    conditional: bool = False
    visited: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """A graph without all that a picture does not show; edges are ordered by their steps' places."""

    steps: tuple[Step, ...] = ()
    edges: tuple[Edge, ...] = ()
    path: bool = field(default=False)


def visited(supersteps: Iterable[Collection[str]], graph: Graph) -> Path:
    """Return the path over these supersteps, the oldest first, each the names of the steps that were next.

    None of them stands for the end of an execution.
    """
    edges = {(edge.source, edge.target) for edge in graph.edges}
    stops: list[Collection[str]] = [(START,), *(stop or (END,) for stop in supersteps)]
    over = {(source, target) for before, after in pairwise(stops) for source in before for target in after}
    over &= edges
    return Path(frozenset(name for edge in over for name in edge), frozenset(over))


def chart(graph: Graph, path: Path | None) -> Chart:
    """Return the chart of a compiled graph's `get_graph()`, with the path marked if there is one.

    Steps that nothing leads to are left out, where there is a start: they are kept for threads that wait for them.
    """
    led_to = {START, *(edge.target for edge in graph.edges)} if START in graph.nodes else set(graph.nodes)
    nodes = {id_: node for id_, node in graph.nodes.items() if id_ in led_to}
    places = {id_: place for place, id_ in enumerate(nodes)}
    taken = path or Path()
    steps = tuple(
        Step(id_, _plain(_ENDS.get(id_, node.name)), end=id_ in _ENDS, visited=id_ in taken.steps)
        for id_, node in nodes.items()
    )
    reasons: dict[tuple[str, str], list[str]] = {}
    conditional: dict[tuple[str, str], bool] = {}
    for edge in graph.edges:
        if edge.source not in nodes:
            continue
        ends = (edge.source, edge.target)
        labels = reasons.setdefault(ends, [])
        if edge.data is not None:
            labels.append(_plain(str(edge.data)))
        conditional[ends] = conditional.get(ends, True) and edge.conditional
    edges = (
        Edge(
            places[source], places[target], tuple(labels), conditional[source, target], (source, target) in taken.edges
        )
        for (source, target), labels in reasons.items()
    )
    return Chart(steps, tuple(sorted(edges, key=lambda edge: (edge.source, edge.target))), path is not None)


_ENDS = {START: "start", END: "end"}


def _plain(text: str) -> str:
    """Replace what no picture can show (control characters, half surrogates), and shorten."""
    shown = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
    return shown if len(shown) <= MAX_LABEL else shown[: MAX_LABEL - 1] + "…"
