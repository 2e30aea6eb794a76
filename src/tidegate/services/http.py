"""The one place that speaks HTTP: clients, one bounded exchange, and what its failures mean."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import ssl
import threading
import time
import zlib
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from importlib import metadata
from typing import Final
from weakref import WeakKeyDictionary

import httpx
from opentelemetry import context

from tidegate.errors import Permanent, ServiceError, SettingsError, Transient
from tidegate.resilience.classification import of_client
from tidegate.resilience.failures import Classify, from_status, leads_away
from tidegate.resilience.guard import telling
from tidegate.store.clock import Clock
from tidegate.telemetry import spans, traceparent

USER_AGENT: Final = f"tidegate/{metadata.version('tidegate')}"

_DRAINED = 64 * 1024
"""Bytes of an error's body that are read and dropped, so that its connection can be used again."""

_KEPT_IDLE = 5.0
"""Seconds for which a connection that is not used is kept, as httpx does by default."""

_SUPPRESSED = getattr(context, "_SUPPRESS_HTTP_INSTRUMENTATION_KEY", "suppress_http_instrumentation")
"""What OpenTelemetry's instrumentation of httpx looks for: it would make a second span of every request."""

_PROXIES: Final = frozenset({"all_proxy", "http_proxy", "https_proxy", "no_proxy"})

_EXCHANGING: Final = context.create_key("tidegate-exchanging")
_UNOBSERVED: Final = {_SUPPRESSED: True, _EXCHANGING: True}


def _is_no_exchange(_: logging.LogRecord) -> bool:
    return not context.get_value(_EXCHANGING)


# httpx logs the whole address of each request at INFO. Ours may hold a key, or a name from a document.
logging.getLogger("httpx").addFilter(_is_no_exchange)


class StatusError(Exception):
    """The status of the answer is no success."""

    def __init__(self, status: int, headers: httpx.Headers, *, keyed: bool = False, away: bool = False) -> None:
        """Keep what `Retry-After` and the like are read from.

        `keyed` if the request had an `Idempotency-Key`, `away` if the answer leads to another host.
        """
        super().__init__(f"answered {status}")
        self.status = status
        self.headers = headers
        self.keyed = keyed
        self.away = away


class BodyError(Exception):
    """The body of a successful answer cannot be used. The message says why, and quotes nothing."""


class BodyTooLargeError(BodyError):
    """The body is over the limit; no more than the limit was read."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A successful answer, read to its end."""

    status: int
    headers: httpx.Headers
    body: bytes


