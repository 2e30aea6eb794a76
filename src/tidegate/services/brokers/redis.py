"""Redis Streams: connections, failures, and publishing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Self

from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from tidegate.errors import Permanent, Refused, ServiceError, Transient
from tidegate.services.brokers import Address

CONNECT_TIMEOUT = 10.0

DATA = b"data"
"""The field of an entry that holds the message; all others are its headers."""


async def connect(where: Address, name: str) -> Redis:
    """Connect, and try nothing twice: whoever uses it retries.

    redis itself, and not FastStream's broker: that one puts messages into an envelope of its own, which nothing else
    reads, and does not tell how often an entry was delivered.

    Raises:
        ServiceError: the server cannot be reached, or refuses.
    """
    async with failures(name):
        try:
            redis = Redis.from_url(
                where.url,
                socket_connect_timeout=CONNECT_TIMEOUT,
                socket_timeout=CONNECT_TIMEOUT,
                retry=Retry(NoBackoff(), 0),
                client_name="tidegate",
            )
        except ValueError as error:  # of the query or the path of the URL
            raise Refused(name, "the url is none of Redis; check what follows the host") from error
        try:
            await redis.ping()
        except BaseException:
            await close(redis)
            raise
        return redis


@asynccontextmanager
async def failures(name: str) -> AsyncIterator[None]:
    """Raise the client's exceptions as those of the service."""
    try:
        yield
    except ServiceError:
        raise
    except (exceptions.RedisError, OSError) as error:
        raise _failure(name, error) from error


def _failure(name: str, error: Exception) -> ServiceError:
    match error:
        case exceptions.AuthenticationError() | exceptions.AuthorizationError():
            return Refused(name, "Redis refuses this user or password; check the url")
        case exceptions.NoPermissionError():
            return Refused(name, "Redis does not allow this user to use the stream; give the permission")
        case exceptions.BusyLoadingError() | exceptions.TimeoutError() | TimeoutError():
            return Transient(name, "Redis does not answer in time")
        case exceptions.ConnectionError() | OSError():
            return Transient(name, "Redis cannot be reached, or was lost")
        case exceptions.OutOfMemoryError():
            return Transient(name, "Redis has no memory left")
        case exceptions.ReadOnlyError():
            return Transient(name, "this Redis is a replica, which takes no messages")
        case exceptions.InvalidResponse():
            return Transient(name, "what answers there is no Redis")
    words = str(error)
    if "WRONGTYPE" in words:
        return Refused(name, "the queue is a key of another type than a stream; name another")
    if "NOAUTH" in words or "WRONGPASS" in words:
        return Refused(name, "Redis refuses this user or password; check the url")
    if "DB index" in words:
        return Refused(name, "Redis has no database of this number; check the path of the url")
    if "string exceeds maximum" in words or "Protocol error: invalid bulk length" in words:
        return Permanent(name, "the message is larger than Redis takes")
    return Transient(name, f"Redis answers with an error ({type(error).__name__})")


class Publisher:
    """Sends messages: entries of a stream, with the message as `data` and its headers as the other fields."""

    def __init__(self, redis: Redis, name: str) -> None:
        self._redis = redis
        self._name = name

    @classmethod
    async def open(cls, where: Address, name: str) -> Self:
        """See `tidegate.services.brokers.open_publisher`."""
        return cls(await connect(where, name), name)

    @property
    def usable(self) -> bool:
        """True: it takes another connection where one is lost."""
        return True

    async def publish(self, queue: str, body: bytes, *, message_id: str, headers: Mapping[str, str]) -> None:
        """Add a message to a stream, which is made if it is not there."""
        async with failures(self._name):
            fields: dict[Any, Any] = {**headers, "id": message_id, DATA: body}
            await self._redis.xadd(queue, fields)

    async def aclose(self) -> None:
        """Close the connection."""
        await close(self._redis)


async def close(redis: Redis) -> None:
    """Close all connections, which may be lost already."""
    with suppress(exceptions.RedisError, OSError, TimeoutError):  # they are closed on this side in any case
        async with asyncio.timeout(CONNECT_TIMEOUT):
            await redis.aclose()
