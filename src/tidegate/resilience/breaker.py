"""The circuit breaker: whether a service that fails is called, and by whom."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from tidegate.errors import FORCED, CircuitOpen, InProgress, NotFound, Permanent, Refused, ServiceError, Transient
from tidegate.resilience.circuits import (
    CircuitReport,
    Circuits,
    CircuitState,
    CircuitsUnavailable,
    FailureWindow,
    Forced,
    MemoryCircuits,
)
from tidegate.store.clock import Clock, SystemClock
from tidegate.store.transactions import STORE_PAUSE, WARNING_PAUSE
from tidegate.telemetry import metrics

__all__ = ["Breaker", "CircuitChange", "CircuitReport", "Permit"]

_LONGEST_PROBLEM = 200  # characters

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CircuitChange:
    """A circuit went from one state to another.

    `reason` is the kind of the failure that opened it, "forced" if somebody holds it so, else None.
    """

    name: str
    from_: CircuitState
    to: CircuitState
    reason: str | None


class Permit:
    """Leave to start one request, to be answered with a verdict: the first counts, none is as good as `released`."""

    __slots__ = ("_breaker", "_circuits", "_generation", "_is_probe", "_settled")

    def __init__(self, breaker: Breaker, circuits: Circuits, generation: int, *, is_probe: bool) -> None:
        """Made by `Breaker.permit`: what is said counts for this generation of the circuit alone."""
        self._breaker = breaker
        self._circuits = circuits
        self._generation = generation
        self._is_probe = is_probe
        self._settled = False

    @property
    def is_probe(self) -> bool:
        """Whether the circuit is half-open, and this request is to tell how the service is."""
        return self._is_probe

    async def succeeded(self) -> None:
        """Say that the service answered: failures so far are forgotten, a half-open circuit closes."""
        if self._settle():
            await self._breaker._succeeded(self._circuits, self._generation, is_probe=self._is_probe)  # noqa: SLF001 - its other half

    async def failed(self, error: ServiceError) -> None:
        """Say how the service failed.

        A transient failure counts; one that refused the credentials opens the circuit at once. After `Permanent`,
        `NotFound` and `InProgress` the service is known to be alive, which is a success here. All others, as
        `RateLimited`, say nothing.
        """
        if isinstance(error, (Permanent, NotFound, InProgress)):
            await self.succeeded()
        elif not isinstance(error, (Transient, Refused)):
            self.released()
        elif self._settle():
            failing = self._breaker._failed(self._circuits, self._generation, error, is_probe=self._is_probe)  # noqa: SLF001
            await _to_its_end(failing)

    def released(self) -> None:
        """Give the permit back with no verdict, as a cancelled caller does.

        Awaits nothing, so that it can be called while a coroutine is closed; other processes see it a moment later.
        """
        if self._settle() and self._is_probe:
            self._circuits.release(self._breaker.name, self._generation)

    def _settle(self) -> bool:
        first = not self._settled
        self._settled = True
        return first


class Breaker:
    """Guards one service, by name, together with all breakers that have this name and this store.

    Closed until `failure_threshold` consecutive failures, or too many in its `window`, then open for `reset_timeout`
    seconds, then half-open: one caller at a time is let through, for `probe_timeout` seconds at most, and its result
    closes the circuit or opens it again. A verdict counts only in the generation of the circuit that its permit was
    given in, so late news changes nothing. While the store cannot be reached, the breaker keeps a circuit of its own,
    which stays open for as long as the shared one would have, and logs a warning.
    """

    def __init__(
        self,
        name: str,
        store: Circuits,
        *,
        failure_threshold: int = 3,
        reset_timeout: float = 30.0,
        probe_timeout: float = 60.0,
        window: FailureWindow | None = None,
        clock: Clock | None = None,
        listeners: Sequence[Callable[[CircuitChange], None]] = (),
    ) -> None:
        """Guard the service `name`. `probe_timeout` must be longer than a request may take.

        Without a `window` a success writes nothing to the store; with one, every call does.
        `listeners`, to which more may be added, are called on the event loop, after a change, by the breaker that made
        it; they must not block.
        """
        self.name = name
        self.probe_timeout = probe_timeout
        self._store = store
        self._failure_threshold = failure_threshold
        self._reset_timeout = reset_timeout
        self._window = window
        self._clock = clock or SystemClock()
        self.listeners = list(listeners)
        self._local = MemoryCircuits(self._clock)
        self._seen: CircuitReport | None = None
        self._seen_until = 0.0
        self._local_until: float | None = None
        self._warned_until = self._clock.monotonic()
        self._state: CircuitState | None = None

    async def report(self) -> CircuitReport:
        """Return the circuit as it is now."""
        return (await self._read())[1]

    async def permit(self) -> Permit:
        """Let one request start.

        Raises:
            CircuitOpen: try again in `retry_in` seconds, or take another route now.
        """
        while True:
            circuits, report = await self._read()
            if not report.admits:
                raise CircuitOpen(self.name, retry_in=report.retry_in, reason=report.reason or "")
            if report.state == "closed":
                return Permit(self, circuits, report.generation, is_probe=False)
            try:
                probes = await circuits.probe(self.name, report.generation, lease=self.probe_timeout)
            except CircuitsUnavailable as error:
                self._store_lost(error)
                continue
            if probes == 1:
                self._tell("open", "half_open", None)
            if probes:
                return Permit(self, circuits, report.generation + 1, is_probe=True)
            # Another caller was faster: look again.

    async def force_open(self) -> None:
        """Let no call through until `force_close` or `reset`; resilience4j calls this FORCED_OPEN.

        Raises:
            CircuitsUnavailable: the store cannot be written, and nothing was changed; so for the next two as well.
        """
        await self._force("open")

    async def force_close(self) -> None:
        """Let every call through until `force_open` or `reset`, whatever they come to; resilience4j says DISABLED."""
        await self._force("closed")

    async def reset(self) -> None:
        """Close the circuit and forget its failures; from now on it opens by itself again."""
        await self._force(None)

    async def _force(self, to: Forced | None) -> None:
        before = (await self._store.read(self.name)).state
        await self._store.force(self.name, to, reset_timeout=self._reset_timeout)
        self._local_until = None  # the store is there, and what it says now holds at once
        after = to or "closed"
        if before != after:
            self._tell(before, after, FORCED if to else None)

    async def _read(self) -> tuple[Circuits, CircuitReport]:
        if self._local_until is None or self._clock.monotonic() >= self._local_until:
            try:
                report = await self._store.read(self.name)
            except CircuitsUnavailable as error:
                self._store_lost(error)
            else:
                self._seen = report
                if report.state != "closed":
                    self._seen_until = self._clock.monotonic() + report.retry_in
                self._saw(report.state)
                return self._store, report
        report = await self._read_local()
        self._saw(report.state)
        return self._local, report

    async def _read_local(self) -> CircuitReport:
        """Read the circuit of our own, which is held or open as the shared one was when it was last seen."""
        seen, self._seen = self._seen, None
        if seen is not None:
            local = await self._local.read(self.name)
            if local.forced != seen.forced:
                await self._local.force(self.name, seen.forced, reset_timeout=self._reset_timeout)
            elif seen.state != "closed":
                rest = max(0.0, self._seen_until - self._clock.monotonic())
                await self._local.fail(
                    self.name,
                    local.generation,
                    reason=seen.reason or Transient.kind,
                    problem=seen.problem,
                    threshold=1,
                    reset_timeout=rest,
                )
        return await self._local.read(self.name)

    def _store_lost(self, error: CircuitsUnavailable) -> None:
        now = self._clock.monotonic()
        self._local_until = now + STORE_PAUSE
        if now >= self._warned_until:
            self._warned_until = now + WARNING_PAUSE
            _log.warning("circuit %r is kept by this process alone for now: %s", self.name, error)

    async def _succeeded(self, circuits: Circuits, generation: int, *, is_probe: bool) -> None:
        if is_probe or self._window is not None:
            await _to_its_end(self._clear(circuits, generation, is_probe=is_probe))
            return
        try:
            report = await circuits.read(self.name)
        except CircuitsUnavailable as error:
            self._store_lost(error)
        else:
            if report.failures and report.generation == generation:
                await self._clear(circuits, generation, is_probe=False)

    async def _clear(self, circuits: Circuits, generation: int, *, is_probe: bool) -> None:
        try:
            cleared = await circuits.clear(self.name, generation, window=self._window)
        except CircuitsUnavailable as error:
            self._store_lost(error)
            if not is_probe:
                return
            local = await self._read_local()
            cleared = local.state != "closed" and await self._local.clear(self.name, local.generation)
        if cleared and is_probe:
            self._tell("half_open", "closed", None)

    async def _failed(self, circuits: Circuits, generation: int, error: ServiceError, *, is_probe: bool) -> None:
        try:
            opened = await self._count(circuits, generation, error)
        except CircuitsUnavailable as lost:
            self._store_lost(lost)
            local = await self._read_local()
            is_probe = is_probe and local.state == "half_open"
            counts = is_probe or local.state == "closed"
            opened = counts and await self._count(self._local, local.generation, error)
        else:
            if opened:  # seen so before anybody reads it again
                self._seen = CircuitReport(self.name, "open", reason=error.kind, problem=_shown(error))
                self._seen_until = self._clock.monotonic() + self._reset_timeout
        if opened:
            self._tell("half_open" if is_probe else "closed", "open", error.kind)

    async def _count(self, circuits: Circuits, generation: int, error: ServiceError) -> bool:
        return await circuits.fail(
            self.name,
            generation,
            reason=error.kind,
            problem=_shown(error),
            threshold=1 if isinstance(error, Refused) else self._failure_threshold,
            reset_timeout=self._reset_timeout,
            window=self._window,
        )

    def _saw(self, state: CircuitState) -> None:
        if state != self._state:
            self._state = state
            metrics.circuit_seen(self, self.name, state)

    def _tell(self, from_: CircuitState, to: CircuitState, reason: str | None) -> None:
        self._saw(to)
        change = CircuitChange(self.name, from_, to, reason)
        for listener in self.listeners:
            try:
                listener(change)
            except Exception:  # noqa: BLE001 - a listener that fails must not cost the caller its permit
                _log.exception("circuit %r: a listener failed", self.name)


def _shown(error: ServiceError) -> str:
    """Return what an error says, as any database keeps it and a terminal shows it, should a caller's own be longer."""
    return "".join(each if each.isprintable() else " " for each in error.problem[:_LONGEST_PROBLEM])


async def _to_its_end(recording: Coroutine[Any, Any, None]) -> None:
    """Await the recording of a verdict, which goes on if the caller is cancelled: what was found out is not lost."""
    await asyncio.shield(asyncio.ensure_future(recording))
