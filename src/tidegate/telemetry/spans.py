"""The spans: one execution of a thread, and in it its nodes, HTTP requests, requests to chat models and checkpoints."""

from __future__ import annotations

import asyncio
import functools
import json
import re
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextvars import Token
from types import MappingProxyType, TracebackType
from typing import Any, ClassVar, ParamSpec, Self, TypeGuard, TypeVar
from urllib.parse import SplitResult, urlsplit

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.metrics import Histogram
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode
from opentelemetry.util.types import AttributeValue

from tidegate.telemetry import content, metrics, names, traceparent

_Arguments = ParamSpec("_Arguments")
_Value = TypeVar("_Value")

# A proxy, until the host sets a tracer provider.
_tracer = trace.get_tracer(names.SCOPE, names.VERSION, schema_url=names.SCHEMA_URL)
_RECORDED = context.create_key("tidegate-recorded")
"""Whether somebody records the execution that the current context is part of; not there outside of one."""
_HTTP_ERROR = 400
_ROLES = {"human": "user", "ai": "assistant"}  # LangChain's words, and those of the conventions
_PORTS = {"http": 80, "https": 443}
_WORD = re.compile(r"[!-~]{1,200}")


class Operation:
    """A span that is current inside its `with` block.

    The block may hold `await`, but no `yield` of an async generator: the span would stay current in its consumer.
    An exception that leaves the block marks the span with the name of its class and nothing else, since messages
    quote documents; with it too only where `tidegate.telemetry.content` is told to record such.
    """

    __slots__ = ("_began", "_context", "_error", "_labels", "_span", "_token")
    kind: ClassVar[SpanKind] = SpanKind.INTERNAL
    duration: ClassVar[Histogram | None] = None

    def __init__(
        self, span: Span, inside: Context | None = None, labels: dict[str, AttributeValue] | None = None
    ) -> None:
        """Take a span that was started, and what is to be current in the block; None for what is current already.

        `labels` are the attributes of the operation's metric, and must have few values.
        """
        self._labels = {} if labels is None else labels
        self._error: str | None = None
        self._token: Token[Context] | None = None
        self._span = span
        self._context = inside
        self._began = time.perf_counter()

    @classmethod
    def start(
        cls,
        name: str,
        attributes: Mapping[str, AttributeValue],
        *,
        labels: dict[str, AttributeValue] | None = None,
        parent: Context | None = None,
        links: tuple[Link, ...] = (),
        within: Mapping[str, object] | None = None,
    ) -> Self:
        """Start the span; `within` is added to the context of what runs inside, such as what its log records tell."""
        span = _tracer.start_span(name, parent, cls.kind, attributes, links)
        inside = parent
        is_new = span is not trace.get_current_span(parent)  # if not, no tracer is there: it is the span around
        if is_new or within:
            around = context.get_current() if parent is None else parent
            inside = Context({**around, _RECORDED: True, **(within or {})})
            if is_new:
                inside = trace.set_span_in_context(span, inside)
        return cls(span, inside, labels)

    @classmethod
    def skip(
        cls,
        around: Context,
        *,
        labels: dict[str, AttributeValue] | None = None,
        within: Mapping[str, object] | None = None,
    ) -> Self:
        """Do without the span, in the current context `around`, of an execution that nobody records."""
        return cls(trace.INVALID_SPAN, Context({**around, **within}) if within else None, labels)

    def __enter__(self) -> Self:
        if self._context is not None:
            self._token = context.attach(self._context)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._token is not None:
            context.detach(self._token)
        if error is not None:
            self.failed(error)
        self.end()

    def failed(self, error: BaseException | str) -> None:
        """Mark the operation as failed by an exception, or by a word of few values such as a status; the first counts.

        An exception by which LangGraph steers the graph is no failure.
        """
        if self._error is not None or (not isinstance(error, str) and is_control_flow(error)):
            return
        self._error = error if isinstance(error, str) else type(error).__name__
        if not isinstance(error, str) and self._span.is_recording() and content.is_wanted():
            told = {names.EXCEPTION_TYPE: self._error, names.EXCEPTION_MESSAGE: content.message_of(error)}
            self._span.add_event(names.EXCEPTION, told)
        self._span.set_attribute(names.ERROR_TYPE, self._error)
        self._span.set_status(Status(StatusCode.ERROR))

    def end(self) -> None:
        """End the span; a `with` block does so by itself."""
        if self.duration is not None:
            labels = self._labels if self._error is None else {**self._labels, names.ERROR_TYPE: self._error}
            self.duration.record(time.perf_counter() - self._began, labels, self._context)
        self._span.end()


