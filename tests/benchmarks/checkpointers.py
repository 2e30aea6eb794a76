"""Our SQLite saver against LangGraph's: `python -m tests.benchmarks.checkpointers [--quick] [--folder FOLDER]`.

Savers take turns, in an order drawn anew each round, and are compared within a round: what other programs do to the
machine meanwhile hits both. The first round warms up and is not counted. Exits with 1 when a target is missed or could
not be measured. `--quick` goes through everything once, in small, and judges nothing.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.benchmarks import long_history, program, whole_database
from tests.benchmarks.counters import counting_fsyncs
from tests.benchmarks.fan_out import Household, Sample, Workload, together, worker_closes, worker_opens
from tests.benchmarks.long_history import Seconds, Store
from tests.benchmarks.prose import prose
from tests.benchmarks.ratios import Ratio, markdown, percentile, table, turns
from tests.benchmarks.results import machine
from tests.benchmarks.savers import NONE, NONE_SYNC, OFFICIAL, OTHERS, OURS, Saver

PACKAGES = ("langgraph", "langgraph-checkpoint", "langgraph-checkpoint-sqlite", "aiosqlite", "ormsgpack", "zstandard")

RESUMED_WITHIN = 1.5
WHOLE_DATABASE = 2.0

Round = dict[Saver, Sample]


@dataclass(frozen=True, slots=True)
class Trial:
    """A workload, how many rounds of it count, who takes part, and by measure what our ratio may be at most."""

    work: Workload
    rounds: int
    savers: tuple[Saver, ...] = (OURS, OFFICIAL, NONE)
    targets: tuple[tuple[str, float], ...] = ()
    repeats: int = 1
    """How often each saver runs in a round; its run of median CPU counts."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to measure."""

    trials: tuple[Trial, ...]
    few: int
    many: int
    history_rounds: int
    document: int
    documents: int
    judged: bool
    """Whether ratios are held against their targets."""


FULL = Plan(
    trials=(
        Trial(
            Workload(200_000, 50),
            rounds=40,
            targets=(("bytes on disk", 1 / 8), ("fsyncs", 1 / 7), ("saver CPU", 1 / 3)),
            repeats=3,
        ),
        Trial(Workload(2_000_000, 50), rounds=20, targets=(("bytes on disk", 1 / 15),)),
        Trial(
            Workload(200_000, 1000),
            rounds=20,
            targets=(("fsyncs", 1 / 50), ("saver CPU", 1 / 6)),
            repeats=3,
        ),
        Trial(
            Workload(200_000, 50, runs=8),
            rounds=25,
            targets=(("time to durable, p50", 1 / 5), ("time to durable, p99", 1 / 5)),
        ),
        Trial(Workload(200_000, 50), rounds=5, savers=(OURS, OFFICIAL, NONE, NONE_SYNC, *OTHERS)),
        Trial(Workload(10_000, 50), rounds=8),
        Trial(Workload(200_000, 10), rounds=8),
        Trial(Workload(200_000, 10, runs=64), rounds=3),
        Trial(Workload(200_000, 10, runs=4, processes=2), rounds=6),
        Trial(Workload(200_000, 10, runs=4, processes=4), rounds=6),
    ),
    few=100,
    many=100_000,
    history_rounds=30,
    document=1_000_000,
    documents=20,
    judged=True,
)

QUICK = Plan(
    trials=(
        Trial(Workload(10_000, 5), rounds=1, savers=(OURS, OFFICIAL, NONE, NONE_SYNC, *OTHERS)),
        Trial(Workload(10_000, 5, runs=2, processes=2), rounds=1),
    ),
    few=20,
    many=200,
    history_rounds=2,
    document=20_000,
    documents=2,
    judged=False,
)

MEASURES: dict[str, Callable[[Sample, Sample], float | None]] = {
    "bytes on disk": lambda sample, none: sample.disk,
    "bytes written": lambda sample, none: sample.used.written,
    "fsyncs": lambda sample, none: sample.used.fsyncs,
    "saver CPU": lambda sample, none: sample.used.cpu - none.used.cpu,
    "time to durable, p50": lambda sample, none: percentile(sample.durable, 0.5),
    "time to durable, p99": lambda sample, none: percentile(sample.durable, 0.99),
}
"""What is compared, of a sample and of the one without a checkpointer in the same round."""


