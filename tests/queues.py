"""Queues of brokers as those who send see them, and a door behind which events become rows of a real inbox."""

from __future__ import annotations

import asyncio
import atexit
import importlib
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aio_pika
import nats
import pytest
from aio_pika.abc import AbstractConnection
from nats.aio.client import Client
from nats.js import errors as js_errors
from redis.asyncio import Redis

from tests.doors import fetching
from tests.servers.brokers import NATS, RABBITMQ, REDIS, SERVERS, serving
from tidegate.engine.port import Stats, Unreadable
from tidegate.services.brokers import address
from tidegate.settings.service import QueueTrigger as Settings
from tidegate.store.clock import SystemClock
from tidegate.store.database import Database
from tidegate.store.inbox import Envelope, Inbox, Receipt
from tidegate.store.opening import store_at
from tidegate.store.registry import Registry
from tidegate.triggers.door import Door
from tidegate.triggers.queue.trigger import QueueTrigger

_running = ExitStack()
atexit.register(_running.close)


def broker_url(variable: str, *, heavy: bool = False) -> str:
    """Return the URL that a variable names, else that of a server started here; `heavy` allows for ten seconds."""
    if not os.environ.get(variable):
        kind = SERVERS[variable]
        if not kind.found():
            pytest.skip(f"needs a broker; name its URL in {variable}, or install {kind.program}")
        if variable == RABBITMQ and not heavy:
            pytest.skip(f"needs a RabbitMQ; name its URL in {RABBITMQ}, or run python -m tests.servers.brokers COMMAND")
        os.environ[variable] = _running.enter_context(serving(kind)).url
    return os.environ[variable]


class Broker:
    """One queue, as its senders and its owner see it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.queue = f"tidegate.test.{uuid.uuid4().hex[:12]}"

    def settings(self, **more: Any) -> Settings:
        return Settings.model_validate(
            {"kind": "queue", "url": self.url, "queue": self.queue, "visibility": 1.0, **more}
        )

    async def prepare(self) -> None:
        """Have the queue made, as the trigger makes it."""
        where = address(self.url, "test")
        module = importlib.import_module(f"tidegate.triggers.queue.{where.broker}")
        consumer = await module.open_consumer(where, self.settings(), SystemClock())
        await consumer.aclose()

    async def open(self) -> None:
        raise NotImplementedError

    async def send(self, body: bytes, headers: Mapping[str, str] | None = None, message_id: str = "") -> None:
        raise NotImplementedError

    async def left(self) -> int:
        """Return how many messages were not acknowledged; exact while nobody reads."""
        raise NotImplementedError

    async def dead(self) -> list[tuple[bytes, dict[str, str]]]:
        """Take and return the dead letters, each with its headers."""
        return await self.take(f"{self.queue}.dead")

    async def take(self, queue: str) -> list[tuple[bytes, dict[str, str]]]:
        raise NotImplementedError

    async def aclose(self) -> None:
        raise NotImplementedError


class RabbitBroker(Broker):
    connection: AbstractConnection

    async def open(self) -> None:
        self.connection = await aio_pika.connect(self.url)
        self.channel = await self.connection.channel(on_return_raises=True)

    async def send(self, body: bytes, headers: Mapping[str, str] | None = None, message_id: str = "") -> None:
        rest = dict(headers or {})
        content_type = rest.pop("content-type", None)
        message = aio_pika.Message(
            body, content_type=content_type, headers=dict(rest), message_id=message_id or None, delivery_mode=2
        )
        await self.channel.default_exchange.publish(message, routing_key=self.queue, mandatory=True)

    async def left(self) -> int:
        async with self.connection.channel() as channel:
            queue = await channel.declare_queue(self.queue, passive=True)
            return queue.declaration_result.message_count or 0

    async def take(self, queue: str) -> list[tuple[bytes, dict[str, str]]]:
        there = await self.channel.get_queue(queue)
        found = []
        while (message := await there.get(fail=False, no_ack=True)) is not None:
            found.append((message.body, {name: str(value) for name, value in message.headers.items()}))
        return found

    async def aclose(self) -> None:
        for queue in (self.queue, f"{self.queue}.dead"):
            async with self.connection.channel() as channel:
                await channel.queue_delete(queue)
        await self.connection.close()


class NatsBroker(Broker):
    connection: Client

    async def open(self) -> None:
        self.connection = await nats.connect(self.url)
        self.jetstream = self.connection.jetstream()

    @property
    def stream(self) -> str:
        return self.queue.replace(".", "_")

    async def send(self, body: bytes, headers: Mapping[str, str] | None = None, message_id: str = "") -> None:
        more = {"Nats-Msg-Id": message_id} if message_id else {}
        await self.jetstream.publish(self.queue, body, headers={**(headers or {}), **more} or None)

    async def send_raw(self, headers: bytes, body: bytes) -> None:
        """Send headers as no client would."""
        address = urlsplit(self.url)
        _, writer = await asyncio.open_connection(address.hostname, address.port or 4222)
        sizes = f"{len(headers)} {len(headers) + len(body)}".encode()
        writer.write(b'CONNECT {"verbose":false,"headers":true}\r\n')
        writer.write(b"HPUB %s %s\r\n%s%s\r\nPING\r\n" % (self.queue.encode(), sizes, headers, body))
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def left(self) -> int:
        # Of the stream, which keeps what was not acknowledged: the consumer counts some messages twice (2.9).
        return (await self.jetstream.stream_info(self.stream)).state.messages

    async def take(self, queue: str) -> list[tuple[bytes, dict[str, str]]]:
        found = []
        stream = queue.replace(".", "_")  # read by number: a stream made as a queue takes no second reader
        state = (await self.jetstream.stream_info(stream)).state
        for number in range(max(state.first_seq, 1), state.last_seq + 1):
            message = await self.jetstream.get_msg(stream, number)
            found.append((message.data or b"", dict(message.headers or {})))
            await self.jetstream.delete_msg(stream, number)
        return found

    async def aclose(self) -> None:
        for stream in (self.stream, f"{self.stream}_dead"):
            with suppress(js_errors.NotFoundError):
                await self.jetstream.delete_stream(stream)
        await self.connection.close()


class RedisBroker(Broker):
    redis: Redis

    async def open(self) -> None:
        self.redis = Redis.from_url(self.url)

    async def send(self, body: bytes, headers: Mapping[str, str] | None = None, message_id: str = "") -> None:
        fields: dict[Any, Any] = {**(headers or {}), "data": body, **({"id": message_id} if message_id else {})}
        await self.redis.xadd(self.queue, fields)

    async def left(self) -> int:
        groups = await self.redis.xinfo_groups(self.queue)
        group = next(iter(groups.values())) if isinstance(groups, dict) else groups[0]
        return int(group["pending"]) + int(group["lag"])

    async def take(self, queue: str) -> list[tuple[bytes, dict[str, str]]]:
        found = []
        entries: Any = await self.redis.xrange(queue)
        for entry, fields in entries:
            headers = {name.decode(): value.decode("utf-8", "replace") for name, value in fields.items()}
            found.append((fields.get(b"data", b""), headers))
            await self.redis.xdel(queue, entry)
        return found

    async def aclose(self) -> None:
        await self.redis.delete(self.queue, f"{self.queue}.dead")
        await self.redis.aclose()


KINDS: Mapping[str, tuple[str, type[Broker]]] = {
    "rabbitmq": (RABBITMQ, RabbitBroker),
    "nats": (NATS, NatsBroker),
    "redis": (REDIS, RedisBroker),
}


@asynccontextmanager
async def a_queue(kind: str, *, heavy: bool = False, url: str = "") -> AsyncIterator[Any]:
    """A queue of the test's own, removed afterwards."""
    variable, made = KINDS[kind]
    broker = made(url or broker_url(variable, heavy=heavy))
    await broker.open()
    try:
        await broker.prepare()
        yield broker
    finally:
        await broker.aclose()