class Run(Operation):
    """One execution of a thread."""

    __slots__ = ()
    duration = metrics.run_duration

    def tell_started(self, thread_id: str) -> None:
        """End a span without length: what shows that an execution goes on, or that its process was killed."""
        if self._span.is_recording():
            known = {names.GEN_AI_CONVERSATION_ID: thread_id, names.SESSION_ID: thread_id}
            _tracer.start_span(names.RUN_STARTED, self._context, attributes=known).end()

    @property
    def traceparent(self) -> str | None:
        """This span in W3C form, for `config["configurable"][names.TRACEPARENT]`; None where nobody traces."""
        return traceparent.write(self._span.get_span_context())

    def backfill(self) -> None:
        """Record that the thread was published before, and that this execution is after what it lacks."""
        self._span.set_attribute(names.BACKFILL, True)

    def outcome(self, status: str, *, revision: int | None = None, missing: int | None = None) -> None:
        """Record how the execution ended: the thread's status, or `failed` or `cancelled`.

        `revision` is what is published by now, and `missing` how many things that lacks.
        """
        self._span.set_attribute(names.OUTCOME, status)
        if revision is not None and missing is not None:
            self._span.set_attributes({names.REVISION: revision, names.MISSING: missing})
        self._labels[names.OUTCOME] = status

    def end(self) -> None:
        """End the span, and count the execution."""
        metrics.runs.add(1, {names.OUTCOME: self._labels.get(names.OUTCOME, "unfinished")})
        super().end()

    def failed(self, error: BaseException | str) -> None:
        """Mark the execution as failed, or as cancelled: whoever left it early knows why, and may resume it."""
        if isinstance(error, asyncio.CancelledError):
            self.outcome("cancelled")
            return
        if isinstance(error, str) or not is_control_flow(error):
            self.outcome("failed")
        super().failed(error)


class Node(Operation):
    """One task of one node."""

    __slots__ = ()
    duration = metrics.node_duration

    def failed(self, error: BaseException | str) -> None:
        """Mark the task as failed, or as interrupted if LangGraph's own control flow ended it."""
        if not isinstance(error, str) and is_control_flow(error):
            self._span.set_attribute(names.NODE_INTERRUPTED, True)
        super().failed(error)


class HttpCall(Operation):
    """One HTTP request."""

    __slots__ = ()
    kind = SpanKind.CLIENT

    def status(self, code: int) -> None:
        """Record the status of the answer; 400 and above is an error of that number."""
        self._span.set_attribute(names.HTTP_STATUS, code)
        if code >= _HTTP_ERROR:
            self.failed(str(code))


class Chat(Operation):
    """One request to a chat model."""

    __slots__ = ()
    kind = SpanKind.CLIENT
    duration = metrics.chat_duration

    def content(self, messages: Sequence[tuple[str, str]], answer: str, *, finish: str = "") -> None:
        """Record prompt and answer where that is wanted; each of the `messages` is a role and a text.

        `finish` is why the model stopped, in its provider's word; `stop` where that says nothing.
        """
        if not (self._span.is_recording() and content.is_wanted()):
            return
        prompt, said = [(role, content.shown(text)) for role, text in messages], content.shown(answer)
        self._span.set_attributes(
            {
                names.GEN_AI_INPUT: json.dumps([_message(role, text) for role, text in prompt], ensure_ascii=False),
                names.GEN_AI_OUTPUT: json.dumps(
                    [{**_message("assistant", said), "finish_reason": finish or "stop"}], ensure_ascii=False
                ),
                names.OPENINFERENCE_INPUT: "\n\n".join(text for _, text in prompt),
                names.OPENINFERENCE_OUTPUT: said,
            }
        )

    def answered(self, *, model: object, response_id: object, finish: object) -> None:
        """Record what the provider says of its answer, as far as it does: by which model, under which ID, why it ended.

        What is no word of visible ASCII characters is left out: these come from outside.
        """
        if not self._span.is_recording():
            return
        told = {names.GEN_AI_RESPONSE_MODEL: model, names.GEN_AI_RESPONSE_ID: response_id}
        words: dict[str, AttributeValue] = {name: word for name, word in told.items() if _is_word(word)}
        if _is_word(finish):
            words[names.GEN_AI_RESPONSE_FINISH] = (finish,)
        self._span.set_attributes(words)

    def usage(self, input_tokens: int, output_tokens: int) -> None:
        """Record the tokens as the provider counted them."""
        self._span.set_attributes({names.GEN_AI_USAGE_INPUT: input_tokens, names.GEN_AI_USAGE_OUTPUT: output_tokens})
        for kind, count in (("input", input_tokens), ("output", output_tokens)):
            metrics.chat_tokens.record(count, {**self._labels, names.GEN_AI_TOKEN_TYPE: kind}, self._context)


