"""RabbitMQ: connections, failures, and publishing with confirms."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Self

import aio_pika
import aiormq.exceptions as amqp
from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.connection import make_url

from tidegate.errors import Permanent, Refused, ServiceError, Transient
from tidegate.services.brokers import Address

CONNECT_TIMEOUT = 10.0
MOST_DELIVERIES = 1000

# The client logs there what it raises; who catches it says so once, and not at each try (7.2).
logging.getLogger("aiormq.connection").setLevel(logging.CRITICAL)


async def connect(where: Address, name: str) -> AbstractConnection:
    """Connect, once; the connection does not come back by itself.

    aio-pika itself, and not FastStream's broker: that one's connection is made anew behind the back of whoever reads,
    so nobody can say that it is gone, or look again whether the queue has dead letters.

    Raises:
        ServiceError: the broker cannot be reached, or refuses.
    """
    async with failures(name):
        connection = aio_pika.Connection(make_url(where.url), client_properties={"connection_name": f"tidegate {name}"})
        try:
            await connection.connect(timeout=CONNECT_TIMEOUT)
        except BaseException:
            await close(connection)  # else it closes itself when it is collected, and nobody awaits that (10.2)
            raise
        return connection


@asynccontextmanager
async def failures(name: str) -> AsyncIterator[None]:
    """Raise the client's exceptions as those of the service."""
    try:
        yield
    except ServiceError:
        raise
    except (amqp.AMQPError, aio_pika.exceptions.AMQPError, OSError, RuntimeError) as error:
        raise _failure(name, error) from error


def _failure(name: str, error: Exception) -> ServiceError:
    match error:
        case amqp.ProbableAuthenticationError() | amqp.AuthenticationError():
            return Refused(name, "RabbitMQ refuses this user or password; check the url")
        # The answer to a vhost that is not there, or closed to this user: in 7.2 the client expects none such.
        case amqp.InvalidFrameError() | amqp.ConnectionNotAllowed():
            return Refused(name, "RabbitMQ refuses this vhost; check the path of the url, and the user's permissions")
        case amqp.ChannelAccessRefused():
            return Refused(name, "RabbitMQ does not allow this user to use the queue; give the permission")
        case amqp.ChannelNotFoundEntity():
            return Transient(name, "the queue is not there")
        case amqp.ChannelLockedResource():
            return Refused(name, "the queue is exclusive to another connection; name another")
        case amqp.ChannelPreconditionFailed():
            return Transient(name, "RabbitMQ closed the channel, since a message was held too long or a queue differs")
        case amqp.PublishError():
            return Transient(name, "the message reached no queue")
        case amqp.DeliveryError():
            return Transient(name, "RabbitMQ did not take the message")
        case TimeoutError():
            return Transient(name, "RabbitMQ does not answer in time, or it is none")
        case _:
            return Transient(name, f"RabbitMQ cannot be reached, or was lost ({type(error).__name__})")


async def queue_there(connection: AbstractConnection, queue: str) -> bool:
    """Whether there is a queue of this name, whatever it is like."""
    channel = connection.channel()
    await channel.initialize()
    try:
        await channel.declare_queue(queue, passive=True)
    except amqp.ChannelNotFoundEntity:
        return False
    await channel.close()
    return True


class Publisher:
    """Sends messages, each confirmed by RabbitMQ once it is in its queue."""

    def __init__(self, connection: AbstractConnection, channel: AbstractChannel, name: str) -> None:
        self._connection = connection
        self._channel = channel
        self._name = name
        self._known: set[str] = set()
        self._lost = False
        for each in (connection, channel):
            each.close_callbacks.add(self._lose)

    def _lose(self, *_: object) -> None:
        self._lost = True

    @classmethod
    async def open(cls, where: Address, name: str) -> Self:
        """See `tidegate.services.brokers.open_publisher`."""
        connection = await connect(where, name)
        try:
            async with failures(name):
                channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        except BaseException:
            await close(connection)
            raise
        return cls(connection, channel, name)

    @property
    def usable(self) -> bool:
        """Whether neither the connection nor its channel was closed."""
        return not self._lost

    async def publish(self, queue: str, body: bytes, *, message_id: str, headers: Mapping[str, str]) -> None:
        """Send a message to a queue, which is made if it is not there, and durable then."""
        if len(queue.encode()) > 255:  # a short string of AMQP
            raise Permanent(self._name, "the name of the queue has more than 255 bytes")
        async with failures(self._name):
            if queue not in self._known:
                if not await queue_there(self._connection, queue):
                    await self._channel.declare_queue(queue, durable=True, arguments={"x-queue-type": "quorum"})
                self._known.add(queue)
            await send(self._channel, queue, body, message_id=message_id, headers=headers)

    async def aclose(self) -> None:
        """Close the connection."""
        await close(self._connection)


async def send(
    channel: AbstractChannel, queue: str, body: bytes, *, message_id: str | None, headers: Mapping[str, object]
) -> None:
    """Send a durable message by the default exchange, and wait for the confirm; raises if it reached no queue."""
    rest = {name: value for name, value in headers.items() if name != "content-type"}
    content_type = headers.get("content-type")
    message = aio_pika.Message(
        body,
        message_id=message_id,
        content_type=str(content_type) if content_type else None,
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        headers=rest,  # type: ignore[arg-type] # what came from a queue goes into one
    )
    await channel.default_exchange.publish(message, routing_key=queue, mandatory=True)


async def close(connection: AbstractConnection) -> None:
    """Close a connection, which may be lost already."""
    with suppress(Exception):  # it is closed on this side in any case, and the broker returns what was not acknowledged
        async with asyncio.timeout(CONNECT_TIMEOUT):
            await connection.close()
