"""A stream of Redis: entries are pulled by a group, and those of a killed consumer claimed after a while."""

from __future__ import annotations

import json
import os
import socket
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from faststream.redis.parser import BinaryMessageFormatV1
from redis import exceptions
from redis.asyncio import Redis

from tidegate.errors import ServiceError, Transient
from tidegate.services.brokers import Address
from tidegate.services.brokers.redis import DATA, close, connect, failures
from tidegate.settings.service import QueueTrigger as Settings
from tidegate.store.clock import Clock
from tidegate.triggers.queue.port import DEAD, PREFETCH, REASON, Delivered

_TURN = 1.0
_OLD = 3600.0  # seconds after which a consumer that reads no more, and holds nothing, is taken off the group
_FASTSTREAM = b"__data__"

# Whether a consumer holds nothing and its removal are one step, since removing it forgets what it holds.
_TIDY = """
local removed = 0
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local about = {}
  for i = 1, #consumer, 2 do about[consumer[i]] = consumer[i + 1] end
  if about['pending'] == 0 and (about['idle'] > tonumber(ARGV[2]) or about['name'] == ARGV[3]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], about['name'])
    removed = removed + 1
  end
end
return removed
"""


def check(settings: Settings) -> None:
    """Check nothing: any name is one of a stream."""


async def open_consumer(where: Address, settings: Settings, clock: Clock) -> RedisConsumer:
    """Connect, make the stream and its group if they are not there.

    Raises:
        ServiceError: it cannot be.
    """
    redis = await connect(where, settings.name)
    try:
        async with failures(settings.name):
            try:
                await redis.xgroup_create(settings.queue, settings.group, id="0", mkstream=True)
            except exceptions.ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise
            consumer = RedisConsumer(redis, settings, clock)
            await consumer.tidy()
            return consumer
    except BaseException:
        await close(redis)
        raise


class RedisConsumer:
    """One consumer of a group; its name is of this process alone."""

    note = ""

    def __init__(self, redis: Redis, settings: Settings, clock: Clock) -> None:
        self.redis = redis
        self.name = settings.name
        self.stream = settings.queue
        self.group = settings.group
        self.consumer = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._idle = int(settings.visibility * 1000)
        self._clock = clock
        self._claim_at = clock.monotonic()
        self._claim_every = settings.visibility / 4

    async def tidy(self, *, own: str = "") -> None:
        """Remove consumers that hold nothing: those that read long ago, and `own`."""
        await self.redis.eval(_TIDY, 1, self.stream, self.group, int(_OLD * 1000), own)

    async def receive(self, most: int) -> Sequence[Delivered]:
        """See `Consumer.receive`."""
        async with failures(self.name):
            try:
                return await self._claim(most) or await self._read(most)
            except exceptions.ResponseError as error:
                if "NOGROUP" in str(error):
                    raise Transient(self.name, "Redis has the stream or its group no more") from None
                raise

    async def _claim(self, most: int) -> list[_RedisDelivered]:
        if self._clock.monotonic() < self._claim_at:
            return []
        answer = await self.redis.xautoclaim(
            self.stream, self.group, self.consumer, min_idle_time=self._idle, start_id="0-0", count=most
        )
        claimed: list[_RedisDelivered] = []
        for entry_id, fields in answer[1]:
            if not fields:  # it was deleted from the stream: Redis 6.2 says so, 7.0 forgets it by itself
                await self.redis.xack(self.stream, self.group, entry_id)
                continue
            [about] = await self.redis.xpending_range(self.stream, self.group, entry_id, entry_id, 1) or [{}]
            claimed.append(_RedisDelivered(self, entry_id, fields, int(about.get("times_delivered", 1))))
        if len(claimed) < most:
            self._claim_at = self._clock.monotonic() + self._claim_every
        return claimed

    async def _read(self, most: int) -> list[_RedisDelivered]:
        answer = await self.redis.xreadgroup(
            self.group, self.consumer, {self.stream: ">"}, count=most, block=int(_TURN * 1000)
        )
        streams = answer.values() if isinstance(answer, dict) else [entries for _, entries in answer or ()]
        entries = [entry for group in streams for entry in _flat(group)]
        return [_RedisDelivered(self, entry_id, fields, 1) for entry_id, fields in entries]

    async def aclose(self) -> None:
        """See `Consumer.aclose`. What this consumer still holds may be claimed at once."""
        with suppress(ServiceError):  # Redis is away: it may be claimed after a while
            async with failures(self.name):
                held = await self.redis.xpending_range(
                    self.stream, self.group, "-", "+", 10 * PREFETCH, consumername=self.consumer
                )
                if held:
                    ids: list[Any] = [each["message_id"] for each in held]
                    await self.redis.xclaim(
                        self.stream, self.group, self.consumer, 0, ids, idle=self._idle, justid=True
                    )
                else:
                    await self.tidy(own=self.consumer)
        await close(self.redis)


def _flat(entries: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """Return entries as a list; under RESP 3 the client nests them once more."""
    return [entry for each in entries for entry in (each if isinstance(each, list) else [each])]


class _RedisDelivered:
    def __init__(
        self, consumer: RedisConsumer, entry_id: bytes, fields: Mapping[bytes, bytes], deliveries: int
    ) -> None:
        self._consumer = consumer
        self._entry_id = entry_id
        self._fields = fields
        self.headers, self.body = _parts(fields)
        self.deliveries = deliveries

    @property
    def id(self) -> str | None:
        return self.headers.get("id") or self._entry_id.decode()

    async def accept(self) -> None:
        async with failures(self._consumer.name):
            await self._consumer.redis.xack(self._consumer.stream, self._consumer.group, self._entry_id)

    async def bury(self, reason: str) -> None:
        fields: dict[Any, Any] = {**self._fields, REASON: reason}
        async with failures(self._consumer.name), self._consumer.redis.pipeline(transaction=True) as both:
            both.xadd(self._consumer.stream + DEAD, fields)
            both.xack(self._consumer.stream, self._consumer.group, self._entry_id)
            await both.execute()

    async def extend(self) -> None:
        async with failures(self._consumer.name):
            await self._consumer.redis.xclaim(
                self._consumer.stream, self._consumer.group, self._consumer.consumer, 0, [self._entry_id], justid=True
            )

    async def release(self) -> None:
        """Do nothing: what is held when the consumer is closed may be claimed at once."""


def _parts(fields: Mapping[bytes, bytes]) -> tuple[Mapping[str, str], bytes]:
    """Return headers and content: of the field `data` and the others, of FastStream's envelope, or of plain fields."""
    if _FASTSTREAM in fields:
        body, headers = BinaryMessageFormatV1.parse(fields[_FASTSTREAM])
        if isinstance(headers, dict):
            return {str(name): str(value) for name, value in headers.items()}, body
        return {"content-type": "application/json"}, fields[_FASTSTREAM]  # no form of a message either
    text = {name.decode("utf-8", "replace"): value.decode("utf-8", "replace") for name, value in fields.items()}
    if DATA in fields:
        text.pop(DATA.decode())
        return text, fields[DATA]
    try:
        plain = {name.decode(): value.decode() for name, value in fields.items()}
    except UnicodeDecodeError:
        plain = {}  # no form of a message, which whoever reads it says
    return {"content-type": "application/json"}, json.dumps(plain).encode()
