"""Results leave as CloudEvents, and are at the broker once `deliver` returns."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.queues import KINDS, Broker, a_queue, until
from tests.servers.brokers import SERVERS, free_port, serving
from tidegate.errors import Permanent, Refused, SettingsError, Transient
from tidegate.services.brokers import address, open_publisher
from tidegate.settings.service import QueueSink as Settings
from tidegate.sinks.events import TYPE, result_event, structured
from tidegate.sinks.queue import QueueSink
from tidegate.store.outbox import Delivery
from tidegate.testing import ManualClock
from tidegate.triggers.messages import read_message

DELIVERY = Delivery(
    row=1,
    thread_id="report-0123456789abcdef",
    revision=2,
    sink="queue",
    trigger="folder",
    event_id="e",
    attempts=1,
    result={"thread_id": "report-0123456789abcdef", "status": "complete", "summary": "Grün \N{GRINNING FACE}"},
)


@pytest.fixture(params=list(KINDS))
async def broker(request: pytest.FixtureRequest) -> AsyncIterator[Broker]:
    async with a_queue(request.param) as opened:
        yield opened


def a_sink(url: str, queue: str = "tidegate.test.results") -> QueueSink:
    return QueueSink(Settings.model_validate({"kind": "queue", "url": url, "queue": queue}), clock=ManualClock())


def test_a_result_is_an_event_of_cloud_events() -> None:
    event = json.loads(structured(result_event(DELIVERY, ManualClock())))
    assert event == {
        "specversion": "1.0",
        "type": TYPE,
        "source": "/tidegate",
        "id": "report-0123456789abcdef:2",
        "subject": "report-0123456789abcdef",
        "time": "2025-06-15T15:06:40Z",
        "datacontenttype": "application/json",
        "data": dict(DELIVERY.result),
    }


async def test_a_result_is_in_the_queue_once_it_is_delivered(broker: Broker) -> None:
    sink = a_sink(broker.url, broker.queue)
    await sink.deliver(DELIVERY)
    [(body, headers)] = await broker.take(broker.queue)
    assert json.loads(body)["data"] == dict(DELIVERY.result)
    if "amqp" not in broker.url:  # where it is no header
        assert headers["content-type"] == "application/cloudevents+json"
    await sink.aclose()


async def test_a_queue_that_is_not_there_is_made(broker: Broker) -> None:
    broker.queue += ".new"
    sink = a_sink(broker.url, broker.queue)
    await sink.deliver(DELIVERY)
    assert len(await broker.take(broker.queue)) == 1
    await sink.aclose()


async def test_a_result_that_nats_has_no_room_for_is_a_failure_of_this_one_alone() -> None:
    async with a_queue("nats") as broker:
        publisher = await open_publisher(address(broker.url, "test"), "results")
        body = b"a" * (broker.connection.max_payload - 10)  # which has room, but its headers have not
        with pytest.raises(Permanent, match="larger than NATS takes"):
            await publisher.publish(broker.queue, body, message_id="1", headers={"content-type": "text/plain"})
        assert publisher.usable
        await publisher.aclose()


@pytest.mark.parametrize("kind", list(KINDS))
async def test_a_broker_that_is_away_is_a_failure_that_may_pass(kind: str) -> None:
    scheme = {"rabbitmq": "amqp", "nats": "nats", "redis": "redis"}[kind]
    sink = a_sink(f"{scheme}://user:secret@127.0.0.1:{free_port()}")
    with pytest.raises(Transient, match="cannot be reached") as failed:
        await sink.deliver(DELIVERY)
    assert "secret" not in str(failed.value)
    await sink.aclose()


async def test_wrong_credentials_and_vhosts_are_refused_in_clear_words(broker: Broker) -> None:
    if "nats" in broker.url:
        return  # a server without users takes any credentials: see below
    host = broker.url.rpartition("@")[2].partition("://")[2] or broker.url.rpartition("@")[2]
    scheme = broker.url.partition("://")[0]
    sink = a_sink(f"{scheme}://guest:wrong@{host}", broker.queue)
    with pytest.raises(Refused, match="refuses this user or password"):
        await sink.deliver(DELIVERY)
    await sink.aclose()
    if scheme == "amqp":
        sink = a_sink(f"{broker.url.rstrip('/')}/nowhere", broker.queue)
        with pytest.raises(Refused, match="vhost"):
            await sink.deliver(DELIVERY)
        await sink.aclose()


@pytest.mark.parametrize("url", ["http://a.test", "kafka://a.test", "redis://", "amqp://a:b@c:notaport", "redis"])
def test_a_url_of_no_broker_is_a_wrong_setting(url: str) -> None:
    with pytest.raises(SettingsError, match="the url of sink 'queue'") as wrong:
        a_sink(url)
    assert "b@" not in str(wrong.value)


@pytest.mark.parametrize("variable", ["TIDEGATE_TEST_NATS", "TIDEGATE_TEST_REDIS"])
async def test_after_the_broker_was_away_results_are_delivered_again(variable: str) -> None:
    kind = SERVERS[variable]
    if not kind.found():
        pytest.skip(f"needs {kind.program}")
    with serving(kind) as server:
        sink = a_sink(server.url)
        await sink.deliver(DELIVERY)
        server.stop()
        await until(lambda: _lost(sink))
        with pytest.raises(Transient):
            await sink.deliver(DELIVERY)
        server.start()
        await sink.deliver(DELIVERY)
        await sink.aclose()


async def _lost(sink: QueueSink) -> bool:
    assert sink._publisher is not None
    return not sink._publisher.usable or "redis" in str(sink._where)


async def test_nats_refuses_a_wrong_password_in_clear_words(tmp_path: Path) -> None:
    kind = SERVERS["TIDEGATE_TEST_NATS"]
    if not kind.found():
        pytest.skip(f"needs {kind.program}")
    server = kind(tmp_path)
    server.more = ["--user", "someone", "--pass", "right", "-js", "-sd", str(tmp_path)]  # type: ignore[attr-defined]
    server.start()
    try:
        sink = a_sink(server.url.replace("://", "://someone:wrong@"))
        with pytest.raises(Refused, match="refuses these credentials"):
            await sink.deliver(DELIVERY)
        sink = a_sink(server.url.replace("://", "://someone:right@"))
        await sink.deliver(DELIVERY)
        await sink.aclose()
    finally:
        server.stop()


async def test_nats_without_jetstream_is_refused_in_clear_words(tmp_path: Path) -> None:
    kind = SERVERS["TIDEGATE_TEST_NATS"]
    if not kind.found():
        pytest.skip(f"needs {kind.program}")
    server = kind(tmp_path)
    server.more = []  # type: ignore[attr-defined]
    server.start()
    try:
        sink = a_sink(server.url)
        with pytest.raises(Refused, match="no JetStream"):
            await sink.deliver(DELIVERY)
        await sink.aclose()
    finally:
        server.stop()


async def test_jetstream_keeps_a_result_once_that_is_delivered_twice() -> None:
    async with a_queue("nats") as broker:
        sink = a_sink(broker.url, broker.queue)
        await sink.deliver(DELIVERY)
        await sink.deliver(DELIVERY)
        assert len(await broker.take(broker.queue)) == 1
        await sink.aclose()


def test_what_a_sink_sends_a_trigger_reads() -> None:
    body = structured(result_event(DELIVERY, ManualClock()))
    event = json.loads(body)
    event["data"] = {"text": "words"}
    message = read_message(
        {"content-type": "application/cloudevents+json"}, json.dumps(event).encode(), None, "t", 1000
    )
    assert message.id == "/tidegate report-0123456789abcdef:2"
