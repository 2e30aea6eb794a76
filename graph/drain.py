"""Drain: executions stop after the superstep that they are in, and none is begun."""

from __future__ import annotations

import asyncio

from langgraph.runtime import RunControl


class Drain(RunControl):
    """What any number of executions are given to stop by: LangGraph's, and it can be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self._requested = asyncio.Event()

    def request_drain(self, reason: str = "shutdown") -> None:
        """Have them stop; to be called on the event loop that waits for it."""
        super().request_drain(reason)
        self._requested.set()

    async def wait(self) -> None:
        """Wait until that was asked for."""
        await self._requested.wait()
