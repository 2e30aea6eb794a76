"""The collector's configuration, the alerts and the dashboard in `examples/tracing` name only what exists."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from opentelemetry import metrics as api
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CollectorRegistry

from tidegate.telemetry import metrics, names

FOLDER = Path(__file__).parents[1] / "examples" / "tracing"

# What the components' documentation lists, as far as one of ours could plausibly hold it.
SETTINGS = {
    "receivers": {"otlp": {"protocols"}},
    "processors": {
        "memory_limiter": {"check_interval", "limit_mib", "limit_percentage", "spike_limit_mib"},
        "resource": {"attributes"},
        "deltatocumulative": {"max_stale", "max_streams"},
        "batch": {"timeout", "send_batch_size", "send_batch_max_size"},
    },
    "exporters": {
        "otlp_http": {"endpoint", "headers", "tls", "timeout", "compression", "sending_queue", "retry_on_failure"},
        "prometheus": {"endpoint", "metric_expiration", "const_labels", "enable_open_metrics", "namespace"},
    },
}
SIGNALS = {"traces", "metrics", "logs"}
PROMQL = {"sum", "max", "by", "rate", "increase", "histogram_quantile"}


def component(name: str) -> str:
    return name.partition("/")[0]


def test_the_collectors_pipelines_name_what_is_declared_and_nothing_is_declared_in_vain() -> None:
    configuration: dict[str, Any] = yaml.safe_load((FOLDER / "collector.yaml").read_text())
    pipelines = configuration["service"]["pipelines"]
    assert {component(name) for name in pipelines} <= SIGNALS
    for kind, known in SETTINGS.items():
        declared = configuration[kind]
        assert {name for pipeline in pipelines.values() for name in pipeline[kind]} == set(declared)
        assert {component(name) for name in declared} <= set(known)
        unknown = {(name, key) for name, settings in declared.items() for key in set(settings) - known[component(name)]}
        assert unknown == set()
    assert set(configuration) == {*SETTINGS, "service"}
    protocols = configuration["receivers"]["otlp"]["protocols"]
    assert {(name, key) for name, settings in protocols.items() for key in settings} <= {
        ("http", "endpoint"),
        ("grpc", "endpoint"),
    }


def test_the_collector_listens_on_loopback_unless_told_otherwise() -> None:
    addresses = re.findall(r"endpoint: (\S+)", (FOLDER / "collector.yaml").read_text())
    assert addresses
    assert [
        address for address in addresses if not re.fullmatch(r"\$\{env:\w+:-(http://)?127\.0\.0\.1:\d+\}", address)
    ] == []


def test_the_recipes_configurations_are_yaml() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (FOLDER / "README.md").read_text(), re.DOTALL)
    assert [set(yaml.safe_load(block)) for block in blocks] == [
        {"server", "distributor", "storage"},
        {"rule_files", "scrape_configs"},
    ]


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((FOLDER / "rules.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((FOLDER / "dashboard.json").read_text())["panels"]
    return found


def queries() -> Iterator[str]:
    for rule in rules():
        yield rule["expr"]
    for panel in panels():
        for target in panel["targets"]:
            yield target["expr"]


@pytest.fixture(scope="module")
def series() -> set[str]:
    """The names under which Prometheus has our metrics, by OpenTelemetry's own translation."""
    registry = CollectorRegistry()
    reader = PrometheusMetricReader(registry=registry)
    provider = MeterProvider([reader])
    meter = provider.get_meter(names.SCOPE)
    for instrument in vars(metrics).values():
        name, unit = getattr(instrument, "_name", ""), getattr(instrument, "_unit", "")
        match instrument:
            case api.Counter():
                meter.create_counter(name, unit).add(1)
            case api.Histogram():
                meter.create_histogram(name, unit).record(1)
            case api.ObservableGauge():
                meter.create_observable_gauge(name, [lambda _: [api.Observation(1)]], unit)
            case api._Gauge():
                meter.create_gauge(name, unit).set(1)
            case _:
                pass
    found = {sample.name for family in registry.collect() for sample in family.samples}
    provider.shutdown()
    return found


def labels() -> set[str]:
    attributes = {value for value in vars(names).values() if isinstance(value, str)}
    return {"le", *(re.sub(r"\W", "_", attribute) for attribute in attributes)}


def test_our_metrics_have_the_names_that_prometheus_gives_them(series: set[str]) -> None:
    assert {"tidegate_run_duration_seconds_bucket", "tidegate_retries_total", "gen_ai_client_token_usage_sum"} <= series


@pytest.mark.parametrize("query", [pytest.param(each, id=each[:60]) for each in queries()])
def test_a_query_names_only_metrics_and_labels_that_exist(query: str, series: set[str]) -> None:
    matched = re.findall(r"(\w+) *=~?\"", query)
    grouped = [label for labels in re.findall(r"\bby \(([^)]*)\)", query) for label in labels.split(", ")]
    assert [label for label in (*matched, *grouped) if label not in labels()] == []

    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]|\bby \([^)]*\)", " by ", query)
    words = set(re.findall(r"[a-zA-Z_]\w*", bare)) - PROMQL
    assert words, "asks for no metric"
    assert [word for word in words if word not in series] == []


def test_every_metric_is_on_the_dashboard(series: set[str]) -> None:
    ends = r"_(bucket|count|sum|created)$"
    asked = {re.sub(ends, "", word) for panel in panels() for word in re.findall(r"\w+", json.dumps(panel["targets"]))}
    ours = {re.sub(ends, "", name) for name in series if name.startswith(("tidegate_", "gen_ai_"))}
    assert ours - asked == set()


def test_an_alert_says_what_is_wrong_and_what_helps() -> None:
    for rule in rules():
        assert set(rule["annotations"]) == {"summary", "description"}
        used = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        assert used <= set(re.findall(r"\w+", " ".join(re.findall(r"\bby \(([^)]*)\)", rule["expr"]))))


def test_the_panels_lie_side_by_side() -> None:
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels()]
    assert len(set(places)) == len(places)
    assert len({panel["id"] for panel in panels()}) == len(places)
