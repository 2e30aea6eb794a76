from __future__ import annotations

import io
import re
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from itertools import combinations, pairwise
from typing import Annotated, Any, Literal, TypedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.runnables.graph import Edge, Graph, Node
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send, interrupt
from PIL import Image

from tidegate.errors import MissingExtra
from tidegate.graph import drawing
from tidegate.graph.drawing import style
from tidegate.graph.drawing.chart import MAX_LABEL, Chart, chart
from tidegate.graph.drawing.layout import HEIGHT, Box, Layout, lay_out
from tidegate.graph.drawing.ports import NOTE_GAP, note_width
from tidegate.graph.drawing.strokes import dashes
from tidegate.state import merge

SVG = "{http://www.w3.org/2000/svg}"


def graph_of(edges: Sequence[tuple[str, str, str | None]], *, nodes: list[str] | None = None) -> Graph:
    """Return a graph with these edges; one with a label is conditional."""
    names = nodes or list(dict.fromkeys(name for source, target, _ in edges for name in (source, target)))
    return Graph(
        nodes={name: Node(name, name, None, None) for name in names},
        edges=[Edge(source, target, label, conditional=label is not None) for source, target, label in edges],
    )


PIPELINE = graph_of(
    [
        (START, "ingest", None),
        ("ingest", "extract", None),
        ("extract", "gate_enrichment", None),
        ("gate_enrichment", "enrich", "admitted"),
        ("gate_enrichment", "await_enrichment", "open: wait"),
        ("gate_enrichment", "gate_summary", "done, or open: degrade"),
        ("enrich", "gate_enrichment", None),
        ("await_enrichment", "gate_enrichment", None),
        ("gate_summary", "summarize", "admitted"),
        ("gate_summary", "await_model", "open: wait"),
        ("gate_summary", "summarize_extractive", "no model, or open: degrade"),
        ("gate_summary", "conclude", "up to date"),
        ("summarize", "conclude", "summarized"),
        ("summarize", "gate_summary", "failed"),
        ("summarize_extractive", "conclude", None),
        ("await_model", "gate_summary", None),
        ("conclude", END, None),
    ]
)
SHORT = [("ingest",), ("extract",), ("gate_enrichment",), ("gate_summary",), ("conclude",), ()]


def boxes_of(layout: Layout) -> dict[str, Box]:
    return {box.label: box for box in layout.boxes}


def overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    """Whether two rectangles, given by left, top, right and bottom, share more than a border."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def area(box: Box) -> tuple[float, float, float, float]:
    return box.x - box.width / 2, box.y - HEIGHT / 2, box.x + box.width / 2, box.y + HEIGHT / 2


def touches(point: tuple[float, float], box: Box) -> bool:
    left, top, right, bottom = area(box)
    across, down = left <= point[0] <= right, top <= point[1] <= bottom
    return across and down and (point[0] in (left, right) or point[1] in (top, bottom))


def flaws(layout: Layout, drawn: Chart) -> list[str]:
    """Return what makes a drawing hard to read."""
    found = [
        f"{one.label} lies on {other.label}"
        for one, other in combinations(layout.boxes, 2)
        if overlap(area(one), area(other))
    ]
    for line, edge in zip(layout.lines, drawn.edges, strict=True):
        source, target = layout.boxes[edge.source], layout.boxes[edge.target]
        if not (touches(line.points[0], source) and touches(line.points[-1], target)):
            found.append(f"a line does not lead from {source.label} to {target.label}")
    for line in layout.lines:
        for (x1, y1), (x2, y2) in pairwise(line.points):
            part = (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
            if part[2] - part[0] > 3 and part[3] - part[1] > 3:
                found.append("a line is slanted")
            along, across = (-1, 1) if part[1] == part[3] else (1, -1)  # not the ends, which touch boxes
            thick = (part[0] - along, part[1] - across, part[2] + along, part[3] + across)
            found += [f"a line runs over {box.label}" for box in layout.boxes if overlap(thick, area(box))]
    notes = []
    for note in layout.notes:
        width = note_width(note.lines) - 2 * NOTE_GAP
        left = note.x - width if note.left else note.x
        height = 12 * len(note.lines)
        notes.append((left, note.y - height / 2, left + width, note.y + height / 2))
    for line in layout.lines:
        for (x1, y1), (x2, y2) in pairwise(line.points):
            part = (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
            found += ["a line runs through a note" for note in notes if overlap(part, note)]
    found += ["a note lies on a note" for one, other in combinations(notes, 2) if overlap(one, other)]
    found += ["a note lies on a box" for one in notes for box in layout.boxes if overlap(one, area(box))]
    for x1, y1, x2, y2 in [*notes, *map(area, layout.boxes)]:
        if x1 < 0 or y1 < 0 or x2 > layout.width or y2 > layout.height:
            found.append("something is outside of the picture")
    return found


def parts(layout: Layout) -> list[tuple[float, float, float, float]]:
    """Return the straight parts of all lines, each a pixel thick, without the pixel at each end."""
    found = []
    for line in layout.lines:
        for (x1, y1), (x2, y2) in pairwise(line.points):
            thick, short = (0.5, -1) if x1 == x2 else (-1, 0.5)
            found.append((min(x1, x2) - thick, min(y1, y2) - short, max(x1, x2) + thick, max(y1, y2) + short))
    return found


def test_the_pipeline_is_a_readable_picture() -> None:
    drawn = chart(PIPELINE, None)
    layout = lay_out(drawn)
    assert flaws(layout, drawn) == []
    assert not [pair for pair in combinations(parts(layout), 2) if overlap(*pair)], "lines cross, or share a way"
    boxes = boxes_of(layout)
    spine = ["start", "ingest", "extract", "gate_enrichment", "gate_summary"]
    assert len({boxes[name].x for name in spine}) == 1
    heights = [boxes[name].y for name in [*spine, "summarize", "conclude", "end"]]
    assert heights == sorted(heights)
    assert layout.width < 800


NAMES = st.sampled_from(["a", "bb", "ccc", "dddddddd", "e_e_e_e_e", "ff", "g", "hhhhhhhhhhhhhhhhhhhh"])
LABELS = st.sampled_from([None, "x", "open: wait", "a long reason to go there"])
EDGES = st.lists(st.tuples(NAMES, NAMES, LABELS), max_size=14)


@settings(deadline=None)
@given(EDGES)
def test_any_graph_is_drawn_without_lines_over_boxes(edges: list[tuple[str, str, str | None]]) -> None:
    drawn = chart(graph_of(edges), None)
    layout = lay_out(drawn)
    assert flaws(layout, drawn) == []
    assert lay_out(drawn) == layout


@pytest.mark.slow
def test_a_large_graph_is_laid_out_in_reasonable_time() -> None:
    edges = [(f"s{i}", f"s{j}", "because") for i in range(100) for j in (i + 1, i + 7, i // 2) if j < 100]
    began = time.perf_counter()
    layout = lay_out(chart(graph_of(edges), None))
    assert time.perf_counter() - began < 10
    assert len(layout.boxes) == 100


def test_an_empty_graph_is_an_empty_picture() -> None:
    assert b"<svg" in drawing.draw(Graph(), "svg")
    assert Image.open(io.BytesIO(drawing.draw(Graph(), "png"))).size == (80, 80)


def test_the_path_is_marked_in_svg_by_colour_and_by_thickness() -> None:
    path = drawing.visited(SHORT, PIPELINE)
    root = ET.fromstring(drawing.draw(PIPELINE, "svg", path))  # noqa: S314 - our own
    fills = {}
    for rect, text in zip(root.findall(f"{SVG}rect")[1:], root.findall(f"{SVG}text"), strict=False):
        fills[text.text] = rect.get("fill")
    assert {name for name, fill in fills.items() if fill == style.PATH_FILL} == {
        "start",
        "ingest",
        "extract",
        "gate_enrichment",
        "gate_summary",
        "conclude",
        "end",
    }
    lines = [line for line in root.findall(f"{SVG}path") if line.get("stroke")]
    thick = [line for line in lines if line.get("stroke") == style.PATH_LINE]
    assert len(lines) == 17
    assert len(thick) == 6
    assert {line.get("stroke-width") for line in thick} == {"3"}
    assert {line.get("stroke-width") for line in lines if line not in thick} == {"1.5"}
    assert lines[-6:] == thick, "the path lies on top"
    assert "ingest" in (root.findtext(f"{SVG}title") or "")


def test_conditional_edges_are_dashed_and_say_why() -> None:
    root = ET.fromstring(drawing.draw(PIPELINE, "svg"))  # noqa: S314 - our own
    lines = [line for line in root.findall(f"{SVG}path") if line.get("stroke")]
    assert sum(line.get("stroke-dasharray") is not None for line in lines) == 9
    assert "done, or open: degrade" in {text.text for text in root.findall(f"{SVG}text")}


def test_a_png_shows_the_path() -> None:
    plain = Image.open(io.BytesIO(drawing.draw(PIPELINE, "png"))).convert("RGB")
    marked = Image.open(io.BytesIO(drawing.draw(PIPELINE, "png", drawing.visited(SHORT, PIPELINE)))).convert("RGB")
    layout = lay_out(chart(PIPELINE, None))
    assert plain.size == marked.size == (round(layout.width * 2), round(layout.height * 2))

    def blue(image: Image.Image, name: str) -> bool:
        box = boxes_of(layout)[name]
        pixel = image.getpixel((round((box.x - box.width / 2 + 12) * 2), round(box.y * 2)))
        assert isinstance(pixel, tuple)
        return pixel[2] - pixel[0] > 20

    assert blue(marked, "ingest")
    assert not blue(plain, "ingest")
    assert not blue(marked, "await_model")
    assert plain.getpixel((2, 2)) == (255, 255, 255)


HOSTILE = "<script>&\"'\x00\x1b]\ud800\n|--> b; end"


@pytest.mark.parametrize("format_", ["mermaid", "svg", "png"])
def test_names_and_reasons_cannot_break_out_of_a_picture(format_: Literal["mermaid", "svg", "png"]) -> None:
    graph = graph_of([(START, HOSTILE, None), (HOSTILE, "b", HOSTILE), ("b", END, "x" * 10_000)])
    picture = drawing.draw(graph, format_)
    if format_ == "svg":
        root = ET.fromstring(picture)  # noqa: S314 - our own
        assert {element.tag.removeprefix(SVG) for element in root.iter()} == {"svg", "title", "rect", "path", "text"}
        assert max(len(text.text or "") for text in root.findall(f"{SVG}text")) == MAX_LABEL
    elif format_ == "mermaid":
        text = picture.decode()
        assert "<script>" not in text
        assert len(text.splitlines()) == 1 + 4 + 3
        assert re.fullmatch(r'    step1 -\.->\|"[^"|<>]*"\| b', text.splitlines()[6])


def test_mermaid_shows_the_graph_and_the_path() -> None:
    text = drawing.draw(PIPELINE, "mermaid", drawing.visited(SHORT, PIPELINE)).decode()
    assert text.startswith("flowchart TD\n")
    assert '    __start__(["start"])\n' in text
    assert "    ingest --> extract\n" in text
    assert '    gate_summary -.->|"open: wait"| await_model\n' in text
    assert "class __start__,ingest,extract,gate_enrichment,gate_summary,conclude,__end__ path" in text
    assert text.count(" -->") + text.count(" -.->") == 17
    links = [line for line in text.splitlines() if "-->" in line or "-.->" in line]
    over = re.search(r"linkStyle ([\d,]+) ", text)
    assert over is not None
    assert [links[int(place)].split()[0] for place in over[1].split(",")] == [
        "__start__",
        "ingest",
        "extract",
        "gate_enrichment",
        "gate_summary",
        "conclude",
    ]


@pytest.mark.parametrize("name", ["end", "graph", "Class", "a-b", "1st", "naïve", "a b", ""])
def test_a_name_that_mermaid_cannot_read_gets_another(name: str) -> None:
    graph = graph_of([("first", name, None)])
    assert "    first --> step1\n" in drawing.draw(graph, "mermaid").decode()


def test_a_picture_without_pillow_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingExtra, match=r"tidegate\[png\]"):
        drawing.draw(PIPELINE, "png")
    assert drawing.draw(PIPELINE, "svg")


def test_a_path_that_is_not_finished_does_not_reach_the_end() -> None:
    path = drawing.visited([("ingest",), ("extract",), ("gate_enrichment",), ("await_enrichment",)], PIPELINE)
    assert END not in path.steps
    assert ("gate_enrichment", "await_enrichment") in path.edges
    assert len(path.edges) == 4


def test_dashes_cover_their_share_of_a_line() -> None:
    parts = dashes([(0, 0), (50, 0), (50, 50)], 6, 4)
    length = sum(abs(x2 - x1) + abs(y2 - y1) for part in parts for (x1, y1), (x2, y2) in pairwise(part))
    assert length == pytest.approx(60)
    assert len(parts) == 10


class Flow(TypedDict, total=False):
    done: Annotated[dict[str, int], merge]


def threaded() -> Any:
    async def step(state: Flow) -> Flow:
        return {"done": {}}

    async def wait(state: Flow) -> Flow:
        interrupt("wait")
        return {"done": {}}

    graph = StateGraph(Flow)
    for name in ("plan", "work", "skip"):
        graph.add_node(name, step)
    graph.add_node("wait", wait)
    graph.add_edge(START, "plan")
    graph.add_conditional_edges(
        "plan", lambda _: [Send("work", {}) for _ in range(3)], {"some": "work", "none": "skip"}
    )
    graph.add_edge("work", "wait")
    graph.add_edge("skip", "wait")
    graph.add_edge("wait", END)
    return graph.compile(checkpointer=InMemorySaver())


async def test_the_path_of_a_thread_is_read_from_its_history() -> None:
    graph = threaded()
    config: Any = {"configurable": {"thread_id": "t"}}

    async def path() -> drawing.Path:
        history = [snapshot.next async for snapshot in graph.aget_state_history(config)]
        return drawing.visited(history[::-1], graph.get_graph())

    assert await path() == drawing.Path()
    await graph.ainvoke({"done": {}}, config)
    waiting = await path()
    assert waiting.edges == {(START, "plan"), ("plan", "work"), ("work", "wait")}
    await graph.aupdate_state(config, {"done": {}}, as_node="wait")
    assert (await path()).steps == {START, "plan", "work", "wait", END}
    assert (await path()).edges == {*waiting.edges, ("wait", END)}


def test_a_step_that_is_kept_for_waiting_threads_alone_is_not_drawn() -> None:
    graph = graph_of([(START, "present", None), ("present", END, None), ("former", END, None)])
    assert "former" not in drawing.draw(graph, "mermaid").decode()
