"""One chat model behind its guard: asked, its answers read, its failures sorted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from langchain_core.exceptions import (
    ContextOverflowError,
    ModelAuthenticationError,
    ModelInvalidRequestError,
    ModelNotFoundError,
    ModelPermissionDeniedError,
    ModelRateLimitError,
)
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langgraph.constants import TAG_NOSTREAM

from tidegate.errors import NotFound, Permanent, Refused, ServiceError, Transient
from tidegate.resilience.failures import from_status
from tidegate.resilience.guard import Answer, Guard
from tidegate.state import Usage
from tidegate.store.clock import Clock
from tidegate.telemetry import spans

T = TypeVar("T")

_WITHHELD = frozenset({"content_filter", "refusal", "safety", "recitation", "blocklist", "prohibited_content"})
_CUT_OFF = frozenset({"length", "max_tokens", "model_length"})
_UNPAID = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
# LangChain's own classes, for a provider whose exceptions carry no status.
_STATUSES = {
    ModelAuthenticationError: 401,
    ModelPermissionDeniedError: 403,
    ModelInvalidRequestError: 400,
    ModelNotFoundError: 404,
    ModelRateLimitError: 429,
}


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
        clock: Clock,
    ) -> None:
        """Made by `open_chat`."""
        self.model = f"{provider}:{name}"
        self.options = options
        self._model = model
        self._provider = provider
        self._name = name
        self._guard = guard
        self._clock = clock

    async def ask(
        self,
        messages: Sequence[BaseMessage],
        read: Callable[[str], T | None],
        *,
        bill: Bill,
        streamed: bool = True,
    ) -> Answer[T]:
        """Ask until the model gives an answer that `read` can use; `read` returns None for one that it cannot.

        Where the graph is streamed in LangGraph's mode `messages`, so is the answer, unless `streamed` is False.

        Raises:
            ServiceError: as `Guard.call`. An answer that `read` could not use is `Transient`; one that was
                withheld, or cut off before anything usable, is `Permanent`.
        """
        tags = [] if streamed else [TAG_NOSTREAM]

        async def attempt(number: int) -> T:
            bill.requests += 1
            with spans.chat(self._name, self._provider, attempt=number) as span:
                try:
                    message = await self._model.ainvoke(list(messages), {"tags": tags})
                except Exception as error:
                    raise self._failure(error) from error
                if (usage := _usage(message)) is not None:
                    bill.add(usage)
                    span.usage(usage.input_tokens, usage.output_tokens)
                value = read(message.text)
                if value is None:
                    raise self._unusable(message)
                return value

        return await self._guard.call(attempt)

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
        code = getattr(error, "code", None)
        if isinstance(error, ContextOverflowError) or code == "context_length_exceeded":
            return Permanent(service, f"the request is too long for {self.model}; lower summary.chunk_tokens")
        status = _status(error)
        if status == 402 or code in _UNPAID:
            return Refused(service, f"{self.model}: the account has no credit left")
        if status is not None:
            headers = getattr(getattr(error, "response", None), "headers", None)
            failure = from_status(service, status, headers if isinstance(headers, Mapping) else {}, self._clock)
            if isinstance(failure, NotFound):
                return Permanent(
                    service, f"{failure.problem}; check that {self.model} exists and where summary.options point"
                )
            return failure
        kind = type(error).__name__
        if isinstance(error, TimeoutError) or "Timeout" in kind:
            return Transient(service, f"no answer in time ({kind})")
        if isinstance(error, OSError) or "Connect" in kind:
            return Transient(service, f"no connection ({kind})")
        return Transient(service, f"no usable answer ({kind})")


def no_failure(error: BaseException) -> ServiceError | None:
    """Classify what `Chat.ask` lets through: it sorts the model's failures itself, so the rest are bugs of ours."""
    return None


def _status(error: Exception) -> int | None:
    """Return the HTTP status of an exception, if it is one of an error.

    An error told inside a stream carries the status of the stream, which is 200.
    """
    places = (error, getattr(error, "response", None))
    found = (getattr(place, attribute, None) for place in places for attribute in ("status_code", "status", "code"))
    named = (status for kind, status in _STATUSES.items() if isinstance(error, kind))
    return next((status for status in (*found, *named) if isinstance(status, int) and 400 <= status <= 599), None)


def _usage(message: AIMessage) -> Usage | None:
    """Return what the provider counted; None if it did not, or not in whole numbers."""
    counted: Mapping[str, object] = message.usage_metadata or {}
    read, written = counted.get("input_tokens"), counted.get("output_tokens")
    if not isinstance(read, int) or not isinstance(written, int):
        return None
    return Usage(input_tokens=read, output_tokens=written)


def _finish(message: AIMessage) -> str:
    """Return why the model stopped, under the name its provider gives it."""
    said = message.response_metadata
    finish = said.get("finish_reason") or said.get("stop_reason") or said.get("done_reason") or ""
    return str(finish).lower()
