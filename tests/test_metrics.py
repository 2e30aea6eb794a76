"""The instruments: what they are called, what their buckets tell apart, and what the gauges show."""

from __future__ import annotations

import gc
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from opentelemetry import metrics as api
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from tidegate import Pipeline
from tidegate.errors import Transient
from tidegate.graph import runner
from tidegate.resilience import breaker
from tidegate.resilience.breaker import Breaker
from tidegate.resilience.circuits import MemoryCircuits
from tidegate.settings import Settings
from tidegate.telemetry import events, metrics, spans
from tidegate.testing import ManualClock

README = Path(__file__).parents[1] / "README.md"


class Meter:
    """The instruments as a host's SDK has them; `instruments` is the module, made anew."""

    def __init__(self, instruments: Any, reader: InMemoryMetricReader) -> None:
        self.instruments, self._reader = instruments, reader

    def read(self) -> dict[str, tuple[str, list[Any]]]:
        """Return unit and points of each metric that has any."""
        data = self._reader.get_metrics_data()
        scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics] if data else []
        return {each.name: (each.unit or "", list(each.data.data_points)) for scope in scopes for each in scope.metrics}

    @property
    def circuits(self) -> dict[str, float]:
        _, points = self.read().get("tidegate.circuit.state", ("", []))
        return {point.attributes["tidegate.circuit.name"]: point.value for point in points}


@pytest.fixture
def meter(monkeypatch: pytest.MonkeyPatch) -> Iterator[Meter]:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    spec = importlib.util.spec_from_file_location("metrics_of_a_host", str(metrics.__file__))
    assert spec is not None
    assert spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    with monkeypatch.context() as patch:
        patch.setattr(api, "get_meter", provider.get_meter)
        spec.loader.exec_module(module)
    monkeypatch.setattr(breaker, "metrics", module)
    yield Meter(module, reader)
    provider.shutdown()


async def fail(circuit: Breaker, times: int = 3) -> None:
    for _ in range(times):
        await (await circuit.permit()).failed(Transient("api", "down"))


async def test_the_readme_lists_each_metric_there_is_with_its_unit_and_kind(meter: Meter) -> None:
    for instrument in (each for each in vars(meter.instruments).values() if isinstance(each, api.Instrument)):
        match instrument:
            case api.Counter():
                instrument.add(1)
            case api.Histogram():
                instrument.record(1)
            case api.ObservableGauge():
                await Breaker("api", MemoryCircuits(ManualClock())).report()
            case _:
                gauge: Any = instrument
                gauge.set(1)
    kept = Breaker("api", MemoryCircuits(ManualClock()))
    await kept.report()
    kinds = {"Histogram": "histogram", "Sum": "counter", "Gauge": "gauge"}
    data = meter._reader.get_metrics_data()
    assert data is not None
    found = [each for resource in data.resource_metrics for scope in resource.scope_metrics for each in scope.metrics]
    table = README.read_text().partition("<!-- metrics -->")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| `([^`]+)` \| (\S+) \|.*\| (\w+)[:,] [^|]+\|$", table, re.MULTILINE)
    assert len(rows) == table.strip().count("\n") - 1
    assert sorted(rows) == sorted((each.name, each.unit, kinds[type(each.data).__name__]) for each in found)


def test_buckets_tell_apart_what_happens_in_practice(meter: Meter) -> None:
    instruments = meter.instruments
    practice = {
        instruments.run_duration: (0.2, 2.0, 20.0, 200.0, 2000.0),  # an outage is in it
        instruments.node_duration: (0.002, 0.02, 0.2, 2.0, 20.0, 200.0),  # from a gate to a thousand look-ups
        instruments.checkpoint_duration: (0.0007, 0.002, 0.02, 0.2, 2.0),
        instruments.chat_duration: (0.1, 1.0, 4.0, 30.0),
    }
    for histogram, seconds in practice.items():
        for each in seconds:
            histogram.record(each)
    for _, [point] in meter.read().values():
        assert set(point.bucket_counts) <= {0, 1}, point


async def test_a_circuit_is_shown_as_it_was_seen_last(meter: Meter) -> None:
    clock = ManualClock()
    circuit = Breaker("api", MemoryCircuits(clock), reset_timeout=30.0, clock=clock)
    assert meter.circuits == {}
    await circuit.report()
    assert meter.circuits == {"api": 0}
    await fail(circuit)
    assert meter.circuits == {"api": 2}
    clock.advance(30.0)
    assert meter.circuits == {"api": 2}, "nobody has looked since"
    await circuit.report()
    assert meter.circuits == {"api": 1}
    await (await circuit.permit()).succeeded()
    assert meter.circuits == {"api": 0}


async def test_what_another_breaker_of_the_circuit_did_is_shown_when_this_one_looks(meter: Meter) -> None:
    clock = ManualClock()
    circuits = MemoryCircuits(clock)
    mine, theirs = (Breaker("api", circuits, clock=clock) for _ in range(2))
    await theirs.report()
    await fail(mine)
    assert meter.circuits == {"api": 2}, "they are one series"
    clock.advance(30.0)
    await theirs.report()
    assert meter.circuits == {"api": 1}


async def test_a_breaker_that_is_gone_is_shown_no_more_and_not_kept_alive(meter: Meter) -> None:
    other, circuit = Breaker("other", MemoryCircuits(ManualClock())), Breaker("api", MemoryCircuits(ManualClock()))
    await other.report()
    await circuit.report()
    assert meter.circuits == {"other": 0, "api": 0}
    del circuit
    gc.collect()
    assert meter.circuits == {"other": 0}


def points_of(meter: Meter, name: str, label: str) -> dict[str, float]:
    counted: dict[str, float] = {}
    for point in meter.read().get(name, ("", []))[1]:
        counted[point.attributes[label]] = counted.get(point.attributes[label], 0) + point.value
    return counted


async def test_what_alerts_are_about_is_counted_from_zero_on(meter: Meter, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (runner, spans, events):
        monkeypatch.setattr(module, "metrics", meter.instruments)
    async with Pipeline.open(Settings.read(checkpoints="memory:")) as pipeline:
        assert points_of(meter, "tidegate.circuit.transitions", "tidegate.circuit.name") == {"enrichment": 0}
        assert points_of(meter, "tidegate.retries", "error.type") == {"Transient": 0, "RateLimited": 0}
        before = points_of(meter, "tidegate.runs", "tidegate.outcome")
        assert before["degraded"] == before["failed"] == before["complete"] == 0
        await pipeline.run(text="nothing here")
        assert points_of(meter, "tidegate.runs", "tidegate.outcome") == {**before, "complete": 1}