class ImpatientClock(SystemClock):
    """A clock by which pauses pass at once, and are written down."""

    def __init__(self, longest: float = 0.02) -> None:
        self.slept: list[float] = []
        self._longest = longest

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(min(seconds, self._longest))


class Entrance:
    """A door, the inbox behind it, and what a test may have happen between the two."""

    def __init__(self, path: str | Path, *, max_queued: int = 10_000, clock: SystemClock | None = None) -> None:
        self.database: Database = store_at(path)
        self.inbox = Inbox(self.database, max_queued=max_queued)
        self.registry = Registry(self.database)
        self.door = Door(self, self.inbox, max_document_bytes=100_000, clock=clock or ImpatientClock())
        self.before: Callable[[Envelope | Unreadable], Awaitable[None]] = _nothing
        self.after: Callable[[Receipt], Awaitable[None]] = _nothing
        self.events: list[Envelope | Unreadable] = []

    async def submit(self, event: Envelope | Unreadable) -> Receipt:
        self.events.append(event)
        await self.before(event)
        if isinstance(event, Unreadable):
            return await self.inbox.refuse(event.source, event.id, event.error)
        receipt = await self.inbox.accept(event)
        await self.after(receipt)
        return receipt

    async def run_worker(self) -> None:
        raise NotImplementedError

    async def cancel(self, thread_id: str) -> bool:
        raise NotImplementedError

    async def stats(self) -> Stats:
        raise NotImplementedError

    async def threads(self, status: Any = "queued") -> int:
        return len(await self.registry.threads(status=status, limit=None))


async def _nothing(_: object) -> None:
    return


@asynccontextmanager
async def reading(broker: Broker, entrance: Entrance, **more: Any) -> AsyncIterator[asyncio.Task[None]]:
    """Have a trigger read the queue."""
    fetch = more.pop("fetch", fetching)
    trigger = QueueTrigger(broker.settings(**more), fetch=fetch)
    task = asyncio.create_task(trigger.run(entrance.door))
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 20.0) -> None:
    """Wait until something holds."""
    for _ in range(int(seconds / 0.02)):
        if await condition():
            return
        await asyncio.sleep(0.02)
    raise TimeoutError


async def until_equal(count: Callable[[], Awaitable[int]], number: int, seconds: float = 20.0) -> None:
    """Wait until a count is as said."""

    async def equal() -> bool:
        return await count() == number

    try:
        await until(equal, seconds)
    except TimeoutError:
        raise AssertionError(f"{await count()} instead of {number}") from None