class CheckpointPut(Operation):
    """One checkpoint being saved."""

    __slots__ = ()
    duration = metrics.checkpoint_duration

    def size(self, size: int) -> None:
        """Record the bytes that were written."""
        self._span.set_attribute(names.CHECKPOINT_BYTES, size)


def run(thread_id: str, *, resumed: bool, resumed_from: str | None = None) -> Run:
    """Open the span of one execution, and end one in it at once: a span is sent when it ends, which may be in an hour.

    `resumed_from` is the traceparent of the execution before, as the last checkpoint holds it: the two are linked.
    """
    attributes: dict[str, AttributeValue] = {
        names.GEN_AI_OPERATION: "invoke_workflow",
        names.GEN_AI_WORKFLOW: "tidegate",
        names.GEN_AI_CONVERSATION_ID: thread_id,
        names.SESSION_ID: thread_id,
        names.OPENINFERENCE_KIND: "CHAIN",
        names.RESUMED: resumed,
    }
    links: tuple[Link, ...] = ()
    if (before := traceparent.read(resumed_from)) is not None:
        attributes[names.RESUMED_FROM] = trace.format_trace_id(before.trace_id)  # for viewers that drop links
        links = (Link(before),)
    within = {_RECORDED: _is_recorded(), names.THREAD_KEY: thread_id}
    opened = Run.start(names.RUN, attributes, labels={names.RESUMED: resumed}, links=links, within=within)
    opened.tell_started(thread_id)
    return opened


def node(name: str, *, attempt: int = 1, task_id: str | None = None, parent: str | None = None) -> Node:
    """Open the span of one task; `attempt` counts from 1.

    `parent`, a traceparent, is the span's parent where the current context did not inherit the execution's span.
    """
    labels: dict[str, AttributeValue] = {names.NODE_NAME: name}
    within = {names.NODE_KEY: name}
    if (around := _unrecorded()) is not None:
        return Node.skip(around, labels=labels, within=within)
    attributes: dict[str, AttributeValue] = {
        names.NODE_NAME: name,
        names.NODE_ATTEMPT: attempt,
        names.OPENINFERENCE_KIND: "CHAIN",
    }
    if task_id is not None:
        attributes[names.TASK_ID] = task_id
    return Node.start(f"{names.NODE} {name}", attributes, labels=labels, parent=_parent(parent), within=within)


def http_call(method: str, url: str, *, attempt: int, within: Mapping[str, object] | None = None) -> HttpCall:
    """Open the span of one request; `attempt` counts from 1, `within` is added to the context of what runs inside.

    The query and credentials are left out of the address. Its path is not: pass none that holds text of the document.
    """
    if (around := _unrecorded()) is not None:
        return HttpCall.skip(around, within=within)
    attributes: dict[str, AttributeValue] = {names.HTTP_METHOD: method, **_address(url)}
    if attempt > 1:
        attributes[names.HTTP_RESEND_COUNT] = attempt - 1
    return HttpCall.start(method, attributes, within=within)


