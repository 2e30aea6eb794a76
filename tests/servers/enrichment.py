"""A loopback API that does what a script says, misbehaviour included, and records every request."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias


@dataclass(frozen=True)
class Request:
    """One request as it came in; `at` is in the monotonic time of this process, header names are in lower case."""

    at: float
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """An answer. Without a body or JSON it tells of the entity that was asked for.

    A header of None is left out. `cut` closes the connection after so many bytes of the body; `every` sends a byte each
    so many seconds.
    """

    status: int = 200
    json: Any = None
    body: bytes | None = None
    headers: dict[str, str | None] = field(default_factory=dict)
    cut: int | None = None
    every: float | None = None


Behaviour: TypeAlias = int | Reply | Literal["reset", "hang"]
"""A status, an answer, a connection that is reset before the answer, or no answer ever."""


class EnrichmentServer:
    """Serves on a free port of 127.0.0.1, in a thread of its own, so that other processes can call it, too.

    `script` is what to do at each request, in order, or a function of the request; after its end, `then` is done.
    """

    def __init__(
        self, script: Iterable[Behaviour] | Callable[[Request], Behaviour] = (), *, then: Behaviour = 200
    ) -> None:
        self.requests: list[Request] = []
        self.most_at_once = 0
        self._decide: Callable[[Request], Behaviour] | None = script if callable(script) else None
        self._script: list[Behaviour] = [] if callable(script) else list(script)
        self._then: Behaviour = then
        self._down: Behaviour | None = None
        self._at_once = 0
        self._changed = threading.Condition()
        self._port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="enrichment server", daemon=True)
        self._listener: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/enrich"

    @property
    def texts(self) -> list[str]:
        """The names that were asked for, in order."""
        return [request.json["text"] for request in self.requests]

    def down(self, how: Behaviour | Literal["refuse"] = 503) -> None:
        """Fail from now on, whatever the script says; `refuse` closes the port."""
        if how == "refuse":
            self._run(self._unlisten())
        else:
            self._down = how

    def up(self) -> None:
        """Go on with the script, on the same port."""
        self._down = None
        if self._listener is None:
            self._run(self._listen())

    def wait_for(self, count: int, timeout: float = 20.0) -> None:
        """Block until so many requests have come in."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.requests) >= count, timeout):
                raise TimeoutError(f"{len(self.requests)} requests within {timeout} s, not {count}")

    def start(self) -> Self:
        self._thread.start()
        self._run(self._listen())
        return self

    def stop(self) -> None:
        self._run(self._unlisten())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._listener.sockets[0].getsockname()[1]

    async def _unlisten(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        serving = list(self._connections)
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = writer
        try:
            while (request := await _read_request(reader)) and await self._answer(request, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            del self._connections[task]
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        with self._changed:
            self.requests.append(request)
            behaviour = self._behaviour(request)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            self._changed.notify_all()
        try:
            return await _behave(behaviour, request, writer)
        finally:
            self._at_once -= 1

    def _behaviour(self, request: Request) -> Behaviour:
        if self._down is not None:
            return self._down
        if self._decide is not None:
            return self._decide(request)
        return self._script.pop(0) if self._script else self._then


async def _read_request(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").strip().split("\r\n")
    method, path, _ = first.split(" ")
    headers: dict[str, str] = {}
    for name, _, value in (line.partition(":") for line in lines):
        before = headers.get(name.lower())
        headers[name.lower()] = value.strip() if before is None else f"{before}, {value.strip()}"
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(time.monotonic(), method, path, headers, body)


async def _behave(behaviour: Behaviour, request: Request, writer: asyncio.StreamWriter) -> bool:
    """Do it; say whether the connection may be used again."""
    if behaviour == "hang":
        await asyncio.Event().wait()
    if behaviour == "reset":
        connection: socket.socket = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        return False
    reply = Reply(behaviour) if isinstance(behaviour, int) else behaviour
    assert isinstance(reply, Reply)
    body = reply.body
    if body is None:
        body = json.dumps(_about(request) if reply.json is None else reply.json).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **reply.headers}
    head = f"HTTP/1.1 {reply.status} Scripted\r\n" + "".join(
        f"{name}: {value}\r\n" for name, value in headers.items() if value is not None
    )
    writer.write(head.encode("latin-1") + b"\r\n")
    sent = body[: reply.cut]
    if reply.every is None:
        writer.write(sent)
    else:
        for place in range(len(sent)):
            writer.write(sent[place : place + 1])
            await writer.drain()
            await asyncio.sleep(reply.every)
    await writer.drain()
    return reply.cut is None and headers.get("Connection") != "close"


def _about(request: Request) -> dict[str, Any]:
    try:
        text = request.json["text"]
    except (ValueError, KeyError, TypeError):
        text = None
    return {"name": text, "about": f"what the API knows of {text}"}
