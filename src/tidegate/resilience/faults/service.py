"""An HTTP service that misbehaves on a schedule: an ASGI application."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final, TypeAlias
from urllib.parse import quote

from tidegate.resilience.faults.behaviours import Delay, Reply
from tidegate.resilience.faults.course import Course, Script
from tidegate.resilience.faults.replies import Request, echo, reply_to
from tidegate.store.clock import Clock

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

RESET: Final = "tidegate.reset"
"""The ASGI extension, and its message, by which an application has its connection reset."""

_PIECE = 64 * 1024


class FaultyService(Course[Request]):
    """An ASGI application that does all there is in a schedule.

    ASGI knows no reset: where the server lacks the extension `tidegate.reset`, the answer is begun and not gone on
    with, upon which servers close the connection.
    """

    def __init__(
        self,
        script: Script[Request] = (),
        *,
        answer: Callable[[Request], object] = echo,
        clock: Clock | None = None,
        sleep: Callable[[float], Awaitable[None]] | None = None,
    ) -> None:
        """Begin the schedule. `answer` gives the healthy answers: a `Reply`, or what is sent as JSON.

        `clock` tells the time in the schedule, and in dates that are sent; `sleep` lets pauses pass, by default on it.
        """
        super().__init__(script, clock=clock)
        self._answer = answer
        self._sleep = sleep or self._clock.sleep

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        if scope["type"] != "http":
            raise ValueError(f"a FaultyService speaks HTTP, not {scope['type']}")
        body = await _body(receive)
        path, headers = _path(scope), _joined(scope["headers"])
        came: list[Request] = []

        def make(at: float) -> Request:
            came.append(Request(at, scope["method"], path, headers, body))
            return came[0]

        with self.meeting(make) as behaviour:
            if behaviour == "hang":
                await _gone(receive)
            elif behaviour == "reset":
                await self._reset(scope, send)
            else:
                if isinstance(behaviour, Delay):
                    await self._sleep(behaviour.seconds)
                with self._noted():
                    reply = reply_to(behaviour, came[0], self._answer, self._clock.now())
                await self._send(reply, send)
                if behaviour == "stall":
                    await _gone(receive)

    async def _reset(self, scope: Message, send: Send) -> None:
        if RESET in (scope.get("extensions") or {}):
            await send({"type": RESET})
        else:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]})

    async def _send(self, reply: Reply, send: Send) -> None:
        """Send a reply; one that is cut is not completed, upon which the server closes the connection."""
        body = reply.body or b""
        headers: dict[str, str | None] = {"content-type": "application/json", "content-length": str(len(body))}
        headers.update({name.lower(): value for name, value in reply.headers.items()})
        pairs = [(name.encode(), value.encode("latin-1")) for name, value in headers.items() if value is not None]
        await send({"type": "http.response.start", "status": reply.status, "headers": pairs})
        sent = body[: reply.cut]
        piece = _PIECE if reply.every is None else 1
        for place in range(0, len(sent), piece):
            await send({"type": "http.response.body", "body": sent[place : place + piece], "more_body": True})
            if reply.every is not None:
                await self._sleep(reply.every)
        if reply.cut is None:
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _live(receive: Receive, send: Send) -> None:
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


async def _body(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return bytes(body)


async def _gone(receive: Receive) -> None:
    """Wait until the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _path(scope: Message) -> str:
    path = (scope.get("raw_path") or quote(scope["path"]).encode()).decode("latin-1")
    query = scope.get("query_string", b"").decode("latin-1")
    return f"{path}?{query}" if query else path


def _joined(pairs: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return the headers by name, values of the same name in one (RFC 9110, section 5.3)."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in pairs:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers
