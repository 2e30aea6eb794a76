"""A message of the queue -> the objects that it says were created."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote_plus

from opentelemetry.trace import SpanContext
from pydantic import AliasChoices, BaseModel, Field, TypeAdapter, ValidationError

from tidegate.errors import EventInvalid
from tidegate.store.inbox import LONGEST_ID
from tidegate.telemetry import traceparent

TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"
"""The message attributes that name the span which the object was put in."""

XRAY = "AWSTraceHeader"
"""The system attribute in which AWS names it."""

_JSON_OBJECT = TypeAdapter(dict[str, Any])
_XRAY_ROOT = re.compile(r"Root=1-([0-9a-f]{8})-([0-9a-f]{24})(?:;|$)")
_XRAY_PARENT = re.compile(r"Parent=([0-9a-f]{16})(?:;|$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatedObject:
    """An object that was created; `version` is None in a bucket without versions. `id` tells the event from others."""

    bucket: str
    key: str
    version: str | None
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """What a message says: no objects if it is a test, or about something else that happened in a bucket."""

    objects: tuple[CreatedObject, ...]
    traceparent: str | None
    tracestate: str | None


class _Bucket(BaseModel):
    # No ARN, which botocore would take for an access point, and no dots alone, which are no part of a path.
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,254}$")


class _Object(BaseModel):
    key: str = Field(min_length=1)
    size: int | None = None
    etag: str = Field(default="", validation_alias=AliasChoices("eTag", "etag"))
    version: str | None = Field(default=None, validation_alias=AliasChoices("versionId", "version-id"))
    sequencer: str = ""


class _Place(BaseModel):
    bucket: _Bucket
    object: _Object


class _Record(BaseModel):
    source: str = Field(alias="eventSource", pattern=r"^\w+:s3$")  # aws:s3, minio:s3, ceph:s3
    name: str = Field(alias="eventName")
    time: str = Field(default="", alias="eventTime")
    s3: _Place | None = None


class _Records(BaseModel):
    records: list[_Record] = Field(alias="Records", min_length=1)


class _BridgeEvent(BaseModel):
    kind: str = Field(alias="detail-type")
    time: str | float = ""
    detail: dict[str, Any]


def read(message: Mapping[str, Any]) -> Notification:
    """Return what a message of SQS says, which S3 sent itself, by way of SNS, or by way of EventBridge.

    Raises:
        EventInvalid: it is none of these. The error does not quote it.
    """
    content = _content(message.get("Body"))
    span = _traced(message)
    if content.get("Type") == "Notification" and "TopicArn" in content:
        span = _traced_by_topic(content) or span
        content = _content(content.get("Message"))
    try:
        objects = tuple(_objects(content))
    except ValidationError as error:
        raise EventInvalid(f"it is no event of S3 that can be understood ({_first(error)})") from None
    parent, state = (traceparent.write(span), traceparent.state_of(span)) if span else (None, None)
    return Notification(objects=objects, traceparent=parent, tracestate=state)


def _content(text: object) -> dict[str, Any]:
    try:
        return _JSON_OBJECT.validate_json(text if isinstance(text, str) else "")  # takes no lone surrogates
    except ValidationError:
        raise EventInvalid("it is no JSON object") from None


def _objects(content: dict[str, Any]) -> Iterator[CreatedObject]:
    if content.get("Event") == "s3:TestEvent":
        return
    if content.get("source") == "aws.s3" and "detail-type" in content:
        event = _BridgeEvent.model_validate(content)
        if event.kind == "Object Created":
            place = _Place.model_validate(event.detail)
            yield from _created(place, place.object.key, str(event.time))
        return
    for record in _Records.model_validate(content).records:
        if record.name.removeprefix("s3:").startswith("ObjectCreated:"):
            if record.s3 is None:
                raise EventInvalid("it names no object")
            yield from _created(record.s3, unquote_plus(record.s3.object.key), record.time)


def _created(place: _Place, key: str, time: str) -> Iterator[CreatedObject]:
    found = place.object
    if key.endswith("/") and found.size == 0:
        return  # what S3's console makes to show a folder
    version = found.version if found.version not in (None, "", "null") else None  # "null" is all those without one
    what = f"{place.bucket.name}/{quote(key)}"
    if version is not None:
        name = f"{what}?versionId={quote(version, safe='')}"
    elif found.sequencer or time:
        # A server that numbers nothing tells the time, to the millisecond: the same document may be put there twice.
        at = f"sequencer={quote(found.sequencer)}" if found.sequencer else f"time={quote(time)}"
        name = f"{what}?eTag={quote(found.etag.strip(chr(34)))}&{at}"
    else:
        raise EventInvalid("it has neither a version nor a sequencer, so it cannot be told from others")
    if len(name) > LONGEST_ID:
        name = f"{place.bucket.name}/?sha256={hashlib.sha256(name.encode()).hexdigest()}"
    yield CreatedObject(bucket=place.bucket.name, key=key, version=version, id=name)


def _traced(message: Mapping[str, Any]) -> SpanContext | None:
    span = _named(message.get("MessageAttributes"), "StringValue")
    return span or _xray((message.get("Attributes") or {}).get(XRAY))


def _traced_by_topic(content: dict[str, Any]) -> SpanContext | None:
    return _named(content.get("MessageAttributes"), "Value")


def _named(attributes: object, value: str) -> SpanContext | None:
    if not isinstance(attributes, dict):
        return None
    given = (attributes.get(name) for name in (TRACEPARENT, TRACESTATE))
    return traceparent.read(*(each.get(value) if isinstance(each, dict) else None for each in given))


def _xray(header: object) -> SpanContext | None:
    """Return AWS X-Ray's header as W3C's: a trace ID is the same 32 digits, of which X-Ray calls the first 8 a time."""
    if not isinstance(header, str):
        return None
    root, parent = _XRAY_ROOT.search(header), _XRAY_PARENT.search(header)
    if root is None or parent is None:
        return None
    sampled = "01" if "Sampled=1" in header else "00"
    return traceparent.read(f"00-{root[1]}{root[2]}-{parent[1]}-{sampled}")


def _first(error: ValidationError) -> str:
    """Return where the first problem is: names of fields, and the kind of problem, without a value."""
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in problem['loc'])}: {problem['type']}"
