"""A document through `Pipeline` in a process of its own, watched in one way or another: what CPU that takes."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, Sampler, TraceIdRatioBased

from tests.benchmarks.prose import prose
from tests.fakes import ScriptedChat
from tidegate import Pipeline, Settings
from tidegate.graph import pipeline as building
from tidegate.state import Document, Entity, Span, entity_id
from tidegate.telemetry import events, metrics, names, otlp, spans

LOOK_UPS = 20
SIZE = 10_000
MARKER = "Saltmarsh"
"""Stands in the document, in every name that is looked up and in the summary."""

_CONTENT = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"


@dataclass(frozen=True, slots=True)
class Contender:
    """A way of watching. `module` and `instrumentor` are another's, which takes the place of ours."""

    name: str
    share: float = 1.0
    """Of the traces that are recorded."""
    exports: bool = True
    everything: bool = False
    """Whether logs go out too, and content."""
    module: str | None = None
    instrumentor: str = ""
    package: str | None = None

    @property
    def is_installed(self) -> bool:
        """Whether it can be compared with."""
        try:
            return self.module is None or find_spec(self.module) is not None
        except ModuleNotFoundError:  # not even the package above
            return False


NONE = Contender("no instrumentation", exports=False)
API = Contender("API only", exports=False)
SDK = Contender("SDK, batch export")
SAMPLED = Contender("SDK, sampled at 10 %", share=0.1)
EVERYTHING = Contender("everything: content and logs too", everything=True)
OPENINFERENCE = Contender(
    "OpenInference",
    module="openinference.instrumentation.langchain",
    instrumentor="LangChainInstrumentor",
    package="openinference-instrumentation-langchain",
)
OPENLLMETRY = Contender(
    "OpenLLMetry",
    module="opentelemetry.instrumentation.langchain",
    instrumentor="LangchainInstrumentor",
    package="opentelemetry-instrumentation-langchain",
)
OURS = (NONE, API, SDK, SAMPLED, EVERYTHING)
THEIRS = (OPENINFERENCE, OPENLLMETRY)


def text(number: int) -> str:
    """Return a document with as many names as look-ups; those of another number are others, to be asked for anew."""
    digits = str.maketrans("0123456789", "abcdefghij")
    names_ = (MARKER + f"{number * LOOK_UPS + n:06}".translate(digits) for n in range(LOOK_UPS))
    named = " ".join(f"Then {name} spoke." for name in names_)
    return f"{named}\n\n{prose(SIZE, number)}"


def _summary(prompt: str) -> str:
    first = next(word for word in prompt.split() if word.startswith(MARKER))
    return f"Then {first} spoke. [1]"


class Salted:
    """Finds the names: a recogniser that takes so little CPU that telemetry's share is not hidden."""

    name = "salted/1"

    async def recognise(self, document: Document) -> list[Entity]:
        found = []
        for name in sorted({word for word in document.text.split() if word.startswith(MARKER)}):
            at = document.text.index(name)
            mention = Span(start=at, end=at + len(name))
            found.append(
                Entity(id=entity_id(document.id, "PERSON", name), text=name, type="PERSON", mentions=(mention,))
            )
        return found


class _NoSpan:
    """Does nothing, whatever it is told."""

    traceparent = None

    def __enter__(self) -> _NoSpan:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __getattr__(self, _: str) -> Callable[..., None]:
        return _ignore


def _ignore(*_: object, **__: object) -> None:
    pass


def _no_span(*_: object, **__: object) -> _NoSpan:
    return _NoSpan()


@contextmanager
def unwatched() -> Iterator[None]:
    """Take all of Tidegate's telemetry away; a graph that is built meanwhile has none in its nodes."""
    with ExitStack() as stack:
        for name in ("run", "node", "http_call", "chat", "checkpoint_put"):
            stack.enter_context(patch.object(spans, name, _no_span))
        for name in ("retry_scheduled", "retry_refused", "replayed", "circuit_changed", "routed"):
            stack.enter_context(patch.object(events, name, _ignore))
        stack.enter_context(patch.object(metrics, "circuit_seen", _ignore))
        stack.enter_context(patch.object(building, "traced", lambda _, step: step))
        yield


