"""The service: a pipeline, an engine, triggers, deliveries and the HTTP interface, from start to drained end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from os import _exit
from typing import Any

from tidegate.engine.in_process import InProcessEngine
from tidegate.errors import SettingsError
from tidegate.graph.runner import Pipeline
from tidegate.graph.waiting import end
from tidegate.server import app as http
from tidegate.server import webhooks
from tidegate.server.bodies import Room
from tidegate.server.boundary import App, Boundary
from tidegate.server.context import Context
from tidegate.server.documents import FORM_OVERHEAD
from tidegate.server.exposition import Exposition
from tidegate.server.forgetting import forget_daily
from tidegate.server.listening import HttpServer, Socket
from tidegate.server.notify import Notifier
from tidegate.server.supervision import keep_running
from tidegate.server.tokens import Tokens
from tidegate.services.addresses import networks
from tidegate.services.fetching import Fetcher
from tidegate.settings import Settings
from tidegate.sinks.delivery import Relay
from tidegate.sinks.opening import open_sink
from tidegate.store.clock import Clock, SystemClock
from tidegate.store.registry import ThreadStatus
from tidegate.triggers.door import Door, Trigger
from tidegate.triggers.opening import open_trigger

_log = logging.getLogger(__name__)

AT_ONCE = 2.0
"""Seconds after a second signal when the process ends, whatever it is doing."""

INTERRUPTED = 130
_UNFINISHED: tuple[ThreadStatus, ...] = ("queued", "running", "waiting", "failed")


class Service:
    """One process that runs unattended."""

    def __init__(self, settings: Settings, *, exposition: Exposition | None = None, clock: Clock | None = None) -> None:
        """Check the settings, and bind the socket; metrics are shown by the `exposition`.

        Raises:
            SettingsError: it cannot be run so.
        """
        self._settings = settings
        self._clock = clock or SystemClock()
        serve = settings.serve
        self._tokens = Tokens(serve.tokens, serve.tokens_file, clock=self._clock)
        self._fetcher = Fetcher(
            max_bytes=settings.max_document_bytes, allowed=networks(serve.allow_networks), clock=self._clock
        )
        self._triggers: list[Trigger] = [
            open_trigger(each, fetch=self._fetcher.fetch) for each in settings.trigger if each.kind != "webhook"
        ]
        self._sinks = [open_sink(each, settings.trigger) for each in settings.sink]
        self._notifier = Notifier()
        self._exposition = exposition or Exposition()
        self._stopping = asyncio.Event()
        self._signals = 0
        self._socket = Socket(serve.host, serve.port)
        with contextlib.ExitStack() as undone:
            undone.callback(self._socket.close)
            self._check_who_can_connect()
            hooks = [each for each in settings.trigger if each.kind == "webhook"]
            self._webhooks = webhooks.webhooks(hooks, self._clock, is_loopback=self._socket.is_loopback)
            undone.pop_all()

    def _check_who_can_connect(self) -> None:
        if not self._socket.is_loopback and not self._tokens.required:
            raise SettingsError(
                f"serve.host {self._settings.serve.host} can be reached from other machines, and there is no token; "
                "set TIDEGATE_SERVE__TOKENS or serve.tokens_file, or listen on 127.0.0.1"
            )

    @property
    def url(self) -> str:
        """Where its HTTP interface is."""
        return self._socket.url

    @property
    def was_interrupted(self) -> bool:
        """Whether a second signal ended it before it was drained."""
        return self._signals > 1

    def stop(self) -> None:
        """Drain and end."""
        self._stopping.set()

    async def run(self, on_ready: Callable[[str], None] = lambda _: None) -> None:
        """Serve until stopped, or until SIGTERM or SIGINT; `on_ready` is told what it is doing.

        Raises:
            SettingsError: a trigger cannot begin.
        """
        with contextlib.closing(self._socket), self._listening_to_signals():
            async with Pipeline.open(self._settings, clock=self._clock) as pipeline:
                await self._run(pipeline, on_ready)

    async def _run(self, pipeline: Pipeline, on_ready: Callable[[str], None]) -> None:
        limit = self._settings.max_document_bytes
        engine = InProcessEngine(pipeline, clock=self._clock)
        door = Door(engine, pipeline.inbox, max_document_bytes=limit, clock=self._clock)
        relay = Relay(pipeline, self._sinks, clock=self._clock)
        worker: asyncio.Task[None] | None = None
        context = Context(
            pipeline=pipeline,
            engine=engine,
            door=door,
            fetch=self._fetcher.fetch,
            room=Room(2 * (2 * limit + FORM_OVERHEAD)),
            clock=self._clock,
            is_working=lambda: worker is not None and not worker.done(),
            stopping=self._stopping,
        )
        app = http.build(context, webhooks.router(context, self._webhooks), self._exposition.router(context))
        server = HttpServer(self._around(app), self._socket)
        keep = partial(keep_running, clock=self._clock, is_over=self._stopping.is_set)
        worker = asyncio.create_task(keep("the engine", engine.run_worker))
        delivering = asyncio.create_task(keep("the relay", relay.run if self._sinks else self._nothing))
        serving = asyncio.create_task(server.run_until_stopped())
        stopping = asyncio.create_task(self._stopping.wait())
        watching = asyncio.create_task(self._notifier.watch(partial(http.store_answers, context), self._clock))
        triggers = [
            asyncio.create_task(keep(f"trigger {each.name}", partial(each.run, door))) for each in self._triggers
        ]
        keeps, forgetting = self._settings.serve.keep_finished, []
        if keeps is not None:
            forget = partial(forget_daily, pipeline, keeps, self._clock)
            forgetting.append(asyncio.create_task(keep("forgetting", forget)))
        try:
            await _first(asyncio.create_task(server.listening.wait()), serving, worker, delivering, *triggers)
            counts = await pipeline.registry.count()
            unfinished = sum(counts.get(each, 0) for each in _UNFINISHED)
            triggers_, sinks_ = len(self._settings.trigger), len(self._settings.sink)
            on_ready(f"{self.url}; triggers: {triggers_}, sinks: {sinks_}, unfinished threads: {unfinished}")
            self._notifier.tell("READY=1", f"STATUS={self.url}")
            await _first(stopping, serving, worker, delivering, *triggers)
        finally:
            self._stopping.set()
            self._notifier.tell("STOPPING=1")
            grace = self._clock.monotonic() + self._settings.serve.grace
            engine.stop()
            await _cancel(*triggers, *forgetting)  # which may take a moment, of the same grace period
            await self._until(grace, worker, "executions are cancelled, and resumed at the next start")
            relay.stop()  # after the executions, whose results it may deliver still
            await self._until(grace, delivering, "deliveries are cancelled, and made at the next start")
            for sink in self._sinks:
                await sink.aclose()
            server.stop()
            await asyncio.wait([serving])
            await _cancel(stopping, watching)

    async def _nothing(self) -> None:
        """Wait for the end, where there is nothing to do until then."""
        await self._stopping.wait()

    def _around(self, app: App) -> App:
        return Boundary(
            app,
            tokens=self._tokens,
            is_loopback=self._socket.is_loopback,
            host=self._settings.serve.host,
            unsigned=[hook.path for hook in self._webhooks if hook.signatures is None],
        )

    async def _until(self, grace: float, task: asyncio.Task[None], otherwise: str) -> None:
        """Let a task end by itself until the grace period is over."""
        await asyncio.wait([task], timeout=max(0.0, grace - self._clock.monotonic()))
        if not task.done():
            _log.warning("the grace period is over: %s", otherwise)
        await _cancel(task)

    @contextlib.contextmanager
    def _listening_to_signals(self) -> Iterator[None]:
        """Drain at the first signal, and end at the second; nothing outside of the main thread, which gets them all."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def arrived() -> None:
            self._signals += 1
            self._stopping.set()
            if self._signals == 2:
                # Whatever a kill leaves behind, the next start goes on from; so nothing is waited for.
                ending = threading.Timer(AT_ONCE, _exit, [INTERRUPTED])
                ending.daemon = True
                ending.start()
                if task is not None:
                    task.cancel()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, arrived)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)


async def _first(awaited: asyncio.Task[Any], *needed: asyncio.Task[None]) -> None:
    """Wait for one task, while those go on that are needed.

    Raises:
        SettingsError: one of them says that it cannot work as it is set.
    """
    done, _ = await asyncio.wait([awaited, *needed], return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()
    if awaited not in done:
        raise RuntimeError("a part of the service ended that runs for ever")


async def _cancel(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks, and wait for their ends; what they ended with was told, or raised, before."""
    await end(tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()
