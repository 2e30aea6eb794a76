"""An engine over a store, with a step that a test has in its hands."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from tests.worlds import NamesByCapital, Places
from tidegate import Pipeline, Settings
from tidegate.engine.in_process import InProcessEngine
from tidegate.state import Document, Entity
from tidegate.store.inbox import Envelope, Receipt
from tidegate.store.registry import ThreadRecord
from tidegate.testing import ManualClock

PATIENCE = 20.0
"""Seconds of real time that a condition is waited for: for a machine that is busy, and never slept through."""

Act = Callable[[], Awaitable[None]]


async def until(
    condition: Callable[[], object] | Callable[[], Awaitable[object]], *, patience: float = PATIENCE
) -> None:
    """Return once it holds."""
    async with asyncio.timeout(patience):
        while True:
            found = condition()
            if isinstance(found, Awaitable):
                found = await found
            if found:
                return
            await asyncio.sleep(0.002)


@dataclass
class Step:
    """A recogniser: notes what it is given, and does what the test says for texts that begin with a word."""

    name: str = "scripted/1"
    begun: list[str] = field(default_factory=list)
    acts: dict[str, Act] = field(default_factory=dict)
    running: int = 0
    most: int = 0

    async def recognise(self, document: Document) -> list[Entity]:
        word = document.text.split()[0]
        self.begun.append(word)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if word in self.acts:
                await self.acts[word]()
        finally:
            self.running -= 1
        return await NamesByCapital().recognise(document)


def raising(error: Exception, *, times: int = 1_000_000) -> Act:
    """Return what raises an error, so many times."""
    left = times

    async def act() -> None:
        nonlocal left
        left -= 1
        if left >= 0:
            raise error

    return act


@dataclass
class Bench:
    """One pipeline and the engine over it."""

    pipeline: Pipeline
    engine: InProcessEngine
    clock: ManualClock
    step: Step
    places: Places
    worker: asyncio.Task[None] | None = None
    looked: int = 0

    def work(self) -> asyncio.Task[None]:
        self.worker = asyncio.create_task(self.engine.run_worker())
        return self.worker

    def another(self) -> Bench:
        """Return another engine over the same pipeline, as the next process has it."""
        return Bench(self.pipeline, engine(self.pipeline, self.clock), self.clock, self.step, self.places)

    async def submit(self, *texts: str, source: str = "test") -> list[Receipt]:
        """Submit a document each, under its first word."""
        receipts = []
        for text in texts:
            word = text.split()[0]
            event = Envelope(source=source, id=word, data=text.encode(), name=f"{word}.txt")
            receipts.append(await self.engine.submit(event))
            self.clock.advance(0.001)  # so that there is an order
        return receipts

    async def record(self, thread_id: str) -> ThreadRecord:
        record = await self.pipeline.registry.get(thread_id)
        assert record is not None
        return record

    async def until_status(self, status: str, *thread_ids: str) -> None:
        async def reached() -> bool:
            return all([(await self.record(each)).status == status for each in thread_ids])

        await until(reached)

    async def settled(self) -> None:
        """Return once nothing is executed and the worker has looked what there is."""
        for _ in range(2):  # it may have looked already, and not slept yet
            before = self.looked
            self.engine.wake()
            await until(lambda: self.looked > before and not self.engine._running)  # noqa: B023 - awaited here

    async def resting(self) -> None:
        """Return once the worker and its sweep sleep: time that passed before would be slept for all the same."""
        async with asyncio.timeout(PATIENCE):
            await self.clock.until_sleeping(2)

    def __post_init__(self) -> None:
        wait = self.engine._wait

        async def noted(pause: float) -> None:
            self.looked += 1
            await wait(pause)

        self.engine._wait = noted  # type: ignore[method-assign]


def engine(pipeline: Pipeline, clock: ManualClock) -> InProcessEngine:
    return InProcessEngine(pipeline, clock=clock, random=random.Random(7))  # noqa: S311 - jitter


@asynccontextmanager
async def bench(url: str = "memory:", *, clock: ManualClock | None = None, **settings: Any) -> AsyncIterator[Bench]:
    """Open a pipeline whose places and names are the test's; the worker is begun by `work`."""
    clock = clock or ManualClock()
    step = Step()
    places = Places(guard=None)  # type: ignore[arg-type]  # the pipeline has its circuit
    # A clock that is moved by hand moves on while a step runs: no lease is to end over it.
    options: dict[str, Any] = {"checkpoints": url, "recogniser": "rules", "lease_ttl": 1e9, **settings}
    async with Pipeline.open(Settings(**options), recogniser=step, enricher=places, clock=clock) as pipeline:
        places.guard = pipeline.guard("enrichment", pipeline.settings.enrichment)
        found = Bench(pipeline, engine(pipeline, clock), clock, step, places)
        try:
            yield found
        finally:
            if found.worker is not None:
                found.worker.cancel()
                with suppress(asyncio.CancelledError):
                    await found.worker
