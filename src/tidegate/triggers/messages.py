"""A message from outside, over HTTP or from a broker -> the event that it is."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NoReturn
from urllib.parse import unquote, urlsplit

from cloudevents.core.exceptions import CloudEventValidationError
from cloudevents.core.v1.event import CloudEvent

from tidegate.errors import DocumentTooLarge, EmptyDocument, EventInvalid, ServiceError, SourceUnavailable
from tidegate.services.intake import Loaded, only_name
from tidegate.services.json_size import MOST_VALUES, has_few_values
from tidegate.store.inbox import LONGEST_ID, Envelope
from tidegate.telemetry import traceparent as trace

LONGEST_URL: Final = 4096
"""Characters in the URL of a document at most."""

_Traced = tuple[object, object]  # traceparent and tracestate, as they came

Fetch = Callable[[str], Awaitable[Loaded]]
"""Downloads the document at a URL. Raises DocumentError."""

_ROOM = 64 * 1024  # bytes of a message that may be something else than its document
_LONGEST_TYPE = 255
_CONTENT = ("text", "url", "base64")
_FIELDS = frozenset({*_CONTENT, "name", "media_type"})
_STRUCTURED = "application/cloudevents+json"
_PREFIXES = {"ce-": True, "cloudevents:": False, "cloudevents_": False}
"""What the names of attributes begin with in binary mode, and whether their values are percent-encoded: in the bindings
of CloudEvents 1.0 for HTTP and NATS, and in the one for AMQP, which has two spellings."""

_JSON = re.compile(r"(application|text)/([\w.-]+\+)?json")
_MEDIA_TYPE = re.compile(r"[\w!#$&^.+-]+/[\w!#$&^.+-]+\s*(;[ -~]*)?", re.ASCII)
_PLAIN_ENCODINGS = frozenset({"", "identity", "binary", "8bit", "utf-8", "utf8", "us-ascii", "ascii"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """An event whose document is here, as `data`, or at a `url`; one of them is None.

    `name` is None where nobody named the document and its URL does.
    """

    source: str
    id: str
    name: str | None
    media_type: str | None
    traceparent: str | None
    tracestate: str | None
    data: bytes | None = None
    url: str | None = None


def read_message(
    headers: Mapping[str, str], body: bytes, fallback_id: str | None, source: str, max_bytes: int
) -> Message:
    """Return the event that a message is, of the trigger named `source`.

    It is a CloudEvent 1.0, structured as JSON or binary; or JSON, `{"text": ...}`, `{"url": ...}` or `{"base64": ...}`,
    with `name`, `media_type` and `id` if wanted; or the bytes of a document, of the type that `content-type` says.
    Names of headers may be in any case. Without an ID of its own it gets `fallback_id`, and else its SHA-256.
    Of a name, the last part counts and is cut off where it is too long.
    A document may be larger than `max_bytes`, for whoever takes it in to say so; a message far larger is not looked at.

    Raises:
        EventInvalid: it is none of these. What it says is not quoted.
    """
    if len(body) > 2 * max_bytes + _ROOM:
        raise EventInvalid(
            f"a message of {len(body)} bytes is too large for a document of at most {max_bytes} bytes; "
            "put the document elsewhere and send its URL, or raise the limit (setting max_document_bytes)"
        )
    head = _lowered(headers)
    traced = head.get("traceparent"), head.get("tracestate")
    encoding = head.get("content-encoding", "").strip().lower()
    if encoding not in _PLAIN_ENCODINGS:
        raise EventInvalid("a message is compressed (its content-encoding says so); send it as it is")
    content_type = head.get("content-type", "").strip()
    kind = _essence(content_type)
    if kind == _STRUCTURED:
        return _structured(_object(body), source, traced=traced)
    if kind.startswith("application/cloudevents"):
        raise EventInvalid(
            f"a CloudEvent is in another format than JSON, or one of a batch; send each as {_STRUCTURED}"
        )
    attributes = _attributes(head)
    if attributes:
        if content_type:
            attributes["datacontenttype"] = content_type
        return _binary(attributes, body, source, traced=traced)
    fallback = fallback_id or hashlib.sha256(body).hexdigest()
    name = head.get("name")
    fields = _object(body) if kind in {"application/json", "text/json"} else None if kind else _json_form(body)
    if fields is not None:
        if "specversion" in fields:
            return _structured(fields, source, traced=traced)
        event_id = fields.pop("id", fallback)
        if not isinstance(event_id, str):
            raise EventInvalid("the id of a message is no string; quote it")
        document = _document(fields)
        return _message(source, event_id, document.pop("name") or name, traced, **document)
    return _message(source, fallback, name, traced, data=body, media_type=_media_type(content_type or None))


async def fetched(message: Message, fetch: Fetch, max_bytes: int) -> Envelope:
    """Return the event with its document, downloaded if need be.

    Raises:
        DocumentError: the document cannot be taken in; `may_pass` says whether it may be later.
    """
    name, media_type, data = message.name, message.media_type, message.data
    if data is None:
        loaded = await fetch(message.url or "")
        name, media_type, data = name or loaded.source, media_type or loaded.media_type, loaded.data
    name = name or message.id
    if not data:
        raise EmptyDocument(name, "is empty", "send a document with content")
    if len(data) > max_bytes:
        raise DocumentTooLarge(
            name, f"is larger than {max_bytes} bytes", "split it, or raise the limit (setting max_document_bytes)"
        )
    return Envelope(
        source=message.source,
        id=message.id,
        data=data,
        name=name,
        media_type=media_type,
        traceparent=message.traceparent,
        tracestate=message.tracestate,
    )


def may_pass(error: Exception) -> bool:
    """Whether a document that could not be downloaded may be there later: its server was away, or asked for a pause."""
    cause = error.__cause__
    return isinstance(error, SourceUnavailable) and isinstance(cause, ServiceError) and cause.kind in _PASSING


_PASSING = frozenset({"transient", "rate_limited", "circuit_open", "budget_exceeded"})


def _structured(fields: dict[str, Any], source: str, *, traced: _Traced) -> Message:
    has_data, data = "data" in fields, fields.pop("data", None)
    encoded = fields.pop("data_base64", None)
    attributes = {name: value for name, value in fields.items() if value is not None}
    event = _cloud_event(attributes)
    media_type = event.get_datacontenttype()
    if encoded is not None:
        if has_data:
            raise EventInvalid("a CloudEvent has data and data_base64; send one of them")
        return _of(event, source, traced, _bytes_of(_base64(encoded), media_type))
    if _is_json(media_type):
        if not isinstance(data, dict):
            raise EventInvalid(
                'the data of a CloudEvent is JSON and no object with the document; send {"text": ...}, {"url": ...} '
                'or {"base64": ...}, or the document itself with its datacontenttype'
            )
        return _of(event, source, traced, _document(data))
    if not isinstance(data, str):
        raise EventInvalid("the data of a CloudEvent is neither JSON, by its datacontenttype, nor a string")
    return _of(event, source, traced, _text(data, media_type))


def _binary(attributes: dict[str, Any], body: bytes, source: str, *, traced: _Traced) -> Message:
    event = _cloud_event(attributes)
    media_type = event.get_datacontenttype()
    document = _document(_object(body)) if _is_json(media_type) else _bytes_of(body, media_type)
    return _of(event, source, traced, document)


def _cloud_event(attributes: dict[str, Any]) -> CloudEvent:
    """Check attributes by the library of CloudEvents, which completes what is missing: so that is looked for before."""
    for name in ("specversion", "id", "source", "type"):
        if not isinstance(attributes.get(name), str):
            raise EventInvalid(f"a CloudEvent has no {name}, or one that is no string")
    for value in attributes.values():
        if not isinstance(value, (str, int, bool)):
            raise EventInvalid("an attribute of a CloudEvent is neither a string, a whole number nor a truth value")
    checked = {name: value for name, value in attributes.items() if name != "time"}
    if "time" in attributes:
        checked["time"] = _time(attributes["time"])
    try:
        return CloudEvent(checked)
    except CloudEventValidationError as error:
        wrong = ", ".join(sorted(name for name in error.errors if name in _KNOWN)) or "an extension"
        raise EventInvalid(f"a CloudEvent does not follow version 1.0 of the specification: {wrong}") from None


_KNOWN = frozenset({"specversion", "id", "source", "type", "datacontenttype", "dataschema", "subject", "time"})


def _time(value: object) -> datetime:
    try:
        if isinstance(value, str) and value.isdecimal():  # the milliseconds of a timestamp of AMQP
            return datetime.fromtimestamp(int(value) / 1000, UTC)
        moment = datetime.fromisoformat(value if isinstance(value, str) else "")
        if moment.tzinfo is None:
            raise ValueError
    except (ValueError, OverflowError, OSError):
        raise EventInvalid("the time of a CloudEvent is none, as 2026-03-01T09:30:00Z") from None
    return moment


def _of(event: CloudEvent, source: str, traced: _Traced, document: dict[str, Any]) -> Message:
    origin = event.get_source()
    if any(character.isspace() for character in origin):
        raise EventInvalid("the source of a CloudEvent has white space in it, which no URI has")
    if span := event.get_extension("traceparent"):
        traced = span, event.get_extension("tracestate")
    name = document.pop("name") or event.get_subject()
    # Source and ID together tell events apart; after a source, which has no space in it, a space leaves no doubt.
    return _message(source, f"{origin} {event.get_id()}", name, traced, **document)


def _message(
    source: str,
    event_id: str,
    name: str | None,
    traced: _Traced,
    *,
    media_type: str | None,
    data: bytes | None = None,
    url: str | None = None,
) -> Message:
    if not event_id or len(event_id) > LONGEST_ID or not event_id.isprintable():
        raise EventInvalid(f"the ID of a message has 1 to {LONGEST_ID} characters, which can be printed")
    span = trace.read(*traced)  # a broken one is no reason to lose a document
    return Message(
        source=source,
        id=event_id,
        name=only_name(name, "document") if name else None,
        media_type=media_type,
        traceparent=trace.write(span) if span else None,
        tracestate=trace.state_of(span) if span else None,
        data=data,
        url=url,
    )


def _document(fields: Mapping[str, object]) -> dict[str, Any]:
    """Return what JSON says of a document, as arguments of `_message`."""
    if not _FIELDS.issuperset(fields):
        raise EventInvalid(f"a message has other fields than {', '.join(sorted(_FIELDS))} and id")
    if not all(isinstance(value, str) for value in fields.values()):
        raise EventInvalid("a field of a message is no string")
    given = {name: str(value) for name, value in fields.items()}
    if sum(name in given for name in _CONTENT) != 1:
        raise EventInvalid(f"a message has one of {', '.join(_CONTENT)}, and only one")
    media_type = given.get("media_type")
    if "text" in given:
        document = _text(given["text"], media_type)
    elif "url" in given:
        document = {"url": _url(given["url"]), "media_type": _media_type(media_type)}
    else:
        document = _bytes_of(_base64(given["base64"]), media_type)
    return {**document, "name": given.get("name")}


def _text(text: str, media_type: str | None) -> dict[str, Any]:
    try:
        data = text.encode()
    except UnicodeEncodeError:
        raise EventInvalid("a text has half a surrogate pair in it, which is no character") from None
    kind = _essence(_media_type(media_type) or "text/plain")
    return {"data": data, "media_type": f"{kind}; charset=utf-8", "name": None}


def _bytes_of(data: bytes, media_type: str | None) -> dict[str, Any]:
    return {"data": data, "media_type": _media_type(media_type), "name": None}


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good or len(text) > LONGEST_URL or not text.isprintable() or " " in text:
        raise EventInvalid(f"the url of a message is no http or https URL of at most {LONGEST_URL} characters")
    return text


def _base64(text: object) -> bytes:
    if not isinstance(text, str):
        raise EventInvalid("what is said to be base64 is no string")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise EventInvalid("what is said to be base64 is not (RFC 4648, with padding, without line ends)") from None


def _media_type(text: str | None) -> str | None:
    """Return a media type as it came; None for the one that says nothing, so that the document is looked into."""
    if text is None or _essence(text) in {"application/octet-stream", "binary/octet-stream"}:
        return None
    if len(text) > _LONGEST_TYPE or not _MEDIA_TYPE.fullmatch(text):
        raise EventInvalid("a media type is none, as text/plain; charset=utf-8")
    return text


def _essence(media_type: str) -> str:
    return media_type.partition(";")[0].strip().lower()


def _is_json(media_type: str | None) -> bool:
    return media_type is None or _JSON.fullmatch(_essence(media_type)) is not None


def _lowered(headers: Mapping[str, str]) -> dict[str, str]:
    lowered = {name.lower(): value for name, value in headers.items()}
    if len(lowered) != len(headers):
        raise EventInvalid("a message has two headers of one name")
    return lowered


def _attributes(head: Mapping[str, str]) -> dict[str, Any]:
    """Return the attributes of a CloudEvent in binary mode; none if it has no version."""
    found: dict[str, Any] = {}
    for name, value in head.items():
        for prefix, encoded in _PREFIXES.items():
            if name.startswith(prefix):
                attribute = name.removeprefix(prefix)
                if attribute in found or attribute in {"data", "datacontenttype"}:
                    raise EventInvalid("an attribute of a CloudEvent is there twice")
                try:
                    found[attribute] = unquote(value, errors="strict") if encoded else value
                except UnicodeDecodeError:
                    raise EventInvalid("an attribute of a CloudEvent is not encoded as UTF-8") from None
    return found if "specversion" in found else {}


def _json_form(body: bytes) -> dict[str, Any] | None:
    """Return the object that a message of no type is, if it is one of ours; a document may begin with a brace too."""
    if body[:1] != b"{":
        return None
    try:
        fields = _object(body)
    except EventInvalid:
        return None
    return fields if "specversion" in fields or any(name in fields for name in _CONTENT) else None


def _object(body: bytes) -> dict[str, Any]:
    if not has_few_values(body):
        raise EventInvalid(f"a message is JSON of more than {MOST_VALUES} values; send a document as one of them")
    try:
        value = json.loads(body.decode(), object_pairs_hook=_once, parse_constant=_no_number)
    except EventInvalid:
        raise
    except (ValueError, RecursionError):  # not UTF-8, not JSON, a number of thousands of digits; nested too deeply
        raise EventInvalid("a message is said to be JSON and cannot be read as such") from None
    if not isinstance(value, dict):
        raise EventInvalid('a message is JSON and no object; send {"text": ...}, {"url": ...} or {"base64": ...}')
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise EventInvalid("a message has a JSON object with two fields of one name")
    return fields


def _no_number(_: str) -> NoReturn:
    raise EventInvalid("a message has NaN or Infinity in it, which JSON does not have")
