"""The S3 trigger: a bucket notifies an SQS queue, and each object that was created is a document."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from tidegate.engine.port import Unreadable
from tidegate.errors import (
    DocumentError,
    EventInvalid,
    Permanent,
    RateLimited,
    ServiceError,
    SettingsError,
    StoreError,
    StoreUnavailable,
    Transient,
)
from tidegate.graph.waiting import end
from tidegate.settings.service import S3Trigger as Settings
from tidegate.store.inbox import Envelope
from tidegate.triggers.door import Door
from tidegate.triggers.s3 import events
from tidegate.triggers.s3.clients import Clients, check, connect
from tidegate.triggers.s3.events import CreatedObject, Notification
from tidegate.triggers.s3.failures import CredentialsRefused
from tidegate.triggers.s3.notices import Notices
from tidegate.triggers.s3.objects import Objects
from tidegate.triggers.s3.queue import Message, MessageQueue

AT_ONCE = 4
"""Messages that are worked on at once: as many documents are in memory at most."""

_BEATS = 3.0  # extensions in the time for which a message is ours
_LONGEST_PAUSE = 60.0  # seconds
_SHORTEST_POLL = 1.0  # seconds from one request to the next while nothing comes: requests are paid for
_BACK_OFF = 30.0  # seconds after which a message that was denied is delivered again, doubled each time
_LONGEST_BACK_OFF = 900.0
_FAREWELL = 2.0  # seconds to give messages back when we end
_AWAY = (Transient, RateLimited, StoreUnavailable, StoreError)
"""What says nothing about a message: while it lasts, the message is kept, so that its deliveries are not used up."""


class S3Trigger:
    """Starts a thread for each object that is created in a bucket which notifies an SQS queue.

    A message is deleted when all its events are in the inbox. It is kept by heartbeat as long as that takes, and given
    back when the service ends. One that cannot be understood, or whose object we may not read, is not deleted: after
    as many deliveries as the queue's redrive policy says, SQS moves it to the dead-letter queue.
    """

    def __init__(self, settings: Settings) -> None:
        """Read the queue that these settings name.

        Raises:
            SettingsError: a URL is none.
        """
        check(settings)
        self._settings = settings
        self.name = settings.name

    async def run(self, door: Door) -> None:
        """See `Trigger.run`.

        Raises:
            SettingsError: there is no such queue, no region is named, or AWS's configuration cannot be read.
        """
        consumer = _Consumer(self._settings, door)
        while True:
            try:
                async with connect(self._settings) as clients:
                    await consumer.consume(clients)
            except (ServiceError, SettingsError) as failure:
                if isinstance(failure, SettingsError) and not consumer.heard:
                    raise  # later, AWS's files may be in the middle of a change
                consumer.notices.tell(failure)
                await consumer.rest()


class _Consumer:
    """What outlasts the clients, which are opened anew when their credentials are refused."""

    def __init__(self, settings: Settings, door: Door) -> None:
        self.notices = Notices(settings.name, door.clock)
        self._settings = settings
        self._door = door
        self._clock = door.clock
        self._failures = 0  # in a row
        self.heard = False  # whether the queue was ever read
        self._stale = False
        self._silence: ServiceError | None = None  # why the queue cannot be read

    async def consume(self, clients: Clients) -> None:
        """Work on messages, until the clients are to be opened anew."""
        settings = self._settings
        queue = MessageQueue(clients.sqs, settings.queue_url, wait=settings.wait, visibility=settings.visibility)
        objects = Objects(clients.s3, max_bytes=self._door.max_document_bytes)
        working: set[asyncio.Task[None]] = set()
        self._stale = False
        try:
            while not self._stale:
                while len(working) >= AT_ONCE:
                    await asyncio.wait(working, return_when=asyncio.FIRST_COMPLETED)
                for message in await self._receive(queue, AT_ONCE - len(working)):
                    task = asyncio.create_task(self._work(message, queue, objects))
                    working.add(task)
                    task.add_done_callback(working.discard)
            if working:
                await asyncio.wait(working)
        finally:
            await end(working)

    async def rest(self) -> None:
        """Pause after a failure, the longer the more there were in a row."""
        await self._clock.sleep(_pause(self._failures))
        self._failures += 1

    async def _receive(self, queue: MessageQueue, most: int) -> list[Message]:
        if self._failures:
            await self._clock.sleep(_pause(self._failures - 1))
        began = self._clock.monotonic()
        try:
            messages = await queue.receive(most)
        except ServiceError as failure:
            self._failures += 1
            self._stale = self._stale or isinstance(failure, CredentialsRefused)
            if isinstance(failure, Permanent) and not self.heard:
                raise SettingsError(
                    f"trigger {self._settings.name!r}: there is no queue at its queue_url ({failure.problem})"
                ) from failure
            self._silence = failure
            self.notices.tell(failure)
            return []
        if self._silence is not None:
            self.notices.over(self._silence)
            self._silence, self._failures = None, 0
        self.heard = True
        if not messages:
            self._failures = 0  # of what was denied, nothing is to be had now
            await self._clock.sleep(max(0.0, _SHORTEST_POLL - (self._clock.monotonic() - began)))
        return messages

    async def _work(self, message: Message, queue: MessageQueue, objects: Objects) -> None:
        try:
            async with self._kept(message, queue):
                await self._take(message, objects)
            await queue.delete(message)
            self._failures = 0
        except asyncio.CancelledError:
            await self._hide(message, queue, 0.0)
            raise
        except EventInvalid as error:
            self.notices.tell(f"message {message.id} is left to the queue's redrive policy: {error}")
        except ServiceError as failure:
            self.notices.tell(failure)
            self._failures += 1
            self._stale = self._stale or isinstance(failure, CredentialsRefused)
            await self._hide(message, queue, _back_off(message.deliveries))
        except Exception as error:  # noqa: BLE001 - whatever ails one message, all others go on
            self.notices.tell(f"message {message.id} is left to the queue's redrive policy: {type(error).__name__}")

    async def _take(self, message: Message, objects: Objects) -> None:
        notification = events.read(message.content)
        for created in notification.objects:
            for attempt in itertools.count():
                try:
                    await self._take_in(created, notification, objects)
                    break
                except _AWAY as failure:
                    self.notices.tell(failure)
                    await self._clock.sleep(_pause(attempt))

    async def _take_in(self, created: CreatedObject, said: Notification, objects: Objects) -> None:
        known = await self._door.known(self._settings.name, created.id)
        if known is not None and known.document_id:
            return
        event: Envelope | Unreadable
        try:
            loaded = await objects.fetch(created)
        except DocumentError as error:
            event = Unreadable(source=self._settings.name, id=created.id, error=error)
        else:
            event = Envelope(
                source=self._settings.name,
                id=created.id,
                data=loaded.data,
                name=loaded.source,
                media_type=loaded.media_type,
                traceparent=said.traceparent,
                tracestate=said.tracestate,
            )
        await self._door.take(event)

    @asynccontextmanager
    async def _kept(self, message: Message, queue: MessageQueue) -> AsyncIterator[None]:
        beat = asyncio.create_task(self._keep(message, queue))
        try:
            yield
        finally:
            beat.cancel()
            await asyncio.wait([beat])  # it must not keep from others what is given back next

    async def _keep(self, message: Message, queue: MessageQueue) -> None:
        """Keep a message from others until cancelled, or until SQS does not let us any more, after 12 hours."""
        while True:
            await self._clock.sleep(self._settings.visibility / _BEATS)
            try:
                await queue.keep(message)
            except Permanent:
                return  # it is delivered again, and known then
            except ServiceError as failure:
                self.notices.tell(failure)

    async def _hide(self, message: Message, queue: MessageQueue, seconds: float) -> None:
        # Where this fails, the message comes back by itself after `visibility`.
        with suppress(ServiceError, TimeoutError):
            async with asyncio.timeout(_FAREWELL):
                await queue.hide(message, seconds)


def _pause(failures: int) -> float:
    return min(2.0 ** min(failures, 10), _LONGEST_PAUSE)


def _back_off(deliveries: int) -> float:
    return min(_BACK_OFF * 2.0 ** min(deliveries - 1, 10), _LONGEST_BACK_OFF)
