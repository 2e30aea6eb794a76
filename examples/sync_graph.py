"""Use the pipeline as a step of a synchronous graph."""

import sys
from typing import Any, NotRequired, TypedDict

from langgraph.graph import END, START, StateGraph

from tidegate import Pipeline


class Inbox(TypedDict):
    """The outer state."""

    document: str
    result: NotRequired[dict[str, Any]]
    subject: NotRequired[str]


def subject(state: Inbox) -> dict[str, Any]:
    """Make a subject line of the result."""
    result = state.get("result", {})
    return {"subject": f"[{result['status']}] {result['title']}"}


def main(path: str) -> dict[str, Any]:
    """Run the outer graph on one document."""
    with Pipeline.open_sync() as pipeline:
        graph = StateGraph(Inbox)
        graph.add_node("tidegate", pipeline.as_node(document="document", result="result"))
        graph.add_node("subject", subject)
        graph.add_edge(START, "tidegate")
        graph.add_edge("tidegate", "subject")
        graph.add_edge("subject", END)
        state: dict[str, Any] = graph.compile().invoke({"document": path})
    return state


if __name__ == "__main__":
    print(main(sys.argv[1])["subject"])
