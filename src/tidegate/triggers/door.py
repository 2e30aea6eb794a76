"""The door through which triggers hand events in, and what a trigger is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from tidegate.engine.port import Engine, Unreadable
from tidegate.errors import QueueFull
from tidegate.store.clock import Clock, SystemClock
from tidegate.store.inbox import Envelope, Inbox, Receipt
from tidegate.store.registry import ThreadStatus


class Trigger(Protocol):
    """A source of events."""

    @property
    def name(self) -> str:
        """What tells its events from those of other triggers, and its lines in the log."""
        ...

    async def run(self, door: Door) -> None:
        """Hand events in until cancelled; each is acknowledged to its source only after the door took it.

        A source that cannot be reached is waited for in here. What is raised is a bug, or a setting that is wrong.

        Raises:
            SettingsError: it cannot begin: a folder that is not there, a URL that nobody can read, a missing extra.
        """
        ...


class Door:
    """Takes events in; what it returned is durable."""

    def __init__(self, engine: Engine, inbox: Inbox, *, max_document_bytes: int, clock: Clock | None = None) -> None:
        """Hand events to this engine. Documents have at most `max_document_bytes`."""
        self.max_document_bytes = max_document_bytes
        self.clock = clock or SystemClock()
        self._engine = engine
        self._inbox = inbox

    async def known(self, source: str, event_id: str) -> Receipt | None:
        """Return what became of an event that came before, which saves reading its document; else None."""
        return await self._inbox.find(source, event_id)

    async def statuses(self, source: str, event_ids: Sequence[str]) -> Mapping[str, ThreadStatus]:
        """Return by event how far its thread is, for those that came; up to 500 at once."""
        return await self._inbox.statuses(source, event_ids)

    async def keep(self, source: str, event_ids: Sequence[str]) -> None:
        """Say, once in eight hours, which events the source would deliver again at the next start; up to 500 at once.

        Else they are forgotten when they are old, and each would be run again. What is acknowledged needs none of it.
        """
        await self._inbox.keep(source, event_ids)

    async def latest(self, source: str) -> str | None:
        """Return the ID that sorts last of this source's events, None if it had none."""
        return await self._inbox.latest(source)

    async def offer(self, event: Envelope | Unreadable) -> Receipt:
        """Take an event in, or refuse it at once.

        Raises:
            QueueFull: offer it again in `retry_in` seconds.
            EventInvalid: it never will be.
            StoreUnavailable, StoreError: offer it again later.
        """
        return await self._engine.submit(event)

    async def take(self, event: Envelope | Unreadable) -> Receipt:
        """Take an event in; while too many threads wait, wait, so that the source keeps what comes after.

        Raises:
            EventInvalid: it never will be.
            StoreUnavailable, StoreError: offer it again later.
        """
        while True:
            try:
                return await self.offer(event)
            except QueueFull as full:
                await self.clock.sleep(full.retry_in)
