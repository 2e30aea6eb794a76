"""The instruments. None is ever labelled by thread: a label's values must stay few."""

from __future__ import annotations

from collections.abc import Iterable
from threading import Lock
from typing import Final, Literal
from weakref import WeakKeyDictionary

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

from tidegate.telemetry import names

# The SDK's default buckets are made for milliseconds. An execution goes on through outages, a checkpoint takes as long
# as an fsync; those of requests and tokens are the ones OpenTelemetry's GenAI conventions recommend.
_RUNS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
_NODES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_CHECKPOINTS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_REQUESTS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)

_STATES: Final = {"closed": 0, "half_open": 1, "open": 2}
_circuits: WeakKeyDictionary[object, tuple[str, int]] = WeakKeyDictionary()  # the one that changed last is last
_lock = Lock()  # a meter provider reads in a thread of its own


def circuit_seen(breaker: object, name: str, state: Literal["closed", "half_open", "open"]) -> None:
    """Remember, for as long as the breaker is there, what it saw its circuit become."""
    with _lock:
        _circuits.pop(breaker, None)
        _circuits[breaker] = name, _STATES[state]


def _circuit_states(_: CallbackOptions) -> Iterable[Observation]:
    with _lock:
        last = dict(_circuits.values())  # of breakers of one name, the last word
    return [Observation(state, {names.CIRCUIT_NAME: name}) for name, state in last.items()]


# A proxy, until the host sets a meter provider.
_meter = metrics.get_meter(names.SCOPE, names.VERSION, schema_url=names.SCHEMA_URL)

run_duration = _meter.create_histogram(
    names.RUN_DURATION, "s", "One execution of a thread", explicit_bucket_boundaries_advisory=_RUNS
)
node_duration = _meter.create_histogram(
    names.NODE_DURATION, "s", "One task of one node", explicit_bucket_boundaries_advisory=_NODES
)
checkpoint_duration = _meter.create_histogram(
    names.CHECKPOINT_DURATION, "s", "Saving one checkpoint", explicit_bucket_boundaries_advisory=_CHECKPOINTS
)
chat_duration = _meter.create_histogram(
    names.GEN_AI_DURATION, "s", "One request to a chat model", explicit_bucket_boundaries_advisory=_REQUESTS
)
chat_tokens = _meter.create_histogram(
    names.GEN_AI_TOKENS, "{token}", "Tokens of one request to a chat model", explicit_bucket_boundaries_advisory=_TOKENS
)
runs = _meter.create_counter(names.RUNS, "{run}", "Executions of threads, by outcome")
retries = _meter.create_counter(names.RETRIES, "{retry}", "Requests that are to be repeated")
replays = _meter.create_counter(names.REPLAYS, "{call}", "Calls that were answered from the journal")
backfills = _meter.create_counter(names.BACKFILLS, "{thread}", "Threads that a sweep brought forward")
circuit_transitions = _meter.create_counter(names.CIRCUIT_TRANSITIONS, "{transition}", "Changes of a circuit's state")
circuit_state = _meter.create_observable_gauge(
    names.CIRCUIT_STATE,
    [_circuit_states],
    "{state}",
    "A circuit as this process saw it last: 0 closed, 1 half-open, 2 open",
)
unfinished_oldest = _meter.create_gauge(
    names.UNFINISHED_OLDEST, "s", "For how long nothing was heard of the unfinished thread that is silent the longest"
)
threads_queued = _meter.create_gauge(names.THREADS_QUEUED, "{thread}", "Threads that wait to be begun")
threads_dead = _meter.create_gauge(names.THREADS_DEAD, "{thread}", "Threads that were given up")
deliveries = _meter.create_counter(
    names.DELIVERIES, "{delivery}", "Deliveries of results to sinks: delivered, failed or given_up"
)
deliveries_waiting = _meter.create_gauge(
    names.DELIVERIES_WAITING, "{delivery}", "Results that are still to be delivered, by sink"
)
deliveries_given_up = _meter.create_gauge(
    names.DELIVERIES_GIVEN_UP, "{delivery}", "Results that were given up, by sink"
)


_OUTCOMES: Final = ("complete", "degraded", "waiting", "unfinished", "failed", "cancelled")
_REPEATED: Final = ("Transient", "RateLimited")


def begin(circuits: Iterable[str]) -> None:
    """Count zero of what alerts are about: Prometheus sees no increase in a series that begins with 1."""
    for outcome in _OUTCOMES:
        runs.add(0, {names.OUTCOME: outcome})
    for error_type in _REPEATED:
        retries.add(0, {names.ERROR_TYPE: error_type})
    for name in circuits:
        for from_ in ("closed", "half_open"):
            change = {names.CIRCUIT_NAME: name, names.CIRCUIT_FROM: from_, names.CIRCUIT_TO: "open"}
            circuit_transitions.add(0, change)
