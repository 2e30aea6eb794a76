"""Fakes that tests of several parts share."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import Field

from tidegate.state import Block, BlockKind, Document, Entity, EntityType, Span, entity_id


class ScriptedChat(BaseChatModel):
    """A chat model that says, or raises, what `answer` returns for a prompt; it streams word by word.

    `input_tokens` and `output_tokens` are what it says each request costs.
    """

    answer: Callable[[str], str | Exception]
    input_tokens: int = 100
    output_tokens: int = 20
    prompts: list[str] = Field(default_factory=list)
    model_name: str = "scripted"

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _said(self, messages: list[BaseMessage]) -> str:
        prompt = "\n".join(message.text for message in messages)
        self.prompts.append(prompt)
        said = self.answer(prompt)
        if isinstance(said, Exception):
            raise said
        return said

    def _usage(self) -> UsageMetadata:
        total = self.input_tokens + self.output_tokens
        return UsageMetadata(input_tokens=self.input_tokens, output_tokens=self.output_tokens, total_tokens=total)

    def _told(self) -> dict[str, str]:
        return {"model_name": f"{self.model_name}-1", "id": f"answer-{len(self.prompts)}", "finish_reason": "stop"}

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        message = AIMessage(self._said(messages), usage_metadata=self._usage(), response_metadata=self._told())
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return self._generate(messages)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for word in self._said(messages).replace(" ", " \0").split("\0"):
            chunk = ChatGenerationChunk(message=AIMessageChunk(content=word))
            if run_manager:
                await run_manager.on_llm_new_token(word, chunk=chunk)
            yield chunk
        last = AIMessageChunk(content="", usage_metadata=self._usage(), response_metadata=self._told())
        yield ChatGenerationChunk(message=last)


def document_of(*blocks: str | tuple[BlockKind, str], title: str = "A made-up document") -> Document:
    """A document of these blocks; a bare string is a paragraph."""
    text, placed = "", list[Block]()
    for block in blocks:
        kind: BlockKind = "paragraph" if isinstance(block, str) else block[0]
        part = block if isinstance(block, str) else block[1]
        text += "\n\n" if text else ""
        level = 1 if kind == "heading" else 0
        placed.append(Block(start=len(text), end=len(text) + len(part), kind=kind, level=level))
        text += part
    id_ = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
    return Document(
        id=id_,
        source="made-up.txt",
        media_type="text/plain",
        title=title,
        text=text,
        blocks=tuple(placed),
        converter="made-up/1",
    )


def entity_in(document: Document, text: str, type_: EntityType, *forms: str) -> Entity:
    """An entity that is mentioned wherever the document has its name, or one of its other forms."""
    pattern = "|".join(re.escape(form) for form in sorted({text, *forms}, key=len, reverse=True))
    mentions = tuple(Span(start=m.start(), end=m.end()) for m in re.finditer(rf"\b(?:{pattern})\b", document.text))
    return Entity(id=entity_id(document.id, type_, text), text=text, type=type_, mentions=mentions)