class Clients:
    """Httpx clients of each event loop, one for each request that is in flight; closed with their loop.

    Connections belong to the loop that opened them, and services outlive loops: each synchronous run has its own. A
    client is lent for one request, so it has one connection: a pool of 32 looks at all of them several times a request,
    which took more CPU than all else (httpcore 1.0.9).
    """

    def __init__(
        self, *, timeout: float, connections: int = 8, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        """Say how clients are made: seconds for each step of a request, idle connections to keep.

        A `transport` is used instead of the network; all loops share it.
        """
        self._timeout = timeout
        self._connections = connections
        self._transport = transport
        self._tls: ssl.SSLContext | None = None
        self._open: WeakKeyDictionary[asyncio.AbstractEventLoop, _Idle] = WeakKeyDictionary()
        self._lock = threading.Lock()

    @contextlib.asynccontextmanager
    async def lent(self) -> AsyncGenerator[httpx.AsyncClient]:
        """Lend a client of the running loop, to be used for one request at a time.

        Raises:
            SettingsError: the environment names a proxy that cannot be used.
        """
        idle = await self._here()
        client = idle.take() or _client(self._timeout, self._transport, self._tls)
        try:
            yield client
        finally:
            await idle.give_back(client)

    async def _here(self) -> _Idle:
        loop = asyncio.get_running_loop()
        if (idle := self._open.get(loop)) is not None:
            return idle
        if self._transport is None and self._tls is None:
            self._tls = await asyncio.to_thread(tls_context)
        with self._lock:
            for other in [other for other in self._open if other.is_closed()]:
                del self._open[other]
            idle = self._open.setdefault(loop, _Idle(self._connections))
        await idle.watch()
        return idle

    async def aclose(self) -> None:
        """Close the running loop's clients; those that are lent, when they are given back."""
        with self._lock:
            idle = self._open.pop(asyncio.get_running_loop(), None)
        if idle is not None:
            await idle.aclose()


class _Idle:
    """The clients of one event loop that are not lent, the one that was used last on top."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._clients: deque[tuple[httpx.AsyncClient, float]] = deque()
        self._closing = self._until_closed()
        self._is_watched = self._is_closed = False

    async def watch(self) -> None:
        """Have the clients closed with the loop."""
        if not self._is_watched:
            self._is_watched = True
            await anext(self._closing)

    def take(self) -> httpx.AsyncClient | None:
        """Take the client that was used last, if there is one."""
        return self._clients.pop()[0] if self._clients else None

    async def give_back(self, client: httpx.AsyncClient) -> None:
        """Keep a client for the next request, and close what is too many or was not used for some time."""
        now = time.monotonic()
        kept = self._clients
        kept.append((client, now))
        while kept and (self._is_closed or len(kept) > self._most or now - kept[0][1] > _KEPT_IDLE):
            await kept.popleft()[0].aclose()

    async def aclose(self) -> None:
        """Close them, and each that is given back from now on."""
        await self._closing.aclose()

    async def _until_closed(self) -> AsyncGenerator[None]:
        """Close the clients when the loop shuts down: `asyncio.run` and its like close generators that still wait."""
        try:
            yield
        finally:
            self._is_closed = True
            while (client := self.take()) is not None:
                await client.aclose()


@functools.cache
def tls_context() -> ssl.SSLContext:
    """Return what certificates are checked by: those that httpx trusts."""
    return httpx.create_ssl_context()  # reads some hundred certificates: 20 to 50 ms


def _client(
    timeout: float, transport: httpx.AsyncBaseTransport | None, tls: ssl.SSLContext | None
) -> httpx.AsyncClient:
    try:
        return httpx.AsyncClient(
            headers={"User-Agent": USER_AGENT, "Accept-Encoding": "gzip"},
            cookies=CookieJar(
                DefaultCookiePolicy(allowed_domains=[])
            ),  # one document's requests leave nothing for another's
            timeout=timeout,
            limits=httpx.Limits(max_keepalive_connections=1, keepalive_expiry=_KEPT_IDLE),
            follow_redirects=False,
            verify=tls or True,
            transport=transport,
            trust_env=transport is None,
        )
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        named = " or ".join(name for name in os.environ if name.lower() in _PROXIES)
        if not named:
            raise
        help_ = "`pip install 'httpx[socks]'`" if isinstance(error, ImportError) else "give http://HOST:PORT"
        # without the error's words: they may quote a password
        raise SettingsError(f"the proxy that {named} names cannot be used; {help_}, or unset it") from None


async def exchange(
    client: httpx.AsyncClient,
    request: httpx.Request,
    *,
    max_bytes: int,
    attempt: int = 1,
    redirects: int = 0,
    shown_as: str | None = None,
    traced: bool = False,
) -> Reply:
    """Send one request and read the answer, `max_bytes` after decompression at most, in a span of its own.

    `attempt` counts from 1. Up to `redirects` redirects are followed, to http and https only. `shown_as` stands for
    the address in the span. `traced` tells the server which span it is part of (W3C Trace Context).

    Raises:
        StatusError: the status is not 2xx. A redirect that is not followed is one, too.
        BodyError: the body is too large, truncated, or encoded in a way that was not asked for.
        httpx.HTTPError: the request failed on its way, or there were too many redirects. `classify` knows all of them.
    """
    for _ in range(redirects + 1):
        address = shown_as or str(request.url)
        with spans.http_call(request.method, address, attempt=attempt, within=_UNOBSERVED) as call, telling(call):
            if traced:
                traceparent.inject(request.headers)
            response = await client.send(request, stream=True)
            body = b""
            try:
                call.status(response.status_code)
                if response.is_success:
                    body = await _read(response, max_bytes)
                else:
                    await _drain(response)
            finally:
                await response.aclose()
        if response.is_success:
            return Reply(response.status_code, response.headers, body)
        if not redirects or response.next_request is None:
            keyed = "Idempotency-Key" in request.headers
            away = leads_away(str(request.url), response.headers)
            raise StatusError(response.status_code, response.headers, keyed=keyed, away=away)
        request, shown_as = response.next_request, None
    raise httpx.TooManyRedirects(f"more than {redirects} redirects", request=request)


async def _read(response: httpx.Response, max_bytes: int) -> bytes:
    """Read and decompress the body ourselves: httpx would expand 64 KB of it to any size before we could look."""
    declared = response.headers.get("content-length", "")
    if declared.isdecimal() and len(declared) < 20 and int(declared) > max_bytes:
        raise BodyTooLargeError(f"the answer is larger than {max_bytes} bytes")
    encoding = response.headers.get("content-encoding", "").strip().lower()
    if encoding not in {"", "identity", "gzip", "x-gzip"}:
        raise BodyError("the answer is compressed by another method than gzip, which was asked for")
    gunzip = _Gunzip() if encoding.endswith("gzip") else None
    body = bytearray()
    received = 0
    async for chunk in response.aiter_raw():
        received += len(chunk)  # what expands to nothing has no end either
        body += gunzip.feed(chunk, max_bytes + 1 - len(body)) if gunzip else chunk
        if max(received, len(body)) > max_bytes:
            raise BodyTooLargeError(f"the answer is larger than {max_bytes} bytes")
    if gunzip and not gunzip.is_complete:
        raise BodyError("the answer is cut off")
    return bytes(body)


class _Gunzip:
    """Decompresses gzip, one member or several, to a given number of bytes at a time."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(16 + zlib.MAX_WBITS)
        self.is_complete = True

    def feed(self, data: bytes, room: int) -> bytes:
        """Return what `data` expands to. Once it fills the `room`, the rest is lost."""
        expanded = bytearray()
        while data and len(expanded) < room:
            if self._stream.eof:
                self._stream = zlib.decompressobj(16 + zlib.MAX_WBITS)
            try:
                expanded += self._stream.decompress(data, room - len(expanded))
            except zlib.error:
                raise BodyError("the answer is not the gzip it claims to be") from None
            data = self._stream.unused_data
        self.is_complete = self._stream.eof
        return bytes(expanded)


async def _drain(response: httpx.Response) -> None:
    read = 0
    with contextlib.suppress(httpx.TransportError):  # the status is known, and it is what counts
        async for chunk in response.aiter_raw():
            read += len(chunk)
            if read > _DRAINED:
                return


def classify(service: str, clock: Clock) -> Classify:
    """Return what says which failure of `service` an exception of `exchange` is; None for any other exception."""

    def verdict(error: BaseException) -> ServiceError | None:
        match error:
            case StatusError(status=status, away=False) if 300 <= status < 400:
                return Permanent(
                    service, f"answered {status}, a redirect, which is not followed; use the final address"
                )
            case StatusError():
                return from_status(service, error.status, error.headers, clock, keyed=error.keyed, away=error.away)
            case BodyError():
                return Transient(service, str(error))
            case _:
                return of_client(error, service, clock)

    return verdict
