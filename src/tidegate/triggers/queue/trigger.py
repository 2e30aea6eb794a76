"""Queues: each message of RabbitMQ, NATS JetStream or Redis Streams is a document."""

from __future__ import annotations

import asyncio
import importlib
import logging
import random as randomness
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, TypeVar, cast

from tidegate.engine.port import Unreadable
from tidegate.errors import DocumentError, EventInvalid, ServiceError, StoreError, StoreUnavailable
from tidegate.services.brokers import address, client
from tidegate.settings.service import QueueTrigger as Settings
from tidegate.store.inbox import Envelope
from tidegate.triggers.door import Door
from tidegate.triggers.messages import Fetch, Message, fetched, may_pass, read_message
from tidegate.triggers.queue.port import PREFETCH, Consumer, Delivered

_log = logging.getLogger(__name__)

T = TypeVar("T")

HOPELESS = 1000
"""Deliveries after which a message is taken for one that ends the process, and goes to the dead letters untried.

Far above `max_deliveries`, which counts tries that failed: a message that only waits while processes are killed, or
while the inbox is full, is delivered again and again, and nothing is wrong with it.
"""

_GRACE = 2.0
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0


class QueueTrigger:
    """Hands the messages of a queue in; each is acknowledged only after the door took it."""

    def __init__(self, settings: Settings, *, fetch: Fetch, random: randomness.Random | None = None) -> None:
        """Read a queue; `fetch` downloads the documents of messages that bring a URL.

        Raises:
            SettingsError: the URL is none of a broker, or the queue or the group has a name that the broker refuses.
            MissingExtra: the broker's client is not installed.
        """
        self._settings = settings
        self._where = address(settings.url.get_secret_value(), f"trigger {settings.name!r}")
        client(self._where, settings.name)
        self._broker = importlib.import_module(f"tidegate.triggers.queue.{self._where.broker}")
        self._broker.check(settings)
        self._fetch = fetch
        self._random = random or randomness.Random()  # noqa: S311 - jitter
        self._said = ""

    @property
    def name(self) -> str:
        """See `Trigger.name`."""
        return self._settings.name

    async def run(self, door: Door) -> None:
        """See `Trigger.run`. What was taken in when this is cancelled is acknowledged; the rest stays at the broker."""
        pause = _FIRST_PAUSE
        while True:
            try:
                opening = self._broker.open_consumer(self._where, self._settings, door.clock)
                consumer = cast("Consumer", await _apart(opening))
                try:
                    pause = _FIRST_PAUSE
                    self._say_open(consumer)
                    await self._consume(consumer, door)
                finally:
                    await consumer.aclose()
            except ServiceError as error:
                self._say(f"{error.problem}; it is tried again until it works")
            await door.clock.sleep(pause * self._random.uniform(0.5, 1.0))
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _say_open(self, consumer: Consumer) -> None:
        self._said = ""
        _log.info("trigger %r reads %r at %s", self.name, self._settings.queue, self._where.shown)
        if consumer.note:
            _log.warning("trigger %r: %s", self.name, consumer.note)

    def _say(self, words: str) -> None:
        """Say what is wrong, once until it is something else."""
        if words != self._said:
            self._said = words
            _log.warning("trigger %r: %s", self.name, words)

    async def _consume(self, consumer: Consumer, door: Door) -> None:
        held: dict[asyncio.Task[None], Delivered] = {}
        extending = asyncio.create_task(self._extend(held, door))
        try:
            while True:
                if len(held) >= PREFETCH:
                    await asyncio.wait(held, return_when=asyncio.FIRST_COMPLETED)
                    continue
                for message in await _apart(consumer.receive(PREFETCH - len(held))):
                    task = asyncio.create_task(self._settle(message, door))
                    held[task] = message
                    task.add_done_callback(partial(_drop, held))
        except asyncio.CancelledError:
            if held:
                await asyncio.wait(held, timeout=_GRACE)
            for message in list(held.values()):
                await _quietly(message.release)
            raise
        finally:
            await _end(extending, *held)

    async def _extend(self, held: dict[asyncio.Task[None], Delivered], door: Door) -> None:
        """Tell the broker of messages that take long that they are worked on, or wait for room in the inbox."""
        while True:
            await door.clock.sleep(self._settings.visibility / 3)
            for message in list(held.values()):
                await _quietly(message.extend)

    async def _settle(self, message: Delivered, door: Door) -> None:
        problem = await self._take(message, door)
        try:
            if problem is None:
                await message.accept()
            else:
                text = "trigger %r puts a message with the dead letters of %r: %s"
                _log.error(text, self.name, self._settings.queue, problem)
                await message.bury(problem)
        except ServiceError as error:  # it comes again, and is known by then, or refused again
            _log.info("trigger %r: a message could not be acknowledged: %s", self.name, error.problem)

    async def _take(self, message: Delivered, door: Door) -> str | None:
        """Take a message in, trying again what may pass; return why it cannot be, None if it is."""
        if message.deliveries > HOPELESS:
            return f"it was delivered {message.deliveries} times, and whoever took it ended"
        try:
            event = await asyncio.to_thread(
                read_message, message.headers, message.body, message.id, self.name, door.max_document_bytes
            )
        except EventInvalid as error:
            return str(error)
        except Exception as error:  # noqa: BLE001 - it will not be read the next time either
            return f"it cannot be read ({type(error).__name__})"
        failed, pause = message.deliveries - 1, _FIRST_PAUSE
        while True:
            try:
                return await self._try(event, door, is_last=failed + 1 >= self._settings.max_deliveries)
            except EventInvalid as error:
                return str(error)
            except (StoreUnavailable, StoreError) as error:
                self._say(f"what comes cannot be stored now: {error}")
            except Exception as error:  # noqa: BLE001 - whatever ails one message, all others go on
                failed += 1
                what = str(error) if isinstance(error, (DocumentError, ServiceError)) else type(error).__name__
                if failed >= self._settings.max_deliveries:
                    return f"it failed {failed} times: {what}"
                _log.warning("trigger %r: a message failed and is tried again: %s", self.name, what)
            await door.clock.sleep(pause * self._random.uniform(0.5, 1.0))
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _try(self, event: Message, door: Door, *, is_last: bool) -> str | None:
        """Take an event in, or its failure, to be seen; return why its document cannot be taken in."""
        try:
            if event.url is not None:
                known = await door.known(event.source, event.id)
                if known is not None and known.document_id:
                    return None
            offered: Envelope | Unreadable = await fetched(event, self._fetch, door.max_document_bytes)
        except DocumentError as error:
            if may_pass(error) and not is_last:
                raise
            offered = Unreadable(source=event.source, id=event.id, error=error)
        await door.take(offered)
        return str(offered.error) if isinstance(offered, Unreadable) else None


async def _apart(work: Coroutine[Any, Any, T]) -> T:
    """Await a client in a task of its own.

    Clients use `asyncio.wait_for`, which in Python 3.11 loses a cancellation that comes just as it ends (gh-86296):
    1 of 6 tests that stopped a trigger hung.
    """
    task = asyncio.create_task(work)
    try:
        await asyncio.wait([task])
    finally:
        await _end(task)
    return task.result()


async def _end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks until they have ended."""
    while left := [task for task in tasks if not task.done()]:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=0.5)


def _drop(held: dict[asyncio.Task[None], Delivered], task: asyncio.Task[None]) -> None:
    held.pop(task, None)
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("a message was left, and comes again: %s", type(error).__name__)


async def _quietly(tell: Callable[[], Awaitable[None]]) -> None:
    try:
        await tell()
    except ServiceError:
        return  # the connection is lost, which whoever receives learns too; the message comes again
