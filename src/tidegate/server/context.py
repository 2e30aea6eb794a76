"""What the routes work with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from tidegate.engine.in_process import InProcessEngine
from tidegate.graph.runner import Pipeline
from tidegate.server.bodies import Room
from tidegate.server.documents import Fetch
from tidegate.store.clock import Clock
from tidegate.triggers.door import Door


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The service, as its HTTP interface sees it.

    `is_working` says whether the engine runs threads; `stopping` is set once the service drains.
    """

    pipeline: Pipeline
    engine: InProcessEngine
    door: Door
    fetch: Fetch
    room: Room
    clock: Clock
    is_working: Callable[[], bool]
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
