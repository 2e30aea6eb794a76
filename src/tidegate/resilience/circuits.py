"""Where breakers keep what they know: what every such place does, and the one in memory."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from tidegate.errors import FORCED, StoreUnavailable
from tidegate.store.clock import Clock

CircuitState: TypeAlias = Literal["closed", "open", "half_open"]
Forced: TypeAlias = Literal["open", "closed"]


@dataclass(frozen=True, slots=True)
class FailureWindow:
    """Opens a circuit when `rate` of its last `calls` calls failed, if there were `minimum` of them at least.

    With `seconds`, older calls do not count. A change of the circuit's state empties the window. It is judged when a
    call fails. `rate` is a share: above 0, and 1 at most.
    """

    rate: float
    calls: int = 100
    seconds: float | None = None
    minimum: int = 10

    def is_exceeded(self, calls: int, failures: int) -> bool:
        """Whether so many failures are too many. Divided, not multiplied: 7 of 100 are 0.07, but 0.07 * 100 > 7."""
        return calls >= self.minimum and failures / calls >= self.rate


@dataclass(frozen=True, slots=True)
class CircuitReport:
    """One circuit at one moment.

    `failures` counts consecutive ones. `opened_at` is in seconds since 1970, None while closed. `retry_in` is in how
    many seconds a call may be let through, 0.0 if one may be now; while a probe is out, that is when its lease ends,
    though the probe may end sooner. `reason` is the kind of the last failure, `problem` says what it was, and quotes no
    document and no answer. `generation` counts changes of state.

    `forced` says that somebody holds it so, and `reason` is "forced" while it is held open: nobody knows until when, so
    `retry_in` is its reset timeout, after which to look again.
    """

    name: str
    state: CircuitState = "closed"
    failures: int = 0
    opened_at: float | None = None
    retry_in: float = 0.0
    reason: str | None = None
    generation: int = 0
    forced: Forced | None = None
    problem: str | None = None

    @property
    def admits(self) -> bool:
        """Whether a permit would be given now: closed, or half-open with no probe out."""
        return self.state == "closed" or (self.state == "half_open" and self.retry_in <= 0.0)


class CircuitsUnavailable(StoreUnavailable):
    """The place where circuits are kept cannot be read or written; breakers go on with one of their own."""


class Circuits(Protocol):
    """Keeps circuits by name. One that never failed is closed, of generation 0, and need not be kept.

    Every change but `force` names the generation that it was decided in, and changes nothing in another: that alone
    makes late news harmless and lets one prober win. Nor does it change a circuit that is forced. All methods but
    `release` raise `CircuitsUnavailable`.
    """

    async def read(self, name: str) -> CircuitReport:
        """Return a circuit as it is now, without writing."""
        ...

    async def read_all(self) -> list[CircuitReport]:
        """Return the circuits that are kept, by name: those that ever failed, were forced, or have a window."""
        ...

    async def probe(self, name: str, generation: int, *, lease: float) -> int:
        """Lease the probe for `lease` seconds, in the next generation.

        Returns how many probes there were since the circuit opened, this one included; 0 if another was faster.
        A caller that is cancelled meanwhile has not got it.
        """
        ...

    async def fail(
        self,
        name: str,
        generation: int,
        *,
        reason: str,
        problem: str | None = None,
        threshold: int,
        reset_timeout: float,
        window: FailureWindow | None = None,
    ) -> bool:
        """Count a failure; open, in the next generation, at `threshold`, over the window, or if a probe failed.

        Returns whether this opened it.
        """
        ...

    async def clear(self, name: str, generation: int, *, window: FailureWindow | None = None) -> bool:
        """Forget the failures in a row, count a success in the window; close, in the next generation, after a probe.

        Returns whether the generation was still this one.
        """
        ...

    async def force(self, name: str, to: Forced | None, *, reset_timeout: float) -> None:
        """Hold a circuit open or closed, in the next generation, until told otherwise; None lets it go, closed."""
        ...

    def release(self, name: str, generation: int) -> None:
        """Give a probe back with no verdict; never waits, and says nothing if it fails (the lease ends by itself)."""
        ...


@dataclass(slots=True)
class Circuit:
    """What is kept of a circuit. The failure that opened it is its last, so `failed_at` is when it opened.

    `calls` are those of the window, when and whether failed; in memory alone.
    """

    name: str
    generation: int = 0
    open: bool = False
    failures: int = 0
    reason: str | None = None
    problem: str | None = None
    failed_at: float = 0.0
    reset_timeout: float = 0.0
    probes: int = 0
    probing: bool = False
    probe_timeout: float = 0.0
    forced: Forced | None = None
    failed_tick: float = 0.0
    probe_tick: float = 0.0
    calls: deque[tuple[float, bool]] = field(default_factory=deque)

    def report(self, since_failure: float, since_probe: float) -> CircuitReport:
        """Return what it is, so many seconds after its last failure and its last probe began."""
        if self.forced == "open":
            return CircuitReport(
                self.name, "open", 0, self.failed_at, self.reset_timeout, FORCED, self.generation, self.forced
            )
        state: CircuitState = "closed"
        retry_in = 0.0
        if self.open:
            retry_in = _remaining(self.reset_timeout, since_failure)
            state = "half_open" if self.probes or not retry_in else "open"
            if self.probes:
                retry_in = _remaining(self.probe_timeout, since_probe) if self.probing else 0.0
        opened_at = self.failed_at if self.open else None
        return CircuitReport(
            self.name,
            state,
            self.failures,
            opened_at,
            retry_in,
            self.reason,
            self.generation,
            self.forced,
            self.problem,
        )


def _remaining(timeout: float, elapsed: float) -> float:
    """Return what is left; an elapsed time below zero comes of a clock that was set back, and must not add to it."""
    return timeout - elapsed if 0.0 <= elapsed < timeout else 0.0


class MemoryCircuits:
    """Circuits of this process alone, safe to use from several event loops and threads."""

    def __init__(self, clock: Clock) -> None:
        """Measure by the clock's monotonic time."""
        self._clock = clock
        self._lock = threading.Lock()
        self._circuits: dict[str, Circuit] = {}
        self._closed: dict[str, CircuitReport] = {}  # what does not change with time; taken out when it changes

    async def read(self, name: str) -> CircuitReport:
        """Return a circuit as it is now."""
        if (closed := self._closed.get(name)) is not None:  # without the lock: a permit takes a third of the time
            return closed
        with self._lock:
            report = self._report(name)
            if report.state == "closed":
                self._closed[name] = report
            return report

    async def read_all(self) -> list[CircuitReport]:
        """Return the circuits that are kept, by name."""
        with self._lock:
            return [self._report(name) for name in sorted(self._circuits)]

    def _report(self, name: str) -> CircuitReport:
        circuit = self._circuits.get(name)
        if circuit is None:
            return CircuitReport(name)
        now = self._clock.monotonic()
        return circuit.report(now - circuit.failed_tick, now - circuit.probe_tick)

    async def probe(self, name: str, generation: int, *, lease: float) -> int:
        """Lease the probe."""
        with self._lock:
            circuit = self._found(name, generation)
            if circuit is None:
                return 0
            circuit.generation += 1
            circuit.probes += 1
            circuit.probing = True
            circuit.probe_timeout = lease
            circuit.probe_tick = self._clock.monotonic()
            return circuit.probes

    async def fail(
        self,
        name: str,
        generation: int,
        *,
        reason: str,
        problem: str | None = None,
        threshold: int,
        reset_timeout: float,
        window: FailureWindow | None = None,
    ) -> bool:
        """Count a failure."""
        with self._lock:
            self._circuits.setdefault(name, Circuit(name))
            circuit = self._found(name, generation)
            if circuit is None:
                return False
            opens = circuit.open or circuit.failures + 1 >= threshold
            if window is not None:
                self._record(circuit, window, failed=True)
                opens = opens or self._is_exceeded(circuit, window)
            if opens:
                circuit.generation += 1
                circuit.calls.clear()
            circuit.open = opens
            circuit.failures += 1
            circuit.reason = reason
            circuit.problem = problem
            circuit.failed_at = self._clock.now()
            circuit.failed_tick = self._clock.monotonic()
            circuit.reset_timeout = reset_timeout
            circuit.probes = 0
            return opens

    async def clear(self, name: str, generation: int, *, window: FailureWindow | None = None) -> bool:
        """Forget the failures in a row."""
        with self._lock:
            if window is not None:
                self._circuits.setdefault(name, Circuit(name))
            circuit = self._found(name, generation)
            if circuit is None:
                return False
            if circuit.open:
                circuit.generation += 1
                circuit.open = False
            elif window is not None:
                self._record(circuit, window, failed=False)
            circuit.failures = 0
            circuit.reason = circuit.problem = None
            return True

    async def force(self, name: str, to: Forced | None, *, reset_timeout: float) -> None:
        """Hold a circuit open or closed, or let it go."""
        with self._lock:
            before = self._circuits.get(name, Circuit(name))
            self._closed.pop(name, None)
            self._circuits[name] = Circuit(
                name,
                generation=before.generation + 1,
                open=to == "open",
                failed_at=self._clock.now(),
                failed_tick=self._clock.monotonic(),
                reset_timeout=reset_timeout,
                forced=to,
            )

    def _found(self, name: str, generation: int) -> Circuit | None:
        """Return a circuit to be changed, None if it may not be by what was decided in that generation."""
        circuit = self._circuits.get(name)
        if circuit is None or circuit.generation != generation or circuit.forced:
            return None
        self._closed.pop(name, None)
        return circuit

    def _record(self, circuit: Circuit, window: FailureWindow, *, failed: bool) -> None:
        circuit.calls.append((self._clock.monotonic(), failed))
        while len(circuit.calls) > window.calls:
            circuit.calls.popleft()

    def _is_exceeded(self, circuit: Circuit, window: FailureWindow) -> bool:
        now = self._clock.monotonic()
        recent = [failed for at, failed in circuit.calls if window.seconds is None or now - at < window.seconds]
        return window.is_exceeded(len(recent), sum(recent))

    def release(self, name: str, generation: int) -> None:
        """Give a probe back."""
        with self._lock:
            circuit = self._found(name, generation)
            if circuit is not None:
                circuit.probing = False
