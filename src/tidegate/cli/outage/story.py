"""The demo's story: a service answers, is down, and comes back, while documents go through the pipeline."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Literal

from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from tidegate.checkpointers import open_checkpointer
from tidegate.cli.outage.documents import DOCUMENTS
from tidegate.cli.outage.screen import Board, Row, Screen
from tidegate.cli.outage.service import Asked, NameService
from tidegate.graph.result import Event, Result
from tidegate.graph.runner import Pipeline
from tidegate.graph.wiring import wire
from tidegate.resilience.breaker import CircuitChange
from tidegate.settings import EnrichmentSettings, Settings

_HEALTHY = 2  # documents before the outage
_ANSWERS = 3  # of the next one's four names, before the service fails: so all three failures are of the fourth
_OPEN = 4.0  # seconds: twice as long as the documents of the outage take
_DOWN = 1.0  # seconds from the failed probe until the service is back
_PACE = 0.4  # seconds between two documents, so that eyes can follow
_LOOK_UPS = EnrichmentSettings(adapter="http", concurrency=1, reset_timeout=_OPEN)

_Phase = Literal["up", "down", "back"]
_HEADINGS: dict[_Phase, str] = {
    "up": "1. The service answers",
    "down": "2. The service is down: documents are summarized without it, and say so (degraded)",
    "back": "3. The service is back: a probe finds out, and backfill asks for what is missing",
}


_ENDINGS: dict[_Phase, str] = {"up": "while it answered", "down": "while it was down", "back": "when it was back"}


class _Fixed(Settings):
    """Settings of the demo's own: neither variables nor a file change the story."""

    model_config = SettingsConfigDict(toml_file=None)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


