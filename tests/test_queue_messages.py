"""Messages from outside are understood, or refused with words that quote nothing of them."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tidegate.errors import DocumentTooLarge, EmptyDocument, EventInvalid, SourceUnavailable, Transient
from tidegate.services.intake import Loaded
from tidegate.triggers.messages import Message, fetched, may_pass, read_message

MOST = 1000
JSON = {"Content-Type": "application/json"}
STRUCTURED = {"content-type": "application/cloudevents+json; charset=UTF-8"}
EVENT = {"specversion": "1.0", "id": "7", "source": "/orders", "type": "new"}
OTHER_TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def read(body: Any, headers: dict[str, str] | None = None, fallback: str | None = "fallback") -> Message:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_message(headers or {}, data, fallback, "trigger", MOST)


def test_plain_json_brings_text_bytes_or_a_url() -> None:
    text = read({"text": "words", "name": "a.md", "media_type": "text/markdown", "id": "1"}, JSON)
    assert (text.data, text.name, text.id, text.url) == (b"words", "a.md", "1", None)
    assert text.media_type == "text/markdown; charset=utf-8"
    data = read({"base64": base64.b64encode(b"\x00\xff").decode(), "media_type": "application/pdf"}, JSON)
    assert (data.data, data.media_type, data.id, data.name) == (b"\x00\xff", "application/pdf", "fallback", None)
    url = read({"url": "https://files.test/a.pdf"}, JSON)
    assert (url.url, url.data) == ("https://files.test/a.pdf", None)


def test_any_other_type_is_the_document_itself() -> None:
    traced = {"traceparent": TRACE, "TraceState": "vendor=a, other=b"}
    message = read(b"%PDF", {"content-type": "application/pdf", "name": "a\nb.pdf", **traced})
    assert (message.data, message.media_type, message.id) == (b"%PDF", "application/pdf", "fallback")
    assert message.name == "a\N{REPLACEMENT CHARACTER}b.pdf"
    assert (message.traceparent, message.tracestate) == (TRACE, "vendor=a,other=b")
    assert read(b"?", {"content-type": "application/octet-stream"}).media_type is None


def test_without_a_type_it_is_json_if_it_looks_like_ours_and_else_the_document() -> None:
    assert read({"text": "words"}).data == b"words"
    assert read({**EVENT, "data": {"text": "words"}}).id == "/orders 7"
    assert read(rb"{\rtf1 words}").data == rb"{\rtf1 words}"
    assert read({"other": "json"}).data == b'{"other": "json"}'
    assert read(b"words", fallback=None).id == hashlib.sha256(b"words").hexdigest()


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\a\\b.pdf", "b.pdf"),
        ("n" * 5000 + ".txt", "n" * 196 + ".txt"),
        ("..", "document"),
    ],
)
def test_a_name_is_no_path_and_no_longer_than_a_name(name: str, kept: str) -> None:
    assert read({"text": "a", "name": name}, JSON).name == kept
    assert read({**EVENT, "subject": name, "data": {"text": "a"}}, STRUCTURED).name == kept
    assert read(b"a", {"name": name}).name == kept


def test_a_structured_event_is_told_apart_by_source_and_id() -> None:
    message = read({**EVENT, "subject": "a.txt", "time": "2026-03-01T09:30:00Z", "data": {"text": "words"}}, STRUCTURED)
    assert (message.id, message.name, message.data) == ("/orders 7", "a.txt", b"words")
    pdf = {**EVENT, "datacontenttype": "application/pdf", "data_base64": "JVBERg==", "traceparent": TRACE}
    message = read(pdf, {**STRUCTURED, "traceparent": OTHER_TRACE, "tracestate": "of=that"})
    assert (message.data, message.media_type, message.traceparent) == (b"%PDF", "application/pdf", TRACE)
    assert message.tracestate is None, "that of the header is of another span"
    assert read({**pdf, "tracestate": "vendor=a"}, STRUCTURED).tracestate == "vendor=a"
    text = read({**EVENT, "datacontenttype": "text/html", "data": "<p>"}, STRUCTURED)
    assert (text.data, text.media_type) == (b"<p>", "text/html; charset=utf-8")


@pytest.mark.parametrize("prefix", ["ce-", "Ce-", "cloudEvents:", "cloudEvents_"])
def test_a_binary_event_has_its_attributes_in_the_headers(prefix: str) -> None:
    about = {f"{prefix}{name}": value for name, value in {**EVENT, "subject": "gr%C3%BCn"}.items()}
    message = read(b"%PDF", {**about, "content-type": "application/pdf"})
    assert (message.id, message.data, message.media_type) == ("/orders 7", b"%PDF", "application/pdf")
    assert message.name == ("grün" if prefix.lower() == "ce-" else "gr%C3%BCn")
    assert read({"text": "words"}, {**about, **JSON}).data == b"words"


REFUSED: dict[str, tuple[bytes, dict[str, str], str]] = {
    "no JSON": (b"secret", JSON, "cannot be read as such"),
    "not UTF-8": (b'{"text": "\xff"}', JSON, "cannot be read as such"),
    "nested": (b"[" * 100_000, JSON, "too large"),
    "deep": (b'{"text": ' * 400, JSON, "cannot be read as such"),
    "array": (b'["secret"]', JSON, "no object"),
    "two of a name": (b'{"text": "secret", "text": "b"}', JSON, "two fields of one name"),
    "two below": (b'{"specversion": "1.0", "data": {"text": "a", "text": "b"}}', JSON, "two fields of one name"),
    "NaN": (b'{"text": NaN}', JSON, "NaN"),
    "number": (b'{"text": 5}', JSON, "no string"),
    "null": (b'{"text": null}', JSON, "no string"),
    "object": (b'{"text": {"secret": 1}}', JSON, "no string"),
    "digits": (b'{"id": ' + b"9" * 2500 + b', "text": "a"}', JSON, "id of a message"),
    "none": (b'{"name": "a"}', JSON, "only one"),
    "two": (b'{"text": "a", "url": "https://a.test"}', JSON, "only one"),
    "unknown": (b'{"text": "a", "secret": "b"}', JSON, "other fields"),
    "surrogate": (b'{"text": "\\ud800"}', JSON, "surrogate"),
    "surrogate id": (b'{"text": "a", "id": "\\ud800"}', JSON, "ID of a message"),
    "null in id": (b'{"text": "a", "id": "\\u0000"}', JSON, "ID of a message"),
    "empty id": (b'{"text": "a", "id": ""}', JSON, "ID of a message"),
    "long id": (json.dumps({"text": "a", "id": "i" * 1001}).encode(), JSON, "ID of a message"),
    "base64": (b'{"base64": "c2Vjcm V0"}', JSON, "base64"),
    "base64 without padding": (b'{"base64": "YQ"}', JSON, "base64"),
    "base64 beyond ASCII": ('{"base64": "é"}'.encode(), JSON, "base64"),
    "media type": (b'{"text": "a", "media_type": "text"}', JSON, "media type"),
    "header in media type": (b'{"text": "a", "media_type": "text/a\\r\\nb: c"}', JSON, "media type"),
    "file": (b'{"url": "file:///etc/passwd"}', JSON, "no http or https URL"),
    "path": (b'{"url": "/etc/passwd"}', JSON, "no http or https URL"),
    "stdin": (b'{"url": "-"}', JSON, "no http or https URL"),
    "no host": (b'{"url": "https://"}', JSON, "no http or https URL"),
    "port": (b'{"url": "https://a.test:99999"}', JSON, "no http or https URL"),
    "line end": (b'{"url": "https://a.test/\\nb"}', JSON, "no http or https URL"),
    "batch": (b"[]", {"content-type": "application/cloudevents-batch+json"}, "batch"),
    "avro": (b"", {"content-type": "application/cloudevents+avro"}, "another format"),
    "gzip": (b"", {"content-encoding": "gzip"}, "compressed"),
    "many values": (b'{"text": [' + b"[]," * 500 + b"0]}", JSON, "more than 1000 values"),
    "two headers": (b"a", {"Name": "a", "name": "b"}, "two headers"),
    "no version": (json.dumps({**EVENT, "specversion": 1}).encode(), STRUCTURED, "specversion"),
    "version": (json.dumps({**EVENT, "specversion": "0.3"}).encode(), STRUCTURED, "specversion"),
    "no source": (b'{"specversion": "1.0", "id": "1", "type": "t"}', STRUCTURED, "source"),
    "space": (json.dumps({**EVENT, "source": "/a b", "data": {"text": "a"}}).encode(), STRUCTURED, "white space"),
    "time": (json.dumps({**EVENT, "time": "yesterday"}).encode(), STRUCTURED, "time"),
    "no zone": (json.dumps({**EVENT, "time": "2026-03-01T09:30:00"}).encode(), STRUCTURED, "time"),
    "extension": (json.dumps({**EVENT, "No_Name": "a"}).encode(), STRUCTURED, "an extension"),
    "list": (json.dumps({**EVENT, "ext": ["a"]}).encode(), STRUCTURED, "neither a string"),
    "no data": (json.dumps(EVENT).encode(), STRUCTURED, "no object with the document"),
    "data twice": (json.dumps({**EVENT, "data": {"text": "a"}, "data_base64": ""}).encode(), STRUCTURED, "one of them"),
    "percent": (b"a", {**{f"ce-{name}": value for name, value in EVENT.items()}, "ce-subject": "%FF"}, "UTF-8"),
    "twice": (b"a", {**{f"ce-{name}": value for name, value in EVENT.items()}, "cloudEvents_id": "8"}, "there twice"),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_what_is_no_message_is_refused_without_a_quotation(case: str) -> None:
    body, headers, words = REFUSED[case]
    with pytest.raises(EventInvalid, match=words) as refused:
        read(body, headers)
    assert "secret" not in str(refused.value)


_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
_names = st.sampled_from(["text", "url", "base64", "name", "id", "media_type", "specversion", "source", "type", "data"])
_values = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_names, inner), max_leaves=5
)
_headers = st.dictionaries(
    st.sampled_from(
        ["content-type", "ce-id", "ce-source", "ce-type", "ce-specversion", "name", "traceparent", "tracestate"]
    ),
    st.sampled_from(["application/json", "application/cloudevents+json", "1.0", "/a", "text/plain", ""]) | st.text(),
)


@given(headers=_headers, body=st.binary(max_size=50) | st.dictionaries(_names, _values).map(json.dumps).map(str.encode))
@example(headers={"ce-specversion": "1.0"}, body=b"")
@example(headers={"content-type": "\ud800/x"}, body=b"a")
def test_whatever_comes_is_one_message_or_refused(headers: dict[str, str], body: bytes) -> None:
    try:
        message = read_message(headers, body, "fallback", "trigger", MOST)
    except EventInvalid:
        return
    assert (message.data is None) != (message.url is None)
    assert 0 < len(message.id) <= 1000
    assert message.id.encode()
    assert message.name is None or message.name.isprintable()
    assert message.url is None or message.url.startswith("http")
    assert message.media_type is None or message.media_type.isascii()


@given(text=st.text(st.characters(exclude_categories=["Cs"])), event_id=st.from_regex(r"[!-~]{1,20}", fullmatch=True))
def test_text_comes_through_json_as_it_was(text: str, event_id: str) -> None:
    message = read({"text": text, "id": event_id}, JSON)
    assert message.data == text.encode()
    assert message.id == event_id


@given(data=st.binary())
def test_bytes_come_through_base64_as_they_were(data: bytes) -> None:
    assert read({"base64": base64.b64encode(data).decode()}, JSON).data == data


def test_two_events_never_get_one_id() -> None:
    one = read({**EVENT, "source": "/a", "id": "b c", "data": {"text": "a"}}, STRUCTURED)
    with pytest.raises(EventInvalid):
        read({**EVENT, "source": "/a b", "id": "c", "data": {"text": "a"}}, STRUCTURED)
    assert one.id == "/a b c"


def test_a_message_far_larger_than_a_document_is_not_looked_at() -> None:
    with pytest.raises(EventInvalid, match="too large"):
        read(b"x" * (2 * MOST + 64 * 1024 + 1))


async def test_a_document_is_checked_and_fetched_where_it_is_elsewhere() -> None:
    async def fetch(url: str) -> Loaded:
        assert url == "https://files.test/a?token=secret"
        return Loaded(b"pdf", "https://files.test/a", "application/pdf")

    envelope = await fetched(read({"url": "https://files.test/a?token=secret"}, JSON), fetch, MOST)
    assert (envelope.name, envelope.media_type) == ("https://files.test/a", "application/pdf")
    with pytest.raises(DocumentTooLarge, match="fallback: is larger"):
        await fetched(read(b"x" * (MOST + 1)), fetch, MOST)
    with pytest.raises(EmptyDocument):
        await fetched(read(b""), fetch, MOST)


def test_only_what_was_away_is_fetched_again() -> None:
    gone, away = (SourceUnavailable("a", "is gone", "check it") for _ in range(2))
    away.__cause__ = Transient("a", "no connection")
    assert may_pass(away)
    assert not may_pass(gone)
    assert not may_pass(DocumentTooLarge("a", "is large", "split it"))