class Sdk:
    """OpenTelemetry's SDK for one contender, behind the API while it is in use, and no longer."""

    def __init__(self, contender: Contender, url: str) -> None:
        sampler: Sampler = ALWAYS_ON if contender.share == 1.0 else ParentBased(TraceIdRatioBased(contender.share))
        self.tracing = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        self.tracing.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{url}/v1/traces")))
        reader = PeriodicExportingMetricReader(
            OTLPMetricExporter(endpoint=f"{url}/v1/metrics"), export_interval_millis=3_600_000
        )
        self._metering = MeterProvider([reader], shutdown_on_exit=False)
        self._logging = LoggerProvider(shutdown_on_exit=False)
        self._logging.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter(endpoint=f"{url}/v1/logs")))
        self._records = otlp.LogHandler(self._logging)
        self._everything = contender.everything
        self._tracer = self.tracing.get_tracer(names.SCOPE)
        meter = self._metering.get_meter(names.SCOPE)
        self._instruments: list[tuple[Any, Any]] = []
        for proxy in (each for each in vars(metrics).values() if hasattr(each, "on_meter_set")):
            proxy.on_meter_set(meter)
            self._instruments.append((proxy, proxy._real_instrument))
            proxy._real_instrument = None

    @contextmanager
    def behind_the_api(self) -> Iterator[None]:
        """Be what the API's proxies lead to, as after `set_tracer_provider`, which cannot be taken back."""
        with ExitStack() as stack:
            stack.enter_context(patch.object(spans, "_tracer", self._tracer))
            for proxy, real in self._instruments:
                stack.enter_context(patch.object(proxy, "_real_instrument", real))
            if self._everything:
                stack.enter_context(patch.dict(os.environ, {_CONTENT: "true"}))
                log = logging.getLogger("tidegate")
                log.setLevel(logging.INFO)
                log.addHandler(self._records)
                stack.callback(log.setLevel, logging.NOTSET)
                stack.callback(log.removeHandler, self._records)
            yield

    def flush(self) -> None:
        """Send what there is, in the CPU time of this process."""
        self.tracing.force_flush()
        self._metering.force_flush()
        if self._everything:
            self._logging.force_flush()


class Stage:
    """Where contenders bring documents through, one after the other, on one event loop."""

    def __init__(self, url: str, collector: str, folder: Path) -> None:
        """`url` answers look-ups, `collector` takes OTLP: both are in another process."""
        self._url, self._collector, self._folder = url, collector, folder
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        self._sdks: dict[Contender, Sdk] = {}
        self._pipelines: dict[tuple[Contender, str], Pipeline] = {}

    def measure(self, contender: Contender, store: str, numbers: range) -> float:
        """Return the CPU seconds of so many runs, all threads, and of the export; `store` is `memory` or `sqlite`."""
        with self._watching(contender) as flush:
            pipeline = self._pipelines.get((contender, store))
            if pipeline is None:
                pipeline = self._runner.run(self._open(contender, store))
                self._pipelines[contender, store] = pipeline
            documents = [text(number) for number in numbers]
            gc.collect()
            began = time.process_time()
            results = [self._runner.run(pipeline.run(text=each, name="minutes.txt")) for each in documents]
            flush()
            spent = time.process_time() - began
        for result in results:
            assert result.status == "complete", result.missing
            assert len(result.enrichments) == LOOK_UPS
        return spent

    @contextmanager
    def _watching(self, contender: Contender) -> Iterator[Callable[[], None]]:
        if not contender.exports:
            with unwatched() if contender == NONE else nullcontext():
                yield _ignore
            return
        sdk = self._sdks.get(contender)
        if sdk is None:
            sdk = self._sdks[contender] = Sdk(contender, self._collector)
            if contender.module is not None:  # for good: OpenLLMetry's `uninstrument` leaves most of it in place
                instrumentor = getattr(import_module(contender.module), contender.instrumentor)
                instrumentor().instrument(tracer_provider=sdk.tracing)
        with unwatched() if contender.module is not None else sdk.behind_the_api():
            yield sdk.flush

    async def _open(self, contender: Contender, store: str) -> Pipeline:
        places: Mapping[str, str] = {
            "memory": "memory:",
            "sqlite": f"sqlite:///{self._folder}/{contender.name.split()[0]}-{len(self._pipelines)}.db",
        }
        settings = Settings.read(
            checkpoints=places[store],
            enrichment={"adapter": "http", "url": self._url, "batch_size": 1},
        )
        model = ScriptedChat(answer=_summary)
        return await self._stack.enter_async_context(Pipeline.open(settings, model=model, recogniser=Salted()))

    def close(self) -> None:
        self._runner.run(self._stack.aclose())
        self._runner.close()


_stage: Stage | None = None


def worker_opens(url: str, collector: str, folder: Path) -> None:
    """Set the stage in the process that calls this."""
    global _stage
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    _stage = Stage(url, collector, folder)


def worker_measures(contender: Contender, store: str, numbers: range) -> float:
    """Measure runs there, of the documents with these numbers."""
    assert _stage is not None
    return _stage.measure(contender, store, numbers)


def worker_closes() -> None:
    """Close what is open there."""
    if _stage is not None:
        _stage.close()
