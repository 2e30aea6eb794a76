"""A summary written by a chat model, each sentence with the evidence that it cites."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence

from tidegate.errors import ServiceError
from tidegate.services.chat import Bill, Chat, shaping
from tidegate.services.parts import ask_each, in_parts, tokens
from tidegate.services.summarizers.citations import Cited, read
from tidegate.services.summarizers.facts import facts
from tidegate.services.summarizers.prompt import VERSION, Line, Task, messages
from tidegate.services.summarizers.source import Source
from tidegate.settings import SummarySettings
from tidegate.state import Document, Enrichment, Entity, Summary, hash_of

_log = logging.getLogger(__name__)

_NOTES = 6  # sentences that are noted of one part
_MOST_PARTS = 40  # parts of a document that are read: with parts of 6,000 tokens, about 1 MB of English


class LlmSummarizer:
    """Asks a chat model, in one request if the document fits into `chunk_tokens`, else part by part and then once more.

    Of a document of more than 40 parts, the sentences that an extractive summary would rather choose are read.
    """

    name = f"llm/{VERSION}"

    def __init__(self, chat: Chat, settings: SummarySettings, *, most_parts: int = _MOST_PARTS) -> None:
        """Summarize by `chat`, in at most `settings.max_sentences` sentences."""
        self._chat = chat
        self._settings = settings
        self._most_parts = most_parts

    @property
    def model(self) -> str:
        """The model as `provider:name`."""
        return self._chat.model

    def inputs(self, document: Document, entities: Sequence[Entity], enrichments: Mapping[str, Enrichment]) -> str:
        """Hash all that goes into the summary: document, names, what is known of them, model, options and prompt.

        Options that say how to reach the model, such as its API key, are left out; those of an injected model cannot be
        seen.
        """
        settings = self._settings
        return hash_of(
            [self.name, self.model, shaping(self._chat.options)],
            [settings.max_sentences, settings.chunk_tokens, self._most_parts],
            [document.id, document.converter, document.title],
            [fact.text for fact in facts(entities, enrichments)],
            sorted(entity.id for entity in entities),
        )

    async def summarize(
        self, document: Document, entities: Sequence[Entity], enrichments: Mapping[str, Enrichment]
    ) -> Summary:
        """Summarize; `usage` counts every request, those whose answer was unusable included.

        Raises:
            ServiceError: as `Chat.ask`, with `attempts` counting the requests of all parts.
        """
        bill = Bill()
        source = await asyncio.to_thread(Source, document, entities, enrichments)
        try:
            cited = await self._write(source, bill)
        except ServiceError as error:
            error.attempts = bill.requests
            raise
        return Summary(
            sentences=tuple(await asyncio.to_thread(lambda: [source.sentence(each) for each in cited])),
            method="llm",
            model=self.model,
            usage=bill.usage,
            inputs=self.inputs(document, entities, enrichments),
        )

    async def _write(self, source: Source, bill: Bill) -> list[Cited]:
        parts = await asyncio.to_thread(self._read, source)
        notes = False
        while len(parts) > 1:
            lines = await self._note(source, parts, bill, notes=notes)
            parts = _smaller(lines, self._settings.chunk_tokens, than=len(parts))
            notes = True
        if not parts:
            return []
        return await self._ask(source, Task(self._settings.max_sentences), parts[0], bill, notes=notes)

    def _read(self, source: Source) -> list[list[Line]]:
        """Return the passages in parts of `chunk_tokens`; of too long a document, the most relevant ones."""
        budget = self._settings.chunk_tokens
        lines = source.lines()
        parts = _parts(lines, budget)
        if len(parts) <= self._most_parts:
            return parts
        _log.warning(
            "of a document of %d parts, only the most relevant sentences are read, in %d; raise summary.chunk_tokens",
            len(parts),
            self._most_parts,
        )
        left = budget * self._most_parts
        taken: set[int] = set()
        for number in source.most_relevant():
            left -= tokens(lines[number - 1].text)
            if left < 0:
                break
            taken.add(number)
        return _parts([line for number, line in enumerate(lines, 1) if number in taken], budget)[: self._most_parts]

    async def _note(self, source: Source, parts: Sequence[Sequence[Line]], bill: Bill, *, notes: bool) -> list[Line]:
        """Take notes on every part, a few at a time; a note that its passages do not carry is left out."""

        async def ask(at: int, part: Sequence[Line]) -> list[Cited]:
            task = Task(_NOTES, part=at + 1, parts=len(parts), final=False)
            return await self._ask(source, task, part, bill, notes=notes)

        taken = await ask_each(self._chat, parts, ask, concurrency=self._settings.concurrency)
        found = [cited for part in taken for cited in part]
        carried = await asyncio.to_thread(lambda: [cited for cited in found if source.supports(cited)])
        return [Line(_numbers(cited), cited.text) for cited in carried or found]

    async def _ask(self, source: Source, task: Task, lines: Sequence[Line], bill: Bill, *, notes: bool) -> list[Cited]:
        prompt = messages(source.mark, task, title=source.document.title, facts=source.facts, lines=lines, notes=notes)
        passages = {int(number) for line in lines for number in line.numbers if number.isdigit()}
        answer = await self._chat.ask(
            prompt, lambda said: read(said, task.most, passages, source.known), bill=bill, streamed=task.final
        )
        return answer.value


def _numbers(cited: Cited) -> tuple[str, ...]:
    return (*map(str, cited.passages), *(f"E{number}" for number in cited.facts))


def _parts(lines: Iterable[Line], budget: int) -> list[list[Line]]:
    return in_parts(lines, lambda line: line.text, budget)


def _smaller(lines: Sequence[Line], budget: int, *, than: int) -> list[list[Line]]:
    """Return notes in fewer parts than before; where a model writes as much as it reads, leave out every second."""
    while len(parts := _parts(lines, budget)) >= than:
        lines = lines[::2]
    return parts
