"""Pipeline: run, resume, stream and inspect threads, by ID."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from os import PathLike
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from anyio.from_thread import start_blocking_portal
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph.state import CompiledStateGraph

from tidegate.checkpointers import open_checkpointer
from tidegate.errors import ThreadError
from tidegate.graph import adapters
from tidegate.graph.drawing import Path, visited
from tidegate.graph.execution import Executions
from tidegate.graph.home import Home
from tidegate.graph.pipeline import build_graph
from tidegate.graph.result import Event, HistoryEntry, Result
from tidegate.graph.wiring import Source, Wired, wire
from tidegate.resilience.breaker import CircuitReport
from tidegate.settings import Policy, Settings
from tidegate.state import Input, State
from tidegate.store.registry import ThreadRecord, ThreadStatus

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.tools import BaseTool

_Result = TypeVar("_Result")


class Pipeline:
    """Documents in, enriched and sourced summaries out, each document in a thread of its own.

    Open one and keep it: `async with Pipeline.open() as pipeline`, or `with Pipeline.open_sync() as pipeline`. The
    methods may be awaited from any event loop, their `_sync` twins called from any thread but the pipeline's own.
    """

    def __init__(self, wired: Wired, checkpointer: BaseCheckpointSaver[Any], settings: Settings) -> None:
        self.settings = settings
        self.graph = build_graph(wired.services, settings).compile(checkpointer=checkpointer, name="tidegate")
        self._wired = wired
        self._executions = Executions(self.graph, wired.services, wired.registry)
        self._home = Home()

    @classmethod
    @asynccontextmanager
    async def open(
        cls, settings: Settings | None = None, *, model: BaseChatModel | None = None, **services: Any
    ) -> AsyncIterator[Pipeline]:
        """Open everything that the settings name; by default they are read from `TIDEGATE_*` and `tidegate.toml`.

        `model` takes the place of the setting of that name. `services` may hold a `recogniser`, an `enricher`, a
        `clock` or a `transport` (httpx) of the caller's own.

        Raises:
            SettingsError: a setting is wrong, a file cannot be used, or an extra is missing.
        """
        settings = settings or Settings.read()
        async with open_checkpointer(settings.checkpoints) as saver, wire(settings, model=model, **services) as wired:
            yield cls(wired, saver, settings)

    @classmethod
    @contextmanager
    def open_sync(
        cls, settings: Settings | None = None, *, model: BaseChatModel | None = None, **services: Any
    ) -> Iterator[Pipeline]:
        """Open a pipeline for blocking code: it lives on an event loop in a thread of its own."""
        with (
            start_blocking_portal() as portal,
            portal.wrap_async_context_manager(cls.open(settings, model=model, **services)) as pipeline,
        ):
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

    async def resume(self, thread_id: str, *, when_open: Policy | None = None) -> Result:
        """Bring a thread as far as it can get now.

        An unfinished or waiting thread goes on from its last checkpoint. A complete one returns what is stored. A
        degraded one asks for what is missing, and for nothing else, if a circuit lets calls through; else it returns
        what is stored, with `retry_in`.

        Raises:
            ThreadNotFound: no thread has this ID.
            IncompatibleThread: its stored state does not fit this version of the code.
            CheckpointDamaged: its stored state cannot be read.
            DocumentError: its document cannot be worked on, as the first run said.
            CircuitOpen: policy `fail`, and a circuit is open.
        """
        return await self._home.run(self._executions.advance(thread_id, None, when_open=when_open))

    async def stream(
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
        execution, which can be resumed. Must be iterated on the event loop that the pipeline was opened on.
        """
        events: asyncio.Queue[Event | None] = asyncio.Queue()
        options: dict[str, Any] = {"when_open": when_open, "emit": events.put_nowait, "tokens": tokens}
        if source is None and text is None and thread_id is not None:
            work = self._executions.advance(thread_id, None, **options)
        else:
            work = self._run(source, text=text, name=name, thread_id=thread_id, fresh=fresh, **options)
        execution = asyncio.ensure_future(self._home.run(work))
        execution.add_done_callback(lambda _: events.put_nowait(None))
        try:
            while (event := await events.get()) is not None:
                yield event
            yield Event(kind="result", result=await execution)
        finally:
            if not execution.done():
                execution.cancel()
                await asyncio.wait([execution])

    async def inspect(self, thread_id: str) -> Result:
        """Return how far a thread is, changing nothing.

        Raises:
            ThreadNotFound, IncompatibleThread, CheckpointDamaged: as `resume`.
        """
        return await self._home.run(self._executions.inspect(thread_id))

    async def history(self, thread_id: str, *, limit: int | None = None) -> list[HistoryEntry]:
        """Return a thread's checkpoints, the newest first.

        Raises:
            ThreadNotFound: no thread has this ID.
        """
        return await self._home.run(self._executions.history(thread_id, limit))

    async def threads(self, *, status: ThreadStatus | None = None, limit: int = 100) -> list[ThreadRecord]:
        """Return the threads in the registry, the most recently updated first."""
        return await self._home.run(self._wired.registry.threads(status=status, limit=limit))

    async def circuits(self) -> list[CircuitReport]:
        """Return every circuit: those of the services in use, and those that ever failed here."""
        return await self._home.run(self._wired.reports())

    async def path(self, thread_id: str) -> Path:
        """Return the steps and edges that a thread went over so far, for `tidegate.graph.drawing`.

        Raises:
            ThreadNotFound: no thread has this ID.
        """
        newest, *before = await self.history(thread_id)
        supersteps = [entry.next for entry in reversed(before)]
        return visited([*supersteps, *([] if newest.next else [newest.next])], self.graph.get_graph())

    async def take_in(self, source: Source | None = None, *, text: str | None = None, name: str | None = None) -> Input:
        """Read a document into the document store, and return the graph's input for it: for use as a subgraph.

        Raises:
            DocumentError: it cannot be read, is empty, or is too large.
        """
        return await self._home.run(self._take_in(source, text, name))

    def run_sync(self, source: Source | None = None, **options: Any) -> Result:
        """Do what `run` does, blocking this thread.

        Raises:
            WrongThread: called on the pipeline's own event loop; await `run` there.
        """
        return self._home.run_sync(self.run(source, **options))

    def resume_sync(self, thread_id: str, *, when_open: Policy | None = None) -> Result:
        """Do what `resume` does, blocking this thread."""
        return self._home.run_sync(self.resume(thread_id, when_open=when_open))

    def block_on(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Run a coroutine on the pipeline's event loop, blocking this thread."""
        return self._home.run_sync(work)

    def subgraph(self) -> CompiledStateGraph[State, None, Input, State]:
        """Return the graph without a checkpointer, to be a step of another asynchronous graph, which brings its own.

        Its channels are those of `tidegate.state.State`; its input is what `take_in` returns. Inside of another graph,
        threads are that graph's: they are not in this pipeline's registry, and are resumed through it.
        """
        return build_graph(self._wired.services, self.settings).compile(name="tidegate")

    def as_node(self, *, document: str = "document", thread: str = "thread_id", result: str = "result") -> Any:
        """Return a step for another graph, synchronous or not; the arguments name the channels of that graph.

        It reads the path or URL in `document` and, where there is one, the thread ID in `thread`, and writes
        `Result.to_dict()` to `result`.
        """
        return adapters.as_node(self, document, thread, result)

    def as_tool(self, *, root: str | PathLike[str] | None = None) -> BaseTool:
        """Return a LangChain tool for an agent: it summarizes a text, or a file below `root`, or resumes a thread.

        A model chooses the arguments, so nothing outside of `root` can be read, and nothing at all without one. The
        policy is `degrade` always: an agent gets an answer that says what it lacks, not an interrupt.
        """
        return adapters.as_tool(self, root)

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
        thread_id = thread_id or default_thread_id(start) + (f"-{uuid.uuid4().hex[:6]}" if fresh else "")
        return await self._executions.advance(thread_id, start, **options)


def default_thread_id(input_: Input) -> str:
    """Return the thread ID of a document: its name, made safe to type, and the beginning of its SHA-256."""
    source = input_.get("source") or ""
    path = PurePath(urlsplit(source).path if "://" in source else source)
    slug = re.sub(r"[^\w.]+", "-", path.stem.lower()).strip("-.")[:40] or "document"
    return f"{slug}-{str(input_.get('document_sha256'))[:10]}"
