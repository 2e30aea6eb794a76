"""An HTTP server on loopback that results are delivered to, and a sink that posts them there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx

from tidegate.resilience.failures import from_status
from tidegate.store.clock import SystemClock
from tidegate.store.outbox import Delivery

Respond = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Receiver:
    """An HTTP server on loopback that answers, or fails, as it is told."""

    status: int = 200
    headers: str = ""
    fails: Respond | None = None
    got: list[str] = field(default_factory=list)
    in_flight: int = 0
    read: int = 0
    most: int = 0
    held: asyncio.Event | None = None
    url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            size = int(head.partition("content-length: ")[2].split("\r\n")[0])
            body = json.loads(await reader.readexactly(size))
            self.read += 1
            if self.held is not None:
                await self.held.wait()
            if self.fails is not None:
                await self.fails(reader, writer)
                return
            if self.status == 200:
                self.got.append(body["id"])
            writer.write(
                f"HTTP/1.1 {self.status} x\r\n{self.headers}content-length: 0\r\nconnection: close\r\n\r\n".encode()
            )
            await writer.drain()
        finally:
            self.in_flight -= 1
            writer.close()


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1")
    receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield receiver
    finally:
        server.close()


class Hook:
    """A sink that posts to a receiver."""

    def __init__(self, name: str, receiver: Receiver) -> None:
        self.name = name
        self._receiver = receiver
        self._client = httpx.AsyncClient()

    async def deliver(self, delivery: Delivery) -> None:
        response = await self._client.post(self._receiver.url, json={"id": delivery.id, "result": delivery.result})
        if response.status_code >= 300:
            raise from_status(self.name, response.status_code, response.headers, SystemClock())

    async def aclose(self) -> None:
        await self._client.aclose()
