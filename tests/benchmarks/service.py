"""What `tidegate serve` takes in: `python -m tests.benchmarks.service [--quick] [--folder FOLDER]`.

Documents are posted on loopback at a given rate, whether or not the ones before were answered; a 202 says that one is
stored for good. The rate is raised until the answers come late. Then five times as much is offered as the service can
bring to an end: the queue must stay within its bound, and no event may be lost. Exits with 1 if that fails.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx

from tests.benchmarks import program
from tests.benchmarks.ratios import markdown, percentile
from tests.benchmarks.results import machine
from tests.e2e.unattended import TOKEN, Service

PACKAGES = ("langgraph", "fastapi", "uvicorn")
WITHIN = 0.1
"""Seconds within which 99 of 100 answers have to come, for a rate to be sustained."""

_WORDS = "It rained in the harbour all day, and the ships waited for the tide to turn. "


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to measure: documents of so many characters, the rates a second, each for so many seconds."""

    characters: int = 2_000
    rates: tuple[int, ...] = (10, 20, 40, 80, 120, 160, 240, 320)
    seconds: float = 20.0
    max_queued: int = 200
    overload: float = 60.0


QUICK = Plan(rates=(10,), seconds=2.0, max_queued=20, overload=3.0)


@dataclass(slots=True)
class Offered:
    """What came of a load: seconds until each 202, how many got a 503, and how many were never taken in."""

    rate: float
    seconds: float
    taken: list[float] = field(default_factory=list)
    refused: int = 0
    lost: int = 0


async def offer(service: Service, rate: float, seconds: float, characters: int, *, patient: bool, name: str) -> Offered:
    """Post documents at this rate; `patient` ones that get a 503 come again when it says, until they are taken in."""
    offered = Offered(rate, seconds)
    chance = random.Random(name)  # noqa: S311 - arrivals
    headers = {"authorization": f"Bearer {TOKEN}"}
    limits = httpx.Limits(max_connections=200, max_keepalive_connections=200)
    async with httpx.AsyncClient(base_url=service.url, headers=headers, timeout=60.0, limits=limits) as client:

        async def post(number: int) -> None:
            text = f"{name} {number}. {_WORDS * (characters // len(_WORDS))}"
            began = time.perf_counter()
            while True:
                response = await client.post(
                    "/v1/threads", json={"text": text}, headers={"idempotency-key": f"{name}-{number}"}
                )
                if response.status_code == 202:
                    offered.taken.append(time.perf_counter() - began)
                    return
                if response.status_code != 503:
                    raise RuntimeError(f"answered {response.status_code}: {response.text[:200]}")
                offered.refused += 1
                if not patient:
                    offered.lost += 1
                    return
                await asyncio.sleep(float(response.headers["retry-after"]))

        async with asyncio.TaskGroup() as group:
            until, at = time.perf_counter() + seconds, time.perf_counter()
            for number in range(10**9):
                at += chance.expovariate(rate)
                if at > until:
                    break
                await asyncio.sleep(max(0.0, at - time.perf_counter()))
                group.create_task(post(number))
    return offered


@dataclass(frozen=True, slots=True)
class Overload:
    """What came of more than the service can do: rates a second, and the longest queue that was seen."""

    done_rate: float
    offered: Offered
    longest_queue: int
    max_queued: int
    complete: int

    @property
    def held(self) -> bool:
        """Whether the queue kept its bound, and all that was offered is complete."""
        return self.longest_queue <= self.max_queued and self.complete == len(self.offered.taken)


async def _rest(service: Service) -> int:
    """Wait until nothing is to be done; return how many threads are complete."""
    while True:
        statuses = await asyncio.to_thread(service.statuses)
        if set(statuses) <= {"complete"}:
            return statuses.get("complete", 0)
        await asyncio.sleep(0.1)


