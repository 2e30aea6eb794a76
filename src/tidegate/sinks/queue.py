"""A queue of a message broker, to which results are sent as CloudEvents."""

from __future__ import annotations

import asyncio

from tidegate.services.brokers import Publisher, address, client, open_publisher
from tidegate.settings.service import QueueSink as Settings
from tidegate.sinks.events import CONTENT_TYPE, result_event, structured
from tidegate.store.clock import Clock, SystemClock
from tidegate.store.outbox import Delivery


class QueueSink:
    """Sends results to RabbitMQ, NATS JetStream or Redis Streams; each is there once the broker has confirmed it."""

    def __init__(self, settings: Settings, *, clock: Clock | None = None) -> None:
        """Name the queue; the connection is made by the first delivery.

        Raises:
            SettingsError: the URL is none of a broker.
            MissingExtra: the broker's client is not installed.
        """
        self._settings = settings
        self._where = address(settings.url.get_secret_value(), f"sink {settings.name!r}")
        client(self._where, settings.name)
        self._clock = clock or SystemClock()
        self._publisher: Publisher | None = None
        self._opening = asyncio.Lock()

    @property
    def name(self) -> str:
        """See `Sink.name`."""
        return self._settings.name

    async def deliver(self, delivery: Delivery) -> None:
        """See `Sink.deliver`."""
        body = await asyncio.to_thread(structured, result_event(delivery, self._clock))
        publisher = await self._opened()
        await publisher.publish(
            self._settings.queue, body, message_id=delivery.id, headers={"content-type": CONTENT_TYPE}
        )

    async def _opened(self) -> Publisher:
        async with self._opening:
            if self._publisher is not None and not self._publisher.usable:
                await self.aclose()
            if self._publisher is None:
                self._publisher = await open_publisher(self._where, self.name)
            return self._publisher

    async def aclose(self) -> None:
        """See `Sink.aclose`."""
        publisher, self._publisher = self._publisher, None
        if publisher is not None:
            await publisher.aclose()
