"""A door with a real store behind it, for tests of triggers: what comes in is queued, and a test says how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from tidegate.engine.port import Stats, Unreadable
from tidegate.store.clock import Clock
from tidegate.store.database import Database
from tidegate.store.inbox import Envelope, Inbox, Receipt
from tidegate.store.registry import Registry, ThreadRecord, ThreadStatus
from tidegate.store.schema import STORE
from tidegate.triggers.door import Door, Trigger

PATIENCE = 20.0
"""Real seconds after which something that has not happened never will."""


@dataclass
class Queue:
    """An engine that runs nothing. `events` are those that were submitted, `new` those that had not come before."""

    inbox: Inbox
    events: list[Envelope | Unreadable] = field(default_factory=list)
    new: list[Envelope | Unreadable] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)

    async def submit(self, event: Envelope | Unreadable) -> Receipt:
        if self.failures:
            raise self.failures.pop(0)
        self.events.append(event)
        if isinstance(event, Unreadable):
            receipt = await self.inbox.refuse(event.source, event.id, event.error)
        else:
            receipt = await self.inbox.accept(event)
        if receipt.is_new:
            self.new.append(event)
        return receipt

    async def run_worker(self) -> None:
        raise NotImplementedError

    async def cancel(self, thread_id: str) -> bool:
        raise NotImplementedError

    async def stats(self) -> Stats:
        raise NotImplementedError


@dataclass
class Doorstep:
    """A door, and what is behind it."""

    door: Door
    queue: Queue
    registry: Registry
    inbox: Inbox

    @property
    def documents(self) -> dict[str, bytes]:
        """What came in that is new, by name."""
        return {each.name: each.data for each in self.queue.new if isinstance(each, Envelope)}

    @property
    def refused(self) -> list[str]:
        """What came in that is new and cannot be read: why."""
        return [str(each.error) for each in self.queue.new if isinstance(each, Unreadable)]

    async def threads(self) -> dict[str, ThreadRecord]:
        """All threads, by the names of their documents."""
        return {record.source: record for record in await self.registry.threads(limit=None)}

    async def end(self, name: str, status: ThreadStatus) -> None:
        """Let the thread of a document end so."""
        record = (await self.threads())[name]
        await self.registry.put(replace(record, status=status))


@contextlib.asynccontextmanager
async def opened_door(
    store: Path, clock: Clock, *, max_queued: int = 100_000, max_document_bytes: int = 100_000
) -> AsyncIterator[Doorstep]:
    """A door on the store in this file, which outlasts it."""
    database = Database(store, STORE, clock=clock)
    inbox = Inbox(database, max_queued=max_queued)
    queue = Queue(inbox)
    door = Door(queue, inbox, max_document_bytes=max_document_bytes, clock=clock)
    try:
        yield Doorstep(door, queue, Registry(database), inbox)
    finally:
        await database.close()


@contextlib.asynccontextmanager
async def running(trigger: Trigger, door: Door) -> AsyncIterator[None]:
    """Run a trigger as long as the block takes; raise what it raised."""
    task = asyncio.create_task(trigger.run(door))
    try:
        yield
    finally:
        if not task.done():
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], bool], patience: float = PATIENCE) -> None:
    """Wait for something that happens in real time."""
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, "it never happened"
        await asyncio.sleep(0.005)
