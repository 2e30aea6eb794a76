"""The names of spans, events, attributes and metrics.

`gen_ai.*`, `http.*`, `url.*`, `server.*` and `error.*` are OpenTelemetry's semantic conventions, written out
because the constants of its package are deprecated and move between releases.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Final

SCOPE: Final = "tidegate"
"""The instrumentation scope of every span, metric and log record."""

VERSION: Final = version("tidegate")

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.41.0"
"""The conventions that the names below are of: the last ones that had those for GenAI among them."""

TRACEPARENT: Final = "tidegate_traceparent"
"""The key of `config["configurable"]` for the execution's W3C traceparent; LangGraph stores it with each checkpoint."""

THREAD_KEY: Final = "tidegate-thread"
NODE_KEY: Final = "tidegate-node"
"""Keys of OpenTelemetry's context for the thread and the node that are being run."""

# spans
RUN: Final = "invoke_workflow tidegate"
RUN_STARTED: Final = "run started"
NODE: Final = "invoke_node"
CHAT: Final = "chat"
CHECKPOINT_PUT: Final = "checkpoint put"

# events
CALL_REPLAYED: Final = "tidegate.call.replayed"
RETRY_REFUSED: Final = "tidegate.retry.refused"
RETRY_SCHEDULED: Final = "tidegate.retry.scheduled"
EXCEPTION: Final = "exception"
CIRCUIT_CHANGED: Final = "tidegate.circuit.state_changed"

# attributes of OpenTelemetry's semantic conventions
EXCEPTION_MESSAGE: Final = "exception.message"
EXCEPTION_TYPE: Final = "exception.type"
ERROR_TYPE: Final = "error.type"
GEN_AI_CONVERSATION_ID: Final = "gen_ai.conversation.id"
GEN_AI_INPUT: Final = "gen_ai.input.messages"
GEN_AI_OPERATION: Final = "gen_ai.operation.name"
GEN_AI_OUTPUT: Final = "gen_ai.output.messages"
GEN_AI_PROVIDER: Final = "gen_ai.provider.name"
GEN_AI_REQUEST_MODEL: Final = "gen_ai.request.model"
GEN_AI_RESPONSE_FINISH: Final = "gen_ai.response.finish_reasons"
GEN_AI_RESPONSE_ID: Final = "gen_ai.response.id"
GEN_AI_RESPONSE_MODEL: Final = "gen_ai.response.model"
GEN_AI_TOKEN_TYPE: Final = "gen_ai.token.type"  # noqa: S105 - the word, not a secret
GEN_AI_USAGE_INPUT: Final = "gen_ai.usage.input_tokens"
GEN_AI_USAGE_OUTPUT: Final = "gen_ai.usage.output_tokens"
GEN_AI_WORKFLOW: Final = "gen_ai.workflow.name"
HTTP_METHOD: Final = "http.request.method"
HTTP_RESEND_COUNT: Final = "http.request.resend_count"
HTTP_STATUS: Final = "http.response.status_code"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
SESSION_ID: Final = "session.id"
URL_FULL: Final = "url.full"
OPENINFERENCE_INPUT: Final = "input.value"
OPENINFERENCE_KIND: Final = "openinference.span.kind"
OPENINFERENCE_OUTPUT: Final = "output.value"

# attributes of our own
ATTEMPT: Final = "tidegate.attempt"
BACKFILL: Final = "tidegate.run.backfill"
CALL_OPERATION: Final = "tidegate.call.operation"
CALL_SERVICE: Final = "tidegate.call.service"
CHECKPOINT_BYTES: Final = "tidegate.checkpoint.bytes"
CHECKPOINT_ID: Final = "tidegate.checkpoint.id"
CHECKPOINT_SOURCE: Final = "tidegate.checkpoint.source"
CHECKPOINT_STEP: Final = "tidegate.checkpoint.step"
CIRCUIT_FROM: Final = "tidegate.circuit.from"
CIRCUIT_NAME: Final = "tidegate.circuit.name"
CIRCUIT_REASON: Final = "tidegate.circuit.reason"
CIRCUIT_TO: Final = "tidegate.circuit.to"
DELIVERY_OUTCOME: Final = "tidegate.delivery.outcome"
SINK: Final = "tidegate.sink.name"
MISSING: Final = "tidegate.run.missing"
NODE_ATTEMPT: Final = "tidegate.node.attempt"
NODE_INTERRUPTED: Final = "tidegate.node.interrupted"
NODE_NAME: Final = "tidegate.node.name"
OUTCOME: Final = "tidegate.outcome"
RESUMED: Final = "tidegate.run.resumed"
RESUMED_FROM: Final = "tidegate.resumed_from.trace_id"
RETRY_ATTEMPT: Final = "tidegate.retry.attempt"
RETRY_DELAY: Final = "tidegate.retry.delay"
RETRY_REASON: Final = "tidegate.retry.reason"
REVISION: Final = "tidegate.run.revision"
ROUTE: Final = "tidegate.route"
ROUTE_REASON: Final = "tidegate.route.reason"
TASK_ID: Final = "tidegate.task.id"

# metrics
BACKFILLS: Final = "tidegate.backfills"
CHECKPOINT_DURATION: Final = "tidegate.checkpoint.duration"
CIRCUIT_STATE: Final = "tidegate.circuit.state"
CIRCUIT_TRANSITIONS: Final = "tidegate.circuit.transitions"
DELIVERIES: Final = "tidegate.deliveries"
DELIVERIES_GIVEN_UP: Final = "tidegate.deliveries.given_up"
DELIVERIES_WAITING: Final = "tidegate.deliveries.waiting"
GEN_AI_DURATION: Final = "gen_ai.client.operation.duration"
GEN_AI_TOKENS: Final = "gen_ai.client.token.usage"
NODE_DURATION: Final = "tidegate.node.duration"
REPLAYS: Final = "tidegate.replays"
RETRIES: Final = "tidegate.retries"
RUNS: Final = "tidegate.runs"
RUN_DURATION: Final = "tidegate.run.duration"
THREADS_DEAD: Final = "tidegate.threads.dead"
THREADS_QUEUED: Final = "tidegate.threads.queued"
UNFINISHED_OLDEST: Final = "tidegate.threads.unfinished.oldest"
