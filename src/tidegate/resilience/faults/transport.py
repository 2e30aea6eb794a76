"""The same service for httpx, without sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx

from tidegate.resilience.faults.service import RESET, FaultyService, Message
from tidegate.store.clock import Clock


class FaultyTransport(FaultyService, httpx.AsyncBaseTransport):
    """`httpx.AsyncClient(transport=FaultyTransport([503, "hang"], clock=ManualClock(auto=True)))`.

    Raises what httpx raises of a real connection. Pauses pass on the clock, and so does the time after which the
    client's `timeout` is up, as far as it is one for reading: under a clock that is moved by hand, no test waits.
    """

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer a request of httpx."""
        body = await request.aread()
        exchange = _Exchange(self, request, body, self._clock)
        try:
            started = await exchange.next()
        except BaseException:
            await exchange.aclose()
            raise
        return httpx.Response(started["status"], headers=started["headers"], stream=exchange)


class _Exchange(httpx.AsyncByteStream):
    """One request in the application, and the body of its answer."""

    def __init__(self, service: FaultyService, request: httpx.Request, body: bytes, clock: Clock) -> None:
        self._request = request
        self._timeout: float | None = request.extensions.get("timeout", {}).get("read")
        self._clock = clock
        self._messages: asyncio.Queue[Message] = asyncio.Queue(1)
        self._bodies = [body]
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": request.url.scheme,
            "path": request.url.path,
            "raw_path": request.url.raw_path.partition(b"?")[0],
            "query_string": request.url.query,
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
            "extensions": {RESET: {}},
        }
        self._task = asyncio.ensure_future(service(scope, self._receive, self._messages.put))

    async def next(self) -> Message:
        """Return the application's next message, or raise what the client would of a connection."""
        arriving = asyncio.ensure_future(self._messages.get())
        timer = None if self._timeout is None else asyncio.ensure_future(self._clock.sleep(self._timeout))
        tasks = {task for task in (arriving, self._task, timer) if task is not None}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if arriving.done():
                message = arriving.result()
            elif self._task.done():
                self._task.result()
                if self._messages.empty():
                    raise httpx.RemoteProtocolError("the answer was not completed", request=self._request)
                message = self._messages.get_nowait()
            else:
                raise httpx.ReadTimeout("no answer in time", request=self._request)
        finally:
            for task in (arriving, timer):
                if task is not None:
                    task.cancel()
        if message["type"] == RESET:
            raise httpx.ReadError("the connection was reset", request=self._request)
        return message

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            message = await self.next()
            if part := message["body"]:
                yield part
            if not message["more_body"]:
                return

    async def aclose(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _receive(self) -> Message:
        if not self._bodies:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": self._bodies.pop(), "more_body": False}