def chat(
    model: str, provider: str, *, attempt: int, server: Mapping[str, AttributeValue] = MappingProxyType({})
) -> Chat:
    """Open the span of one request to a chat model; `attempt` counts from 1, `server` is from `server_of`."""
    labels: dict[str, AttributeValue] = {
        names.GEN_AI_OPERATION: "chat",
        names.GEN_AI_PROVIDER: provider,
        names.GEN_AI_REQUEST_MODEL: model,
    }
    attributes: dict[str, AttributeValue] = {
        **labels,
        **server,
        names.ATTEMPT: attempt,
        names.OPENINFERENCE_KIND: "LLM",
    }
    return Chat.start(f"{names.CHAT} {model}", attributes, labels=labels)


def checkpoint_put(checkpoint_id: str, step: int, source: str, *, parent: str | None = None) -> CheckpointPut:
    """Open the span of one checkpoint being saved; `step` and `source` are its metadata's, `parent` as for a node."""
    if (around := _unrecorded()) is not None:
        return CheckpointPut.skip(around)
    attributes: dict[str, AttributeValue] = {
        names.CHECKPOINT_ID: checkpoint_id,
        names.CHECKPOINT_STEP: step,
        names.CHECKPOINT_SOURCE: source,
    }
    return CheckpointPut.start(names.CHECKPOINT_PUT, attributes, parent=_parent(parent))


def traced(name: str, fn: Callable[_Arguments, Awaitable[_Value]]) -> Callable[_Arguments, Coroutine[Any, Any, _Value]]:
    """Wrap a node's function in its span, with the task and the attempt that LangGraph is running.

    The wrapper shows `fn`'s signature, from which LangGraph learns the state's schema and what to pass.
    """
    from langgraph.config import get_config  # here, because it is heavy and whoever builds a graph has it loaded
    from langgraph.runtime import get_runtime

    def task() -> Node:
        if _unrecorded() is not None:
            return node(name)
        task_id, attempt, parent = None, 1, None
        try:
            parent = get_config().get("configurable", {}).get(names.TRACEPARENT)
            info = getattr(get_runtime(), "execution_info", None)
        except RuntimeError:  # called by hand, outside of a graph
            info = None
        if info is not None:
            task_id, attempt = info.task_id, info.node_attempt
        return node(name, attempt=attempt, task_id=task_id, parent=parent)

    @functools.wraps(fn)
    async def step(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Value:
        with task():
            return await fn(*args, **kwargs)

    return step


def is_control_flow(error: BaseException) -> bool:
    """Whether LangGraph steers the graph by this exception (an interrupt, a drain) rather than report a failure."""
    # By name: importing langgraph to ask would cost every user of this module its start-up time.
    return any(ancestor.__name__ == "GraphBubbleUp" for ancestor in type(error).__mro__)


def _is_recorded() -> bool:
    """Say whether a tracer provider was set: without one, a span is nothing."""
    is_proxy = isinstance(_tracer, trace.ProxyTracer)
    return not (is_proxy and isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider))


def _unrecorded() -> Context | None:
    """Return the current context if it is that of an execution that nobody records.

    That was asked when the execution began: spans of its rest alone would have no parent, and a trace each.
    """
    around = context.get_current()
    return around if around.get(_RECORDED) is False else None


def _parent(parent: str | None) -> Context | None:
    if parent is None or context.get_value(_RECORDED) or (span := traceparent.read(parent)) is None:
        return None
    return trace.set_span_in_context(trace.NonRecordingSpan(span))


def _message(role: str, text: str) -> dict[str, Any]:
    """Return a message in the form of OpenTelemetry's GenAI conventions."""
    return {"role": _ROLES.get(role, role), "parts": [{"type": "text", "content": text}]}


def server_of(url: str) -> dict[str, AttributeValue]:
    """Return host and port of a URL as attributes; nothing where it is none."""
    try:
        return _server(urlsplit(url))
    except ValueError:
        return {}


def _address(url: str) -> dict[str, AttributeValue]:
    try:
        parts = urlsplit(url)
        server = _server(parts)
    except ValueError:  # not an address: the client's error says so better
        return {}
    return {names.URL_FULL: f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}", **server}


def _server(parts: SplitResult) -> dict[str, AttributeValue]:
    port = parts.port or _PORTS.get(parts.scheme)
    if parts.hostname is None:
        return {}
    return {names.SERVER_ADDRESS: parts.hostname, **({} if port is None else {names.SERVER_PORT: port})}


def _is_word(said: object) -> TypeGuard[str]:
    return isinstance(said, str) and _WORD.fullmatch(said) is not None
