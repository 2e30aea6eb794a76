"""Use the pipeline as a step of a synchronous graph."""

import sys
from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph

from tidegate import Pipeline


class Inbox(TypedDict, total=False):
    """The outer state."""

    document: str
    result: dict[str, Any]
    subject: str


def subject(state: Inbox) -> dict[str, Any]:
    """Make a subject line of the result."""
    return {"subject": f"[{state['result']['status']}] {state['result']['title']}"}


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
