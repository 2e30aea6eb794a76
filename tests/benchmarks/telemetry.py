"""What watching a run costs, ours and others': `python -m tests.benchmarks.telemetry [--quick]`.

Contenders take turns, in an order drawn anew each round, and are compared within a round: what other programs do to the
machine meanwhile hits both. The first round warms up and is not counted. Exits with 1 when a target is missed or could
not be measured. `--quick` goes through everything once, in small, and judges nothing.
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

from tests.benchmarks import collected, lookups, program, watched
from tests.benchmarks.collected import Collected
from tests.benchmarks.ratios import Ratio, markdown, table, turns
from tests.benchmarks.results import machine
from tests.benchmarks.watched import API, EVERYTHING, LOOK_UPS, MARKER, NONE, OURS, SAMPLED, SDK, THEIRS, Contender

PACKAGES = ("langgraph", "opentelemetry-api", "opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http")

WITHOUT_SDK = 1.05
WITH_SDK = 1.3
THAN_OTHERS = 1.0

Round = dict[Contender, float]


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to measure. Rounds count without the first; of a contender's `repeats` in one the median counts."""

    rounds: int
    repeats: int
    runs: int
    """At a time, before what they left is sent: a batch is more than one run's."""
    rounds_on_disk: int
    judged: bool
    """Whether ratios are held against their targets."""


FULL = Plan(rounds=30, repeats=3, runs=4, rounds_on_disk=10, judged=True)
QUICK = Plan(rounds=1, repeats=1, runs=1, rounds_on_disk=1, judged=False)

EXPLAINED = f"""
A run brings a document of {watched.SIZE // 1000} KB through `Pipeline`: {LOOK_UPS} names, each looked up in a branch of
its own, by HTTP on loopback from a service in another process, and a summary by a chat model that is scripted and takes
no time. Names are found by a search for one word, so that neither the recogniser's CPU nor the model's hides
telemetry's. CPU is of all threads. After {FULL.runs} runs the spans and, of ours, the metrics are sent by OTLP/HTTP to
a collector in another process: sending counts, receiving does not. Of {FULL.repeats} such turns a round, the median one
counts.

"No instrumentation" is Tidegate with spans, events and metrics replaced by nothing, and a graph without them in its
nodes. Checkpoints have spans in all others of ours. "Everything" also sends log records from INFO on, and the content
that OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT asks for. The instrumentations of LangChain watch the same
graph in its stead, each in a process of its own, with the same exporter and their own defaults.

The document is salted: "leaked" are spans (and batches of metrics or logs) which hold the salt. Orphans are spans whose
parent was never sent.
"""


class Arena:
    """The processes: one for our ways of watching, one for each of the others, and one for what they talk to."""

    def __init__(self, contenders: Sequence[Contender], runs: int, folder: Path, stack: ExitStack) -> None:
        def process() -> Executor:
            return stack.enter_context(ProcessPoolExecutor(1, get_context("spawn")))

        self._outside = process()
        self._url = self._outside.submit(lookups.worker_serves, 0.0).result()
        collector = self._outside.submit(collected.worker_collects).result()
        stack.callback(lambda: self._outside.submit(collected.worker_stops).result())
        ours = process()
        self._processes = {each: ours if each in OURS else process() for each in contenders}
        for worker in set(self._processes.values()):
            worker.submit(watched.worker_opens, self._url, collector, folder).result()
            stack.callback(_close_in, worker)
        self._runs = runs
        self._numbers = 0
        self.sent: defaultdict[Contender, list[Collected]] = defaultdict(list)

    def measure(self, contender: Contender, store: str) -> float:
        """Return the CPU seconds a run, of documents that nobody had before."""
        numbers = range(self._numbers, self._numbers + self._runs)
        self._numbers = numbers.stop
        worker = self._processes[contender]
        spent = worker.submit(watched.worker_measures, contender, store, numbers).result()
        asked = self._outside.submit(lookups.worker_counts).result()
        assert asked == LOOK_UPS * self._runs, f"{contender.name}: {asked} look-ups"
        self.sent[contender].append(self._outside.submit(collected.worker_collected, MARKER).result())
        return spent / self._runs

    def compete(self, contenders: Sequence[Contender], store: str, rounds: int, repeats: int) -> list[Round]:
        """Return what a run cost each contender in the median, a dictionary a round."""
        chance = random.Random(0)  # noqa: S311 - shuffles turns
        runs = [
            {contender: self.measure(contender, store) for contender in order}
            for order in turns(contenders, (rounds + 1) * repeats, chance)
        ]
        return [middle(runs[start : start + repeats]) for start in range(repeats, len(runs), repeats)]


