"""Our guard and breaker against others, and the graph against httpx: `python -m tests.benchmarks.resilience [--quick]`.

Contenders take turns, in an order drawn anew each round, and are compared within a round: what other programs do to the
machine meanwhile hits both. The first round warms up and is not counted. Exits with 1 when a target is missed or could
not be measured. `--quick` goes through everything once, in small, and judges nothing.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, replace
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

import httpx

from tests.benchmarks import breakers, lookups, outage, program
from tests.benchmarks.breakers import BARE, BREAKER, GUARD, PURGATORY, Call, Contender, Finding
from tests.benchmarks.lookups import CLIENTS, CONCURRENCY, GRAPH, HTTPX, Way
from tests.benchmarks.outage import Outage, Weathered
from tests.benchmarks.ratios import Ratio, markdown, table, turns
from tests.benchmarks.results import machine

PERMIT = 2.0
LOOK_UP = 1.3


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to measure. Rounds count without the first; `answers` are how many seconds the service takes."""

    rounds: int
    calls: int
    http_calls: int
    look_up_rounds: int
    names: int
    answers: tuple[float, ...]
    outages: tuple[Outage, ...]
    judged: bool
    """Whether ratios are held against their targets."""


FULL = Plan(
    rounds=40,
    calls=2_000,
    http_calls=50,
    look_up_rounds=20,
    names=1_000,
    answers=(0.0, 0.05),
    outages=(Outage(503, 60.0, 100), Outage("hang", 60.0, 100)),
    judged=True,
)

QUICK = Plan(
    rounds=1,
    calls=20,
    http_calls=2,
    look_up_rounds=1,
    names=20,
    answers=(0.0,),
    outages=(Outage(503, 0.5, 3),),
    judged=False,
)

EXPLAINED = """
Permit and guard: a call of nothing, one after the other, in CPU time; by HTTP over one connection, in wall time, from a
service on loopback in a process of its own. Of the libraries what their documentation shows is called: purgatory's
decorator, pybreaker's `calling()`, which can be used with asyncio, aiobreaker's and circuitbreaker's decorators. In the
table of what they do at the moments that matter, what is wrong is in bold. Look-ups are in CPU seconds of the client's
process, all threads; through the graph that is everything, from reading the text to the last checkpoint. Outages
take real time, with all settings as shipped; "at most" is failure threshold + concurrency - 1 + one probe for each time
the reset timeout fits in.
"""

Round = dict[Contender, float]


async def overheads(contenders: Sequence[Contender], rounds: int, calls: int, call: Call, *, cpu: bool) -> list[Round]:
    """Return the seconds a call by each contender, a dictionary a round: of CPU time, or of wall time."""
    chance = random.Random(0)  # noqa: S311 - shuffles turns
    clock = time.process_time if cpu else time.perf_counter
    guarded = {contender: contender.wrap(breakers.make) for contender in contenders}
    measured = []
    for order in turns(contenders, rounds + 1, chance):
        this: Round = {}
        for contender in order:
            function = guarded[contender]
            began = clock()
            for _ in range(calls):
                await function(call)
            this[contender] = (clock() - began) / calls
        measured.append(this)
    return measured[1:]


async def findings(contenders: Sequence[Contender]) -> dict[Contender, list[Finding]]:
    """Try every breaker at every moment, each time with a new circuit."""

    async def examine(contender: Contender) -> list[Finding]:
        return [await probe(contender.wrap(breakers.make)) for probe in breakers.PROBES.values()]

    found = await asyncio.gather(*(examine(contender) for contender in contenders))
    return dict(zip(contenders, found, strict=True))


async def _by_http(contenders: Sequence[Contender], plan: Plan, url: str) -> list[Round]:
    async with httpx.AsyncClient() as client:

        async def call() -> None:
            (await client.post(url, content=b"{}")).raise_for_status()

        return await overheads(contenders, plan.rounds, plan.http_calls, call, cpu=False)


async def _nothing() -> None:
    pass


def compare_calls(
    contenders: Sequence[Contender], plan: Plan, service: Executor
) -> tuple[list[Ratio], list[tuple[str, ...]]]:
    """Compare what a permit and a guarded call cost; rows are medians in microseconds."""
    empty = asyncio.run(overheads(contenders, plan.rounds, plan.calls, _nothing, cpu=True))
    url = service.submit(lookups.worker_serves, 0.0).result()
    sent = asyncio.run(_by_http(contenders, plan, url))
    ratios = [Ratio("guard over bare call, HTTP: wall time", tuple(each[GUARD] / each[BARE] for each in sent))]
    if PURGATORY in contenders:
        pairs = tuple((each[BREAKER] - each[BARE]) / (each[PURGATORY] - each[BARE]) for each in empty)
        ratios.insert(0, Ratio("permit and success over purgatory's: CPU", pairs, PERMIT))
    rows: list[tuple[str, ...]] = [
        (
            _named(contender),
            f"{statistics.median(each[contender] for each in empty) * 1e6:,.2f}",
            f"{statistics.median(each[contender] for each in sent) * 1e6:,.0f}",
        )
        for contender in contenders
    ]
    return ratios, rows


