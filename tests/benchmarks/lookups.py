"""What one look-up costs: many of one document through the graph, and as many by httpx alone."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import httpx

from tidegate import Pipeline, Settings
from tidegate.resilience.faults import Behaviour, Delay, FaultyServer, Request

CONCURRENCY = 32
_ANSWER = {"name": "Joe Smith", "country": "GB", "born": 1923, "aliases": ["J. Smith", "Joe S."]}

_server: FaultyServer | None = None  # of the process that serves: its CPU must not count as the client's


def worker_serves(seconds: float) -> str:
    """Serve answers that take so long, in the process that calls this; returns the address."""
    global _server
    if _server is not None:
        _server.stop()

    def behave(_: Request) -> Behaviour:
        return Delay(seconds) if seconds else 200

    _server = FaultyServer(behave, answer=lambda _: _ANSWER).start()
    return _server.url


def worker_counts() -> int:
    """Return how many requests came since the last time."""
    assert _server is not None
    count = len(_server.requests)
    _server.requests.clear()
    _server.behaviours.clear()
    return count


def document(names: int, first: int = 0) -> str:
    """Return a text with so many persons, counted from `first`."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    numbers = range(first, first + names)
    endings = (letters[n % 26] + letters[n // 26 % 26] + letters[n // 676 % 26] for n in numbers)
    return "\n\n".join(f"Mr. Joe Smith{ending} came." for ending in endings)


@dataclass(frozen=True, slots=True)
class Way:
    """A way of looking names up; `look_up` returns the CPU seconds that it took, of all threads."""

    name: str
    look_up: Callable[[str, int, Path], Coroutine[Any, Any, float]]


async def _through_the_graph(url: str, names: int, folder: Path) -> float:
    """Bring a document through: all of it counts, from reading the text to the last checkpoint."""
    with TemporaryDirectory(dir=folder) as home:
        settings = Settings.read(
            checkpoints=f"sqlite:///{home}/tidegate.db",
            recogniser="rules",
            model=None,
            enrichment={"adapter": "http", "url": url, "concurrency": CONCURRENCY},
        )
        async with Pipeline.open(settings) as pipeline:
            text = document(names)
            began = time.process_time()
            result = await pipeline.run(text=text, name="report.txt")
            spent = time.process_time() - began
        assert result.status == "complete"
    return spent


_Ask: TypeAlias = Callable[[int], Awaitable[object]]


async def _by_httpx(url: str, names: int, folder: Path) -> float:
    async with _client() as client:
        turn = asyncio.Semaphore(CONCURRENCY)

        async def ask(number: int) -> object:
            async with turn:
                return await _post(client, url, number)

        return await _spent(ask, range(names))


async def _by_many_clients(url: str, names: int, folder: Path) -> float:
    """Do the same with a client for each request in flight, since a pool looks at all its connections for each."""
    async with AsyncExitStack() as stack:
        idle = [await stack.enter_async_context(_client()) for _ in range(CONCURRENCY)]
        turn = asyncio.Semaphore(CONCURRENCY)

        async def ask(number: int) -> object:
            async with turn:
                client = idle.pop()
                try:
                    return await _post(client, url, number)
                finally:
                    idle.append(client)

        return await _spent(ask, range(names))


@asynccontextmanager
async def _client() -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=CONCURRENCY)
    async with httpx.AsyncClient(headers={"Accept-Encoding": "gzip"}, timeout=10.0, limits=limits) as client:
        yield client


async def _post(client: httpx.AsyncClient, url: str, number: int) -> object:
    asked = {"id": str(number), "text": f"Joe Smith {number}", "type": "PERSON"}
    headers = {"Accept": "application/json", "Content-Type": "application/json", "Idempotency-Key": str(number)}
    response = await client.post(url, content=json.dumps(asked).encode(), headers=headers)
    response.raise_for_status()
    return response.json()


async def _spent(ask: _Ask, numbers: Iterable[int]) -> float:
    began = time.process_time()
    await asyncio.gather(*(ask(number) for number in numbers))
    return time.process_time() - began


GRAPH = Way("graph, journal on, SQLite", _through_the_graph)
HTTPX = Way("httpx, one client", _by_httpx)
CLIENTS = Way(f"httpx, {CONCURRENCY} clients", _by_many_clients)
