"""LangGraph's stream -> events of ours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from langgraph.types import Overwrite

from tidegate.graph.result import Event
from tidegate.nodes.model_choice import told


def task_event(payload: Mapping[str, Any]) -> Event:
    """Translate one item of `stream_mode="tasks"`: a task that starts, or one that ended."""
    step = str(payload["name"])
    if "input" in payload:
        return Event(kind="started", step=step)
    if payload.get("error") is not None:
        return Event(kind="failed", step=step)
    if payload.get("interrupts"):
        return Event(kind="interrupted", step=step, detail=dict(payload["interrupts"][0]["value"]))
    return Event(kind="finished", step=step, detail=_counts(payload.get("result") or {}))


def token_event(message: Any, metadata: Mapping[str, Any]) -> Event | None:
    """Translate one item of `stream_mode="messages"`: a piece of what the model is writing."""
    text = message.text if isinstance(message.text, str) else message.text()
    return Event(kind="token", step=str(metadata.get("langgraph_node", "")), text=text) if text else None


def _counts(update: Mapping[str, Any]) -> dict[str, Any]:
    """Say what a step brought, in counts: progress is shown and logged, so it holds no content."""
    counts: dict[str, Any] = {}
    update = {key: value.value if isinstance(value, Overwrite) else value for key, value in update.items()}
    if document := update.get("document"):
        counts["characters"] = len(document["text"])
        counts["pages"] = len(document["pages"]) or None
    if "entities" in update:
        counts |= Counter(entity["type"] for entity in update["entities"].values()) or {"entities": 0}
    if "enrichments" in update and "routes" not in update:
        counts |= Counter(record["status"] for record in update["enrichments"].values())
    for gate, route in (update.get("routes") or {}).items():
        counts |= {"gate": gate, "to": route["to"], "reason": route["reason"], "retry_in": route["retry_in"]}
    if failure := update.get("extraction_failure"):
        counts["failed"] = failure["error"]
    if failures := update.get("summary_failures"):
        counts["failed"] = told({name: each["error"] for name, each in failures.items()}, models=len(failures))
    if summary := update.get("summary"):
        counts |= {"sentences": len(summary["sentences"]), "method": summary["method"], "model": summary["model"]}
    if outcome := update.get("outcome"):
        counts |= {"status": outcome["status"], "revision": update["revision"], "missing": len(outcome["missing"])}
    return {key: value for key, value in counts.items() if value is not None}
