"""Settings -> the services that the steps are handed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, TypeAlias

from tidegate.checkpointers import Location, locate
from tidegate.errors import SettingsError
from tidegate.graph.services import Services
from tidegate.nodes.enrich import Enricher
from tidegate.nodes.extract import Recogniser
from tidegate.nodes.gate import Circuit
from tidegate.nodes.summary_gate import Writer
from tidegate.resilience.breaker import Breaker, CircuitReport
from tidegate.resilience.circuits import Circuits, Forced, MemoryCircuits
from tidegate.resilience.classification import classify_clients
from tidegate.resilience.guard import Guard, breaker_for
from tidegate.resilience.journal import Journal
from tidegate.resilience.rates import MemoryRates, Rates, SharedRates
from tidegate.resilience.shared_circuits import SqliteCircuits
from tidegate.services.converters import convert
from tidegate.services.enrichment import HttpEnricher, open_enricher
from tidegate.services.intake import Loaded, load
from tidegate.services.recognisers import open_recogniser
from tidegate.services.summarizers.extractive import ExtractiveSummarizer
from tidegate.services.summarizers.llm import LlmSummarizer
from tidegate.settings import ServiceSettings, Settings, SummarySettings
from tidegate.settings.delivery import SINK, circuit_of
from tidegate.store.clock import Clock, SystemClock
from tidegate.store.documents import Documents
from tidegate.store.inbox import Inbox
from tidegate.store.leases import Leases
from tidegate.store.live import LiveDatabase
from tidegate.store.opening import store_at
from tidegate.store.outbox import Outbox
from tidegate.store.registry import Registry
from tidegate.store.schema import SERVER_STORE
from tidegate.store.transactions import Store

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from tidegate.services.recognisers.with_model import ModelRecogniser

Source: TypeAlias = str | PathLike[str] | bytes
Models: TypeAlias = "BaseChatModel | Sequence[BaseChatModel]"
"""A chat model, or several, each of which is asked where the ones before it cannot be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wired:
    """The services, and what is kept with the checkpoints. Nothing is opened before its first use."""

    services: Services
    documents: Documents
    registry: Registry
    inbox: Inbox
    outbox: Outbox
    leases: Leases
    journal: Journal
    circuits: Circuits
    rates: Rates
    breakers: tuple[Breaker, ...]
    store: Store
    live: Store
    settings: Settings
    owned_enricher: HttpEnricher | None

    async def load(self, source: Source | None, *, text: str | None, name: str | None) -> Loaded:
        """Read a document's raw bytes."""
        limit = self.settings.max_document_bytes
        return await load(source, text=text, name=name, max_bytes=limit, clock=self.services.clock)

    async def reports(self) -> list[CircuitReport]:
        """Return every circuit: those of the services in use, and those that ever failed here."""
        found = {report.name: report for report in await self.circuits.read_all()}
        used = {each.name: await each.report() for each in self.used}
        return sorted({**found, **used}.values(), key=lambda report: report.name)

    @property
    def used(self) -> list[Circuit]:
        """The circuits of the services that the pipeline calls."""
        used = [self.services.enrichment_circuit] if self.services.enricher else []
        used += [self.services.recogniser_circuit] if self.services.model_recogniser else []
        return used + [writer.circuit for writer in self.services.writers]

    async def force(self, name: str, to: Forced | None) -> None:
        """Hold a circuit open or closed, or let it go.

        Raises:
            SettingsError: there is none of this name.
        """
        breakers = {each.name: each for each in self.breakers}
        breaker = breakers.get(name)
        if breaker is None:
            raise SettingsError(f"there is no circuit {name!r}; name one of {', '.join(sorted(breakers))}")
        await {"open": breaker.force_open, "closed": breaker.force_close, None: breaker.reset}[to]()

    def guard(self, name: str, settings: ServiceSettings) -> Guard:
        """Return a guard for a service that is none of these, whose circuit is kept with theirs."""
        clock = self.services.clock
        breaker = breaker_for(name, settings, self.circuits, clock)
        classify = classify_clients(name, clock)
        return Guard(breaker, settings=settings, classify=classify, rates=self.rates, clock=clock)

    async def aclose(self) -> None:
        """Close what was opened here; services that the caller handed in stay open."""
        if self.owned_enricher is not None:
            await self.owned_enricher.aclose()
        await self.leases.settle()
        await self.store.close()
        await self.live.close()


