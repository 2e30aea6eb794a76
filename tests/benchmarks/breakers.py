"""The breakers that are compared, and what each does at the five moments that breakers get wrong.

All are asked for the same: open after 3 failures in a row, and after `REST` seconds let a probe through.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from importlib.util import find_spec
from typing import Any, Final, TypeAlias

import httpx
from tenacity import retry, stop_after_attempt

from tidegate.errors import Transient
from tidegate.resilience.breaker import Breaker
from tidegate.resilience.circuits import MemoryCircuits
from tidegate.resilience.guard import Guard
from tidegate.store.clock import SystemClock

Call: TypeAlias = Callable[[], Awaitable[object]]
Guarded: TypeAlias = Callable[[Call], Awaitable[object]]

REST: Final = 0.2
"""Seconds, of real time, since the libraries have no clock to inject: the reset timeout, and our probe's lease."""

THRESHOLD: Final = 3
CALLERS: Final = 50


class Down(Exception):
    """What the service fails with."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One way of making a call; `breaks` if it has a circuit, `package` if it comes with one."""

    name: str
    wrap: Callable[[Guarded], Guarded]
    package: str | None = None
    breaks: bool = True

    @property
    def is_installed(self) -> bool:
        """Whether it can take part."""
        return self.package is None or find_spec(self.package) is not None


async def make(call: Call) -> object:
    """Make the call: what all of them wrap."""
    return await call()


def _guard(function: Guarded) -> Guarded:
    return Guard.for_service(
        "api",
        classify=lambda error: Transient("api", "down") if isinstance(error, (Down, httpx.HTTPError)) else None,
        attempts=1,
        failure_threshold=THRESHOLD,
        reset_timeout=REST,
        concurrency=CALLERS,
    )(function)


def _breaker(function: Guarded) -> Guarded:
    breaker = Breaker(
        "api",
        MemoryCircuits(SystemClock()),
        failure_threshold=THRESHOLD,
        reset_timeout=REST,
        probe_timeout=REST,
    )

    async def guarded(call: Call) -> object:
        permit = await breaker.permit()
        try:
            value = await function(call)
        except Down as error:
            await permit.failed(Transient("api", "down"))
            raise Transient("api", "down") from error
        except BaseException:
            permit.released()
            raise
        await permit.succeeded()
        return value

    return guarded


def _tenacity(function: Guarded) -> Guarded:
    return retry(stop=stop_after_attempt(1), reraise=True)(function)


def _stamina(function: Guarded) -> Guarded:
    import stamina

    return stamina.retry(on=Down, attempts=1)(function)


def _purgatory(function: Guarded) -> Guarded:
    from purgatory import AsyncCircuitBreakerFactory

    factory = AsyncCircuitBreakerFactory(default_threshold=THRESHOLD, default_ttl=REST)
    guarded: Guarded = factory("api")(function)
    return guarded


def _pybreaker(function: Guarded) -> Guarded:
    import pybreaker

    breaker = pybreaker.CircuitBreaker(fail_max=THRESHOLD, reset_timeout=REST)

    async def guarded(call: Call) -> object:
        with breaker.calling():  # its call_async is for Tornado's coroutines
            return await function(call)

    return guarded


def _aiobreaker(function: Guarded) -> Guarded:
    import aiobreaker

    decorate: Any = aiobreaker.CircuitBreaker(THRESHOLD, timedelta(seconds=REST))
    guarded: Guarded = decorate(function)
    return guarded


def _circuitbreaker(function: Guarded) -> Guarded:
    import circuitbreaker

    decorate: Any = circuitbreaker.CircuitBreaker(THRESHOLD, REST, name="api")
    guarded: Guarded = decorate(function)
    return guarded


