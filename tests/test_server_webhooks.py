"""Webhooks over sockets: signed, tampered, stale, replayed, and with secrets that change."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from standardwebhooks import Webhook

from tests.servers.service import LONGEST, Served, serving, wait_for
from tests.spans import recording
from tidegate import Settings
from tidegate.errors import SettingsError
from tidegate.resilience.faults import FaultyServer
from tidegate.server import webhooks
from tidegate.server.problems import MEDIA_TYPE
from tidegate.server.service import Service
from tidegate.services.signatures import SignatureError, Signatures
from tidegate.telemetry import names
from tidegate.testing import ManualClock
from tidegate.triggers.messages import Message, read_message

ROOT = Path(__file__).parents[1]
SURVEY = "tests/samples/port-survey.pdf"
OLD = "whsec_" + base64.b64encode(b"the old secret of the sender").decode()
NEW = "whsec_" + base64.b64encode(b"the new secret of the sender").decode()
STRANGE = "whsec_" + base64.b64encode(b"the secret of somebody else!").decode()
BODY = json.dumps({"text": "Ada Lovelace lived in London.", "name": "ada.txt"}).encode()


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    hooks = [
        {"kind": "webhook", "secrets": [OLD, NEW]},
        {"kind": "webhook", "name": "open", "unsigned": True, "path": "/in/open"},
    ]
    with serving(
        trigger=hooks, max_document_bytes=20_000, serve={"tokens": ["t"]}, headers={"Authorization": "Bearer t"}
    ) as it:
        yield it


def signed(
    body: bytes, message_id: str, *, secret: str = OLD, at: datetime | None = None, kind: str = "application/json"
) -> dict[str, str]:
    at = at or datetime.now(UTC)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign(message_id, at, body.decode()),
        "content-type": kind,
    }


def send(served: Served, body: bytes, headers: Mapping[str, str], path: str = "/hooks/webhook") -> httpx.Response:
    return httpx.post(f"{served.service.url}{path}", content=body, headers=headers, trust_env=False)


def test_a_signed_message_becomes_a_thread(served: Served) -> None:
    answer = send(served, BODY, signed(BODY, "msg_1"))
    assert answer.status_code == 202, answer.text
    found = served.until(answer.json()["thread_id"], "complete")
    assert (found["source"], found["trigger"], found["event_id"]) == ("ada.txt", "webhook", "msg_1")
    assert answer.headers["location"] == answer.json()["status_url"]


@pytest.mark.parametrize("path", ["/in/open", "/v1/threads"])
def test_the_sender_s_span_is_the_parent_of_the_run_and_its_tracestate_the_run_s(
    served: Served, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = [
        ("content-type", "text/plain"),
        ("authorization", "Bearer t"),
        ("traceparent", f"00-{7:032x}-{8:016x}-01"),
        ("tracestate", "vendor=a"),
        ("tracestate", "other=b"),
    ]
    with recording(monkeypatch) as exporter:
        answer = httpx.post(f"{served.service.url}{path}", content=path, headers=headers, trust_env=False)
        assert answer.status_code == 202, answer.text
        served.until(answer.json()["thread_id"], "complete")
        run = wait_for(lambda: next((each for each in exporter.get_finished_spans() if each.name == names.RUN), None))
    assert (run.parent.trace_id, run.parent.span_id) == (7, 8)
    assert run.context.trace_state.to_header() == "vendor=a,other=b"


def test_the_example_posts_a_file(served: Served) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "examples/serve/post.py", f"{served.service.url}/hooks/webhook", ROOT / SURVEY],
        env={**os.environ, "WEBHOOK_SECRET": NEW, "NO_PROXY": "*"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout.startswith("202 "), done.stdout + done.stderr
    thread = served.until(json.loads(done.stdout.removeprefix("202 "))["thread_id"], "complete")
    assert thread["source"] == "port-survey.pdf"


def test_a_message_that_is_replayed_is_the_thread_that_it_was(served: Served) -> None:
    headers = signed(BODY, "msg_2")
    first, second = send(served, BODY, headers), send(served, BODY, headers)
    assert (first.status_code, second.status_code) == (202, 200)
    assert first.json()["thread_id"] == second.json()["thread_id"]
    assert second.json()["is_new"] is False


@pytest.mark.parametrize("secret", [OLD, NEW])
def test_while_secrets_change_both_count(served: Served, secret: str) -> None:
    assert send(served, BODY, signed(BODY, f"msg_secret_{secret == OLD}", secret=secret)).status_code == 202


def test_one_of_several_signatures_is_enough(served: Served) -> None:
    headers = signed(BODY, "msg_3")
    foreign = signed(BODY, "msg_3", secret=STRANGE)["webhook-signature"]
    headers["webhook-signature"] = f"v1a,AAAA {foreign} {headers['webhook-signature']}"
    assert send(served, BODY, headers).status_code == 202


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"webhook-signature": "v1,AAAA"}, "webhook-signature"),
        ({"webhook-signature": "nonsense"}, "webhook-signature"),
        ({"webhook-signature": "v1,a,b"}, "webhook-signature"),
        ({"webhook-signature": None}, "webhook-signature"),
        ({"webhook-id": "msg_other"}, "webhook-signature"),
        ({"webhook-id": None}, "webhook-id"),
        ({"webhook-id": "msg.17"}, "webhook-id ends with a dot and a number"),
        ({"webhook-timestamp": None}, "webhook-timestamp"),
        ({"webhook-timestamp": "now"}, "webhook-timestamp"),
        ({"webhook-timestamp": "1e9"}, "webhook-timestamp"),
        ({"webhook-timestamp": "1"}, "webhook-timestamp"),
    ],
)
def test_a_message_that_was_tampered_with_is_refused(served: Served, change: dict[str, str | None], told: str) -> None:
    headers = {name: value for name, value in {**signed(BODY, "msg_4"), **change}.items() if value is not None}
    answer = send(served, BODY, headers)
    assert (answer.status_code, answer.headers["content-type"]) == (401, MEDIA_TYPE)
    assert told in answer.json()["detail"]


def test_a_body_that_was_tampered_with_is_refused(served: Served) -> None:
    assert send(served, BODY.replace(b"London", b"Berlin"), signed(BODY, "msg_5")).status_code == 401


def test_what_is_refused_is_logged_once_until_it_is_refused_for_another_reason(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING", "tidegate.server.webhooks")
    for headers in ({}, {}, signed(BODY, "msg_8", secret=STRANGE), signed(BODY, "msg_9", secret=STRANGE)):
        assert send(served, BODY, headers).status_code == 401
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2, told
    assert "webhook-id is missing; sign the message as https://www.standardwebhooks.com says" in told[0]
    assert "none of our secrets gives it" in told[1]


def test_a_secret_that_is_not_ours_is_refused(served: Served) -> None:
    assert send(served, BODY, signed(BODY, "msg_6", secret=STRANGE)).status_code == 401


@pytest.mark.parametrize("minutes", [-6, 6])
def test_a_message_of_another_time_is_refused(served: Served, minutes: int) -> None:
    at = datetime.now(UTC) + timedelta(minutes=minutes)
    assert send(served, BODY, signed(BODY, "msg_7", at=at)).status_code == 401


def test_the_size_is_looked_at_before_the_signature(served: Served) -> None:
    body = b"a" * 200_000
    assert send(served, body, signed(body, "msg_8")).status_code == 413
    assert send(served, body, {"webhook-signature": "none"}).status_code == 413


def test_a_document_is_the_body_itself(served: Served) -> None:
    body = b"<html><title>Ada</title><p>Ada Lovelace lived in London.</p></html>"
    answer = send(served, body, signed(body, "msg_9", kind="text/html"))
    assert served.until(answer.json()["thread_id"], "complete")["title"] == "Ada"


def test_while_a_message_is_read_others_are_answered(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, go_on = threading.Event(), threading.Event()

    def slowly(*arguments: Any) -> Message:
        reading.set()
        go_on.wait(LONGEST)
        return read_message(*arguments)

    monkeypatch.setattr(webhooks, "read_message", slowly)
    body = json.dumps({"text": "Ada in London."}).encode()
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(send, served, body, signed(body, "msg_slow"))
        assert reading.wait(LONGEST)
        try:
            assert served.client.get("/healthz", timeout=5.0).status_code == 200
        finally:
            go_on.set()
        assert sending.result().status_code == 202


def test_a_cloud_event_is_told_from_others_by_its_webhook_id(served: Served) -> None:
    event = {"specversion": "1.0", "id": "7", "source": "/app", "type": "x", "data": {"text": "Ada in London."}}
    body = json.dumps(event).encode()
    kind = "application/cloudevents+json"
    first = send(served, body, signed(body, "msg_10", kind=kind))
    again = send(served, body, signed(body, "msg_10", kind=kind))
    assert (first.status_code, again.status_code) == (202, 200)


@pytest.mark.parametrize("name", ["../../etc/passwd", "C:\\a\\passwd"])
def test_a_name_in_a_message_is_no_path(served: Served, name: str) -> None:
    body = json.dumps({"text": "Ada in London.", "name": name}).encode()
    thread_id = send(served, body, signed(body, f"msg-{len(name)}")).json()["thread_id"]
    assert served.client.get(f"/v1/threads/{thread_id}").json()["source"] == "passwd"


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"text": 1}', b'{"text": "a", "url": "b"}', b'{"url": "file:///a"}'])
def test_a_signed_message_that_is_no_event_is_refused(served: Served, body: bytes) -> None:
    answer = send(served, body, signed(body, "msg_11"))
    assert (answer.status_code, answer.headers["content-type"]) == (422, MEDIA_TYPE)


def test_a_url_that_leads_inside_is_refused_and_seen(served: Served) -> None:
    body = json.dumps({"url": "http://169.254.169.254/latest/"}).encode()
    answer = send(served, body, signed(body, "msg_12"))
    assert answer.status_code == 422
    assert served.client.get(f"/v1/threads/{answer.json()['thread_id']}").json()["status"] == "dead"


def test_a_url_that_is_away_is_to_be_sent_again_and_then_taken() -> None:
    hook = {"kind": "webhook", "secrets": [OLD]}
    with (
        FaultyServer([503], answer=lambda _: {"text": "Ada in London."}) as documents,
        serving(trigger=[hook], serve={"allow_networks": ["127.0.0.1"]}) as served,
    ):
        body = json.dumps({"url": f"{documents.url}/a.json"}).encode()
        away = send(served, body, signed(body, "msg_13"))
        assert (away.status_code, away.json()["type"]) == (503, "urn:tidegate:problem:document-away")
        assert int(away.headers["retry-after"]) > 0
        assert send(served, body, signed(body, "msg_13")).status_code == 202
        requests = len(documents.requests)
        assert send(served, body, signed(body, "msg_13")).status_code == 200
        assert len(documents.requests) == requests, "what came before is not downloaded again"


def test_an_unsigned_one_takes_what_this_machine_sends_and_nothing_by_another_name(served: Served) -> None:
    path = "/in/open"
    first, again = send(served, b"Ada in London.", {}, path), send(served, b"Ada in London.", {}, path)
    assert (first.status_code, again.status_code) == (202, 200), "without an ID, the same content is the same event"
    assert send(served, b"x", {"Host": "evil.example"}, path).status_code == 421
    assert send(served, b"x", {"Origin": "https://evil.example"}, path).status_code == 403


@pytest.mark.parametrize(
    ("hooks", "message"),
    [
        ([{"kind": "webhook", "secrets": ["whsec_AAAA"]}], "at least 16 bytes"),
        ([{"kind": "webhook", "secrets": ["not base64!"]}], "no whsec_"),
        ([{"kind": "webhook", "secrets": [OLD], "path": "/v1/threads"}], "interface's own"),
        (
            [
                {"kind": "webhook", "secrets": [OLD], "name": "a", "path": "/x"},
                {"kind": "webhook", "secrets": [OLD], "name": "b", "path": "/x"},
            ],
            "another's, too",
        ),
    ],
)
def test_a_webhook_that_cannot_work_stops_the_start(hooks: list[dict[str, object]], message: str) -> None:
    with pytest.raises(SettingsError, match=message) as raised:
        Service(Settings.read(serve={"port": 0}, trigger=hooks))
    assert OLD not in str(raised.value)


CLOCK = ManualClock()
SIGNATURES = Signatures([SecretStr(OLD), SecretStr(NEW)], where="test", clock=CLOCK)


@given(st.text(), st.text(alphabet="abc_-0123456789", min_size=1), st.sampled_from([OLD, NEW]))
def test_whatever_the_library_signs_is_verified(text: str, message_id: str, secret: str) -> None:
    at = datetime.fromtimestamp(int(CLOCK.now()), UTC)
    body = text.encode("utf-8", "replace")
    headers = {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(CLOCK.now())),
        "webhook-signature": Webhook(secret).sign(message_id, at, body.decode()),
    }
    assert SIGNATURES.verify(headers, body) == message_id
    with pytest.raises(SignatureError):
        SIGNATURES.verify(headers, body + b"x")


@given(
    st.dictionaries(st.sampled_from(["webhook-id", "webhook-timestamp", "webhook-signature"]), st.text()), st.binary()
)
def test_whatever_the_headers_hold_it_is_an_answer_and_no_accident(headers: dict[str, str], body: bytes) -> None:
    with pytest.raises(SignatureError):
        SIGNATURES.verify(headers, body)


def test_a_body_that_is_no_text_is_verified() -> None:
    import hashlib
    import hmac

    body = Path(__file__).read_bytes()[:10] + b"\xff\xfe\x00"
    at = str(int(CLOCK.now()))
    digest = hmac.new(b"the old secret of the sender", f"m.{at}.".encode() + body, hashlib.sha256).digest()
    signature = f"v1,{base64.b64encode(digest).decode()}"
    headers = {"webhook-id": "m", "webhook-timestamp": at, "webhook-signature": signature}
    assert SIGNATURES.verify(headers, body) == "m"
