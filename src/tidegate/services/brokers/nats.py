"""NATS JetStream: connections, failures, streams, and publishing with acknowledgements."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Self

from nats import errors
from nats.aio.client import Client
from nats.js import JetStreamContext, api
from nats.js import errors as js_errors

from tidegate.errors import Permanent, Refused, ServiceError, Transient
from tidegate.services.brokers import Address

CONNECT_TIMEOUT = 10.0

_STATUS = re.compile(rb"^Status:", re.MULTILINE)
_DENIED = ("authorization", "authentication", "permissions violation", "user authentication expired")


class _Client(Client):
    """A client that hands messages out whatever their headers are.

    It takes a sender's `Status`, as a header or in the first line, for the server's word, so the message is neither
    handed out nor acknowledged, whenever it comes; and a first line without a version ends the connection (2.16).
    """

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        if headers and reply.startswith(b"$JS.ACK."):
            headers = _STATUS.sub(b"status:", b"NATS/1.0\r\n" + headers.partition(b"\r\n")[2])
        await super()._process_msg(sid, subject, reply, data, headers)


async def connect(where: Address, name: str) -> Client:
    """Connect, once; the connection does not come back by itself, so that whoever uses it knows when it is gone.

    nats-py itself, and not FastStream's broker: that one waits for JetStream's acknowledgement only where the stream is
    named, ends when the server is away at the start, and does not tell how often a message was delivered.

    Raises:
        ServiceError: the server cannot be reached, or refuses.
    """
    async with failures(name):
        connection = _Client()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await connection.connect(
                    where.url,
                    name=f"tidegate {name}",
                    allow_reconnect=False,
                    max_reconnect_attempts=1,  # else it tries 60 times before it says so (2.16)
                    reconnect_time_wait=0,
                    connect_timeout=int(CONNECT_TIMEOUT),
                    ping_interval=20,
                    error_cb=_unheard,
                )
        except BaseException:
            await close(connection)  # the socket of a server that refused stays open else (2.16)
            raise
        return connection


async def _unheard(_: Exception) -> None:
    """Log nothing: by default the client does, with a traceback a try; what matters is raised where it is awaited."""


@asynccontextmanager
async def failures(name: str) -> AsyncIterator[None]:
    """Raise the client's exceptions as those of the service."""
    try:
        yield
    except ServiceError:
        raise
    except (errors.Error, OSError) as error:
        raise _failure(name, error) from error


def _failure(name: str, error: Exception) -> ServiceError:
    match error:
        case errors.AuthorizationError() | errors.InvalidUserCredentialsError():
            return Refused(name, "NATS refuses these credentials; check the url")
        case errors.NoServersError() | errors.ConnectionClosedError() | errors.StaleConnectionError():
            return Transient(name, "NATS cannot be reached, or was lost")
        case js_errors.ServiceUnavailableError() | js_errors.NoStreamResponseError() | errors.NoRespondersError():
            return Refused(name, "NATS has no JetStream, or none for this user; start it with -js")
        case errors.MaxPayloadError():
            return Permanent(name, "the message is larger than NATS takes; raise max_payload there")
        case errors.BadSubjectError():
            return Permanent(name, "the queue is no subject; it has names with dots between them, and no white space")
        case TimeoutError():
            return Transient(name, "NATS does not answer in time, or it is none")
        case js_errors.APIError():
            return Transient(name, f"JetStream answers with error {error.err_code or error.code or ''}".rstrip())
        case _ if any(word in str(error).lower() for word in _DENIED):
            return Refused(name, "NATS refuses these credentials; check the url")
        case _:
            return Transient(name, f"NATS cannot be reached, or was lost ({type(error).__name__})")


def room_for(connection: Client, headers: Mapping[str, str]) -> int:
    """Return the bytes that a body may have beside these headers.

    The client looks at the body alone (2.16), and the server ends the connection at a message that is larger.
    """
    return connection.max_payload - 16 - sum(len(f"{name}: {value}\r\n".encode()) for name, value in headers.items())


async def stream_of(jetstream: JetStreamContext, subject: str, *, retention: api.RetentionPolicy) -> str:
    """Return the name of the stream that keeps a subject; if there is none, it is made, on disk."""
    try:
        return await jetstream.find_stream_name_by_subject(subject)
    except js_errors.NotFoundError:
        stream = re.sub(r"[^\w-]", "_", subject, flags=re.ASCII)
        await jetstream.add_stream(name=stream, subjects=[subject], retention=retention, storage=api.StorageType.FILE)
        return stream


class Publisher:
    """Sends messages, each acknowledged by JetStream once it is in its stream, and kept once if it is sent twice."""

    def __init__(self, connection: Client, name: str) -> None:
        self._connection = connection
        self._jetstream = connection.jetstream(timeout=CONNECT_TIMEOUT)
        self._name = name
        self._known: set[str] = set()

    @classmethod
    async def open(cls, where: Address, name: str) -> Self:
        """See `tidegate.services.brokers.open_publisher`."""
        return cls(await connect(where, name), name)

    @property
    def usable(self) -> bool:
        """Whether the connection is there."""
        return self._connection.is_connected

    async def publish(self, queue: str, body: bytes, *, message_id: str, headers: Mapping[str, str]) -> None:
        """Send a message to a subject; if no stream keeps it, one is made, which keeps what nobody acknowledged."""
        headers = {**headers, api.Header.MSG_ID: message_id}
        async with failures(self._name):
            if len(body) > room_for(self._connection, headers):
                raise errors.MaxPayloadError
            if queue not in self._known:
                await stream_of(self._jetstream, queue, retention=api.RetentionPolicy.WORK_QUEUE)
                self._known.add(queue)
            try:
                await self._jetstream.publish(queue, body, headers=headers)
            except js_errors.NoStreamResponseError:
                self._known.discard(queue)  # the stream was deleted: it is made at the next try
                raise Transient(self._name, "no stream keeps this subject") from None

    async def aclose(self) -> None:
        """Close the connection."""
        await close(self._connection)


async def close(connection: Client) -> None:
    """Close a connection, which may be lost already."""
    with suppress(errors.Error, OSError, TimeoutError):  # it is closed on this side in any case
        async with asyncio.timeout(CONNECT_TIMEOUT):
            await connection.close()
