"""An enrichment API on loopback that does what a script says, misbehaviour included."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from tidegate.resilience.faults import Behaviour, FaultyServer, Reply, Request, Schedule
from tidegate.store.clock import Clock

__all__ = ["Behaviour", "EnrichmentServer", "Reply", "Request"]


class EnrichmentServer(FaultyServer):
    """Tells of the entity that was asked for.

    `script` is what to do at each request, in order, or a function of the request; after its end, `then` is done.
    """

    def __init__(
        self,
        script: Iterable[Behaviour] | Callable[[Request], Behaviour] = (),
        *,
        then: Behaviour = 200,
        clock: Clock | None = None,
    ) -> None:
        course = script if callable(script) else Schedule(tuple(script), then=then)
        super().__init__(course, answer=about, clock=clock)

    @property
    def url(self) -> str:
        return f"{super().url}/enrich"

    @property
    def texts(self) -> list[str]:
        """The names that were asked for, in order."""
        return [request.json["text"] for request in self.requests]


def about(request: Request) -> dict[str, Any]:
    try:
        text = request.json["text"]
    except (ValueError, KeyError, TypeError):
        text = None
    return {"name": text, "about": f"what the API knows of {text}"}