BARE = Contender("bare call", lambda function: function, breaks=False)
BREAKER = Contender("tidegate, breaker alone", _breaker)
GUARD = Contender("tidegate, guard", _guard, breaks=False)  # with this breaker; its attempt timeout ends a probe first
PURGATORY = Contender("purgatory", _purgatory, "purgatory")
ALL: Final = (
    BARE,
    GUARD,
    BREAKER,
    Contender("tenacity", _tenacity, breaks=False),
    Contender("stamina", _stamina, "stamina", breaks=False),
    PURGATORY,
    Contender("pybreaker", _pybreaker, "pybreaker"),
    Contender("aiobreaker", _aiobreaker, "aiobreaker"),
    Contender("circuitbreaker", _circuitbreaker, "circuitbreaker"),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """What a breaker did, in a word, and whether that is right."""

    what: str
    is_right: bool

    def __str__(self) -> str:
        return self.what if self.is_right else f"**{self.what}**"


async def probes_admitted(guarded: Guarded) -> Finding:
    """Let 50 callers ask at once when the circuit is half-open: one may call."""
    await _open(guarded)
    await asyncio.sleep(2 * REST)
    calls = [_Held() for _ in range(CALLERS)]
    tasks = [asyncio.ensure_future(_outcome(guarded, call)) for call in calls]
    await _settled()
    admitted = sum(call.is_made for call in calls)
    for call in calls:
        call.answer.set()
    await asyncio.gather(*tasks)
    return Finding(str(admitted), admitted == 1)


async def concurrent_failures(guarded: Guarded) -> Finding:
    """Let calls fail that were under way together: the circuit is open."""
    calls = [_Held(fails=True) for _ in range(2 * THRESHOLD)]
    tasks = [asyncio.ensure_future(_outcome(guarded, call)) for call in calls]
    await _settled()
    for call in calls:
        call.answer.set()
    await asyncio.gather(*tasks)
    opened = await _refuses(guarded)
    return Finding("yes" if opened else "no", opened)


async def cancelled_call(guarded: Guarded) -> Finding:
    """Cancel a call after two failures: neither is it the third, nor does it make good for them."""
    for _ in range(THRESHOLD - 1):
        await _outcome(guarded, _fail)
    task = asyncio.ensure_future(_outcome(guarded, _Held()))
    await _settled()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    third = _Held(fails=True)
    third.answer.set()
    await _outcome(guarded, third)
    if not third.is_made:
        return Finding("as a failure", is_right=False)
    unnoticed = await _refuses(guarded)
    return Finding("no" if unnoticed else "as a success", unnoticed)


async def late_success(guarded: Guarded) -> Finding:
    """Let a call succeed that began before the circuit opened: it stays open."""
    late = _Held()
    task = asyncio.ensure_future(_outcome(guarded, late))
    await _settled()
    await _open(guarded)
    late.answer.set()
    await task
    stays = await _refuses(guarded)
    return Finding("no" if stays else "yes", stays)


async def forgotten_probe(guarded: Guarded) -> Finding:
    """Let a probe hang for ever: once its time is over, another may call."""
    await _open(guarded)
    await asyncio.sleep(2 * REST)
    task = asyncio.ensure_future(_outcome(guarded, _Held()))
    await asyncio.sleep(2 * REST)
    wedged = await _refuses(guarded)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return Finding("yes" if wedged else "no", not wedged)


PROBES: Final[dict[str, Callable[[Guarded], Coroutine[Any, Any, Finding]]]] = {
    f"probes admitted of {CALLERS}": probes_admitted,
    "concurrent failures open it": concurrent_failures,
    "a cancelled call counts": cancelled_call,
    "a late success closes it": late_success,
    "a forgotten probe wedges it": forgotten_probe,
}


class _Held:
    """A call that is answered when the test says so."""

    def __init__(self, *, fails: bool = False) -> None:
        self.answer = asyncio.Event()
        self.is_made = False
        self._fails = fails

    async def __call__(self) -> None:
        self.is_made = True
        await self.answer.wait()
        if self._fails:
            raise Down


async def _fail() -> None:
    raise Down


async def _outcome(guarded: Guarded, call: Call) -> None:
    """Make a call, whatever it comes to: each library has an exception of its own for an open circuit."""
    with contextlib.suppress(Exception):
        await guarded(call)


async def _open(guarded: Guarded) -> None:
    for _ in range(THRESHOLD):
        await _outcome(guarded, _fail)


async def _refuses(guarded: Guarded) -> bool:
    call = _Held()
    call.answer.set()
    await _outcome(guarded, call)
    return not call.is_made


async def _settled() -> None:
    """Let every task come as far as it gets without an answer."""
    for _ in range(20):
        await asyncio.sleep(0)
