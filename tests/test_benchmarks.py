"""The benchmarks' statistics, and that the benchmarks run."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from tests.benchmarks.checkpointers import middle
from tests.benchmarks.collected import Collected, collected
from tests.benchmarks.counters import Usage
from tests.benchmarks.fan_out import Sample
from tests.benchmarks.prose import prose
from tests.benchmarks.ratios import MIN_PAIRS, Ratio, percentile, table, turns, upper_bound
from tests.benchmarks.results import write_section
from tests.benchmarks.savers import NONE, OURS
from tests.benchmarks.whole_database import compressed

ROOT = Path(__file__).parents[1]


def noisy(around: float, count: int, seed: int = 1) -> tuple[float, ...]:
    chance = random.Random(seed)  # noqa: S311 - a noisy machine
    return tuple(around * chance.lognormvariate(0, 0.3) for _ in range(count))


def test_the_upper_bound_lies_where_the_ranks_of_the_sample_say() -> None:
    # That 14 or more of 20 values lie below the median has 5.8 % probability, 15 or more 2.1 %: between them is 95 %.
    for seed in range(20):
        ranks = sorted(noisy(1.0, 20, seed))
        assert ranks[12] <= upper_bound(ranks) <= ranks[14]


def test_the_upper_bound_exceeds_the_true_median_about_nineteen_times_in_twenty() -> None:
    samples = [noisy(1.0, 21, seed) for seed in range(40)]
    assert sum(upper_bound(sample) >= 1.0 for sample in samples) >= 36
    assert sum(upper_bound(sample, confidence=0.5) >= 1.0 for sample in samples) < 30


def test_one_pair_that_another_program_spoilt_changes_no_verdict() -> None:
    pairs = noisy(0.1, 20)
    assert upper_bound((*pairs, 1e9)) < 2 * upper_bound(pairs)
    assert upper_bound((*pairs, -5.0)) <= upper_bound(pairs)


def test_equal_measurements_give_equal_bounds() -> None:
    samples = [noisy(1.0, 20, seed) for seed in range(10)]
    assert [upper_bound(sample) for sample in samples] == [upper_bound(sample) for sample in samples]
    assert upper_bound([0.25] * 20) == 0.25


@pytest.mark.parametrize(
    ("pairs", "target", "held"),
    [
        ([0.1] * MIN_PAIRS, 0.125, True),
        ([0.125] * MIN_PAIRS, 0.125, True),
        ([0.1] * 11 + [0.2] * 9, 0.125, False),
        ([0.1] * (MIN_PAIRS - 1), 0.125, False),
        ([], 0.125, False),
        ([0.1], None, None),
    ],
    ids=["within", "exactly", "median within but not its bound", "too few pairs", "not counted", "no target"],
)
def test_a_target_is_held_by_the_bound_of_enough_pairs(
    pairs: list[float], target: float | None, held: bool | None
) -> None:
    assert Ratio("fsyncs", tuple(pairs), target).held is held


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert percentile(values, 0.5) == 3.0
    assert percentile(values, 0.99) == 5.0
    assert percentile(values, 0.0) == 1.0
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def test_every_contender_has_a_turn_each_round_in_no_fixed_order() -> None:
    rounds = list(turns("abc", 30, random.Random(1)))  # noqa: S311
    assert all(sorted(each) == ["a", "b", "c"] for each in rounds)
    assert len({tuple(each) for each in rounds}) == 6


def test_of_the_runs_of_a_round_each_saver_has_its_median_one_counted() -> None:
    def run(cpu: float) -> Sample:
        return Sample(disk=cpu, used=Usage(cpu, None, None), seconds=1.0, durable=())

    rounds = [{OURS: run(ours), NONE: run(none)} for ours, none in ((9.0, 1.0), (2.0, 3.0), (4.0, 2.0))]
    assert middle(rounds) == {OURS: run(4.0), NONE: run(2.0)}
    assert middle(rounds[:1]) == rounds[0]


def test_a_table_says_what_was_held_missed_or_not_counted() -> None:
    shown = table([Ratio("a", (0.1,) * 20, 0.125), Ratio("b", (0.2,) * 20, 0.125), Ratio("c", (), 0.125)])
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in shown.splitlines()[2:]]
    assert rows == [
        ["a", "1/8.0", "1/10.0", "1/10.0", "20", "yes"],
        ["b", "1/8.0", "1/5.0", "1/5.0", "20", "**no**"],
        ["c", "1/8.0", "not counted", "", "0", "**no**"],
    ]


def test_a_section_of_the_results_takes_the_place_of_its_former_self(tmp_path: Path) -> None:
    results = tmp_path / "RESULTS.md"
    write_section("One", "first\n", results)
    write_section("Two", "other\n", results)
    write_section("One", r"second \1", results)
    assert results.read_text().partition("\n\n## ")[2] == "One\n\nsecond \\1\n\n## Two\n\nother\n"


def test_prose_differs_by_seed_and_compresses_as_prose_does() -> None:
    text = prose(100_000, 1)
    assert text == prose(100_000, 1) != prose(100_000, 2)
    assert len(text) == len(text.encode()) == 100_000
    assert (
        2.5 < len(text) / compressed(text) < 4
    )  # an encyclopedia article: 2.7; it varies with this repository's texts
    both = compressed(text + prose(100_000, 2))
    assert both > 1.8 * compressed(text), "one document must not be a part of another"


@pytest.mark.slow
def test_the_benchmark_of_checkpointers_runs_all_its_code() -> None:
    command = [sys.executable, "-m", "tests.benchmarks.checkpointers", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for measure in ("bytes on disk", "fsyncs", "saver CPU", "resume", "whole database"):
        assert measure in done.stdout


@pytest.mark.slow
def test_the_benchmark_of_resilience_runs_all_its_code() -> None:
    command = [sys.executable, "-m", "tests.benchmarks.resilience", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for measure in ("permit and success", "guard over bare call", "probes admitted", "look-ups", "503, 0.5 s"):
        assert measure in done.stdout


@pytest.mark.slow
def test_the_benchmark_of_telemetry_runs_all_its_code() -> None:
    command = [sys.executable, "-m", "tests.benchmarks.telemetry", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = {row[0].split(" (")[0]: row for row in _rows(done.stdout) if len(row) == 7}
    for contender in ("SDK, batch export", "everything: content and logs too", "OpenInference", "OpenLLMetry"):
        spans, traces, orphans, leaked = (float(cell) for cell in rows[contender][3:])
        assert spans > 20
        assert (traces, orphans) == (1, 0)
        assert (leaked == 0) == (contender == "SDK, batch export")


def _rows(markdown: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines() if "|" in line]


def test_what_a_collector_got_is_counted() -> None:
    def span(name: str, trace: bytes, own: bytes, parent: bytes = b"") -> Span:
        return Span(name=name, trace_id=trace, span_id=own, parent_span_id=parent)

    found = [span("run", b"1", b"a"), span("node", b"1", b"b", b"a"), span("salt", b"2", b"c", b"a")]
    traces = ExportTraceServiceRequest(resource_spans=[ResourceSpans(scope_spans=[ScopeSpans(spans=found)])])
    bodies = [("/v1/traces", traces.SerializeToString()), ("/v1/metrics", b"salt"), ("/v1/logs", b"nothing")]
    assert collected(bodies, "salt") == Collected(spans=3, traces=2, orphans=1, leaked=2)
