"""Documents that arrive while the enrichment API is down: what reaches it, and how long they wait."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.benchmarks.lookups import document
from tests.benchmarks.ratios import percentile
from tidegate import Pipeline, Settings
from tidegate.resilience.faults import Behaviour, FaultyServer

_NAMES = 4
_SHARED = document(1, first=17_000)
"""What all documents name, beside their own, so that they wait for one look-up."""


@dataclass(frozen=True, slots=True)
class Outage:
    """In which way the service is down, for how long in seconds of real time, and how many documents arrive in it."""

    how: Behaviour
    seconds: float
    documents: int


@dataclass(frozen=True, slots=True)
class Weathered:
    """What an outage came to: requests that reached the service, and may at most; waits and the budget in seconds."""

    outage: Outage
    requests: int
    most: int
    waits: list[float]
    budget: float
    degraded: int

    @property
    def held(self) -> bool:
        """Whether it went as promised."""
        return (
            self.requests <= self.most
            and max(self.waits) <= self.budget
            and self.degraded == self.outage.documents == len(self.waits)
        )

    def row(self) -> tuple[str, ...]:
        """Return it as a row of a table."""
        return (
            f"{self.outage.how}, {self.outage.seconds:g} s, {self.outage.documents} documents",
            str(self.requests),
            str(self.most),
            f"{percentile(self.waits, 0.5):.2f}",
            f"{max(self.waits):.2f}",
            f"{self.budget:g}",
            str(self.degraded),
            "yes" if self.held else "**no**",
        )


HEADER = ("outage", "requests", "at most", "wait s, p50", "wait s, longest", "budget s", "degraded", "held")


async def weather(outage: Outage, folder: Path) -> Weathered:
    """Let the documents arrive evenly, with all settings as shipped, and wait for their results."""
    with TemporaryDirectory(dir=folder) as home, FaultyServer() as server:
        settings = Settings.read(
            checkpoints=f"sqlite:///{home}/tidegate.db",
            recogniser="rules",
            model=None,
            enrichment={"adapter": "http", "url": server.url},
        )
        server.down(outage.how)
        began = time.monotonic()
        async with Pipeline.open(settings) as pipeline:

            async def arrive(number: int) -> tuple[float, str]:
                await asyncio.sleep(number * outage.seconds / outage.documents)
                came = time.monotonic()
                text = f"{_SHARED}\n\n{document(_NAMES, number * _NAMES)}"
                result = await pipeline.run(text=text, name=f"{number}.txt")
                return time.monotonic() - came, result.status

            arrived = await asyncio.gather(*(arrive(number) for number in range(outage.documents)))
        lasted = time.monotonic() - began
        guard = settings.enrichment
        probes = math.ceil(lasted / guard.reset_timeout) - 1
        return Weathered(
            outage,
            requests=len(server.requests),
            most=guard.failure_threshold + guard.concurrency - 1 + probes,
            waits=[wait for wait, _ in arrived],
            budget=guard.budget,
            degraded=sum(status == "degraded" for _, status in arrived),
        )
