"""A queue of RabbitMQ: messages are pushed, as many as were not acknowledged yet."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import aiormq.exceptions as amqp
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage

from tidegate.errors import Refused, SettingsError, Transient
from tidegate.services.brokers import Address
from tidegate.services.brokers.rabbitmq import close, connect, failures, queue_there, send
from tidegate.settings.service import QueueTrigger as Settings
from tidegate.store.clock import Clock
from tidegate.triggers.queue.port import DEAD, PREFETCH, REASON, Delivered

_LONGEST = 255 - len(DEAD)
_TURN = 5.0


def check(settings: Settings) -> None:
    """Check the name of the queue.

    Raises:
        SettingsError: it is too long.
    """
    if len(settings.queue.encode()) > _LONGEST:
        raise SettingsError(f"the queue of trigger {settings.name!r} has a name of more than {_LONGEST} bytes")


async def open_consumer(where: Address, settings: Settings, clock: Clock) -> RabbitConsumer:
    """Connect, make the queue if it is not there, and begin to read it.

    Raises:
        ServiceError: it cannot be.
    """
    del clock  # RabbitMQ keeps the time
    name, queue = settings.name, settings.queue
    connection = await connect(where, name)
    try:
        async with failures(name):
            buries = await _has_dead_letters(connection, queue)
            if not await queue_there(connection, queue + DEAD):
                await _declare(connection, queue + DEAD, {"x-queue-type": "quorum"})
            if buries is None:
                await _declare(connection, queue, _arguments(queue))
            channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
            await channel.set_qos(prefetch_count=PREFETCH)
            consumer = RabbitConsumer(connection, channel, name, queue, buries=buries is not False)
            await consumer.begin()
            return consumer
    except BaseException:
        await close(connection)
        raise


def _arguments(queue: str) -> dict[str, Any]:
    # Quorum: it counts deliveries. The limit is far above ours, since restarts count too, and 4.0 has 20 by itself.
    return {
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": queue + DEAD,
        "x-delivery-limit": 1000,
    }


async def _declare(
    connection: AbstractConnection, queue: str, arguments: dict[str, Any], *, durable: bool = True
) -> None:
    async with connection.channel() as channel:
        await channel.declare_queue(queue, durable=durable, arguments=arguments)


async def _has_dead_letters(connection: AbstractConnection, queue: str) -> bool | None:
    """Whether a queue has a dead-letter exchange; None if there is no such queue.

    AMQP has no question for that: to declare it as ours would be is refused, with the first argument that differs, and
    RabbitMQ looks at this one first. One that a policy sets is not seen.
    """
    if not await queue_there(connection, queue):
        return None
    for durable in (True, False):
        try:
            await _declare(connection, queue, _arguments(queue), durable=durable)
        except amqp.ChannelPreconditionFailed as error:
            answer = str(error)
            if "arg 'durable'" in answer:
                continue
            if "arg 'x-dead-letter-exchange'" in answer:
                return "current is none" not in answer
            return "arg 'x-" in answer  # another argument differs, so this one does not
        except amqp.ChannelAccessRefused:
            raise Refused(
                queue, "RabbitMQ does not allow this user to declare the queue, by which one looks for dead letters"
            ) from None
        return True
    return False


class RabbitConsumer:
    """A channel that reads a queue."""

    def __init__(
        self, connection: AbstractConnection, channel: AbstractChannel, name: str, queue: str, *, buries: bool
    ) -> None:
        self._connection = connection
        self.channel = channel
        self.name = name
        self.queue = queue
        self.buries = buries
        self._arrived: asyncio.Queue[AbstractIncomingMessage | None] = asyncio.Queue()

    @property
    def note(self) -> str:
        """See `Consumer.note`."""
        if self.buries:
            return ""
        return (
            f"queue {self.queue!r} has no dead-letter exchange, or only by a policy, which cannot be seen; "
            f"what cannot be taken in is put into {self.queue + DEAD!r}"
        )

    async def begin(self) -> None:
        """Have messages pushed."""
        for closing in (self._connection, self.channel):
            closing.close_callbacks.add(self._lose)
        below = await self.channel.get_underlay_channel()
        below.on_consumer_cancel_callbacks.add(self._lose)  # the queue was deleted
        queue = await self.channel.get_queue(self.queue, ensure=False)
        await queue.consume(self._arrived.put)

    def _lose(self, *_: object) -> None:
        self._arrived.put_nowait(None)

    async def receive(self, most: int) -> Sequence[Delivered]:
        """See `Consumer.receive`."""
        try:
            async with asyncio.timeout(_TURN):
                arrived = [await self._arrived.get()]
        except TimeoutError:
            return []
        while len(arrived) < most and not self._arrived.empty():
            arrived.append(self._arrived.get_nowait())
        if None in arrived:
            raise Transient(self.name, "RabbitMQ was lost, or the queue was deleted, or a message was held too long")
        return [_RabbitDelivered(self, message) for message in arrived if message is not None]

    async def aclose(self) -> None:
        """See `Consumer.aclose`."""
        await close(self._connection)


class _RabbitDelivered:
    def __init__(self, consumer: RabbitConsumer, message: AbstractIncomingMessage) -> None:
        self._consumer = consumer
        self._message = message
        self.headers = _headers(message)

    @property
    def id(self) -> str | None:
        return self._message.message_id or None

    @property
    def body(self) -> bytes:
        return self._message.body

    @property
    def deliveries(self) -> int:
        before = self._message.headers.get("x-delivery-count", 0)
        return 1 + before if isinstance(before, int) else 1

    async def accept(self) -> None:
        async with failures(self._consumer.name):
            await self._message.ack()

    async def bury(self, reason: str) -> None:
        async with failures(self._consumer.name):
            if self._consumer.buries:
                await self._message.reject(requeue=False)
                return
            headers: dict[str, object] = {**self._message.headers, REASON: reason}
            headers.pop("x-delivery-count", None)
            headers.update({"content-type": self._message.content_type} if self._message.content_type else {})
            dead = self._consumer.queue + DEAD
            await send(self._consumer.channel, dead, self.body, message_id=self._message.message_id, headers=headers)
            await self._message.ack()

    async def extend(self) -> None:
        """Do nothing: a message is ours as long as the channel is open, up to `consumer_timeout`."""

    async def release(self) -> None:
        async with failures(self._consumer.name):
            await self._message.reject(requeue=True)


def _headers(message: AbstractIncomingMessage) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for name, value in message.headers.items():
        match value:
            case str():
                found[name] = value
            case bytes() | bytearray():
                found[name] = bytes(value).decode("utf-8", "replace")
            case bool():
                found[name] = str(value).lower()
            case int():
                found[name] = str(value)
            case datetime():
                found[name] = value.isoformat()
            case _:  # a table or a list, as RabbitMQ's own x-death: nothing of ours
                continue
    if message.content_type:
        found = {key: value for key, value in found.items() if key.lower() != "content-type"}
        found["content-type"] = message.content_type
    if message.content_encoding:
        found = {key: value for key, value in found.items() if key.lower() != "content-encoding"}
        found["content-encoding"] = message.content_encoding
    return found
