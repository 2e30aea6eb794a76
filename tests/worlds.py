"""A small world for the graph to run in: services that a test switches up and down, on a clock that it moves."""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from langgraph.checkpoint.memory import InMemorySaver

from tidegate.errors import Permanent, RateLimited, ServiceError, Transient
from tidegate.graph.execution import Executions
from tidegate.graph.pipeline import build_graph
from tidegate.graph.services import Services
from tidegate.nodes import summary_gate
from tidegate.resilience.breaker import Breaker
from tidegate.resilience.circuits import MemoryCircuits
from tidegate.resilience.guard import Answer, Guard
from tidegate.settings import Settings
from tidegate.state import (
    JSON,
    Block,
    Document,
    Enrichment,
    Entity,
    Input,
    Sentence,
    Span,
    Summary,
    entity_id,
    hash_of,
)
from tidegate.store.database import Database
from tidegate.store.documents import Documents
from tidegate.store.leases import Leases
from tidegate.store.registry import Registry
from tidegate.store.schema import STORE
from tidegate.testing import ManualClock


class NamesByCapital:
    """Finds every capitalised word: `Xa` to `Xz` are people, the rest places."""

    name = "capitals/1"

    async def recognise(self, document: Document) -> list[Entity]:
        found: dict[str, list[Span]] = {}
        for match in re.finditer(r"\b[A-Z][a-z]+\b", document.text):
            found.setdefault(match.group(), []).append(Span(start=match.start(), end=match.end()))
        return [
            Entity(
                id=entity_id(document.id, "PERSON" if name.startswith("X") else "LOC", name),
                text=name,
                type="PERSON" if name.startswith("X") else "LOC",
                mentions=tuple(spans),
            )
            for name, spans in found.items()
        ]


async def as_one_paragraph(data: bytes, *, source: str, media_type: str | None) -> Document:
    text = data.decode()
    block = Block(kind="paragraph", start=0, end=len(text))
    return Document(
        id=hashlib.sha256(data).hexdigest(),
        source=source,
        media_type=media_type or "text/plain",
        title=source,
        text=text,
        blocks=(block,),
        converter="paragraph/1",
    )


@dataclass
class Places:
    """An enrichment API about places; `fails` maps a name to what asking for it raises, `down` fails for all."""

    guard: Guard
    down: bool = False
    fails: dict[str, Callable[[str, str], ServiceError]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    goes_down_after: int | None = None
    clock: ManualClock | None = None
    seconds_after_an_answer: float = 0.0
    pause: float = 0.0
    answer_after: float = 0.0
    in_flight: int = 0
    name: str = "enrichment"
    source: str = "places"

    def covers(self, entity_type: str) -> bool:
        return entity_type == "LOC"

    async def look_up(self, entity: Entity) -> Answer[JSON]:
        async def ask(attempt: int) -> JSON:
            self.asked.append(entity.text)
            await asyncio.sleep(self.pause)
            if self.answer_after and self.clock is not None:
                self.in_flight += 1
                try:
                    await self.clock.sleep(self.answer_after)
                finally:
                    self.in_flight -= 1
            if self.goes_down_after is not None and len(self.asked) > self.goes_down_after:
                self.down = True
            if self.down:
                raise Transient(self.name, "HTTP 503")
            if entity.text in self.fails:
                raise self.fails[entity.text](self.name, "as scripted")
            return {"about": entity.text}

        try:
            return await self.guard.call(ask)
        finally:
            if self.clock is not None:
                self.clock.advance(self.seconds_after_an_answer)


@dataclass
class Writer:
    """A model that summarizes, behind its own guard."""

    guard: Guard
    down: bool = False
    refuses: bool = False
    asks_for_a_pause: float | None = None
    asked: int = 0

    def inputs(self, document: Document, entities: list[Entity], enrichments: dict[str, Enrichment]) -> str:
        return hash_of("writer", document.id, {key: record.data for key, record in enrichments.items()})

    async def summarize(
        self, document: Document, entities: list[Entity], enrichments: dict[str, Enrichment]
    ) -> Summary:
        async def ask(attempt: int) -> str:
            self.asked += 1
            if self.down:
                raise Transient("model", "HTTP 503")
            if self.refuses:
                raise Permanent("model", "content filter")
            if self.asks_for_a_pause:
                raise RateLimited("model", "HTTP 429", retry_after=self.asks_for_a_pause)
            return f"Written from {sum(record.data is not None for record in enrichments.values())} facts."

        answer = await self.guard.call(ask)
        return Summary(
            sentences=(Sentence(text=answer.value),),
            method="llm",
            model="writer",
            inputs=self.inputs(document, entities, enrichments),
        )


class FirstSentence:
    """The fallback: the document's first words."""

    def inputs(self, document: Document, entities: list[Entity], enrichments: dict[str, Enrichment]) -> str:
        return hash_of("first", document.id)

    async def summarize(
        self, document: Document, entities: list[Entity], enrichments: dict[str, Enrichment]
    ) -> Summary:
        return Summary(
            sentences=(Sentence(text=document.text[:40]),),
            method="extractive",
            inputs=self.inputs(document, entities, enrichments),
        )


class World:
    """Everything that a graph needs, with handles for the test."""

    def __init__(self, settings: Settings, *, with_model: bool = False) -> None:
        self.settings = settings
        self.clock = ManualClock(auto=True)
        self.circuits = MemoryCircuits(self.clock)
        self.database = Database(":memory:", STORE, clock=self.clock)
        self.documents = Documents(self.database)
        self.saver = InMemorySaver()
        self.enrichment_guard = self._guard("enrichment")
        self.model_guard = self._guard("model")
        self.recogniser_guard = self._guard("recogniser")
        self.places = Places(self.enrichment_guard, clock=self.clock)
        self.writer = Writer(self.model_guard)
        self.services = Services(
            documents=self.documents,
            convert=as_one_paragraph,
            recogniser=NamesByCapital(),
            model_recogniser=None,
            recogniser_circuit=self.recogniser_guard.breaker,
            enricher=self.places,
            enrichment_circuit=self.enrichment_guard.breaker,
            writers=(summary_gate.Writer(self.writer, self.model_guard.breaker),) if with_model else (),
            model_circuit=self.model_guard.breaker,
            extractive=FirstSentence(),
            clock=self.clock,
        )

    def _guard(self, name: str) -> Guard:
        sections = {"enrichment": self.settings.enrichment, "recogniser": self.settings.extraction}
        section = sections.get(name, self.settings.summary)
        breaker = Breaker(
            name,
            self.circuits,
            failure_threshold=section.failure_threshold,
            reset_timeout=section.reset_timeout,
            clock=self.clock,
        )
        return Guard(breaker, settings=section, classify=lambda _: None, clock=self.clock, random=random.Random(7))  # noqa: S311

    def executions(self) -> Executions:
        """Start anew over the same store, as another process would."""
        graph = build_graph(self.services, self.settings).compile(checkpointer=self.saver)
        return Executions(graph, self.services, Registry(self.database), Leases(self.database))

    async def take_in(self, text: str) -> Input:
        """Store a document and return the input that starts a thread on it."""
        return Input(source="note.txt", document_sha256=await self.documents.put(text.encode()), media_type=None)