def connect(
    settings: Settings,
    *,
    model: Models | None = None,
    recogniser: Recogniser | None = None,
    enricher: Enricher | None = None,
    clock: Clock | None = None,
) -> Wired:
    """Build the services that the settings name, with the caller's own in place of theirs.

    Imports the model's provider, which takes seconds: not for an event loop that serves others.

    Raises:
        SettingsError: a setting is wrong, or an extra is missing.
    """
    clock = clock or SystemClock()
    location = locate(settings.checkpoints)
    store = _store(location, settings.key, clock)
    live, circuits = _circuits(location, clock)
    leases = Leases(store, ttl=settings.lease_ttl)
    rates: Rates = MemoryRates(clock) if location.kind == "memory" else SharedRates(live, clock=clock)
    enrichment_circuit = breaker_for("enrichment", settings.enrichment, circuits, clock)
    models = _models(model, settings)
    model_circuits = [
        breaker_for(f"model-{number}" if number > 1 else "model", settings.summary, circuits, clock)
        for number in range(1, max(len(models), 1) + 1)
    ]
    recogniser_circuit = breaker_for("recogniser", settings.extraction, circuits, clock)
    kept = settings.journal
    journal = Journal(store, leases, enabled=kept.enabled, ttl=kept.ttl, not_found_ttl=kept.not_found_ttl, clock=clock)
    owned = (
        None
        if enricher
        else open_enricher(settings.enrichment, breaker=enrichment_circuit, journal=journal, rates=rates, clock=clock)
    )
    services = Services(
        documents=Documents(store),
        convert=partial(convert, max_expanded_bytes=settings.max_expanded_bytes),
        recogniser=recogniser or open_recogniser("auto" if settings.recogniser == "model" else settings.recogniser),
        model_recogniser=None
        if recogniser or settings.recogniser != "model"
        else _model_recogniser(models, settings, recogniser_circuit, journal, rates, clock),
        recogniser_circuit=recogniser_circuit,
        enricher=enricher or owned,
        enrichment_circuit=enrichment_circuit,
        writers=tuple(
            Writer(_summarizer(each, section, circuit, journal, rates, clock), circuit)
            for (each, section), circuit in zip(models, model_circuits, strict=False)
        ),
        model_circuit=model_circuits[0],
        extractive=ExtractiveSummarizer(settings.summary.max_sentences),
        clock=clock,
    )
    return Wired(
        services=services,
        documents=Documents(store),
        registry=Registry(store),
        inbox=Inbox(store, max_queued=settings.serve.max_queued),
        outbox=Outbox(store, {sink.name: sink.triggers for sink in settings.sink}),
        leases=leases,
        journal=journal,
        circuits=circuits,
        rates=rates,
        breakers=(
            recogniser_circuit,
            enrichment_circuit,
            *model_circuits,
            *(breaker_for(circuit_of(sink.name), SINK, circuits, clock) for sink in settings.sink),
        ),
        store=store,
        live=live,
        settings=settings,
        owned_enricher=owned,
    )


@asynccontextmanager
async def wire(
    settings: Settings,
    *,
    model: Models | None = None,
    recogniser: Recogniser | None = None,
    enricher: Enricher | None = None,
    clock: Clock | None = None,
) -> AsyncIterator[Wired]:
    """Build the services, and close them and the store at the end."""
    wired = await asyncio.to_thread(
        connect, settings, model=model, recogniser=recogniser, enricher=enricher, clock=clock
    )
    try:
        yield wired
    finally:
        await wired.aclose()


def _store(location: Location, key: bytes | None, clock: Clock) -> Store:
    if location.server is None:
        return store_at(location.store, key=key, clock=clock)
    from tidegate.store.postgres import PostgresDatabase

    return PostgresDatabase(location.server, SERVER_STORE, clock=clock)


def _circuits(location: Location, clock: Clock) -> tuple[Store, Circuits]:
    if location.server is None:
        file = LiveDatabase(location.live, clock=clock)
        return file, MemoryCircuits(clock) if location.kind == "memory" else SqliteCircuits(file)
    from tidegate.resilience.postgres_circuits import PostgresCircuits
    from tidegate.store.live_postgres import LivePostgres

    server = LivePostgres(location.server, clock=clock)
    return server, PostgresCircuits(server, clock=clock)


def _models(model: Models | None, settings: Settings) -> list[tuple[BaseChatModel | str, SummarySettings]]:
    """Return the models in the order in which they are asked, each with the settings to build it with."""
    section = settings.summary
    if model:
        return [(each, section) for each in (model if isinstance(model, Sequence) else [model])]
    if settings.model:
        named = [(each.model, section.model_copy(update={"options": each.options})) for each in section.fallbacks]
        return [(settings.model, section), *named]
    if section.fallbacks:
        raise SettingsError("summary.fallbacks are asked where TIDEGATE_MODEL cannot be; set that, too")
    return []


def _summarizer(
    model: BaseChatModel | str,
    section: SummarySettings,
    breaker: Breaker,
    journal: Journal,
    rates: Rates,
    clock: Clock,
) -> LlmSummarizer:
    from tidegate.services.models import open_chat

    return LlmSummarizer(open_chat(model, section, breaker=breaker, journal=journal, rates=rates, clock=clock), section)


def _model_recogniser(
    models: Sequence[tuple[BaseChatModel | str, SummarySettings]],
    settings: Settings,
    breaker: Breaker,
    journal: Journal,
    rates: Rates,
    clock: Clock,
) -> ModelRecogniser:
    if not models:
        raise SettingsError("recogniser 'model' needs a chat model; set TIDEGATE_MODEL, or another recogniser")
    from tidegate.services.models import open_chat
    from tidegate.services.recognisers.with_model import PART_TOKENS, ModelRecogniser

    # The model and its options are the summary's first; how it is called is this service's own.
    model, summary = models[0]
    section = summary.model_copy(update=dict(settings.extraction))
    chat = open_chat(model, section, breaker=breaker, journal=journal, rates=rates, clock=clock)
    return ModelRecogniser(chat, concurrency=section.concurrency, part_tokens=min(PART_TOKENS, section.chunk_tokens))
