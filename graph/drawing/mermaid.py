"""The chart as Mermaid, for what draws it itself: GitHub, editors, documentation."""

from __future__ import annotations

import re

from tidegate.graph.drawing import style
from tidegate.graph.drawing.chart import Chart, Step

_RESERVED = frozenset(
    {"call", "class", "classdef", "click", "default", "direction", "end", "flowchart", "graph", "href", "interpolate"}
    | {"linkstyle", "style", "subgraph"}
)


def write_mermaid(chart: Chart) -> str:
    """Return the chart as a Mermaid flowchart."""
    names = [_name(step, place) for place, step in enumerate(chart.steps)]
    text = ["flowchart TD"]
    for name, step in zip(names, chart.steps, strict=True):
        text.append(f'    {name}(["{_quoted(step.label)}"])' if step.end else f'    {name}["{_quoted(step.label)}"]')
    for edge in chart.edges:
        label = f'|"{"<br>".join(_quoted(label) for label in edge.labels)}"| ' if edge.labels else ""
        text.append(
            f"    {names[edge.source]} {'-.->' if edge.conditional else '-->'}{label or ' '}{names[edge.target]}"
        )
    visited = [name for name, step in zip(names, chart.steps, strict=True) if step.visited]
    if visited:
        text.append(
            f"    classDef path fill:{style.PATH_FILL},stroke:{style.PATH_LINE},stroke-width:2.5px,color:{style.INK}"
        )
        text.append(f"    class {','.join(visited)} path")
    over = [str(place) for place, edge in enumerate(chart.edges) if edge.visited]
    if over:
        text.append(f"    linkStyle {','.join(over)} stroke:{style.PATH_LINE},stroke-width:3px")
    return "\n".join(text) + "\n"


def _name(step: Step, place: int) -> str:
    """Return an identifier: the step's own name where Mermaid can read it as one."""
    usable = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", step.name) and step.name.lower() not in _RESERVED
    return step.name if usable else f"step{place}"


def _quoted(text: str) -> str:
    return "".join(
        character if character.isalnum() or character in " _-.,:;()/" else f"#{ord(character)};" for character in text
    )
