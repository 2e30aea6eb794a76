"""A chat model that misbehaves on a schedule."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import httpx
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from pydantic import BaseModel

from tidegate.resilience.faults.behaviours import Behaviour, Delay, Reply, RetryAfter
from tidegate.resilience.faults.course import Course, Script
from tidegate.resilience.faults.replies import pause, with_body
from tidegate.store.clock import Clock, SystemClock

_HUGE = "x" * (5 * 1024 * 1024)


@dataclass(frozen=True, slots=True)
class Prompt:
    """One request to a chat model; `at` is the clock's monotonic time."""

    at: float
    text: str


class FaultyChat(BaseChatModel):
    """A LangChain chat model. It answers `says`, or what `says` returns for the prompt's text, and streams by words.

    Of a schedule it does what a provider's client would make of it: statuses, redirects and pauses that are asked for
    are `httpx.HTTPStatusError`, a reset is an OSError, half a body `httpx.RemoteProtocolError` after half of the words,
    garbage `json.JSONDecodeError`. `wrong shape` is an answer without text, `huge body` one of 5 MiB, `slow drip` a
    word a second. Pauses pass on the clock.
    """

    model_name: str = "faulty"

    def __init__(
        self, script: Script[Prompt] = (), *, says: str | Callable[[str], str] = "Said.", clock: Clock | None = None
    ) -> None:
        """Begin the schedule."""
        super().__init__()
        self._clock = clock or SystemClock()
        self._course = Course[Prompt](script, clock=self._clock)
        self._says = says

    @property
    def course(self) -> Course[Prompt]:
        """What it was asked and what it did; begins other schedules."""
        return self._course

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Take the tools of an agent, and call none: it only says what it says."""
        return self

    def with_structured_output(
        self, schema: dict[str, Any] | type, *, include_raw: bool = False, **kwargs: Any
    ) -> Runnable[LanguageModelInput, dict[str, Any] | BaseModel]:
        """Read what it says as JSON: a pydantic model if `schema` is one, else whatever it is."""
        if include_raw:
            raise NotImplementedError("a FaultyChat has no include_raw; ask it without a schema for what it says")
        if isinstance(schema, type) and issubclass(schema, BaseModel):
            return self | PydanticOutputParser(pydantic_object=schema)
        return self | JsonOutputParser()

    @property
    def _llm_type(self) -> str:
        return "faulty"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return _whole(messages, "".join(_from_a_thread(self._words(messages))))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return _whole(messages, "".join([word async for word in self._words(messages)]))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        text = ""
        with closing(_from_a_thread(self._words(messages))) as words:
            for word in words:
                text += word
                chunk = ChatGenerationChunk(message=AIMessageChunk(content=word))
                if run_manager:
                    run_manager.on_llm_new_token(word, chunk=chunk)
                yield chunk
        yield ChatGenerationChunk(message=AIMessageChunk(content="", usage_metadata=_usage(messages, text)))

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        text = ""
        async for word in self._words(messages):
            text += word
            chunk = ChatGenerationChunk(message=AIMessageChunk(content=word))
            if run_manager:
                await run_manager.on_llm_new_token(word, chunk=chunk)
            yield chunk
        yield ChatGenerationChunk(message=AIMessageChunk(content="", usage_metadata=_usage(messages, text)))

    async def _words(self, messages: list[BaseMessage]) -> AsyncGenerator[str]:
        prompt = "\n".join(message.text for message in messages)
        with self._course.meeting(lambda at: Prompt(at, prompt)) as behaviour:
            if behaviour == "hang":
                await asyncio.Event().wait()
            self._fail(behaviour)
            if isinstance(behaviour, Delay):
                await self._clock.sleep(behaviour.seconds)
            words = self._answer(behaviour, prompt).replace(" ", " \0").split("\0")
            broken = behaviour in ("half body", "stall")
            for word in words[: len(words) // 2] if broken else words:
                yield word
                if behaviour == "slow drip":
                    await self._clock.sleep(1.0)
            if behaviour == "stall":
                await asyncio.Event().wait()
            if behaviour == "half body":
                raise httpx.RemoteProtocolError("the answer was not completed")

    def _answer(self, behaviour: Behaviour, prompt: str) -> str:
        if behaviour == "wrong shape":
            return ""
        if isinstance(behaviour, Reply) and (behaviour.body is not None or behaviour.json is not None):
            return (with_body(behaviour).body or b"").decode(errors="replace")
        said = self._says(prompt) if callable(self._says) else self._says
        return said + " " + _HUGE if behaviour == "huge body" else said

    def _fail(self, behaviour: Behaviour) -> None:
        """Raise what there is to raise before the first word."""
        match behaviour:
            case "reset":
                raise ConnectionResetError("the connection was reset")
            case "garbage":
                raise json.JSONDecodeError("Expecting value", "", 0)
            case "redirect loop":
                raise httpx.TooManyRedirects("redirects again and again")
            case "redirect away":
                raise _status(HTTPStatus.FOUND, {"Location": "http://elsewhere.invalid/"})
            case RetryAfter():
                raise _status(behaviour.status, {"Retry-After": pause(behaviour, self._clock.now())})
            case Reply() if behaviour.cut is not None or behaviour.every is not None:
                raise ValueError(f"{behaviour!r:.200}: a chat model knows no cut and every; there is 'half body'")
            case Reply() if not 200 <= behaviour.status <= 299:
                raise _status(behaviour.status, {k: v for k, v in behaviour.headers.items() if v is not None})
            case int() if not 200 <= behaviour <= 299:
                raise _status(behaviour, {})
            case int() | Delay() | Reply() | "hang" | "stall" | "half body" | "slow drip" | "wrong shape" | "huge body":
                pass
            case _:
                raise ValueError(f"{behaviour!r} is nothing that a chat model does")


def _whole(messages: list[BaseMessage], text: str) -> ChatResult:
    message = AIMessage(text, usage_metadata=_usage(messages, text))
    return ChatResult(generations=[ChatGeneration(message=message)])


def _from_a_thread(words: AsyncGenerator[str]) -> Generator[str]:
    """Hand on to blocking code what comes in an event loop elsewhere: one may run in its own thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="faulty chat", daemon=True)
    thread.start()

    async def following() -> str | None:
        return await anext(words, None)

    async def closed() -> None:
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:  # whoever waited was interrupted
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await words.aclose()

    try:
        while (word := asyncio.run_coroutine_threadsafe(following(), loop).result()) is not None:
            yield word
    finally:
        asyncio.run_coroutine_threadsafe(closed(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _status(status: int, headers: dict[str, str]) -> httpx.HTTPStatusError:
    request = httpx.Request("POST", "http://model.invalid/")  # RFC 2606, section 2
    response = httpx.Response(status, headers=httpx.Headers(headers, encoding="latin-1"), request=request)
    return httpx.HTTPStatusError(f"status {status}, as scheduled", request=request, response=response)


def _usage(messages: list[BaseMessage], text: str) -> UsageMetadata:
    """Count words, as a tokenizer that needs no download."""
    asked, said = sum(len(message.text.split()) for message in messages), len(text.split())
    return UsageMetadata(input_tokens=asked, output_tokens=said, total_tokens=asked + said)
