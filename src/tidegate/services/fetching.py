"""A URL from outside -> the raw bytes of a document, from no address that its sender could not reach without us.

The name is resolved here, every address it has is checked, and the connection goes to a checked one: an answer of the
DNS that changes in between (DNS rebinding) changes nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

import httpx

from tidegate.errors import (
    DocumentTooLarge,
    EmptyDocument,
    NotFound,
    Refused,
    ServiceError,
    SourceUnavailable,
    Transient,
)
from tidegate.services import http
from tidegate.services.addresses import Address, Network, is_allowed, is_disguised, is_public
from tidegate.services.intake import Loaded, in_daemon_thread, shown
from tidegate.store.clock import Clock, SystemClock

Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host and port -> addresses."""

SECONDS: Final = 60.0
"""Seconds that a download may take, from the first look-up of a name to the last byte."""

_STEP_SECONDS = 15.0  # to connect, and to wait for each further part
_REDIRECTS = 5
_MOST_ADDRESSES = 4
_LONGEST_URL = 4096
_PORTS = {"http": 80, "https": 443}
_MOVED = frozenset({301, 302, 303, 307, 308})
_WAY_OUT = "give a URL that everybody can reach, or send the document itself"


class Fetcher:
    """Downloads documents by URLs that nobody vouches for."""

    def __init__(
        self,
        *,
        max_bytes: int,
        allowed: Sequence[Network] = (),
        resolve: Resolve | None = None,
        tls: ssl.SSLContext | None = None,
        clock: Clock | None = None,
        seconds: float = SECONDS,
        at_once: int = 8,
    ) -> None:
        """Take documents of `max_bytes` at most, from public addresses on ports 80 and 443.

        At addresses in the networks `allowed`, any port is. `at_once` downloads go on at a time; others wait, which
        counts as part of their `seconds`. `tls` is what certificates are checked by.
        """
        self._max_bytes = max_bytes
        self._allowed = tuple(allowed)
        self._resolve = resolve or _resolve
        self._tls = tls
        self._clock = clock or SystemClock()
        self._seconds = seconds
        self._room = asyncio.Semaphore(at_once)

    async def fetch(self, url: str, name: str | None = None) -> Loaded:
        """Download a document; `name` is shown in place of the URL.

        Raises:
            SourceUnavailable: it cannot be read, or may not be. Its cause, a ServiceError, says whether it may pass.
            DocumentTooLarge, EmptyDocument: as they say.
        """
        display = shown(name) if name else shown_url(url)
        try:
            async with asyncio.timeout(self._seconds), self._room:
                reply = await self._follow(_parsed(url, display), display)
        except TimeoutError:
            failure = Transient(display, f"did not come in {self._seconds:g} s")
            raise _unavailable(display, failure) from failure
        except http.BodyTooLargeError:
            problem = f"is larger than {self._max_bytes} bytes"
            raise DocumentTooLarge(display, problem, "split it, or raise the limit (max_document_bytes)") from None
        if not reply.body:
            raise EmptyDocument(display, "is empty", "give a document with content")
        return Loaded(reply.body, display, reply.headers.get("content-type"))

    async def _follow(self, url: httpx.URL, display: str) -> http.Reply:
        for _ in range(_REDIRECTS + 1):
            try:
                return await self._get(url, display)
            except http.StatusError as error:
                location = error.headers.get("location")
                if error.status not in _MOVED or not location:
                    failure = self._failure(display, error)
                    raise _unavailable(display, failure) from failure
                try:
                    url = _parsed(str(url.join(location)), display)
                except httpx.InvalidURL:
                    raise SourceUnavailable(display, "leads to what is no URL", _WAY_OUT) from None
            except http.BodyTooLargeError:
                raise
            except (http.BodyError, httpx.HTTPError) as error:
                failure = self._failure(display, error)
                raise _unavailable(display, failure) from failure
        raise SourceUnavailable(display, f"leads on more than {_REDIRECTS} times", "give the final URL")

    async def _get(self, url: httpx.URL, display: str) -> http.Reply:
        """Ask the addresses of a URL in turn, until one can be connected to."""
        failed: httpx.HTTPError | None = None
        for address in await self._checked(url, display):
            try:
                return await self._ask(url, address, display)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failed = error
        assert failed is not None  # noqa: S101 - there is at least one address
        raise failed

    async def _checked(self, url: httpx.URL, display: str) -> list[Address]:
        """Return the addresses of a URL's host, each of which may be asked.

        Raises:
            SourceUnavailable: there is none, or one may not be: a name with public and private addresses is a trick.
        """
        host = url.raw_host.decode("ascii")
        if is_disguised(host):
            raise SourceUnavailable(display, "names its host by a number", _WAY_OUT)
        port = url.port or _PORTS[url.scheme]
        try:
            found = [ipaddress.ip_address(each) for each in await self._resolve(host, port)]
        except OSError as error:
            failure = Transient(display, "its host has no address")
            raise SourceUnavailable(display, "its host has no address", "check the URL") from (
                failure if isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN else error
            )
        except ValueError:
            found = []
        if not found:
            raise SourceUnavailable(display, "its host has no address", "check the URL")
        for address in found:
            if is_allowed(address, self._allowed):
                continue
            if not is_public(address):
                way_out = f"{_WAY_OUT}; the setting serve.allow_networks allows private networks"
                raise SourceUnavailable(display, "leads to an address that is not public", way_out)
            if port not in _PORTS.values():
                raise SourceUnavailable(display, "names a port other than 80 and 443", _WAY_OUT)
        return found[:_MOST_ADDRESSES]

    async def _ask(self, url: httpx.URL, address: Address, display: str) -> http.Reply:
        host = url.raw_host.decode("ascii")
        headers = {"User-Agent": http.USER_AGENT, "Accept": "*/*", "Accept-Encoding": "gzip"}
        headers["Host"] = url.netloc.decode("ascii")
        if self._tls is None:
            self._tls = await asyncio.to_thread(http.tls_context)
        # A connection of its own for each request: one that is kept was checked by TLS for another name, perhaps.
        transport = httpx.AsyncHTTPTransport(verify=self._tls, trust_env=False)
        async with httpx.AsyncClient(transport=transport, timeout=_STEP_SECONDS, trust_env=False) as client:
            request = client.build_request("GET", url.copy_with(host=str(address), fragment=None), headers=headers)
            if url.scheme == "https" and not _is_literal(host):
                request.extensions["sni_hostname"] = host  # which the certificate is checked for, too
            return await http.exchange(client, request, max_bytes=self._max_bytes, shown_as=display)

    def _failure(self, display: str, error: Exception) -> ServiceError:
        failure = http.classify(display, self._clock)(error) or Transient(display, type(error).__name__)
        failure.__cause__ = error
        return failure