def run_trial(trial: Trial, folder: Path, chance: random.Random) -> list[Round]:
    """Return what each saver's run cost, a dictionary a round; within a round all have the same documents."""
    work = trial.work
    with TemporaryDirectory(dir=folder) as name, ExitStack() as stack:
        stores = {saver: Path(name) / saver.name for saver in trial.savers}
        for store in stores.values():
            store.mkdir()
        if work.processes == 1:
            household = Household()
            stack.callback(household.close)
            measure = household.measure
        else:
            pools = (ProcessPoolExecutor(1, get_context("spawn")) for _ in range(work.processes))
            workers = [stack.enter_context(pool) for pool in pools]
            for worker in workers:
                stack.callback(_close_in, worker)
                for saver, store in stores.items():  # one at a time: AsyncSqliteSaver's set-up fails beside another's
                    worker.submit(worker_opens, saver.name, store).result()
            measure = partial(together, workers)
        runs = [
            {saver: measure(saver, work, number * 1_000, stores[saver]) for saver in order}
            for number, order in enumerate(turns(trial.savers, (trial.rounds + 1) * trial.repeats, chance))
        ]
    return [middle(runs[start : start + trial.repeats]) for start in range(trial.repeats, len(runs), trial.repeats)]


def middle(runs: Sequence[Round]) -> Round:
    """Return of each saver the run of median CPU."""
    return {
        saver: sorted((each[saver] for each in runs), key=lambda sample: sample.used.cpu)[len(runs) // 2]
        for saver in runs[0]
    }


def _close_in(worker: Executor) -> None:
    worker.submit(worker_closes).result()


def ratios_of(trial: Trial, rounds: Sequence[Round]) -> Iterable[Ratio]:
    """Compare our saver with the official one in every measure."""
    targets = dict(trial.targets)
    for name, measure in MEASURES.items():
        pairs = [(measure(each[OURS], each[NONE]), measure(each[OFFICIAL], each[NONE])) for each in rounds]
        counted = tuple(ours / theirs for ours, theirs in pairs if ours is not None and theirs)
        yield Ratio(f"{trial.work}: {name}", counted, targets.get(name))


def costs_of(trial: Trial, rounds: Sequence[Round]) -> Iterable[tuple[str, ...]]:
    """Return a row a saver: the medians of what one run costs."""
    for saver in trial.savers:
        samples = [each[saver] for each in rounds]
        if saver in (NONE, NONE_SYNC):
            cpu = [sample.used.cpu for sample in samples]
        else:
            none = NONE_SYNC if saver.blocking else NONE
            cpu = [each[saver].used.cpu - each[none].used.cpu for each in rounds]
        yield (
            f"{trial.work}: {saver.name}",
            _median([sample.disk for sample in samples], 1e-3),
            _median([sample.used.written for sample in samples], 1e-3),
            _median([sample.used.fsyncs for sample in samples]),
            _median(cpu, 1e3),
            *(
                _median([percentile(sample.durable, share) if sample.durable else None for sample in samples], 1e3)
                for share in (0.5, 0.99)
            ),
            _median([sample.seconds for sample in samples], 1e3),
        )


def _median(values: Sequence[float | None], unit: float = 1.0) -> str:
    counted = [value * unit for value in values if value is not None]
    return f"{statistics.median(counted):,.1f}" if counted else ""


COSTS = (
    "one run, medians",
    "KB on disk",
    "KB written",
    "fsyncs",
    "CPU ms",
    "p50 ms",
    "p99 ms",
    "wall ms",
)

EXPLAINED = """
Ratios are ours over AsyncSqliteSaver's, or over our own in a small file. Both stores have `synchronous=FULL` and are
open all the while, all runs `durability="sync"`. CPU is that above no checkpointer, or, for no checkpointer, its own;
CPU and bytes include writing the WAL back after every run. Where CPU is judged, each saver runs three times a round and
its run of median CPU counts: what is subtracted is as much as our own cost, with 1,000 branches several times that, and
the noise of one run would decide. p50 and p99 are the time until what a branch returned is durable. Bytes on disk are
what a store that holds earlier runs grew by, for the whole database of `Pipeline` all files.
"""


def compare_histories(plan: Plan, folder: Path, chance: random.Random) -> tuple[list[Ratio], list[tuple[str, ...]]]:
    """Compare reading and resuming in a file with many checkpoints and one with few; rows are medians in ms."""
    few, many = Store(OURS, plan.few), Store(OURS, plan.many)
    theirs = Store(OFFICIAL, plan.few), Store(OFFICIAL, plan.many)
    stores = [few, many, *theirs]
    rounds = asyncio.run(long_history.measure(stores, plan.history_rounds + 1, folder, chance))[1:]
    operations = list(rounds[0][few])

    def compare(what: str, over: Store, under: Store, target: float | None = None) -> Iterable[Ratio]:
        for name in operations:
            pairs = tuple(each[over][name] / each[under][name] for each in rounds)
            yield Ratio(f"{what}: {name}", pairs, target)

    ratios = [
        *compare(f"{plan.many:,} checkpoints over {plan.few}", many, few, RESUMED_WITHIN),
        *compare(f"{plan.many:,} checkpoints over {plan.few}, AsyncSqliteSaver", theirs[1], theirs[0]),
        *compare(f"{plan.many:,} checkpoints", many, theirs[1]),
    ]
    rows = [
        (f"{store.saver.name}, {store.checkpoints:,} checkpoints", *(_of(rounds, store, name) for name in operations))
        for store in stores
    ]
    return ratios, [("time in ms, medians", *operations), *rows]


def _of(rounds: Sequence[dict[Store, Seconds]], store: Store, operation: str) -> str:
    return f"{statistics.median(each[store][operation] for each in rounds) * 1e3:,.2f}"


def compare_databases(plan: Plan, folder: Path) -> Iterable[Ratio]:
    """Compare the database after a document went through `Pipeline` with the document compressed."""
    measured = [whole_database.measure(plan.document, seed, folder) for seed in range(plan.documents)]
    what = f"{plan.document / 1e6:g} MB through Pipeline: whole database over zstd of the text"
    yield Ratio(what, tuple(without for without, _ in measured), WHOLE_DATABASE)
    yield Ratio(f"{what}, raw bytes included", tuple(whole for _, whole in measured))


def benchmark(plan: Plan, folder: Path) -> tuple[bool, str]:
    """Measure everything; returns whether all held, and the report in Markdown."""
    chance = random.Random(0)  # noqa: S311 - shuffles turns
    began = time.monotonic()
    ratios: list[Ratio] = []
    costs: list[tuple[str, ...]] = []
    for trial in plan.trials:
        print(f"{time.monotonic() - began:.0f} s: {trial.work}", file=sys.stderr, flush=True)
        rounds = run_trial(trial, folder, chance)
        ratios += ratios_of(trial, rounds)
        costs += costs_of(trial, rounds)
    print(f"{time.monotonic() - began:.0f} s: {plan.many:,} checkpoints", file=sys.stderr, flush=True)
    found, (operations, *times) = compare_histories(plan, folder, chance)
    print(f"{time.monotonic() - began:.0f} s: Pipeline", file=sys.stderr, flush=True)
    ratios += [*found, *compare_databases(plan, folder)]
    if not plan.judged:
        ratios = [replace(ratio, target=None) for ratio in ratios]
    ratios.sort(key=lambda ratio: ratio.target is None)
    sizes = sorted({trial.work.size for trial in plan.trials} | {plan.document})
    squeezed = ", ".join(
        f"{size / 1000:,g} KB {size / whole_database.compressed(prose(size, 0)):.1f} times" for size in sizes
    )
    report = [
        machine(folder, PACKAGES),
        EXPLAINED.strip(),
        f"The documents compress like prose: under zstd {squeezed}. Took {time.monotonic() - began:.0f} s.",
        table(ratios),
        markdown(COSTS, costs),
        markdown(operations, times),
    ]
    return all(ratio.held is not False for ratio in ratios), "\n\n".join(report)


if __name__ == "__main__":
    counting_fsyncs()
    sys.exit(program.run("Checkpointers", __doc__, benchmark, full=FULL, quick=QUICK))
