"""Pipeline: run, resume, stream, heal and inspect threads, by ID."""

from __future__ import annotations

import sys
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from os import PathLike
from typing import TYPE_CHECKING, Any, TypeVar

from anyio.from_thread import start_blocking_portal
from langgraph.graph.state import CompiledStateGraph

from tidegate.checkpointers import locate, open_checkpointer
from tidegate.checkpointers.saving import Pruned, Saver
from tidegate.errors import ThreadError
from tidegate.graph import adapters
from tidegate.graph.drain import Drain
from tidegate.graph.drawing import Path, visited
from tidegate.graph.execution import Emit, Executions
from tidegate.graph.healing import Healed, Sweep
from tidegate.graph.home import Home
from tidegate.graph.pipeline import build_graph
from tidegate.graph.result import Event, HistoryEntry, Result
from tidegate.graph.thread_ids import default_thread_id
from tidegate.graph.unattended import Judge, Unattended
from tidegate.graph.upkeep import Checked, Finding, Forgotten, Upkeep
from tidegate.graph.verdicts import Verdicts
from tidegate.graph.wiring import Models, Source, Wired, wire
from tidegate.nodes.enrich import Enricher
from tidegate.nodes.extract import Recogniser
from tidegate.resilience.breaker import CircuitReport
from tidegate.resilience.circuits import Forced
from tidegate.resilience.guard import Guard
from tidegate.settings import Policy, ServiceSettings, Settings
from tidegate.state import Input, Output, State
from tidegate.store.clock import Clock
from tidegate.store.registry import ThreadRecord, ThreadStatus
from tidegate.telemetry import metrics

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool

_Result = TypeVar("_Result")