def _close_in(worker: Executor) -> None:
    worker.submit(watched.worker_closes).result()


def middle(runs: Sequence[Round]) -> Round:
    """Return the median of each contender's turns."""
    return {each: statistics.median(run[each] for run in runs) for each in (*OURS, *THEIRS) if each in runs[0]}


def ratios_of(rounds: Sequence[Round], store: str, targets: Mapping[tuple[Contender, Contender], float]) -> list[Ratio]:
    """Compare those that took part, each with none, and ours with others."""
    present = list(rounds[0])
    others = [each for each in present if each in THEIRS]
    pairs = [(each, NONE) for each in present if each != NONE]
    pairs += [(ours, theirs) for ours in (EVERYTHING, SDK) for theirs in others if ours in present]
    return [
        Ratio(
            f"{store}: {over.name} / {under.name}",
            tuple(each[over] / each[under] for each in rounds),
            targets.get((over, under)),
        )
        for over, under in pairs
    ]


TARGETS = {
    (API, NONE): WITHOUT_SDK,
    (SDK, NONE): WITH_SDK,
    **{(EVERYTHING, theirs): THAN_OTHERS for theirs in THEIRS},
}


def rows_of(
    rounds: Sequence[Round], on_disk: Sequence[Round], sent: Mapping[Contender, Sequence[Collected]], runs: int
) -> Iterable[tuple[str, ...]]:
    """Return a row a contender: medians of CPU, and what one run sent on average."""
    for contender in rounds[0]:
        total = sum(sent[contender], Collected())
        all_runs = runs * len(sent[contender])
        counts = (total.spans, total.traces, total.orphans, total.leaked)
        disk = [each[contender] for each in on_disk if contender in each]
        yield (
            _named(contender),
            f"{statistics.median(each[contender] for each in rounds) * 1e3:.1f}",
            f"{statistics.median(disk) * 1e3:.1f}" if disk else "",
            *(f"{count / all_runs:.3g}" if contender.exports else "" for count in counts),
        )


def _named(contender: Contender) -> str:
    return (
        contender.name
        if contender.package is None
        else f"{contender.name} ({contender.package} {version(contender.package)})"
    )


HEADER = ("a run", "CPU ms, `memory:`", "CPU ms, SQLite", "spans", "traces", "orphans", "leaked")


def benchmark(plan: Plan, folder: Path) -> tuple[bool, str]:
    """Measure everything; returns whether all targets hold, and the report in Markdown."""
    began = time.monotonic()
    load = f"load {os.getloadavg()[0]:.1f}"
    contenders = [each for each in (*OURS, *THEIRS) if each.is_installed]
    missing = [each for each in THEIRS if each not in contenders]
    with ExitStack() as stack:
        arena = Arena(contenders, plan.runs, folder, stack)
        print(f"{time.monotonic() - began:.0f} s: memory", file=sys.stderr, flush=True)
        rounds = arena.compete(contenders, "memory", plan.rounds, plan.repeats)
        print(f"{time.monotonic() - began:.0f} s: SQLite", file=sys.stderr, flush=True)
        on_disk = arena.compete(contenders, "sqlite", plan.rounds_on_disk, plan.repeats)
        sent = dict(arena.sent)
    ratios = [*ratios_of(rounds, "memory", TARGETS), *ratios_of(on_disk, "SQLite", {})]
    if not plan.judged:
        ratios = [replace(ratio, target=None) for ratio in ratios]
    ratios.sort(key=lambda ratio: ratio.target is None)
    report = [
        f"{machine(folder, PACKAGES)}, {load} before",
        EXPLAINED.strip(),
        f"Took {time.monotonic() - began:.0f} s.",
        table(ratios),
        markdown(HEADER, rows_of(rounds, on_disk, sent, plan.runs)),
    ]
    if missing:
        report.insert(3, f"Not installed, and so not compared: {', '.join(each.name for each in missing)}.")
    quiet = [each for each in (SDK, SAMPLED) if (found := sum(sent[each], Collected())).orphans or found.leaked]
    held = all(ratio.held is not False for ratio in ratios) and not quiet and not (missing and plan.judged)
    return held, "\n\n".join(report)


if __name__ == "__main__":
    sys.exit(program.run("Telemetry", __doc__, benchmark, full=FULL, quick=QUICK))
