"""Server-sent events about one thread: read from the store, so that it does not matter which process runs it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final

from fastapi import Response
from fastapi.responses import StreamingResponse

from tidegate.errors import TidegateError
from tidegate.server import views
from tidegate.server.context import Context
from tidegate.server.problems import Problem, later
from tidegate.store.registry import ThreadRecord

MOST_LISTENERS = 64
_LOOK_EVERY = 0.5
_HEARTBEAT = 15.0
_COSTS = 10.0  # a look at the steps is followed by a pause so many times as long: a long document's takes its time
_FINISHED: Final = frozenset({"complete", "degraded", "dead", "cancelled"})


class Progress:
    """Tells listeners how far threads are."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._listeners = 0

    async def follow(self, record: ThreadRecord, last_event_id: str | None) -> Response:
        """Return the stream of a thread's events; 204, which ends an EventSource, to who has heard the last one.

        Raises:
            Problem: too many listen already.
        """
        if last_event_id == _id(record) and record.status in _FINISHED:
            return Response(status_code=204)
        if self._listeners >= MOST_LISTENERS:
            detail = f"{MOST_LISTENERS} listen already, as many as may; ask for the thread itself instead"
            raise Problem(503, detail, kind="too-many-listeners", headers=later(5.0))
        return StreamingResponse(self._counted(record), media_type="text/event-stream")

    async def _counted(self, record: ThreadRecord) -> AsyncGenerator[bytes]:
        self._listeners += 1
        try:
            async for event in self._events(record):
                yield event
        finally:
            self._listeners -= 1

    async def _events(self, record: ThreadRecord) -> AsyncGenerator[bytes]:
        clock = self._context.clock
        yield _event("status", record)
        told_at, step, look_again = clock.monotonic(), "", 0.0
        while record.status not in _FINISHED:
            if await self._stopped_within(_LOOK_EVERY):
                return  # whoever listens connects again, to the next process
            now = clock.monotonic()
            try:
                seen = await self._context.pipeline.registry.look(record.thread_id)
                if seen is None:  # deleted
                    return
                if now >= look_again:
                    newest = await self._step(record.thread_id)
                    look_again = now + _COSTS * (clock.monotonic() - now)
                    if newest and newest["id"] != step:
                        step, told_at = newest.pop("id"), now
                        yield _event("step", seen, newest)
            except TidegateError:  # the store is away: whoever listens waits with us
                seen = record
            if views.row(seen) != views.row(record):
                record, told_at = seen, now
                if record.status not in _FINISHED:
                    yield _event("status", record)
            elif now - told_at >= _HEARTBEAT:
                told_at = now
                yield b": still there\n\n"
        yield _event("end", record)

    async def _stopped_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._context.stopping.wait()
        except TimeoutError:
            return False
        return True

    async def _step(self, thread_id: str) -> dict[str, Any] | None:
        entries = await self._context.pipeline.history(thread_id, limit=1)
        if not entries:
            return None
        [newest] = entries
        return {"id": newest.checkpoint_id, "ran": list(newest.ran), "next": list(newest.next)}


def _id(record: ThreadRecord) -> str:
    return f"{record.status}-{record.revision}-{record.updated_at}"


def _event(kind: str, record: ThreadRecord, more: Mapping[str, Any] | None = None) -> bytes:
    data = json.dumps({**views.row(record), **(more or {})}, ensure_ascii=False)  # one line: JSON escapes the others
    return f"event: {kind}\nid: {_id(record)}\ndata: {data}\n\n".encode("utf-8", "replace")