async def overload(service: Service, plan: Plan) -> Overload:
    """Fill the queue to see how much is brought to an end, then offer five times as much."""
    before = await _rest(service)
    await offer(service, plan.max_queued, 0.8, plan.characters, patient=True, name="fill")
    began = time.perf_counter()
    done = await _rest(service)
    rate = (done - before) / (time.perf_counter() - began)
    queues: list[int] = []

    async def watch() -> None:
        while True:
            queues.append((await asyncio.to_thread(service.statuses)).get("queued", 0))
            await asyncio.sleep(0.2)

    watching = asyncio.create_task(watch())
    offered = await offer(service, 5 * rate, plan.overload, plan.characters, patient=True, name="overload")
    watching.cancel()
    complete = await _rest(service) - done
    return Overload(rate, offered, max(queues), plan.max_queued, complete)


async def measure(plan: Plan, folder: Path) -> tuple[list[tuple[Offered, float]], Overload]:
    """Return for each rate what came of it, and how many threads a second were finished; then the overload."""
    steps: list[tuple[Offered, float]] = []
    with TemporaryDirectory(dir=folder) as home, Service(Path(home), None, max_queued=10**6) as service:
        await asyncio.to_thread(service.wait_until_ready)
        await offer(service, 10, min(3.0, plan.seconds), plan.characters, patient=True, name="warm-up")
        for rate in plan.rates:
            before, began = await _rest(service), time.perf_counter()
            offered = await offer(service, rate, plan.seconds, plan.characters, patient=False, name=f"rate-{rate}")
            print(f"{rate} a second: p99 {percentile(offered.taken, 0.99) * 1000:.0f} ms", file=sys.stderr)
            done = await _rest(service) - before
            steps.append((offered, done / (time.perf_counter() - began)))
            if percentile(offered.taken, 0.99) > WITHIN:
                break
        service.stop()
    with TemporaryDirectory(dir=folder) as home, Service(Path(home), None, max_queued=plan.max_queued) as service:
        await asyncio.to_thread(service.wait_until_ready)
        under = await overload(service, plan)
        service.stop()
    return steps, under


def told(plan: Plan, steps: Sequence[tuple[Offered, float]], under: Overload) -> Iterable[str]:
    """Yield the section, a part at a time."""
    yield (
        f"Documents of {plan.characters:,} characters, posted on loopback at random moments, {plan.seconds:g} s\n"
        "for each rate; SQLite with `synchronous=FULL`, no enrichment, extractive summaries, recogniser by rules, one\n"
        "process. A 202 comes when event, document and queued thread are on disk."
    )
    yield markdown(
        (
            "offered a second",
            "answered within ms, p50",
            "p99",
            f"within {WITHIN * 1000:g} ms",
            "brought to an end a second",
        ),
        [
            (
                f"{offered.rate:g}",
                f"{statistics.median(offered.taken) * 1000:.1f}",
                f"{percentile(offered.taken, 0.99) * 1000:.1f}",
                "yes" if percentile(offered.taken, 0.99) <= WITHIN else "no",
                f"{done:.1f}",
            )
            for offered, done in steps
        ],
    )
    yield (
        f"It brings {under.done_rate:.1f} threads a second to an end. Five times as many were offered for "
        f"{plan.overload:g} s:"
    )
    yield markdown(
        ("offered", "503 answers", "longest queue", "may be", "complete", "lost", "held"),
        [
            (
                str(len(under.offered.taken)),
                str(under.offered.refused),
                str(under.longest_queue),
                str(under.max_queued),
                str(under.complete),
                str(len(under.offered.taken) - under.complete),
                "yes" if under.held else "**no**",
            )
        ],
    )


def benchmark(plan: Plan, folder: Path) -> tuple[bool, str]:
    """Measure everything; returns whether the overload was weathered, and the report in Markdown."""
    steps, under = asyncio.run(measure(plan, folder))
    return under.held, "\n\n".join([machine(folder, PACKAGES), *told(plan, steps, under)])


if __name__ == "__main__":
    sys.exit(program.run("Service", __doc__, benchmark, full=Plan(), quick=QUICK))