def shown_url(url: str) -> str:
    """Return a URL as it is shown and stored: without credentials, query and fragment."""
    try:
        return shown(str(httpx.URL(url).copy_with(userinfo=b"", query=None, fragment=None)))
    except (httpx.InvalidURL, ValueError):
        return shown(url.partition("?")[0].rpartition("@")[2][:200])


def _parsed(text: str, display: str) -> httpx.URL:
    try:
        if len(text) > _LONGEST_URL:
            raise httpx.InvalidURL("too long")
        url = httpx.URL(text)
        host = url.raw_host.decode("ascii")
    except (httpx.InvalidURL, ValueError):
        raise SourceUnavailable(display, "is no valid URL", "check its spelling") from None
    if url.scheme not in _PORTS or not host:
        raise SourceUnavailable(display, "is no http or https URL", "give one, or send the document itself")
    if url.userinfo:
        raise SourceUnavailable(display, "holds credentials", "send the document itself")
    return url


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


async def _resolve(host: str, port: int) -> list[str]:
    # Not one of asyncio's threads: whoever names hosts whose DNS does not answer would hold all of them.
    found = await in_daemon_thread(lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM), "DNS")
    return [str(address[0]) for *_, address in found]


def _unavailable(display: str, failure: ServiceError) -> SourceUnavailable:
    match failure:
        case NotFound():
            way_out = "check the URL"
        case Refused():
            way_out = "download it with your credentials and send the document itself"
        case _ if failure.retryable:
            way_out = "try again later, or send the document itself"
        case _:
            way_out = "send the document itself"
    return SourceUnavailable(display, failure.problem, way_out)
