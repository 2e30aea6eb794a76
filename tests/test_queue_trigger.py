"""Messages of RabbitMQ, NATS and Redis become threads: each at least once delivered, and once a thread."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator

import pytest

from tests.queues import KINDS, Broker, Entrance, ImpatientClock, a_queue, reading, until, until_equal
from tidegate.engine.port import Unreadable
from tidegate.errors import SourceUnavailable, StoreUnavailable, Transient
from tidegate.services.intake import Loaded
from tidegate.store.inbox import Envelope
from tidegate.triggers.queue import trigger as queue
from tidegate.triggers.queue.port import PREFETCH, REASON

pytestmark = pytest.mark.slow


@pytest.fixture(params=list(KINDS))
async def broker(request: pytest.FixtureRequest) -> AsyncIterator[Broker]:
    async with a_queue(request.param) as opened:
        yield opened


@pytest.fixture(autouse=True)
def little_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "_GRACE", 0.4)


@pytest.fixture
async def entrance() -> AsyncIterator[Entrance]:
    made = Entrance(":memory:")
    yield made
    await made.database.close()


async def test_a_message_is_acknowledged_only_after_its_thread_is_stored(broker: Broker, entrance: Entrance) -> None:
    arrived, may = asyncio.Event(), asyncio.Event()

    async def hold(_: object) -> None:
        arrived.set()
        await may.wait()

    entrance.before = hold
    await broker.send(b"a document", {"content-type": "text/plain"}, "first")
    async with reading(broker, entrance):
        await asyncio.wait_for(arrived.wait(), 10)
    await until_equal(broker.left, 1)  # it was stopped before
    assert await entrance.threads() == 0
    may.set()
    async with reading(broker, entrance):
        await until_equal(entrance.threads, 1)
    await until_equal(broker.left, 0)
    assert await broker.dead() == []


async def test_a_message_sent_twice_is_one_thread(broker: Broker, entrance: Entrance) -> None:
    body = json.dumps({"text": "the same", "id": "one", "name": "report.md"}).encode()
    async with reading(broker, entrance):
        for _ in range(3):
            await broker.send(body, {"content-type": "application/json"})
        await until(lambda: _three(entrance))
    await until_equal(broker.left, 0)
    assert await entrance.threads() == 1
    event = entrance.events[0]
    assert isinstance(event, Envelope)
    assert (event.source, event.id, event.name, event.data) == ("queue", "one", "report.md", b"the same")


async def _three(entrance: Entrance) -> bool:
    return len(entrance.events) == 3


async def test_the_id_of_the_broker_tells_messages_apart_that_have_none(broker: Broker, entrance: Entrance) -> None:
    for number in (1, 2):
        await broker.send(b"the same text", message_id=f"m-{number}")
    async with reading(broker, entrance):
        await until_equal(entrance.threads, 2)
    assert sorted(event.id for event in entrance.events) == ["m-1", "m-2"]


async def test_cloud_events_are_understood_in_both_modes(broker: Broker, entrance: Entrance) -> None:
    prefix = "cloudEvents_" if "amqp" in broker.url else "ce-"
    about = {"specversion": "1.0", "id": "7", "source": "/orders", "type": "new"}
    structured = json.dumps({**about, "subject": "a.txt", "data": {"text": "in it"}}).encode()
    await broker.send(structured, {"content-type": "application/cloudevents+json; charset=utf-8"})
    binary = {f"{prefix}{name}": value for name, value in {**about, "id": "8"}.items()}
    await broker.send(b"# beside it", {**binary, "content-type": "text/markdown"})
    async with reading(broker, entrance):
        await until_equal(entrance.threads, 2)
    found = {event.id: event for event in entrance.events if isinstance(event, Envelope)}
    assert found["/orders 7"].data == b"in it"
    assert found["/orders 7"].name == "a.txt"
    assert (found["/orders 8"].data, found["/orders 8"].media_type) == (b"# beside it", "text/markdown")


async def test_what_cannot_be_understood_goes_to_the_dead_letters_as_it_came(
    broker: Broker, entrance: Entrance, caplog: pytest.LogCaptureFixture
) -> None:
    await broker.send(b'{"text": "secret words", "text": 2}', {"content-type": "application/json", "kind": "x"})
    await broker.send(b"good", message_id="good")
    async with reading(broker, entrance):
        await until_equal(entrance.threads, 1)
        await until(lambda: _logged(caplog, "dead letters"))
        await asyncio.sleep(0.1)
    await until_equal(broker.left, 0)
    [(body, headers)] = await broker.dead()
    assert body == b'{"text": "secret words", "text": 2}'
    assert headers["kind"] == "x"
    if "amqp" not in broker.url:  # RabbitMQ rejects, and has no place for a reason
        assert "two fields of one name" in headers[REASON]
    assert "secret" not in caplog.text


async def _logged(caplog: pytest.LogCaptureFixture, words: str) -> bool:
    return words in caplog.text


@pytest.mark.parametrize(
    "headers", [b"NATS/1.0 409 Consumer Deleted\r\n\r\n", b"NATS/1.0\r\nStatus: 404\r\n\r\n", b"\r\n\r\n"]
)
async def test_whatever_the_headers_of_nats_are_a_message_is_taken_in(entrance: Entrance, headers: bytes) -> None:
    async with a_queue("nats") as broker, reading(broker, entrance):
        await broker.send_raw(headers, b"words")
        await until_equal(entrance.threads, 1)
        await until_equal(broker.left, 0)
    [event] = entrance.events
    assert isinstance(event, Envelope)
    assert event.data == b"words"


async def test_a_poison_message_as_large_as_nats_takes_is_kept_in_part(entrance: Entrance) -> None:
    async with a_queue("nats") as broker:
        most = broker.connection.max_payload
        await broker.send(b"{" * (most - 100), {"content-type": "application/json"})
        async with reading(broker, entrance):
            await until_equal(broker.left, 0)
        [(body, headers)] = await broker.dead()
    assert most - 1000 < len(body) < most
    assert "end of its body" in headers[REASON]


@pytest.mark.parametrize("envelope", [b'{"data": "x", "headers": [1]}', b'{"data": "x", "headers": 7}'])
async def test_a_broken_envelope_of_faststream_goes_to_the_dead_letters(entrance: Entrance, envelope: bytes) -> None:
    async with a_queue("redis") as broker:
        await broker.redis.xadd(broker.queue, {"__data__": envelope})
        await broker.send(b"good", message_id="good")
        async with reading(broker, entrance):
            await until_equal(entrance.threads, 1)
            await until_equal(broker.left, 0)
        [(_, headers)] = await broker.dead()
    assert headers["__data__"] == envelope.decode()


async def test_a_message_that_we_fail_to_read_goes_to_the_dead_letters_at_once(
    entrance: Entrance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise TypeError("secret words")

    monkeypatch.setattr(queue, "read_message", failing)
    async with a_queue("redis") as broker:
        await broker.send(b"words")
        async with reading(broker, entrance):
            await until_equal(broker.left, 0)
        [(_, headers)] = await broker.dead()
    assert headers[REASON] == "it cannot be read (TypeError)"


async def test_a_document_that_is_too_large_is_seen_as_a_dead_thread_and_kept(
    broker: Broker, entrance: Entrance
) -> None:
    await broker.send(b"x" * 100_001, {"name": "big.txt"}, "big")
    async with reading(broker, entrance):
        await until_equal(lambda: entrance.threads("dead"), 1)
        await until(lambda: _empty(broker))
    [(body, _)] = await broker.dead()
    assert len(body) == 100_001


async def _empty(broker: Broker) -> bool:
    return await broker.left() == 0


async def test_a_message_that_failed_so_often_as_may_be_goes_to_the_dead_letters(
    broker: Broker, entrance: Entrance
) -> None:
    tried = []

    async def fetch(url: str) -> Loaded:
        tried.append(url)
        raise SourceUnavailable(url, "is away", "try again later") from Transient("files", "no connection")

    await broker.send(b'{"url": "https://files.test/a.pdf", "id": "u"}', {"content-type": "application/json"})
    async with reading(broker, entrance, fetch=fetch, max_deliveries=3):
        await until_equal(lambda: entrance.threads("dead"), 1)
        await asyncio.sleep(0.1)
    assert len(tried) == 3
    await until_equal(broker.left, 0)
    assert len(await broker.dead()) == 1


async def test_a_document_elsewhere_is_fetched_once_it_can_be(broker: Broker, entrance: Entrance) -> None:
    away = SourceUnavailable("files.test", "is away", "try again")
    answers: list[SourceUnavailable | Loaded] = [Loaded(b"pdf", "files.test/a.pdf", None), away]

    async def fetch(_: str) -> Loaded:
        answer = answers.pop()
        if isinstance(answer, Loaded):
            return answer
        raise answer from Transient("files", "no connection")

    await broker.send(b'{"url": "https://files.test/a.pdf?token=secret"}', {"content-type": "application/json"}, "u")
    async with reading(broker, entrance, fetch=fetch):
        await until_equal(entrance.threads, 1)
    [event] = entrance.events
    assert isinstance(event, Envelope)
    assert (event.name, event.data) == ("files.test/a.pdf", b"pdf")


async def test_a_store_that_is_away_is_waited_for_and_counts_for_no_failure(
    broker: Broker, entrance: Entrance, caplog: pytest.LogCaptureFixture
) -> None:
    clock = entrance.door.clock
    assert isinstance(clock, ImpatientClock)
    away = 12

    async def fail(_: object) -> None:
        nonlocal away
        if away:
            away -= 1
            raise StoreUnavailable("the database is away")

    entrance.before = fail
    await broker.send(b"patient", message_id="p")
    async with reading(broker, entrance, max_deliveries=2):
        await until_equal(entrance.threads, 1)
    await until_equal(broker.left, 0)
    assert await broker.dead() == []
    assert caplog.text.count("cannot be stored now") == 1
    pauses = [seconds for seconds in clock.slept if seconds != pytest.approx(1 / 3)]
    assert max(pauses) > 8  # they grow: no hot loop


async def test_while_the_inbox_is_full_messages_stay_at_the_broker(broker: Broker) -> None:
    entrance = Entrance(":memory:", max_queued=2)
    for number in range(30):
        await broker.send(b"waits", message_id=f"w-{number}")
    async with reading(broker, entrance):
        await until_equal(entrance.threads, 2)
        await asyncio.sleep(0.3)
        assert len({event.id for event in entrance.events}) <= PREFETCH + 2
    assert await entrance.threads() == 2
    await until_equal(broker.left, 28)
    await entrance.database.close()


async def test_what_is_in_hand_at_the_end_is_acknowledged_and_the_rest_is_left(
    broker: Broker, entrance: Entrance
) -> None:
    arrived = asyncio.Event()

    async def slow(_: object) -> None:
        arrived.set()
        await asyncio.sleep(0.2)

    entrance.before = slow
    for number in range(2 * PREFETCH):
        await broker.send(b"document", message_id=f"n-{number}")
    async with reading(broker, entrance):
        await asyncio.wait_for(arrived.wait(), 10)
    stored = await entrance.threads()
    assert 0 < stored < 2 * PREFETCH
    await until_equal(broker.left, 2 * PREFETCH - stored)
    async with reading(broker, entrance):
        await until_equal(entrance.threads, 2 * PREFETCH)
        await until(lambda: _empty(broker))
    assert len(entrance.events) == 2 * PREFETCH  # none was taken in twice


@pytest.mark.slow
async def test_a_message_that_takes_long_stays_ours(broker: Broker, entrance: Entrance) -> None:
    entrance.door.clock = ImpatientClock(longest=0.4)

    async def slow(_: object) -> None:
        await asyncio.sleep(2.2)  # twice as long as it is ours without a word

    entrance.before = slow
    await broker.send(b"document", message_id="slow")
    async with reading(broker, entrance), reading(broker, entrance):
        await until_equal(entrance.threads, 1)
        await until(lambda: _empty(broker))
    assert len(entrance.events) == 1


async def test_an_error_of_ours_is_tried_again_and_tells_no_document(
    broker: Broker, entrance: Entrance, caplog: pytest.LogCaptureFixture
) -> None:
    failures = iter([ValueError("secret words")])

    async def fail(event: object) -> None:
        assert not isinstance(event, Unreadable)
        for error in failures:
            raise error

    entrance.before = fail
    await broker.send(b"document", message_id="d")
    with caplog.at_level(logging.INFO):
        async with reading(broker, entrance):
            await until_equal(entrance.threads, 1)
    assert "ValueError" in caplog.text
    assert "secret" not in caplog.text
