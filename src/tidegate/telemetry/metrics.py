"""The instruments. None is ever labelled by thread: a label's values must stay few."""

from __future__ import annotations

from opentelemetry import metrics

from tidegate.telemetry import names

# The SDK's default buckets are made for milliseconds. These are the ones OpenTelemetry's GenAI conventions recommend.
_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)

_meter = metrics.get_meter(names.SCOPE)  # a proxy, until the host sets a meter provider

run_duration = _meter.create_histogram(
    names.RUN_DURATION, "s", "One execution of a thread", explicit_bucket_boundaries_advisory=_SECONDS
)
node_duration = _meter.create_histogram(
    names.NODE_DURATION, "s", "One task of one node", explicit_bucket_boundaries_advisory=_SECONDS
)
checkpoint_duration = _meter.create_histogram(
    names.CHECKPOINT_DURATION, "s", "Saving one checkpoint", explicit_bucket_boundaries_advisory=_SECONDS
)
chat_duration = _meter.create_histogram(
    names.GEN_AI_DURATION, "s", "One request to a chat model", explicit_bucket_boundaries_advisory=_SECONDS
)
chat_tokens = _meter.create_histogram(
    names.GEN_AI_TOKENS, "{token}", "Tokens of one request to a chat model", explicit_bucket_boundaries_advisory=_TOKENS
)
retries = _meter.create_counter(names.RETRIES, "{retry}", "Requests that are to be repeated")
replays = _meter.create_counter(names.REPLAYS, "{call}", "Calls that were answered from the journal")
backfills = _meter.create_counter(names.BACKFILLS, "{thread}", "Threads that a sweep brought forward")
circuit_transitions = _meter.create_counter(names.CIRCUIT_TRANSITIONS, "{transition}", "Changes of a circuit's state")
