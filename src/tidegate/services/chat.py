"""One chat model behind its guard: asked, its answers read, its failures sorted."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

from langchain_core.exceptions import ContextOverflowError
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langgraph.constants import TAG_NOSTREAM

from tidegate.errors import NotFound, Permanent, Refused, ServiceError, Transient
from tidegate.resilience.classification import UNPAID, of_client, status_of
from tidegate.resilience.guard import Answer, Guard, Keep, telling
from tidegate.resilience.journal import Call, Journal
from tidegate.services.providers import address_of, provider_of
from tidegate.state import JSON, Usage
from tidegate.store.clock import Clock
from tidegate.telemetry import spans

T = TypeVar("T")

_TAKE_HEADERS = ("openai", "anthropic")  # LangChain's models that pass headers on to the request
_UNSHAPING = re.compile(
    r"key|secret|password|token$|header|url|base|endpoint|timeout|retries|client|proxy|organi[sz]ation"
)
_WITHHELD = frozenset({"content_filter", "refusal", "safety", "recitation", "blocklist", "prohibited_content"})
_CUT_OFF = frozenset({"length", "max_tokens", "model_length"})
_TOO_MANY = 2**48
"""Tokens that no request has: one count of over 64 bits kept all metrics of the process from being sent."""


class Bill:
    """What the requests of one summary cost so far, those without a usable answer included."""

    def __init__(self) -> None:
        """Start at nothing."""
        self.requests = 0
        self.usage: Usage | None = None

    def add(self, usage: Usage) -> None:
        """Add the tokens of one request."""
        before = self.usage or Usage()
        self.usage = Usage(
            input_tokens=before.input_tokens + usage.input_tokens,
            output_tokens=before.output_tokens + usage.output_tokens,
        )


class Chat:
    """A chat model. `model` is `provider:name`, `options` are those it was built with."""

    def __init__(
        self,
        model: BaseChatModel,
        *,
        provider: str,
        name: str,
        options: Mapping[str, Any],
        guard: Guard,
        journal: Journal | None,
        clock: Clock,
        is_built: bool,
    ) -> None:
        """Made by `open_chat`."""
        self.model = f"{provider}:{name}"
        self.options = options
        self._model = model
        self._name = name
        self._provider = provider_of(model)
        self._server = spans.server_of(address_of(model))
        self._guard = guard
        self._journal = journal
        self._takes_headers = provider in _TAKE_HEADERS and is_built
        described = json.dumps(model.asdict(), sort_keys=True, default=lambda value: type(value).__name__)
        self._shape = [provider, name, described, shaping(options)]
        self._clock = clock

    async def is_proven(self) -> bool:
        """Say whether the circuit is closed, so that several may ask at once."""
        return (await self._guard.breaker.report()).state == "closed"

    async def ask(
        self,
        messages: Sequence[BaseMessage],
        read: Callable[[str], T | None],
        *,
        bill: Bill,
        streamed: bool = True,
    ) -> Answer[T]:
        """Ask until the model gives an answer that `read` can use; `read` returns None for one that it cannot.

        Where the graph is streamed in LangGraph's mode `messages`, so is the answer, unless `streamed` is False. One
        that the journal has is replayed, at once and whole; its tokens are on the bill, and on no meter.

        Raises:
            LeaseLost: as `Journal.call`.
            ServiceError: as `Guard.call`. An answer that `read` could not use is `Transient`; one that was
                withheld, or cut off before anything usable, is `Permanent`.
        """
        requests = bill.requests

        async def ask(key: str, keep: Keep[JSON] | None) -> Answer[JSON]:
            return await self._call(messages, read, key, keep, bill, streamed=streamed)

        if self._journal is None:
            answer = await ask(str(uuid.uuid4()), None)
        else:
            prompt = [[message.type, message.content] for message in messages]
            call = Call.of(self._guard.name, "chat", self._shape, prompt)
            answer = await self._journal.call(call, ask, usable=lambda said: read(said["text"]) is not None)
        if bill.requests == requests and answer.value["usage"] is not None:  # a replay: what it cost is told, not paid
            bill.add(Usage.load(answer.value["usage"]))
        return Answer(cast("T", read(answer.value["text"])), answer.attempts)

    async def _call(
        self,
        messages: Sequence[BaseMessage],
        read: Callable[[str], T | None],
        idempotency_key: str,
        keep: Keep[JSON] | None,
        bill: Bill,
        *,
        streamed: bool,
    ) -> Answer[JSON]:
        """Ask the model, until it gives an answer that can be used; return its `text`, and the `usage` of that."""
        tags = [] if streamed else [TAG_NOSTREAM]
        headers = {"Idempotency-Key": idempotency_key}
        options: dict[str, Any] = {"extra_headers": headers} if self._takes_headers else {}

        async def attempt(number: int) -> JSON:
            if self._journal is not None:
                await self._journal.confirm()
            bill.requests += 1
            with (
                spans.chat(self._name, self._provider, attempt=number, server=self._server) as span,
                telling(span),
            ):
                try:
                    message = await self._model.ainvoke(list(messages), {"tags": tags}, **options)
                except Exception as error:
                    raise self._failure(error) from error
                said, finish = message.response_metadata, _finish(message)
                by = said.get("model_name") or said.get("model")
                span.answered(model=by, response_id=said.get("id"), finish=finish)
                span.content([(each.type, each.text) for each in messages], message.text, finish=finish)
                if (usage := _usage(message)) is not None:
                    bill.add(usage)
                    span.usage(usage.input_tokens, usage.output_tokens)
                if read(message.text) is None:
                    raise self._unusable(message)
                return {"text": message.text, "usage": usage and usage.dump()}

        return await self._guard.call(attempt, keep=keep)

    def _unusable(self, message: AIMessage) -> ServiceError:
        finish = _finish(message)
        if finish in _WITHHELD or message.additional_kwargs.get("refusal"):
            return Permanent(
                self._guard.name, f"{self.model} withheld the answer; it or its provider declined the content"
            )
        if finish in _CUT_OFF:
            problem = f"{self.model} was cut off before it said anything usable; let it say more in summary.options"
            return Permanent(self._guard.name, problem)
        return Transient(self._guard.name, f"{self.model} gave an unusable answer")

    def _failure(self, error: Exception) -> ServiceError:
        """Sort what a provider's client raised, without knowing the client: by status first, else by name.

        Whatever is left is `Transient`. A garbled answer surfaces as any exception at all (langchain-openai 1.7:
        `TypeError`, `IndexError`, `ValueError`, `JSONDecodeError`), and for the rest an open circuit is a better end
        than a crash.
        """
        service = self._guard.name
        if isinstance(error, ContextOverflowError) or getattr(error, "code", None) == "context_length_exceeded":
            return Permanent(service, f"the request is too long for {self.model}; lower summary.chunk_tokens")
        if status_of(error, trusted=True) == 402 or getattr(error, "code", None) in UNPAID:
            return Refused(service, f"{self.model}: the account has no credit left")
        failure = of_client(error, service, self._clock, trusted=True)
        if isinstance(failure, NotFound):
            return Permanent(
                service, f"{failure.problem}; check that {self.model} exists and where summary.options point"
            )
        return failure or Transient(service, f"no usable answer ({type(error).__name__})")


def shaping(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that shape an answer, as JSON; of objects only their type.

    Those that say how to reach the model, such as its API key, are left out.
    """
    plain = (str, int, float, bool, type(None))
    return {
        name: value
        if isinstance(value, plain)
        else json.dumps(value, sort_keys=True, default=lambda o: type(o).__name__)
        for name, value in options.items()
        if not _UNSHAPING.search(name)
    }


def no_failure(error: BaseException) -> ServiceError | None:
    """Classify what `Chat.ask` lets through: it sorts the model's failures itself, so the rest are bugs of ours."""
    return None


def _usage(message: AIMessage) -> Usage | None:
    """Return what the provider counted; None if it did not, or not in whole numbers that can be so."""
    counted: Mapping[str, object] = message.usage_metadata or {}
    read, written = counted.get("input_tokens"), counted.get("output_tokens")
    if not isinstance(read, int) or not isinstance(written, int):
        return None
    if not (0 <= read < _TOO_MANY and 0 <= written < _TOO_MANY):
        return None
    return Usage(input_tokens=read, output_tokens=written)


def _finish(message: AIMessage) -> str:
    """Return why the model stopped, under the name its provider gives it."""
    said = message.response_metadata
    finish = said.get("finish_reason") or said.get("stop_reason") or said.get("done_reason") or ""
    return str(finish).lower()
