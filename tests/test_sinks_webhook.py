"""Results by webhook: signed, the same ID each time, and what each answer of a receiver means."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from cloudevents.core.formats.json import JSONFormat
from pydantic import SecretStr
from standardwebhooks import Webhook

from tidegate.errors import Permanent, RateLimited, Refused, ServiceError, SettingsError, Transient
from tidegate.resilience.faults import FaultyServer
from tidegate.resilience.faults.behaviours import Reply, RetryAfter
from tidegate.settings.service import WebhookSink as Settings
from tidegate.sinks.webhook import WebhookSink
from tidegate.store.clock import SystemClock
from tidegate.store.outbox import Delivery

SECRET = "whsec_" + base64.b64encode(b"the secret of the receiver").decode()
DELIVERY = Delivery(
    row=1,
    thread_id="harbour-1",
    revision=2,
    sink="webhook",
    trigger="folder",
    event_id="e",
    attempts=1,
    result={"thread_id": "harbour-1", "status": "complete", "text": "Grüße aus dem Hafen."},
)


def sink(url: str, secret: str | None = SECRET) -> WebhookSink:
    return WebhookSink(Settings(kind="webhook", url=url, secret=None if secret is None else SecretStr(secret)))


async def test_a_result_arrives_as_a_cloud_event_which_the_library_verifies() -> None:
    with FaultyServer() as receiver:
        sending = sink(receiver.url)
        await sending.deliver(DELIVERY)
        await sending.aclose()
    [request] = receiver.requests
    assert request.method == "POST"
    assert request.headers["content-type"] == "application/cloudevents+json"
    Webhook(SECRET).verify(request.body, dict(request.headers), json_parse=False)
    event = JSONFormat().read(None, request.body)
    assert (event.get_type(), event.get_subject()) == ("io.tidegate.result.v1", "harbour-1")
    assert json.loads(request.body)["data"] == dict(DELIVERY.result)


async def test_a_result_that_is_sent_again_has_the_id_that_it_had() -> None:
    with FaultyServer([503]) as receiver:
        sending = sink(receiver.url)
        with pytest.raises(Transient):
            await sending.deliver(DELIVERY)
        await sending.deliver(replace(DELIVERY, attempts=2))
        await sending.aclose()
    assert [request.headers["webhook-id"] for request in receiver.requests] == [DELIVERY.id, DELIVERY.id]
    assert [json.loads(request.body)["id"] for request in receiver.requests] == [DELIVERY.id, DELIVERY.id]


async def test_it_is_signed_at_the_time_that_it_is_sent() -> None:
    with FaultyServer() as receiver:
        sending = sink(receiver.url)
        await sending.deliver(DELIVERY)
        await sending.aclose()
    at = datetime.fromtimestamp(int(receiver.requests[0].headers["webhook-timestamp"]), UTC)
    assert abs(at.timestamp() - SystemClock().now()) < 60


async def test_without_a_secret_it_is_not_signed() -> None:
    with FaultyServer() as receiver:
        sending = sink(receiver.url, secret=None)
        await sending.deliver(DELIVERY)
        await sending.aclose()
    assert "webhook-signature" not in receiver.requests[0].headers


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (500, Transient),
        (404, Transient),
        ("reset", Transient),
        (400, Permanent),
        (410, Permanent),
        (401, Refused),
        (RetryAfter(7), RateLimited),
        (Reply(status=302, headers={"Location": "http://elsewhere.example/"}), Refused),
    ],
)
async def test_each_answer_says_what_can_be_done(answer: object, error: type[ServiceError]) -> None:
    with FaultyServer(lambda _: answer) as receiver:  # type: ignore[arg-type,return-value]  # one of each kind
        sending = sink(receiver.url)
        with pytest.raises(error) as raised:
            await sending.deliver(DELIVERY)
        await sending.aclose()
    assert raised.value.service == "webhook"
    assert "Hafen" not in str(raised.value)
    assert len(receiver.requests) == 1, "it is the guard that tries again"


@pytest.mark.parametrize("status", [200, 201, 202, 204])
async def test_every_status_of_success_is_one(status: int) -> None:
    with FaultyServer(lambda _: status) as receiver:
        sending = sink(receiver.url)
        await sending.deliver(DELIVERY)
        await sending.aclose()


@pytest.mark.parametrize("secret", ["whsec_", "whsec_AAAA", "no base64!"])
def test_a_secret_that_is_none_stops_the_start(secret: str) -> None:
    with pytest.raises(SettingsError, match="whsec_"):
        sink("http://127.0.0.1:1/", secret)
