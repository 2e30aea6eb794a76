"""A service that misbehaves, on a port of 127.0.0.1: the least of an HTTP/1.1 server for an ASGI application.

Servers for production protect their clients from what this one is for, such as a reset in the middle of a body, and
none is among Tidegate's dependencies.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import unquote

from tidegate.resilience.faults.behaviours import Behaviour
from tidegate.resilience.faults.course import Script
from tidegate.resilience.faults.replies import Request, echo
from tidegate.resilience.faults.service import RESET, FaultyService, Message
from tidegate.store.clock import Clock

_BODYLESS = frozenset({204, 304})
_LONGEST_HEAD = 1024 * 1024


class FaultyServer(FaultyService):
    """A `FaultyService`, served from a thread of its own, so that blocking code and other processes can call it too.

    `with FaultyServer([503, "reset"]) as server:` or `async with`, and let your code call `server.url`. Its pauses,
    as those of `Delay`, are real seconds: whoever waits for a socket does so in real time.
    """

    def __init__(
        self, script: Script[Request] = (), *, answer: Callable[[Request], object] = echo, clock: Clock | None = None
    ) -> None:
        """Prepare the server; `script`, `answer` and `clock` are those of a `FaultyService`."""
        super().__init__(script, answer=answer, clock=clock, sleep=asyncio.sleep)
        self._port = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._listener: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where it listens: `http://127.0.0.1:PORT`, without a path."""
        return f"http://127.0.0.1:{self._port}"

    def down(self, how: Behaviour | Literal["refuse"] = 503) -> None:
        """Do this from now on, whatever the schedule says; `refuse` closes the port."""
        if how == "refuse":
            self._run(self._unlisten())
        else:
            super().down(how)

    def up(self) -> None:
        """Go on with the schedule, on the same port."""
        super().up()
        if self._listener is None and self._loop is not None:
            self._run(self._listen())

    def start(self) -> Self:
        """Begin to listen; after `stop`, on the same port, and where the schedule was.

        Raises:
            RuntimeError: it was started before, and not stopped.
        """
        if self._loop is not None:
            raise RuntimeError(f"{self.url} is being served already")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="faulty server", daemon=True)
        self._thread.start()
        try:
            self._run(self._listen())
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Break off what is being answered, and stop; one that does not run has nothing to stop."""
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        self._run(self._unlisten())
        self._loop = self._thread = None
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        if kind is None and self.mistake:
            raise self.mistake

    async def __aenter__(self) -> Self:
        return self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        if self._loop is None:
            work.close()
            raise RuntimeError("the server does not run; start it first")
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", self._port, limit=_LONGEST_HEAD)
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
        if task is not None:
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)
        try:
            connection = _Connection(reader, writer)
            while (scope := await connection.request()) and await connection.answer(self, scope):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


class _Connection:
    """One connection: requests in, one after the other, and the application's messages out."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._ahead = b""  # of the next request
        self._body: bytes | None = None
        self._framed = False
        self._bare = False
        self._complete = False
        self._reusable = True

    async def request(self) -> dict[str, Any] | None:
        """Read a request, and return its scope; None if the client has gone."""
        try:
            head = self._ahead + await self._reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return None
        self._ahead = b""
        first, *lines = head.decode("latin-1").strip().split("\r\n")
        method, target, _ = first.split(" ")
        pairs = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        headers = dict(pairs)
        if "chunked" in headers.get("transfer-encoding", ""):
            self._body = await self._chunks()
        else:
            self._body = await self._reader.readexactly(int(headers.get("content-length", 0)))
        path, _, query = target.partition("?")
        self._bare = method == "HEAD"
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(path),
            "raw_path": path.encode("latin-1"),
            "query_string": query.encode("latin-1"),
            "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs],
            "extensions": {RESET: {}},
        }

    async def answer(self, application: Callable[[Message, Any, Any], Awaitable[None]], scope: dict[str, Any]) -> bool:
        """Have the application answer, until it has or the client is gone; say whether there may be another request."""
        self._complete = False
        answering = asyncio.ensure_future(application(scope, self._receive, self._send))
        watching = asyncio.ensure_future(self._reader.read(1))
        try:
            await asyncio.wait((answering, watching), return_when=asyncio.FIRST_COMPLETED)
            if watching.done() and (ahead := watching.result()):
                self._ahead = ahead
                await answering
            if answering.done():
                answering.result()
        finally:
            for task in (answering, watching):
                task.cancel()
            await asyncio.gather(answering, watching, return_exceptions=True)
        return self._complete and self._reusable

    async def _receive(self) -> Message:
        if self._body is None:
            await asyncio.Event().wait()  # whoever waits for the client to go is cancelled when it has
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}

    async def _send(self, message: Message) -> None:
        match message["type"]:
            case "http.response.start":
                self._start(message["status"], message["headers"])
            case "http.response.body":
                self._part(message.get("body", b""), last=not message.get("more_body", False))
            case _:
                linger = struct.pack("ii", 1, 0)  # closing sends RST
                connection: socket.socket = self._writer.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self._writer.transport.abort()
        await self._writer.drain()

    def _start(self, status: int, pairs: list[tuple[bytes, bytes]]) -> None:
        names = dict(pairs)
        self._reusable = names.get(b"connection") != b"close"
        self._bare = self._bare or status in _BODYLESS
        said = names.keys() & {b"content-length", b"transfer-encoding"}  # what the application frames, it frames itself
        self._framed = not said and self._reusable and not self._bare
        head = [f"HTTP/1.1 {status} Scheduled".encode(), *(b"%b: %b" % pair for pair in pairs)]
        if self._framed:
            head.append(b"transfer-encoding: chunked")
        self._writer.write(b"\r\n".join([*head, b"", b""]))

    def _part(self, part: bytes, *, last: bool) -> None:
        if not self._bare:
            self._writer.write(b"%x\r\n%b\r\n" % (len(part), part) if self._framed and part else part)
            if self._framed and last:
                self._writer.write(b"0\r\n\r\n")
        self._complete = last

    async def _chunks(self) -> bytes:
        body = bytearray()
        while size := int((await self._reader.readuntil(b"\r\n")).split(b";")[0], 16):
            body += (await self._reader.readexactly(size + 2))[:-2]
        await self._reader.readuntil(b"\r\n")
        return bytes(body)
