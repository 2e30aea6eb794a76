"""How results are delivered to sinks: the same for each, whatever its kind."""

from __future__ import annotations

from typing import Final

from tidegate.settings import ServiceSettings

SINK: Final = ServiceSettings(concurrency=4, attempts=1, attempt_timeout=30.0, budget=40.0)
"""How one delivery is guarded: it is one request, since the outbox tries again, after longer pauses."""


def circuit_of(sink: str) -> str:
    """Return the name of a sink's circuit."""
    return f"sink-{sink}"
