"""What every request passes first: who may ask, by which name of this server, and that no error leaves as it is."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from tidegate.server.problems import Problem
from tidegate.server.tokens import Tokens

_log = logging.getLogger(__name__)

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

_ALWAYS = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))
_PROTECTED = ("/v1", "/metrics")


class Boundary:
    """ASGI middleware around the whole app."""

    def __init__(
        self, app: App, *, tokens: Tokens, is_loopback: bool, host: str, unsigned: Collection[str] = ()
    ) -> None:
        """Require a token where there are any; else, and at the paths `unsigned`, requests of this machine's own.

        `is_loopback` says whether the server listens on a loopback address, `host` by which name it was told to.
        """
        self._app = app
        self._tokens = tokens
        self._is_loopback = is_loopback
        self._host = host.lower()
        self._unsigned = frozenset(unsigned)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                named = {name.lower() for name, _ in message.get("headers", ())}
                added = [header for header in _ALWAYS if header[0] not in named]
                message = {**message, "headers": [*message.get("headers", ()), *added]}
            await send(message)

        try:
            problem = await self._refusal(scope)
            if problem is not None:
                await problem.response()(scope, receive, sending)
                return
            await self._app(scope, receive, sending)
        except Exception as error:  # noqa: BLE001 - a server would log its words, which may quote a document
            _log.error("%s %s: %s", scope.get("method"), _shape(scope), type(error).__name__, exc_info=True)
            if not begun:  # else it was answered by the app, or is cut off
                await Problem(500, "", kind="unexpected").response()(scope, receive, sending)

    async def _refusal(self, scope: Scope) -> Problem | None:
        path = scope["path"]
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        if b"content-length" in headers and b"transfer-encoding" in headers:
            # Proxies that go by the other one would see two requests here; the connection must not be kept (RFC 9112).
            detail = "the request tells its length and comes in chunks; do one of the two"
            return Problem(400, detail, kind="malformed", headers={"Connection": "close"})
        if self._is_loopback and (not self._tokens.required or path in self._unsigned):
            if not self._is_ours(headers.get(b"host", "")):
                return Problem(421, "this server answers by the name of this machine alone: ask localhost", kind="host")
            origin = headers.get(b"origin")
            if origin is not None and not self._is_ours(_netloc(origin)):
                return Problem(403, "pages of other sites may not ask this server", kind="origin")
        if path.startswith(_PROTECTED) and not await self._tokens.accept(headers.get(b"authorization")):
            detail = "give one of the server's tokens: Authorization: Bearer TOKEN"
            return Problem(401, detail, kind="token", headers={"WWW-Authenticate": "Bearer"})
        return None

    def _is_ours(self, netloc: str) -> bool:
        """Say whether a Host names a loopback address: a name that an attacker's DNS leads here does not."""
        host = netloc.rpartition("]")[0].removeprefix("[") if netloc.startswith("[") else netloc.partition(":")[0]
        if host.lower() in ("localhost", self._host):
            return True
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:  # a bracket that is not closed
        return ""


def _shape(scope: Scope) -> str:
    """Return the route of a request rather than its path, which holds names from outside."""
    return str(getattr(scope.get("route"), "path", "a path that there is not"))
