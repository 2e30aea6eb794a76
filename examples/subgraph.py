"""Put the graph into another asynchronous graph; its steps are checkpointed with the outer ones."""

import asyncio
import sys
from typing import Any

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph

from tidegate import Pipeline
from tidegate.state import Input, Output


class Review(Input, Output, total=False):
    """The outer state: Tidegate's input and output, and two more channels."""

    path: str
    verdict: str


def build(pipeline: Pipeline) -> Any:
    """Return the outer graph: take a document in, summarize it, judge the result."""

    async def take_in(state: Review) -> dict[str, Any]:
        return dict(await pipeline.take_in(state.get("path")))

    async def judge(state: Review) -> dict[str, Any]:
        outcome = state.get("outcome") or {}
        return {"verdict": "publish" if outcome.get("status") == "complete" else "hold back"}

    graph = StateGraph(Review)
    graph.add_node("take_in", take_in)
    graph.add_node("summarize", pipeline.subgraph())
    graph.add_node("judge", judge)
    graph.add_edge(START, "take_in")
    graph.add_edge("take_in", "summarize")
    graph.add_edge("summarize", "judge")
    graph.add_edge("judge", END)
    return graph.compile(checkpointer=InMemorySaver())


async def main(path: str) -> dict[str, Any]:
    """Run the outer graph on one document."""
    async with Pipeline.open() as pipeline:
        state: dict[str, Any] = await build(pipeline).ainvoke({"path": path}, {"configurable": {"thread_id": "review"}})
    return state


if __name__ == "__main__":
    print(asyncio.run(main(sys.argv[1]))["verdict"])
