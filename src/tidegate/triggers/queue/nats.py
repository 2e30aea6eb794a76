"""A subject of NATS JetStream: messages are pulled, as many as there is room for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from nats import errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext, api
from nats.js import errors as js_errors

from tidegate.errors import Refused, SettingsError, Transient
from tidegate.services.brokers import Address
from tidegate.services.brokers.nats import CONNECT_TIMEOUT, close, connect, failures, room_for, stream_of
from tidegate.settings.service import QueueTrigger as Settings
from tidegate.store.clock import Clock
from tidegate.triggers.queue.port import DEAD, REASON, Delivered

_TURN = 5.0
_SUBJECT = re.compile(r"[^\s.*>\0]+(\.[^\s.*>\0]+)*")
_NO_NAME = re.compile(r"[^\w-]", re.ASCII)
_GROUP = re.compile(r"[\w-]+", re.ASCII)


def check(settings: Settings) -> None:
    """Check the names of subject and group.

    Raises:
        SettingsError: NATS does not take them, or the subject stands for many, its own dead letters among them.
    """
    if not _SUBJECT.fullmatch(settings.queue):
        raise SettingsError(
            f"the queue of trigger {settings.name!r} is no subject of NATS; it has names with dots between them, "
            "and neither white space nor wildcards: declare a trigger for each subject"
        )
    if not _GROUP.fullmatch(settings.group):
        raise SettingsError(
            f"the group of trigger {settings.name!r} has other characters than letters, digits, _ and -"
        )


async def open_consumer(where: Address, settings: Settings, clock: Clock) -> NatsConsumer:
    """Connect, make the stream and the group's consumer if they are not there.

    Raises:
        ServiceError: it cannot be.
    """
    del clock  # JetStream keeps the time
    name, subject = settings.name, settings.queue
    connection = await connect(where, name)
    try:
        async with failures(name):
            jetstream = connection.jetstream(timeout=CONNECT_TIMEOUT)
            stream = await stream_of(jetstream, subject, retention=api.RetentionPolicy.WORK_QUEUE)
            await stream_of(jetstream, subject + DEAD, retention=api.RetentionPolicy.LIMITS)
            group = f"{settings.group}_{_NO_NAME.sub('_', subject)}"
            await _check_unused(jetstream, stream, group, subject, name)
            config = api.ConsumerConfig(
                durable_name=group,
                deliver_policy=api.DeliverPolicy.ALL,
                ack_policy=api.AckPolicy.EXPLICIT,
                ack_wait=settings.visibility,
                max_deliver=-1,  # the server would leave a message in the stream then, and nobody would hear of it
                filter_subject=subject,
            )
            await jetstream.add_consumer(stream, config=config)
            pulling = await jetstream.pull_subscribe_bind(durable=group, stream=stream)
            return NatsConsumer(connection, jetstream, pulling, name, subject)
    except BaseException:
        await close(connection)
        raise


async def _check_unused(jetstream: JetStreamContext, stream: str, group: str, subject: str, name: str) -> None:
    try:
        there = await jetstream.consumer_info(stream, group)
    except js_errors.NotFoundError:
        return
    if there.config.filter_subject != subject:
        raise Refused(name, f"consumer {group!r} of stream {stream!r} reads another subject; take another group")


class NatsConsumer:
    """A durable consumer that a group shares."""

    note = ""

    def __init__(
        self,
        connection: Client,
        jetstream: JetStreamContext,
        pulling: JetStreamContext.PullSubscription,
        name: str,
        subject: str,
    ) -> None:
        self.connection = connection
        self.jetstream = jetstream
        self._pulling = pulling
        self.name = name
        self.subject = subject

    async def receive(self, most: int) -> Sequence[Delivered]:
        """See `Consumer.receive`."""
        if not self.connection.is_connected:
            raise Transient(self.name, "NATS was lost")
        async with failures(self.name):
            try:
                arrived = await self._pulling.fetch(most, timeout=_TURN)
            except errors.TimeoutError:
                return []
            except js_errors.Error:
                raise Transient(self.name, "JetStream has the stream or its consumer no more") from None
        return [_NatsDelivered(self, message) for message in arrived]

    async def aclose(self) -> None:
        """See `Consumer.aclose`."""
        await close(self.connection)


class _NatsDelivered:
    def __init__(self, consumer: NatsConsumer, message: Msg) -> None:
        self._consumer = consumer
        self._message = message
        self._told = message.metadata

    @property
    def id(self) -> str | None:
        # A stream that was deleted and made anew counts from 1 again: the time tells its messages from former ones.
        return self.headers.get(api.Header.MSG_ID) or f"{self._place}:{self._told.timestamp.isoformat()}"

    @property
    def _place(self) -> str:
        return f"{self._told.stream}:{self._told.sequence.stream}"

    @property
    def headers(self) -> Mapping[str, str]:
        return self._message.headers or {}

    @property
    def body(self) -> bytes:
        return self._message.data

    @property
    def deliveries(self) -> int:
        return self._told.num_delivered or 1

    async def accept(self) -> None:
        async with failures(self._consumer.name):
            await self._message.ack_sync(timeout=CONNECT_TIMEOUT)

    async def bury(self, reason: str) -> None:
        subject = self._consumer.subject + DEAD
        headers = {name: value for name, value in self.headers.items() if not name.lower().startswith("nats-")}
        ours = {REASON: reason, api.Header.MSG_ID: f"{self.id}{DEAD}"}
        headers |= ours
        room = room_for(self._consumer.connection, headers)
        if len(self.body) > room:  # with a reason it is larger than NATS takes: most of it is better than none
            headers = ours | {REASON: f"{reason}; its headers, and the end of its body, had no room here"}
            room = room_for(self._consumer.connection, headers)
        async with failures(self._consumer.name):
            await stream_of(self._consumer.jetstream, subject, retention=api.RetentionPolicy.LIMITS)
            await self._consumer.jetstream.publish(subject, self.body[:room], headers=headers)
            await self._message.term()

    async def extend(self) -> None:
        async with failures(self._consumer.name):
            await self._message.in_progress()

    async def release(self) -> None:
        async with failures(self._consumer.name):
            await self._message.nak()
