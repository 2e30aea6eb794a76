"""What messages of the queue say: S3's own, wrapped by SNS, and EventBridge's."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote_plus

import pytest

from tidegate.errors import EventInvalid
from tidegate.store.inbox import LONGEST_ID
from tidegate.triggers.s3.events import CreatedObject, Notification, read

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def record(key: str = "notice.txt", event: str = "ObjectCreated:Put", **more: Any) -> dict[str, Any]:
    """A record as AWS writes it."""
    found = {"key": quote_plus(key), "size": 10, "eTag": "b1946ac9", "sequencer": "0055AED6DCD90281E5", **more}
    return {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "eventTime": "2026-03-01T09:30:00.000Z",
        "eventName": event,
        "s3": {"bucket": {"name": "harbour"}, "object": found},
    }


def bridge(key: str = "notice.txt", kind: str = "Object Created", **more: Any) -> dict[str, Any]:
    """An event as EventBridge writes it."""
    found = {"key": key, "size": 10, "etag": "b1946ac9", "sequencer": "0055AED6DCD90281E5", **more}
    detail = {"version": "0", "bucket": {"name": "harbour"}, "object": found}
    return {"version": "0", "detail-type": kind, "source": "aws.s3", "time": "2026-03-01T09:30:00Z", "detail": detail}


def topic(content: object, **attributes: Any) -> dict[str, Any]:
    """A message as SNS wraps it."""
    return {
        "Type": "Notification",
        "TopicArn": "arn:aws:sns:eu-central-1:1:t",
        "Message": json.dumps(content),
        "MessageAttributes": {name: {"Type": "String", "Value": value} for name, value in attributes.items()},
    }


def reading(content: object, **more: Any) -> Notification:
    return read({"Body": content if isinstance(content, str) else json.dumps(content), **more})


def only(content: object) -> CreatedObject:
    [created] = reading(content).objects
    return created


KEYS = [
    "a b.txt",
    "a+b.txt",
    "a%2Bb.txt",
    "Überfahrt/漁港 🚢.md",
    "x" * 1024,
    "ü" * 512,
    "?versionId=7&eTag=1",
    "a/../b",
    "~\n\t",
]


@pytest.mark.parametrize("key", KEYS)
def test_a_key_is_read_as_it_was_put_by_whichever_way_it_came(key: str) -> None:
    ways = [{"Records": [record(key)]}, topic({"Records": [record(key)]}), bridge(key), topic(bridge(key))]
    found = [only(content) for content in ways]
    assert {each.key for each in found} == {key}
    assert len({each.id for each in found}) == 1  # a bucket that tells both ways starts one thread


def test_every_key_has_an_id_of_its_own_that_fits() -> None:
    ids = {only({"Records": [record(key)]}).id for key in [*KEYS, "ü" * 511, "x" * 1023 + "y"]}
    assert len(ids) == len(KEYS) + 2
    assert all(0 < len(each) <= LONGEST_ID and each.isascii() for each in ids)


def test_an_id_is_of_the_version_where_there_is_one_and_else_of_etag_and_sequencer() -> None:
    first = only({"Records": [record(versionId="v/1", sequencer="1")]})
    again = only({"Records": [record(versionId="v/1", sequencer="2")]})
    other = only({"Records": [record(versionId="v/2", sequencer="1")]})
    assert (first.version, first.id) == ("v/1", "harbour/notice.txt?versionId=v%2F1")
    assert again.id == first.id != other.id
    plain = [only({"Records": [record(**what)]}) for what in ({}, {"sequencer": "1"}, {"eTag": "other"})]
    assert {each.version for each in plain} == {None}
    assert len({each.id for each in plain}) == 3
    assert only(bridge(**{"version-id": "v/1"})).id == first.id


@pytest.mark.parametrize("version", ["null", "", None])
def test_a_version_of_null_is_none_since_all_objects_share_it(version: str | None) -> None:
    assert only({"Records": [record(versionId=version)]}) == only({"Records": [record()]})


def test_without_a_sequencer_the_time_tells_two_puts_of_the_same_document_apart() -> None:
    first, second = record(sequencer=""), record(sequencer="") | {"eventTime": "2026-03-01T09:30:00.001Z"}
    assert only({"Records": [first]}).id != only({"Records": [second]}).id
    with pytest.raises(EventInvalid, match="cannot be told from others"):
        reading({"Records": [record(sequencer="") | {"eventTime": ""}]})


def test_several_records_are_read_in_their_order() -> None:
    found = reading(
        {"Records": [record("a"), record("gone", "ObjectRemoved:Delete"), record("b", "s3:ObjectCreated:Copy")]}
    )
    assert [each.key for each in found.objects] == ["a", "b"]


def test_what_minio_sends_is_understood() -> None:
    at = {
        "bucket": {"name": "harbour", "arn": "arn:aws:s3:::harbour", "ownerIdentity": {"principalId": "minio"}},
        "object": {"key": "a+b%2Fc.txt", "size": 7, "eTag": "d41d", "sequencer": "17B2", "userMetadata": {}},
    }
    record = {
        "eventSource": "minio:s3",
        "eventName": "s3:ObjectCreated:Put",
        "eventTime": "2026-03-01T09:30Z",
        "s3": at,
    }
    body = {"EventName": "s3:ObjectCreated:Put", "Key": "harbour/a b/c.txt", "Records": [record]}
    assert (only(body).bucket, only(body).key) == ("harbour", "a b/c.txt")


@pytest.mark.parametrize(
    "content",
    [
        {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "harbour"},
        topic({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "harbour"}),
        {"Records": [record(event="ObjectRemoved:Delete")]},
        {"Records": [record(event="ObjectTagging:Put")]},
        {"Records": [record(event="ObjectCreatedNot:Put")]},
        bridge(kind="Object Deleted"),
        {"Records": [record("folder/", size=0)]},
    ],
)
def test_what_creates_no_document_is_understood_and_has_no_objects(content: object) -> None:
    assert reading(content).objects == ()


@pytest.mark.parametrize(
    "content",
    [
        "secret words",
        '"secret words"',
        "[" * 100_000,
        '["secret words"]',
        {},
        {"Records": []},
        {"Records": "secret words"},
        {"Records": ["secret words"]},
        {"Records": [{"eventSource": "aws:dynamodb", "eventName": "INSERT", "secret": "secret words"}]},
        {"Records": [record() | {"s3": None}]},
        {"Records": [record(), record(key="")]},
        {"Records": [record(), record(size="secret words")]},
        {"Records": [record() | {"s3": {"bucket": {"name": "arn:aws:s3:::secret words"}, "object": {"key": "k"}}}]},
        {"Records": [record() | {"s3": {"bucket": {"name": ".."}, "object": {"key": "secret words"}}}]},
        '{"source": "aws.s3", "detail-type": "Object Created", "detail": {"bucket": {"name": "b"}, '
        '"object": {"key": "secret words \\ud800"}}}',
        {"source": "aws.ec2", "detail-type": "Object Created", "detail": {"state": "secret words"}},
        topic("secret words"),
        {"Type": "SubscriptionConfirmation", "TopicArn": "t", "Message": "secret words", "Token": "secret words"},
    ],
)
def test_what_cannot_be_understood_is_said_to_be_invalid_and_not_quoted(content: object) -> None:
    with pytest.raises(EventInvalid) as raised:
        reading(content)
    assert "secret" not in str(raised.value)
    assert raised.value.__cause__ is None


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({}, None),
        ({"MessageAttributes": {"traceparent": {"DataType": "String", "StringValue": TRACE}}}, TRACE),
        ({"MessageAttributes": {"traceparent": {"DataType": "Binary", "BinaryValue": b"\xff"}}}, None),
        ({"MessageAttributes": {"traceparent": {"DataType": "String", "StringValue": "nonsense"}}}, None),
        (
            {
                "Attributes": {
                    "AWSTraceHeader": "Root=1-4bf92f35-77b34da6a3ce929d0e0e4736;Parent=00f067aa0ba902b7;Sampled=1"
                }
            },
            TRACE,
        ),
        (
            {
                "Attributes": {
                    "AWSTraceHeader": "Root=1-4bf92f35-77b34da6a3ce929d0e0e4736;Parent=00f067aa0ba902b7;Sampled=0"
                }
            },
            TRACE[:-1] + "0",
        ),
        ({"Attributes": {"AWSTraceHeader": "Root=1-4bf92f35-77b34da6a3ce929d0e0e4736"}}, None),
    ],
)
def test_the_span_is_read_from_the_message(message: dict[str, Any], expected: str | None) -> None:
    assert reading({"Records": [record()]}, **message).traceparent == expected


def test_the_span_is_read_from_what_the_topic_wraps() -> None:
    found = reading(topic({"Records": [record()]}, traceparent=TRACE, tracestate="vendor=a"))
    assert (found.traceparent, found.tracestate) == (TRACE, "vendor=a")
