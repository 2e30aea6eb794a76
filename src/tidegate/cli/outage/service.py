"""The demo's service: it looks names up until it fails, and says what it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tidegate.resilience.faults.behaviours import Behaviour, Delay
from tidegate.resilience.faults.replies import Request
from tidegate.resilience.faults.server import FaultyServer

DOWN: Final = 503

_SECONDS = 0.15  # an answer takes: long enough to be seen


@dataclass(frozen=True, slots=True)
class Asked:
    """A request came in: which name it asks for, under which `Idempotency-Key`, and whether it will be answered."""

    name: str
    key: str
    is_answered: bool


class NameService:
    """A `FaultyServer` on 127.0.0.1 that goes down after so many answers, and comes back when it is told to."""

    def __init__(self, notice: Callable[[Asked], None]) -> None:
        """Prepare it; `notice` is called on the running event loop, in the order in which requests came in."""
        self.server = FaultyServer(self._behave, answer=_answer)
        self._left: int | None = None
        self._loop = asyncio.get_running_loop()
        self._notice = notice

    def fail_after(self, answers: int) -> None:
        """Answer so many more requests, and 503 to all others."""
        self._left = answers

    def come_back(self) -> None:
        """Answer again."""
        self._left = None

    def _behave(self, request: Request) -> Behaviour:
        is_answered = self._left != 0
        if self._left:
            self._left -= 1
        asked = Asked(request.json["text"], request.headers["idempotency-key"], is_answered)
        self._loop.call_soon_threadsafe(self._notice, asked)
        return Delay(_SECONDS) if is_answered else DOWN


def _answer(request: Request) -> object:
    return {"name": request.json["text"], "register": "of the demo"}
