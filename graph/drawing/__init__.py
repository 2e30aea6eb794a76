"""The graph as a picture, with the path that a thread took: Mermaid, SVG or PNG, drawn offline."""

from __future__ import annotations

from typing import Literal

from langchain_core.runnables.graph import Graph

from tidegate.graph.drawing.chart import Path, chart, visited
from tidegate.graph.drawing.layout import lay_out
from tidegate.graph.drawing.mermaid import write_mermaid
from tidegate.graph.drawing.png import draw_png
from tidegate.graph.drawing.svg import draw_svg

__all__ = ["Path", "draw", "visited"]


def draw(graph: Graph, format_: Literal["mermaid", "svg", "png"], path: Path | None = None) -> bytes:
    """Draw a compiled graph's `get_graph()`; the text formats are UTF-8.

    Raises:
        MissingExtra: a PNG needs Pillow.
    """
    drawn = chart(graph, path)
    if format_ == "mermaid":
        return write_mermaid(drawn).encode()
    layout = lay_out(drawn)
    return draw_svg(layout).encode() if format_ == "svg" else draw_png(layout)
