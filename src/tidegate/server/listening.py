"""The socket and the HTTP server: uvicorn, with limits to what a client may cost before the app sees its request."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import socket
from collections.abc import Iterator
from typing import Any, cast

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from tidegate.errors import SettingsError
from tidegate.server.boundary import App

MOST_CONNECTIONS = 256
HEAD_SECONDS = 10.0
"""Seconds that a request's head may take to come in, from the first byte or, on a new connection, from its opening."""

IDLE_SECONDS = 15
LINGER_SECONDS = 5.0
"""Seconds for which the rest of a body that nobody reads is thrown away, `LINGER_BYTES` at most, before its connection
is closed: one that is closed at once takes the answer with it."""

LINGER_BYTES = 8 * 1024 * 1024

TAKING_SECONDS = 20.0
"""Seconds in which a client has to take `LEAST_TAKEN` bytes, or all there are, of an answer that waits for it."""

LEAST_TAKEN = 16 * 1024

LARGEST_HEAD = 32 * 1024


class Socket:
    """A bound socket that nobody can connect to yet."""

    def __init__(self, host: str, port: int) -> None:
        """Bind to the first address that `host` has.

        Raises:
            SettingsError: that cannot be done; the message says why.
        """
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            self.socket = socket.socket(family, kind, protocol)
            with contextlib.ExitStack() as undone:
                undone.callback(self.socket.close)
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                self.socket.bind(address)
                undone.pop_all()
        except (OSError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or "no valid host"
            raise SettingsError(
                f"cannot listen on {host}, port {port}: {why}; name others by --host and --port"
            ) from None
        self._address = self.socket.getsockname()

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        return ipaddress.ip_address(self._address[0]).is_loopback

    @property
    def url(self) -> str:
        """Where it can be asked."""
        host, port = self._address[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def close(self) -> None:
        """Close it, if nobody did."""
        self.socket.close()


class BoundedProtocol(H11Protocol):
    """A connection of uvicorn that is closed when it is late or one too many.

    Late is a head that does not come in, a body that nobody reads, and a client that does not take its answer. uvicorn
    itself waits for a first request for ever, lets each byte of a body that nobody reads begin the waiting for the next
    request anew, and keeps an answer, with its connection, for as long as a client does not take it (0.54).
    """

    _late: asyncio.TimerHandle | None = None
    _untaken: asyncio.TimerHandle | None = None
    _thrown_away = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, unless there are too many connections."""
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            body = _problem(503, "Service Unavailable", "too many connections; try again later")
            head = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nConnection: close\r\n"
            transport.write(head + _headers(body) + b"\r\n" + body)
            transport.close()
            return
        transport.set_write_buffer_limits(high=0)  # to be told of every byte that the client does not take
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """Take bytes in, and see whether a head is begun or complete."""
        super().data_received(data)
        if self._is_unread():
            self._thrown_away += len(data)
            if self._thrown_away > LINGER_BYTES:
                self.transport.close()
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._stop_waiting()
        self._stop_watching()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Wait for the client to take what is there."""
        super().pause_writing()
        self._watch_taking()

    def resume_writing(self) -> None:
        """Go on: it took everything."""
        self._stop_watching()
        super().resume_writing()

    def on_response_complete(self) -> None:
        """Go on to the next request, or throw away what is left of this one's body for a while."""
        super().on_response_complete()
        if self._is_unread():
            self.loop.call_later(LINGER_SECONDS, self._close_if_unread, self.cycle)
        elif self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:  # the next head was begun before
            self._unset_keepalive_if_required()
            self._expect_head()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        body = _problem(400, "Bad Request", "this is no HTTP request, or its head is too large")
        with contextlib.suppress(h11.LocalProtocolError):  # an answer was begun: there can be no other
            headers = [
                (name, value) for name, _, value in (line.partition(b": ") for line in _headers(body).splitlines())
            ]
            events: list[Any] = [
                h11.Response(status_code=400, headers=[*headers, (b"connection", b"close")], reason=b"Bad Request"),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ]
            for event in events:
                self.transport.write(cast("bytes", self.conn.send(event)))
        self.transport.close()

    def _expect_head(self) -> None:
        if self.conn.their_state is not h11.IDLE or self.transport.is_closing():
            self._stop_waiting()
        elif self._late is None and self.timeout_keep_alive_task is None:
            self._late = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _watch_taking(self) -> None:
        left = self.transport.get_write_buffer_size()
        self._untaken = self.loop.call_later(TAKING_SECONDS, self._abort_if_untaken, left)

    def _abort_if_untaken(self, left: int) -> None:
        if self.transport.get_write_buffer_size() > left - LEAST_TAKEN:
            self.transport.abort()
        else:
            self._watch_taking()

    def _stop_watching(self) -> None:
        if self._untaken is not None:
            self._untaken.cancel()
            self._untaken = None

    def _close_if_unread(self, cycle: object) -> None:
        if self.cycle is cycle and self._is_unread():
            self.transport.close()

    def _is_unread(self) -> bool:
        """Say whether a body goes on coming in to a request that was answered."""
        is_answered = self.cycle is not None and self.cycle.response_complete
        return is_answered and self.conn.their_state is h11.SEND_BODY and not self.transport.is_closing()


class HttpServer(uvicorn.Server):
    """uvicorn, embedded: signals are the service's."""

    def __init__(self, app: App, bound: Socket) -> None:
        """Serve this app on this socket."""
        super().__init__(
            uvicorn.Config(
                cast("Any", app),
                http=BoundedProtocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=IDLE_SECONDS,
                timeout_graceful_shutdown=2,
                h11_max_incomplete_event_size=LARGEST_HEAD,
            )
        )
        self._bound = bound
        self.listening = asyncio.Event()

    async def run_until_stopped(self) -> None:
        """Serve until told to stop."""
        await self.serve(sockets=[self._bound.socket])

    def stop(self) -> None:
        """End, once the answers that were begun are given, or after 2 seconds."""
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them as they are."""
        yield


def _problem(status: int, title: str, detail: str) -> bytes:
    return json.dumps({"type": "about:blank", "title": title, "status": status, "detail": detail}).encode()


def _headers(body: bytes) -> bytes:
    return b"Content-Type: application/problem+json\r\nContent-Length: %d\r\n" % len(body)