def _named(contender: Contender) -> str:
    return contender.name if contender.package is None else f"{contender.name} {version(contender.package)}"


def compare_look_ups(plan: Plan, service: Executor, folder: Path) -> tuple[list[Ratio], list[tuple[str, ...]]]:
    """Compare a document of many names through the graph with httpx alone; rows are medians in milliseconds a call."""
    chance = random.Random(0)  # noqa: S311 - shuffles turns
    ways = (GRAPH, HTTPX, CLIENTS)
    ratios: list[Ratio] = []
    rows: list[tuple[str, ...]] = []
    for seconds in plan.answers:
        url = service.submit(lookups.worker_serves, seconds).result()
        what = f"{plan.names:,} look-ups, {CONCURRENCY} at once, answered after {seconds * 1e3:g} ms"
        rounds: list[dict[Way, float]] = []
        for order in turns(ways, plan.look_up_rounds + 1, chance):
            this: dict[Way, float] = {}
            for way in order:
                spent = asyncio.run(way.look_up(url, plan.names, folder))
                asked = service.submit(lookups.worker_counts).result()
                assert asked == plan.names, f"{way.name}: {asked} requests"
                this[way] = spent / asked
            rounds.append(this)
        counted = rounds[1:]
        ratios += [
            Ratio(f"{what}: graph over httpx, CPU", tuple(each[GRAPH] / each[HTTPX] for each in counted), LOOK_UP),
            Ratio(f"{what}: graph over {CLIENTS.name}, CPU", tuple(each[GRAPH] / each[CLIENTS] for each in counted)),
        ]
        medians = (statistics.median(each[way] for each in counted) for way in ways)
        rows.append((what, *(f"{median * 1e3:.2f}" for median in medians)))
    return ratios, [("CPU ms a call, medians", *(way.name for way in ways)), *rows]


def benchmark(plan: Plan, folder: Path) -> tuple[bool, str]:
    """Measure everything; returns whether all targets hold, and the report in Markdown."""
    began = time.monotonic()
    load = f"load {os.getloadavg()[0]:.1f}"

    def tell(what: str) -> None:
        print(f"{time.monotonic() - began:.0f} s: {what}", file=sys.stderr, flush=True)

    contenders = [contender for contender in breakers.ALL if contender.is_installed]
    missing = [contender.name for contender in breakers.ALL if contender not in contenders]
    with ProcessPoolExecutor(1, get_context("spawn")) as service:
        tell("calls")
        ratios, costs = compare_calls(contenders, plan, service)
        tell("moments")
        found = asyncio.run(findings([contender for contender in contenders if contender.breaks]))
        tell("look-ups")
        compared, (ways, *look_ups) = compare_look_ups(plan, service, folder)
    ratios += compared
    weathered: list[Weathered] = []
    for each in plan.outages:
        tell(f"outage: {each.how}")
        weathered.append(asyncio.run(outage.weather(each, folder)))
    if not plan.judged:
        ratios = [replace(ratio, target=None) for ratio in ratios]
    ratios.sort(key=lambda ratio: ratio.target is None)
    report = [
        f"{machine(folder, ('httpx', 'httpcore', 'tenacity'))}, {load} before",
        EXPLAINED.strip(),
        f"Took {time.monotonic() - began:.0f} s.",
        table(ratios),
        markdown(("a call, medians", "of nothing, CPU µs", "by HTTP, wall µs"), costs),
        markdown(("", *breakers.PROBES), [(_named(each), *map(str, what)) for each, what in found.items()]),
        markdown(ways, look_ups),
        markdown(outage.HEADER, [each.row() for each in weathered]),
    ]
    if missing:
        report.insert(3, f"Not installed, and so not compared: {', '.join(missing)}.")
    held = (
        all(ratio.held is not False for ratio in ratios)
        and not ({PURGATORY} - set(contenders) and plan.judged)
        and all(finding.is_right for finding in found[BREAKER])
        and all(each.held for each in weathered)
    )
    return held, "\n\n".join(report)


if __name__ == "__main__":
    sys.exit(program.run("Resilience", __doc__, benchmark, full=FULL, quick=QUICK))
