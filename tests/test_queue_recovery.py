"""Consumers are killed, brokers restarted, messages delivered again and again: each is one thread, and none is lost."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aio_pika
import pytest
from faststream.nats import NatsBroker as FastNats
from faststream.rabbit import RabbitBroker as FastRabbit
from faststream.redis import RedisBroker as FastRedis

from tests.queues import (
    KINDS,
    Broker,
    Entrance,
    ImpatientClock,
    RabbitBroker,
    RedisBroker,
    a_queue,
    reading,
    until,
    until_equal,
)
from tests.servers.brokers import SERVERS, serving
from tidegate.errors import SettingsError
from tidegate.settings.service import QueueTrigger as Settings
from tidegate.store.inbox import Envelope
from tidegate.triggers import queue
from tidegate.triggers.opening import open_trigger
from tidegate.triggers.queue import HOPELESS, QueueTrigger


@pytest.fixture(autouse=True)
def little_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "_GRACE", 0.4)


@pytest.fixture(params=list(KINDS))
async def heavy_broker(request: pytest.FixtureRequest) -> AsyncIterator[Broker]:
    async with a_queue(request.param, heavy=True) as opened:
        yield opened


@pytest.fixture
async def rabbit() -> AsyncIterator[RabbitBroker]:
    async with a_queue("rabbitmq") as opened:
        yield opened


@pytest.fixture
async def entrance() -> AsyncIterator[Entrance]:
    made = Entrance(":memory:")
    yield made
    await made.database.close()


def _consume_until_killed(path: str, settings: dict[str, Any], when: str) -> None:
    """Read the queue in a process of its own, which is killed before or after it commits, or before it acknowledges."""

    async def die(_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    async def consume() -> None:
        entrance = Entrance(path)
        setattr(entrance, when, die)
        await QueueTrigger(Settings.model_validate(settings)).run(entrance.door)

    asyncio.run(consume())


@pytest.mark.slow
@pytest.mark.parametrize(("when", "stored"), [("before", 0), ("after", 1)])
async def test_a_message_of_a_killed_process_is_delivered_again_and_is_one_thread(
    heavy_broker: Broker, tmp_path: Path, when: str, stored: int
) -> None:
    path = str(tmp_path / "tidegate.db")
    for number in range(3):
        await heavy_broker.send(b"document", message_id=f"k-{number}")
    settings = heavy_broker.settings().model_dump() | {"url": heavy_broker.url}
    process = multiprocessing.get_context("spawn").Process(target=_consume_until_killed, args=(path, settings, when))
    await asyncio.to_thread(process.start)
    await asyncio.to_thread(process.join, 60)
    assert process.exitcode == -signal.SIGKILL
    entrance = Entrance(path)
    assert await entrance.threads() >= stored
    async with reading(heavy_broker, entrance):
        await until_equal(entrance.threads, 3)
        await until(lambda: _nothing_left(heavy_broker))
    assert await heavy_broker.dead() == []
    await entrance.database.close()


async def _nothing_left(broker: Broker) -> bool:
    return await broker.left() == 0


@pytest.mark.slow
async def test_500_messages_of_which_many_come_again_are_500_threads(heavy_broker: Broker, tmp_path: Path) -> None:
    entrance = Entrance(tmp_path / "tidegate.db")
    order = [number for number in range(500) for _ in range(1 + number % 3)]
    random.Random(7).shuffle(order)  # noqa: S311 - an order
    for number in order:  # by JSON, for JetStream itself drops what has an ID twice
        await heavy_broker.send(b'{"text": "document %d", "id": "%d"}' % (number, number))
    async with reading(heavy_broker, entrance), reading(heavy_broker, entrance):
        await until_equal(entrance.threads, 500, 60)
        await until(lambda: _nothing_left(heavy_broker), 60)
    assert len(entrance.events) >= len(order)
    assert len({event.id for event in entrance.events}) == 500
    assert await heavy_broker.dead() == []
    await entrance.database.close()


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(KINDS))
async def test_a_broker_that_is_restarted_is_read_again_and_that_is_said_once(
    kind: str, entrance: Entrance, caplog: pytest.LogCaptureFixture
) -> None:
    program = SERVERS[KINDS[kind][0]]
    if not program.found():
        pytest.skip(f"needs {program.program}")
    entrance.door.clock = ImpatientClock(0.2)
    with serving(program) as server:
        async with a_queue(kind, url=server.url) as broker:
            with caplog.at_level(logging.INFO, "tidegate"):
                async with reading(broker, entrance):
                    await broker.send(b"before", message_id="before")
                    await until_equal(entrance.threads, 1)
                    await asyncio.to_thread(server.stop)
                    await until(lambda: _said(caplog, "it is tried again"))
                    await asyncio.sleep(1.0)
                    await asyncio.to_thread(server.start)
                    if isinstance(broker, RabbitBroker):  # those who send come again, too
                        await broker.open()
                    await until(lambda: _sent(broker), 30)
                    await until_equal(entrance.threads, 2, 30)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert 1 <= len(warnings) <= 3  # lost, then away: each is said once, however often it was tried
    assert len(set(warnings)) == len(warnings)


async def _said(caplog: pytest.LogCaptureFixture, words: str) -> bool:
    return words in caplog.text


async def _sent(broker: Broker) -> bool:
    try:
        await broker.send(b"after", message_id="after")
    except Exception:  # noqa: BLE001 - whatever the client says, it is not there yet
        return False
    return True


async def test_a_broker_that_is_away_at_the_start_is_waited_for_with_growing_pauses(
    entrance: Entrance, caplog: pytest.LogCaptureFixture
) -> None:
    program = SERVERS["TIDEGATE_TEST_REDIS"]
    if not program.found():
        pytest.skip(f"needs {program.program}")
    clock = entrance.door.clock
    assert isinstance(clock, ImpatientClock)
    with serving(program) as server:
        server.stop()
        broker = RedisBroker(server.url.replace("://", "://:secret@"))
        broker.url = server.url
        async with reading(broker, entrance):
            await until(lambda: _tried(clock, 8))
            server.start()
            await broker.open()
            await broker.send(b"at last")
            await until_equal(entrance.threads, 1)
        await broker.aclose()
    pauses = clock.slept[:8]
    assert pauses[-1] > 8 * pauses[0]
    assert caplog.text.count("Redis cannot be reached") == 1


async def _tried(clock: ImpatientClock, times: int) -> bool:
    return len(clock.slept) >= times


async def test_entries_of_a_killed_consumer_are_claimed_and_those_it_could_not_settle_buried(
    entrance: Entrance,
) -> None:
    async with a_queue("redis") as broker:
        await broker.send(b"left behind", message_id="left")
        await broker.send(b"ends processes", message_id="poison")
        entries: Any = await broker.redis.xrange(broker.queue)
        await broker.redis.xreadgroup("tidegate", "killed", {broker.queue: ">"})
        await broker.redis.xclaim(
            broker.queue, "tidegate", "killed", 0, [entries[1][0]], retrycount=HOPELESS, idle=5000
        )
        async with reading(broker, entrance):
            await until_equal(entrance.threads, 1)
            await until(lambda: _nothing_left(broker))
        [(body, _)] = await broker.dead()
        assert body == b"ends processes"
        [event] = entrance.events
        assert isinstance(event, Envelope)
        assert event.data == b"left behind"


async def test_a_queue_of_others_without_dead_letters_gets_some_and_that_is_said(
    rabbit: RabbitBroker, entrance: Entrance, caplog: pytest.LogCaptureFixture
) -> None:
    await _replace(rabbit, {"x-queue-type": "classic"})
    await rabbit.send(b"{", {"content-type": "application/json", "kind": "x"}, "broken")
    async with reading(rabbit, entrance):
        await until(lambda: _nothing_dead(rabbit, 1))
    assert "has no dead-letter exchange" in caplog.text
    [(body, headers)] = await rabbit.dead()
    assert (body, headers["kind"]) == (b"{", "x")
    assert "cannot be read as such" in headers["tidegate-reason"]
    assert await rabbit.left() == 0


async def _nothing_dead(rabbit: RabbitBroker, number: int) -> bool:
    async with rabbit.connection.channel() as channel:
        there = await channel.declare_queue(f"{rabbit.queue}.dead", passive=True)
        return there.declaration_result.message_count == number


@pytest.mark.parametrize("durable", [True, False])
async def test_a_queue_of_others_keeps_its_own_dead_letters(
    rabbit: RabbitBroker, entrance: Entrance, caplog: pytest.LogCaptureFixture, durable: bool
) -> None:
    dead = f"{rabbit.queue}.theirs"
    async with rabbit.connection.channel() as channel:
        exchange = await channel.declare_exchange(dead, aio_pika.ExchangeType.FANOUT, durable=True)
        await (await channel.declare_queue(dead, durable=True)).bind(exchange)
    await _replace(rabbit, {"x-dead-letter-exchange": dead, "x-max-length": 100}, durable=durable)
    await rabbit.send(b"{", {"content-type": "application/json"}, "broken")
    try:
        async with reading(rabbit, entrance):
            await until(lambda: _taken(rabbit, dead))
        assert "dead-letter exchange" not in caplog.text
    finally:
        async with rabbit.connection.channel() as channel:
            await channel.queue_delete(dead)
            await channel.exchange_delete(dead)


async def _taken(rabbit: RabbitBroker, queue: str) -> bool:
    return [body for body, _ in await rabbit.take(queue)] == [b"{"]


async def _replace(rabbit: RabbitBroker, arguments: dict[str, Any], *, durable: bool = True) -> None:
    async with rabbit.connection.channel() as channel:
        await channel.queue_delete(rabbit.queue)
        await channel.declare_queue(rabbit.queue, durable=durable, arguments=arguments)


@pytest.mark.parametrize("kind", list(KINDS))
async def test_what_apps_with_faststream_send_is_understood(kind: str, entrance: Entrance) -> None:
    async with a_queue(kind) as broker:
        message: Any = {"text": "words", "id": "fast"}
        if kind == "rabbitmq":
            async with FastRabbit(broker.url) as sender:
                await sender.publish(message, broker.queue)
        elif kind == "nats":
            async with FastNats(broker.url) as nats_sender:
                await nats_sender.publish(message, broker.queue)
        else:
            async with FastRedis(broker.url) as redis_sender:
                await redis_sender.publish(message, stream=broker.queue)
        async with reading(broker, entrance):
            await until_equal(entrance.threads, 1)
        [event] = entrance.events
        assert isinstance(event, Envelope)
        assert (event.id, event.data) == ("fast", b"words")


async def test_a_queue_that_is_deleted_is_made_again(entrance: Entrance, rabbit: RabbitBroker) -> None:
    async with reading(rabbit, entrance):
        await rabbit.send(b"one", message_id="1")
        await until_equal(entrance.threads, 1)
        async with rabbit.connection.channel() as channel:
            await channel.queue_delete(rabbit.queue)
        await until(lambda: _sent(rabbit))
        await until_equal(entrance.threads, 2)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"url": "kafka://a"}, "none of a broker"),
        ({"url": "nats://a", "queue": "orders.>"}, "wildcards"),
        ({"url": "nats://a", "queue": "a b"}, "no subject"),
        ({"url": "nats://a", "group": "a.b"}, "group"),
        ({"url": "amqp://a", "queue": "q" * 251}, "250 bytes"),
    ],
)
def test_settings_that_no_broker_takes_are_refused_at_once(settings: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        open_trigger(Settings.model_validate({"kind": "queue", "name": "mail", "queue": "q", **settings}))