class Pipeline:
    """Documents in, enriched and sourced summaries out, each document in a thread of its own.

    Open one and keep it: `async with Pipeline.open() as pipeline`, or `with Pipeline.open_sync() as pipeline`. The
    methods may be awaited from any event loop, their `_sync` twins called from any thread but the pipeline's own.

    `registry`, `inbox` and `outbox` are for engines, which run threads unattended.
    """

    def __init__(self, wired: Wired, checkpointer: Saver, settings: Settings) -> None:
        self.settings = settings
        self.graph = build_graph(wired.services, settings).compile(checkpointer=checkpointer, name="tidegate")
        self._wired = wired
        self.registry = wired.registry
        self.inbox = wired.inbox
        self.outbox = wired.outbox
        self._executions = Executions(self.graph, wired.services, wired.registry, wired.leases, wired.outbox)
        self._upkeep = Upkeep(
            checkpointer,
            self._executions.looks,
            store=wired.store,
            registry=wired.registry,
            documents=wired.documents,
            leases=wired.leases,
            journal=wired.journal,
        )
        self._verdicts = Verdicts(self._executions, wired.registry, wired.leases)
        self._home = Home()

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        settings: Settings | None = None,
        *,
        model: Models | None = None,
        recogniser: Recogniser | None = None,
        enricher: Enricher | None = None,
        clock: Clock | None = None,
    ) -> AsyncIterator[Pipeline]:
        """Open everything that the settings name; by default they are read from `TIDEGATE_*` and `tidegate.toml`.

        A stream that was left early is cancelled at the end of the block, and its thread can be resumed.
        `model`, `recogniser` and `enricher` take the place of those that the settings name, and stay the caller's to
        close. Of several models, each is asked where the ones before it cannot be. An enricher brings its own guard.

        Raises:
            SettingsError: a setting is wrong, a file cannot be used, or an extra is missing.
        """
        settings = settings or Settings.read()
        services = wire(settings, model=model, recogniser=recogniser, enricher=enricher, clock=clock)
        url = settings.checkpoints
        key = settings.key if locate(url).kind != "sqlite" else None  # which the store was opened with
        async with services as wired, open_checkpointer(url, store=wired.store, key=key) as saver:
            await wired.store.open()  # after the saver, which makes the folder that both are in
            metrics.begin(breaker.name for breaker in wired.used)
            pipeline = cls(wired, saver, settings)
            try:
                yield pipeline
            finally:
                await pipeline._home.close()

    @classmethod
    @contextmanager
    def open_sync(
        cls,
        settings: Settings | None = None,
        *,
        model: Models | None = None,
        recogniser: Recogniser | None = None,
        enricher: Enricher | None = None,
        clock: Clock | None = None,
    ) -> Iterator[Pipeline]:
        """Open a pipeline for blocking code: it lives on an event loop in a thread of its own."""
        opened = cls.open(settings, model=model, recogniser=recogniser, enricher=enricher, clock=clock)
        with start_blocking_portal() as portal, portal.wrap_async_context_manager(opened) as pipeline:
            yield pipeline

    async def run(
        self,
        source: Source | None = None,
        *,
        text: str | None = None,
        name: str | None = None,
        thread_id: str | None = None,
        fresh: bool = False,
        when_open: Policy | None = None,
    ) -> Result:
        """Take a document in and bring its thread as far as it gets.

        `source` is a path, an http(s) URL, `-` for standard input, or raw bytes; `text` is the document itself. `name`
        names bytes and text in results. The thread ID defaults to one made of the name and the document's SHA-256: the
        same document under the same name is the same thread. A thread that exists is resumed, never started again;
        `fresh` starts another one all the same.
        `when_open` is the policy for this execution, in place of each service's own.

        Raises:
            DocumentError: the document cannot be worked on; its class says why.
            DocumentMismatch: the thread ID belongs to another document.
            IncompatibleThread, CheckpointDamaged: see `resume`.
            CircuitOpen: policy `fail`, and a circuit is open; the thread can be resumed.
        """
        work = self._run(source, text=text, name=name, thread_id=thread_id, fresh=fresh, when_open=when_open)
        return await self._home.run(work)

    async def resume(
        self,
        thread_id: str,
        *,
        when_open: Policy | None = None,
        control: Drain | None = None,
        unattended: Unattended | None = None,
    ) -> Result:
        """Bring a thread as far as it can get now.

        An unfinished or waiting thread goes on from its last checkpoint. A complete one returns what is stored. A
        degraded one asks for what is missing, and for nothing else, if a circuit lets calls through; else it returns
        what is stored, with `retry_in`. Once `control` is told to drain, the thread stops after its superstep.
        `unattended` is for engines.

        Raises:
            ThreadNotFound: no thread has this ID.
            IncompatibleThread: its stored state does not fit this version of the code.
            CheckpointDamaged: its stored state cannot be read.
            DocumentError: its document cannot be worked on, as the first run said.
            CircuitOpen: policy `fail`, and a circuit is open.
        """
        work = self._executions.advance(thread_id, None, when_open=when_open, control=control, unattended=unattended)
        return await self._home.run(work)

    def stream(
        self,
        source: Source | None = None,
        *,
        text: str | None = None,
        name: str | None = None,
        thread_id: str | None = None,
        fresh: bool = False,
        when_open: Policy | None = None,
        tokens: bool = False,
    ) -> AsyncGenerator[Event, None]:
        """Do what `run` does, or `resume` if only `thread_id` is given, and yield what happens; the result is last.

        `tokens` asks the model to stream, and yields its text as it comes. Leaving the loop early cancels the
        execution, which can be resumed.

        Raises:
            WrongThread: it is iterated on another event loop than the one the pipeline was opened on.
        """

        async def work(emit: Emit) -> None:
            options: dict[str, Any] = {"when_open": when_open, "emit": emit, "tokens": tokens}
            if source is None and text is None and thread_id is not None:
                result = await self._executions.advance(thread_id, None, **options)
            else:
                result = await self._run(source, text=text, name=name, thread_id=thread_id, fresh=fresh, **options)
            emit(Event(kind="result", result=result))

        return self._home.stream(work)

    def backfill(
        self,
        *,
        watch: bool = False,
        control: Drain | None = None,
        concurrency: int | None = None,
        judge: Judge | None = None,
    ) -> AsyncGenerator[Healed, None]:
        """Bring forward every thread that can be now, and yield each that was: `async for healed in ...`.

        Degraded threads ask for what they lack and can have, waiting ones go on, where the circuit admits a call: with
        one that is half-open, one thread is the probe. After it closed, threads are resumed one at a time at first,
        and twice as many after each success, up to the service's `concurrency`. Threads that another process runs are
        passed over. One that raises an error is yielded with it, and the others go on; it is left to the next sweep, or
        with `watch` to the next hour, if it was published before or the store was lost, and else to `resume`.

        With `watch` it does so from now on: it sleeps until a circuit may admit a call or a pause is over. Leaving the
        loop early cancels the executions, which can be resumed. Once `control` is told to drain, they stop after their
        supersteps, and it ends. `concurrency` is how many threads are resumed for one service at most, beside the
        service's own. `judge` is for engines.

        Raises:
            StoreUnavailable, StoreError: the threads cannot be looked up; with `watch`, it waits for the store.
            WrongThread: as `stream`.
        """
        services = self._wired.services
        most = sys.maxsize if concurrency is None else concurrency
        sweep = Sweep(
            self._executions,
            self._wired.registry,
            services.circuits,
            limits={
                "extraction": min(self.settings.extraction.concurrency, most),
                "enrichment": min(self.settings.enrichment.concurrency, most),
                "summary": min(self.settings.summary.concurrency, most),
            },
            clock=services.clock,
            watch=watch,
            control=control,
            judge=judge,
        )
        return self._home.stream(sweep.run)

    async def inspect(self, thread_id: str) -> Result:
        """Return how far a thread is, changing nothing.

        Raises:
            ThreadNotFound, IncompatibleThread, CheckpointDamaged: as `resume`.
        """
        return await self._home.run(self._executions.looks.inspect(thread_id))

    async def history(self, thread_id: str, *, limit: int | None = None) -> list[HistoryEntry]:
        """Return a thread's checkpoints, the newest first; none if it ended before its first one.

        Raises:
            ThreadNotFound: no thread has this ID.
        """
        return await self._home.run(self._executions.looks.history(thread_id, limit))

    async def threads(self, *, status: ThreadStatus | None = None, limit: int | None = 100) -> list[ThreadRecord]:
        """Return the threads in the registry, the most recently updated first; all of them without a `limit`."""
        return await self._home.run(self._wired.registry.threads(status=status, limit=limit))

    async def cancel(self, thread_id: str) -> bool:
        """Leave a thread as it is until it is resumed or retried; False if it is finished, or cancelled already.

        An execution of it that an engine began in this process is stopped.

        Raises:
            ThreadNotFound: there is none.
            ThreadBusy: it is being run, by another process or for somebody who waits for it.
        """
        return await self._home.run(self._verdicts.cancel(thread_id))

    async def give_up(self, seen: ThreadRecord, reason: str) -> bool:
        """Have nobody go on by itself with a thread; False if it is not as it was seen any more.

        Raises:
            ThreadBusy: it is being run.
        """
        return await self._home.run(self._verdicts.give_up(seen, reason))

    async def ask_again(self, thread_id: str) -> bool:
        """Queue a thread that waits or lacks something: a service brings it as far as it gets; False if it is none.

        Raises:
            ThreadNotFound: there is none.
            ThreadBusy: it is being run.
        """
        return await self._home.run(self._verdicts.ask_again(thread_id))

    async def retry(self, thread_id: str) -> None:
        """Queue a thread that failed, was interrupted, given up or cancelled: a service goes on where it stopped.

        Raises:
            ThreadNotFound: there is none.
            ThreadBusy: it is being run.
            ThreadError: it is none of these, or its document never came in.
        """
        await self._home.run(self._verdicts.retry(thread_id))

    async def retry_all(self) -> list[str]:
        """Queue all threads that were given up, and return their IDs."""
        return await self._home.run(self._verdicts.retry_all())

    async def delete(self, thread_id: str) -> None:
        """Delete a thread: its checkpoints and its place in the list. Its document and its answers stay.

        Raises:
            ThreadNotFound: there is none.
            ThreadBusy: it is being run.
        """
        await self._home.run(self._upkeep.delete(thread_id))

    async def copy(self, thread_id: str, to: str) -> None:
        """Copy a thread, its history included, to an ID that has none.

        Raises:
            ThreadNotFound: there is no such thread.
            CheckpointDamaged: its checkpoints are gone, or one of them cannot be read.
            ThreadError: there is one under the other ID.
            ThreadBusy: one of them is being run.
        """
        await self._home.run(self._upkeep.copy(thread_id, to))

    async def prune(self, *, keep_last: int | None = None, older_than: float | None = None) -> Pruned:
        """Remove checkpoints of all threads: all but the newest `keep_last`, and those `older_than` so many seconds.

        The newest of each thread and what was published by each revision stay. Threads may be run meanwhile.

        Raises:
            CheckpointDamaged: one that has to stay cannot be read; its thread is left as it is.
        """
        return await self._home.run(self._upkeep.prune(keep_last=keep_last, older_than=older_than))

    async def forget(self, document: str) -> Forgotten:
        """Remove a document and all that was made of it: threads, answers that were recorded for it, raw bytes.

        `document` is its SHA-256 or the beginning of that (8 digits at least), or its source as threads name it.

        Raises:
            DocumentNotFound: there is none, or there are several.
            ThreadBusy: one of its threads is being run.
        """
        return await self._home.run(self._upkeep.forget(document))

    async def forget_finished(self, *, older_than: float) -> int:
        """Forget what has been over for so many seconds, a day or more; return how many threads that were.

        Over is a thread that is complete, cancelled, or degraded without anything that can be had still, and whose
        result each sink has. It goes with its checkpoints, its results, its document, if no other thread is about that,
        and the event that began it: one that is delivered again after that is new. So is none that comes within
        `older_than` seconds, and none of a file that is still in a watched folder. Threads may be run meanwhile.

        Raises:
            SettingsError: `older_than` is less than a day.
        """
        return await self._home.run(self._upkeep.forget_finished(older_than))

    async def forget_not_found(self) -> int:
        """Drop the recorded answers that there is no such thing, as after a wrong URL was mended; return how many.

        Results that rest on them stay: `run` with `fresh` asks again.
        """
        return await self._home.run(self._upkeep.forget_not_found())

    async def check_threads(self) -> list[Checked]:
        """Say of every thread whether this code can resume it: for use before a deploy."""
        return await self._home.run(self._upkeep.check_threads())

    async def diagnose(self) -> list[Finding]:
        """Return the threads that are not finished, or whose results are gone, why, and what helps.

        The longest untouched are first. A degraded thread is finished.
        """
        return await self._home.run(self._upkeep.diagnose())

    async def damage(self) -> list[str]:
        """Check the store's file, and return what is wrong with it; nothing is checked of a server's database."""
        return await self._home.run(self._upkeep.damage())

    async def circuits(self) -> list[CircuitReport]:
        """Return every circuit: those of the services in use, and those that ever failed here."""
        return await self._home.run(self._wired.reports())

    async def force_circuit(self, name: str, to: Forced | None) -> None:
        """Hold the circuit `recogniser`, `enrichment`, `model` (`model-2` for the next) "open" or "closed" by hand.

        None lets it go: it is closed, its failures are forgotten, and it opens by itself again.

        Raises:
            SettingsError: there is none of this name.
            CircuitsUnavailable: the place where circuits are kept cannot be written; nothing was changed.
        """
        await self._home.run(self._wired.force(name, to))

    def guard(self, name: str, settings: ServiceSettings) -> Guard:
        """Return a guard for a service that is not the pipeline's, whose circuit is kept with the others."""
        return self._wired.guard(name, settings)

    async def path(self, thread_id: str) -> Path:
        """Return the steps and edges that a thread went over so far, for `tidegate.graph.drawing`.

        Raises:
            ThreadNotFound: no thread has this ID.
        """
        entries = await self.history(thread_id)
        supersteps = [entry.next for entry in reversed(entries[1:])]
        finished = [entry.next for entry in entries[:1] if not entry.next]
        return visited([*supersteps, *finished], self.graph.get_graph())

    async def take_in(self, source: Source | None = None, *, text: str | None = None, name: str | None = None) -> Input:
        """Read a document into the document store, and return the graph's input for it: for use as a subgraph.

        Raises:
            DocumentError: it cannot be read, is empty, or is too large.
        """
        return await self._home.run(self._take_in(source, text, name))

    def run_sync(
        self,
        source: Source | None = None,
        *,
        text: str | None = None,
        name: str | None = None,
        thread_id: str | None = None,
        fresh: bool = False,
        when_open: Policy | None = None,
    ) -> Result:
        """Do what `run` does, blocking this thread.

        Raises:
            WrongThread: called on the pipeline's own event loop; await `run` there.
        """
        work = self._run(source, text=text, name=name, thread_id=thread_id, fresh=fresh, when_open=when_open)
        return self._home.run_sync(work)

    def resume_sync(self, thread_id: str, *, when_open: Policy | None = None) -> Result:
        """Do what `resume` does, blocking this thread."""
        return self._home.run_sync(self.resume(thread_id, when_open=when_open))

    def block_on(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Run a coroutine on the pipeline's event loop, blocking this thread."""
        return self._home.run_sync(work)

    def subgraph(self) -> CompiledStateGraph[State, None, Input, Output]:
        """Return the graph without a checkpointer, to be a step of another asynchronous graph, which brings its own.

        Its channels are those of `tidegate.state.Input`, which `take_in` returns, and `tidegate.state.Output`. Inside
        of another graph, threads are that graph's: not in this pipeline's registry, and resumed through it.
        """
        return build_graph(self._wired.services, self.settings).compile(name="tidegate")

    def as_node(self, *, document: str = "document", thread: str = "thread_id", result: str = "result") -> Any:
        """Return a step for another graph, synchronous or not; the arguments name the channels of that graph.

        It reads the path or URL in `document` and, where there is one, the thread ID in `thread`, and writes
        `Result.to_dict()` to `result`.
        """
        return adapters.as_node(self, document, thread, result)

    def as_tool(self, *, root: str | PathLike[str] | None = None, namespace: str = "tool-") -> BaseTool:
        """Return a LangChain tool for an agent: it summarizes a text, or a file below `root`, or completes an answer.

        A model chooses the arguments, so no file outside of `root` can be read, and none at all without one; and only
        threads whose IDs begin with `namespace`, as those of its own answers do, can be resumed. The policy is
        `degrade` always: an agent gets an answer that says what it lacks, not an interrupt.
        """
        return adapters.as_tool(self, root, namespace)

    async def _take_in(self, source: Source | None, text: str | None, name: str | None) -> Input:
        loaded = await self._wired.load(source, text=text, name=name)
        sha256 = await self._wired.documents.put(loaded.data)
        return Input(source=loaded.source, document_sha256=sha256, media_type=loaded.media_type)

    async def _run(
        self,
        source: Source | None,
        *,
        text: str | None,
        name: str | None,
        thread_id: str | None,
        fresh: bool,
        **options: Any,
    ) -> Result:
        if fresh and thread_id is not None:
            raise ThreadError(thread_id, "was named for a fresh run; leave out the ID or `fresh`")
        start = await self._take_in(source, text, name)
        if thread_id is None:
            thread_id = default_thread_id(start) + (f"-{uuid.uuid4().hex[:6]}" if fresh else "")
        return await self._executions.advance(thread_id, start, **options)
