"""Documents in, enriched and sourced summaries out, by a LangGraph pipeline that survives failing services."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tidegate.checkpointers import open_checkpointer as open_checkpointer
    from tidegate.checkpointers import open_checkpointer_sync as open_checkpointer_sync
    from tidegate.errors import TidegateError as TidegateError
    from tidegate.graph.pipeline import build_graph as build_graph
    from tidegate.graph.result import Event as Event
    from tidegate.graph.result import Result as Result
    from tidegate.graph.runner import Pipeline as Pipeline
    from tidegate.resilience.guard import Guard as Guard
    from tidegate.settings import Settings as Settings

_HOMES = {
    "Event": "tidegate.graph.result",
    "Guard": "tidegate.resilience.guard",
    "Pipeline": "tidegate.graph.runner",
    "Result": "tidegate.graph.result",
    "Settings": "tidegate.settings",
    "TidegateError": "tidegate.errors",
    "build_graph": "tidegate.graph.pipeline",
    "open_checkpointer": "tidegate.checkpointers",
    "open_checkpointer_sync": "tidegate.checkpointers",
}

__all__ = [
    "Event",
    "Guard",
    "Pipeline",
    "Result",
    "Settings",
    "TidegateError",
    "build_graph",
    "open_checkpointer",
    "open_checkpointer_sync",
]


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: `import tidegate` alone loads nothing heavy."""
    if name not in _HOMES:
        raise AttributeError(f"module 'tidegate' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