class Story:
    """One telling. What it says is counted from what happened, the requests by the service that got them."""

    def __init__(self, screen: Screen, *, stop: Callable[[], object]) -> None:
        """Tell it on this screen, on the running event loop; `stop` is called when nobody reads any more."""
        self._screen = screen
        self._service = NameService(self._asked)
        self._rows = {name: Row(name) for name in DOCUMENTS}
        self._board = Board(list(self._rows.values()))
        self._stop = stop
        self._began = time.monotonic()
        self._phase: _Phase = "up"
        self._wanted: Counter[_Phase] = Counter()
        self._requests: Counter[_Phase] = Counter()
        self._answers: Counter[_Phase] = Counter()
        self._paid: Counter[str] = Counter()  # answers, by name
        self._keys: Counter[str] = Counter()  # requests, by Idempotency-Key
        self._sent: Counter[str] = Counter()  # requests of executions that have not ended, by document
        self._probes_failed = 0

    async def tell(self, folder: Path) -> None:
        """Tell it from beginning to end; threads are kept in the folder."""
        with self._service.server as server:
            look_ups = _LOOK_UPS.model_copy(update={"url": f"{server.url}/names"})
            settings = _Fixed(checkpoints=f"sqlite:///{folder}/tidegate.db", recogniser="rules", enrichment=look_ups)
            async with wire(settings) as wired, open_checkpointer(settings.checkpoints, store=wired.store) as saver:
                await wired.store.open()
                for breaker in wired.breakers:
                    breaker.listeners.append(self._changed)
                await self._act(Pipeline(wired, saver, settings))

    async def _act(self, pipeline: Pipeline) -> None:
        self._say(
            f"{len(DOCUMENTS)} short documents are summarized. The names in them are looked up at a service on "
            f"127.0.0.1,\nwhich will fail. It gets one request at a time, and a name is given "
            f"{_LOOK_UPS.attempts} attempts."
        )
        self._screen.show(self._board)
        self._begin("up")
        for number, name in enumerate(DOCUMENTS):
            if number == _HEALTHY:
                self._service.fail_after(_ANSWERS)
            async for event in pipeline.stream(text=DOCUMENTS[name], name=name, thread_id=name):
                self._happened(name, event)
            await asyncio.sleep(_PACE)
        await self._heal(pipeline)
        self._screen.leave()
        self._sum_up()

    async def _heal(self, pipeline: Pipeline) -> None:
        missing = sum((row.names or 0) - row.found for row in self._rows.values())
        self._wanted.update({"up": self._answers["up"], "down": missing, "back": missing})
        self._line("backfill", "watches, to ask for what is missing when the circuit lets it")
        async with aclosing(pipeline.backfill(watch=True)) as threads:
            async for healed in threads:
                if healed.error is not None:
                    raise healed.error
                if healed.result is not None:
                    self._ended(healed.thread_id, healed.result)
                if all(row.status == "complete" for row in self._rows.values()):
                    return

    def _happened(self, name: str, event: Event) -> None:
        row = self._rows[name]
        if event.kind == "started":
            row.status = event.step
        elif event.kind == "finished" and event.step == "extract":
            row.names = sum(event.detail.get(kind, 0) for kind in _LOOK_UPS.types)
        elif event.result is not None:
            self._ended(name, event.result)

    def _ended(self, name: str, result: Result) -> None:
        row, sent = self._rows[name], self._sent.pop(name, 0)
        row.status, row.revision = result.status, result.revision
        found = f"{row.found} of {row.names} names found"
        requests = f"{sent} request{'' if sent == 1 else 's'}" if sent else "0 requests, it went around the service"
        self._line(name, f"{result.status}, revision {result.revision}: {found}, {requests}")

    def _asked(self, asked: Asked) -> None:
        """Take notice of a request; its answer is on the way."""
        if not asked.is_answered and self._phase == "up":
            self._begin("down")
        name = next(name for name, text in DOCUMENTS.items() if asked.name in text)
        self._requests[self._phase] += 1
        self._board.requests += 1
        self._sent[name] += 1
        self._keys[asked.key] += 1
        is_probe = self._board.circuit == "half_open"
        if asked.is_answered:
            self._answers[self._phase] += 1
            self._paid[asked.name] += 1
            self._rows[name].found += 1
        elif is_probe:
            self._probes_failed += 1
        if is_probe or not asked.is_answered:
            again = ", tried again" if self._keys[asked.key] > 1 and not is_probe else ""
            answer = "answered" if asked.is_answered else "503 Service Unavailable"
            self._line(name, f"looks up {asked.name}{again}: {answer}")

    def _changed(self, change: CircuitChange) -> None:
        """Take notice of the circuit's new state."""
        self._board.circuit = change.to
        self._board.probe_at = time.monotonic() + _OPEN
        match change.from_, change.to:
            case "closed", _:
                told = f"opens after {_LOOK_UPS.failure_threshold} failures in a row: no request for {_OPEN:g} s"
            case "open", _:
                told = "half-open: lets one request through, as a probe"
            case _, "open":
                told = f"open again: no request for {_OPEN:g} s"
                asyncio.get_running_loop().call_later(_DOWN, self._come_back)
            case _:
                told = "closed: requests are let through again"
        self._line("circuit", told)

    def _come_back(self) -> None:
        self._begin("back")
        self._service.come_back()
        self._line("service", "answers again; nobody tells the pipeline")

    def _begin(self, phase: _Phase) -> None:
        self._phase = phase
        self._board.service = "down" if phase == "down" else "answers"
        self._say(f"\n{_HEADINGS[phase]}")

    def _say(self, line: str) -> None:
        try:
            self._screen.say(line)
        except BrokenPipeError:  # which nobody would notice in a callback
            self._stop()

    def _line(self, subject: str, told: str) -> None:
        self._say(f"{time.monotonic() - self._began:6.1f} s  {subject:<14} {told}")

    def _sum_up(self) -> None:
        self._say("\nThe service's own count   names wanted   requests   answers")
        for phase, told in _ENDINGS.items():
            counts = (self._wanted[phase], self._requests[phase], self._answers[phase])
            self._say(f"  {told:<22} {counts[0]:>13} {counts[1]:>10} {counts[2]:>9}")
        wanted, sent, attempts = self._wanted["down"], self._requests["down"], _LOOK_UPS.attempts
        twice = sum(count > 1 for count in self._paid.values())
        self._say(
            f"\nThe outage cost {sent} requests: {sent - self._probes_failed} until the circuit opened, "
            f"{self._probes_failed} as a probe. {wanted} names with {attempts} attempts each\n"
            f"would have been {wanted * attempts}. Now all {len(DOCUMENTS)} documents are complete: "
            f"{self._paid.total()} answers, {twice or 'none'} of them paid for twice.\n"
            f"The {self._keys.total()} requests carried {len(self._keys)} idempotency keys, "
            "one for each name, through retries, probe and backfill."
        )
