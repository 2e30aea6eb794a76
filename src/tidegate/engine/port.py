"""The port behind which threads are run: four verbs, whoever carries them out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from tidegate.errors import DocumentError
from tidegate.store.inbox import Envelope, Receipt
from tidegate.store.registry import ThreadStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """An event whose document cannot be taken in: too large, empty, or gone for good."""

    source: str
    id: str
    error: DocumentError


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """How many threads there are, by status, and how many executions go on in this process.

    `threads` counts those as running, too, that were interrupted: who runs them is not looked up.
    """

    threads: Mapping[ThreadStatus, int]
    executing: int


class Engine(Protocol):
    """Brings threads forward without anybody waiting for them."""

    async def submit(self, event: Envelope | Unreadable) -> Receipt:
        """Take in an event: once this returns it is durable, and will become one thread, however often it is submitted.

        An unreadable one becomes a thread that is dead, to be seen; nothing is lost of it if it comes again, readable.

        Raises:
            QueueFull: submit it again later; nothing was taken in.
            EventInvalid: it never can be.
        """
        ...

    async def run_worker(self) -> None:
        """Run threads, until cancelled or told to stop: new ones, interrupted ones, and those that can go on."""
        ...

    async def cancel(self, thread_id: str) -> bool:
        """Stop a thread that is not finished, and leave it so; False if there was nothing to stop.

        Raises:
            ThreadNotFound: no thread has this ID.
            ThreadBusy: another process runs it, or somebody in this one who waits for it.
        """
        ...

    async def stats(self) -> Stats:
        """Return how much there is to do, and how much was done."""
        ...
