"""The HTTP interface, over sockets: threads are started, looked at, listed, followed, resumed and cancelled."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.servers.service import LONGEST, Served, serving, wait_for
from tidegate.resilience.faults import FaultyServer
from tidegate.server import views
from tidegate.server.problems import MEDIA_TYPE

SAMPLE = Path(__file__).parent / "samples" / "harbour-report.md"
TEXT = "Ada Lovelace met Charles Babbage in London in 1833."


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving(max_document_bytes=100_000) as service:
        yield service


def test_a_file_becomes_a_summary(served: Served) -> None:
    answer = served.client.post("/v1/threads", files={"file": ("harbour-report.md", SAMPLE.read_bytes())})
    assert answer.status_code == 202
    assert answer.headers["location"] == answer.json()["status_url"]
    found = served.until(answer.json()["thread_id"], "complete")
    assert (found["source"], found["outcome"], found["revision"]) == ("harbour-report.md", "complete", 1)
    assert "Rotterdam" in found["text"]
    assert {"Hamburg", "Bergen"} <= {entity["text"] for entity in found["entities"]}
    assert (found["trigger"], found["missing"], found["error"]) == ("api", [], None)


@pytest.mark.parametrize(
    ("options", "source"),
    [
        ({"json": {"text": TEXT, "name": "note"}}, "note"),
        ({"json": {"text": TEXT}}, "text"),
        ({"content": TEXT, "headers": {"Content-Type": "text/plain"}, "params": {"name": "a.txt"}}, "a.txt"),
        ({"content": TEXT}, "document"),
        ({"files": {"file": ("b.txt", TEXT)}, "data": {"name": "c.txt"}}, "c.txt"),
    ],
)
def test_a_document_comes_as_json_as_a_form_or_as_it_is(served: Served, options: Any, source: str) -> None:
    answer = served.client.post("/v1/threads", **options)
    assert answer.status_code == 202, answer.text
    found = served.until(answer.json()["thread_id"], "complete", "degraded")
    assert found["source"] == source
    assert "London" in found["text"]


def test_the_same_key_and_document_are_one_thread(served: Served) -> None:
    key = {"Idempotency-Key": "order-66"}
    first = served.client.post("/v1/threads", json={"text": TEXT}, headers=key)
    second = served.client.post("/v1/threads", json={"text": TEXT}, headers=key)
    assert (first.status_code, second.status_code) == (202, 200)
    assert first.json()["thread_id"] == second.json()["thread_id"]
    assert (first.json()["is_new"], second.json()["is_new"]) == (True, False)


def test_the_same_key_with_another_document_is_refused(served: Served) -> None:
    key = {"Idempotency-Key": "order-67"}
    assert served.client.post("/v1/threads", json={"text": TEXT}, headers=key).status_code == 202
    answer = served.client.post("/v1/threads", json={"text": "Something else."}, headers=key)
    assert answer.status_code == 422
    assert answer.json()["type"] == "urn:tidegate:problem:idempotency-key-reused"


def test_the_same_key_with_another_url_is_refused_though_its_name_is_the_same() -> None:
    allowed = {"allow_networks": ["127.0.0.1"]}
    with FaultyServer(answer=lambda _: {"text": "Ada"}) as there, serving(serve=allowed) as served:

        def start(query: str, **more: str) -> int:
            submission = {"url": f"{there.url}/report?{query}", **more}
            key = {"Idempotency-Key": f"report {more}"}
            return served.client.post("/v1/threads", json=submission, headers=key).status_code

        for more in ({}, {"name": "report"}):
            assert [start("of=2025", **more), start("of=2025", **more), start("of=2026", **more)] == [202, 200, 422]


def test_without_a_key_each_request_is_a_thread_of_its_own(served: Served) -> None:
    assert served.start(TEXT) != served.start(TEXT)


def test_pages_hold_each_thread_once_though_new_ones_come_in_between() -> None:
    with serving() as served:
        before = {served.start(f"{TEXT} {number}") for number in range(7)}
        wait_for(lambda: all_done(served, len(before)))
        seen: list[str] = []
        cursor: str | None = None
        while True:
            page = served.client.get("/v1/threads", params={"limit": 3} | ({"cursor": cursor} if cursor else {})).json()
            seen += [each["thread_id"] for each in page["threads"]]
            served.start("One more, which comes in between.")
            if (cursor := page["next_cursor"]) is None:
                break
        assert sorted(seen) == sorted(before)


def all_done(served: Served, number: int) -> bool | None:
    page = served.client.get("/v1/threads", params={"status": "complete"}).json()["threads"]
    return True if len(page) == number else None


def test_threads_are_listed_by_status_document_and_trigger(served: Served) -> None:
    answer = served.client.post("/v1/threads", json={"text": TEXT, "name": "one of its kind"})
    thread_id = answer.json()["thread_id"]
    served.until(thread_id, "complete")

    def listed(**filters: str) -> list[str]:
        page = served.client.get("/v1/threads", params={"limit": 500, **filters}).raise_for_status().json()
        return [each["thread_id"] for each in page["threads"]]

    assert listed(source="one of its kind") == [thread_id]
    assert listed(source="one of its kind", status="complete", trigger="api") == [thread_id]
    assert listed(source="one of its kind", status="dead") == []
    assert listed(source="one of its kind", trigger="folder") == []
    assert listed(source="one of its kind", status="running") == []


@pytest.mark.parametrize("cursor", ["x", "bnVsbA", "W251bGwsICJhIl0", "W05hTiwgImEiXQ", "WzEsIlx1ZDgwMCJd", "%00", "é"])
def test_a_cursor_that_we_never_gave_is_refused(served: Served, cursor: str) -> None:
    answer = served.client.get("/v1/threads", params={"cursor": cursor})
    assert answer.status_code == 422
    assert "begin without one" in answer.json()["detail"]


def test_events_tell_of_each_step_and_end_with_the_thread(served: Served) -> None:
    thread_id = served.start(SAMPLE.read_text())
    kinds: list[str] = []
    last: dict[str, Any] = {}
    with served.client.stream("GET", f"/v1/threads/{thread_id}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            kind, _, value = line.partition(": ")
            if kind == "event":
                kinds.append(value)
            elif kind == "data":
                last = json.loads(value)
    assert kinds[0] == "status"
    assert kinds[-1] == "end"
    assert (last["thread_id"], last["status"]) == (thread_id, "complete")


def test_who_heard_the_end_is_told_not_to_connect_again(served: Served) -> None:
    thread_id = served.start(TEXT)
    served.until(thread_id, "complete")
    path = f"/v1/threads/{thread_id}/events"
    told = served.client.get(path).text
    [event_id] = {line.removeprefix("id: ") for line in told.splitlines() if line.startswith("id: ")}
    assert served.client.get(path, headers={"Last-Event-ID": event_id}).status_code == 204


def test_while_a_long_thread_is_written_out_others_are_answered(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    thread_id = served.start(TEXT)
    served.until(thread_id, "complete")
    writing, go_on = threading.Event(), threading.Event()
    whole = views.thread

    def slowly(*arguments: Any) -> dict[str, Any]:
        writing.set()
        go_on.wait(LONGEST)
        return whole(*arguments)

    monkeypatch.setattr(views, "thread", slowly)
    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(served.client.get, f"/v1/threads/{thread_id}")
        assert writing.wait(LONGEST)
        try:
            assert served.client.get("/healthz", timeout=5.0).status_code == 200
        finally:
            go_on.set()
        assert looking.result().json()["thread_id"] == thread_id


def test_a_thread_is_cancelled_and_brought_back(served: Served) -> None:
    with serving(serve={"concurrency": 1}) as alone:
        ids = [alone.start(f"{SAMPLE.read_text()} {number}") for number in range(5)]
        stopped = alone.client.post(f"/v1/threads/{ids[-1]}/cancel")
        assert stopped.json()["status"] == "cancelled"
        for thread_id in ids[:-1]:
            alone.until(thread_id, "complete")
        assert alone.client.get(f"/v1/threads/{ids[-1]}").json()["status"] == "cancelled"
        assert alone.client.post(f"/v1/threads/{ids[-1]}/retry").status_code == 202
        alone.until(ids[-1], "complete")


def test_a_finished_thread_is_neither_cancelled_nor_retried_and_resumed_for_nothing(served: Served) -> None:
    thread_id = served.start(TEXT)
    served.until(thread_id, "complete")
    assert served.client.post(f"/v1/threads/{thread_id}/cancel").json()["status"] == "complete"
    assert served.client.post(f"/v1/threads/{thread_id}/resume").json()["status"] == "complete"
    answer = served.client.post(f"/v1/threads/{thread_id}/retry")
    assert answer.status_code == 409
    assert answer.json()["type"] == "urn:tidegate:problem:thread-state"


def test_a_degraded_thread_is_asked_to_go_on_and_stays_what_it_is(served: Served) -> None:
    answer = served.client.post("/v1/threads", json={"text": "No name stands in this."})
    thread_id = answer.json()["thread_id"]
    served.until(thread_id, "complete", "degraded")
    assert served.client.post(f"/v1/threads/{thread_id}/resume").status_code == 202
    served.until(thread_id, "complete", "degraded")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/threads/none-such", 404),
        ("POST", "/v1/threads/none-such/resume", 404),
        ("POST", "/v1/threads/none-such/retry", 404),
        ("POST", "/v1/threads/none-such/cancel", 404),
        ("GET", "/v1/threads/none-such/events", 404),
        ("GET", f"/v1/threads/{quote('a' * 300)}", 404),
        ("GET", "/v1/threads/%00", 404),
        ("GET", "/nowhere", 404),
        ("DELETE", "/v1/threads", 405),
        ("GET", "/v1/threads?limit=0", 422),
        ("GET", "/v1/threads?status=odd", 422),
    ],
)
def test_every_error_is_a_problem(served: Served, method: str, path: str, status: int) -> None:
    answer = served.client.request(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == MEDIA_TYPE
    problem = answer.json()
    assert problem["status"] == status
    assert {"type", "title"} <= problem.keys()


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"json": {}}, 422),
        ({"json": {"text": "a", "url": "http://example.org/"}}, 422),
        ({"json": {"text": 1}}, 422),
        ({"json": {"text": "a", "surprise": 1}}, 422),
        ({"json": [1]}, 422),
        ({"content": b"{", "headers": {"Content-Type": "application/json"}}, 400),
        ({"content": b"[" * 50_000, "headers": {"Content-Type": "application/json"}}, 400),
        ({"json": {"text": ""}}, 422),
        ({"content": b""}, 422),
        ({"data": {"a": "b"}}, 415),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400),
        ({"content": b"--b\r\n\r\n", "headers": {"Content-Type": "multipart/form-data; boundary=b"}}, 400),
        ({"files": {"one": ("a", b"1"), "two": ("b", b"2")}}, 422),
        ({"content": b"x", "headers": {"Idempotency-Key": "a" * 1001}}, 422),
    ],
)
def test_what_is_no_document_is_refused_and_not_quoted(served: Served, options: Any, status: int) -> None:
    answer = served.client.post("/v1/threads", **options)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == MEDIA_TYPE
    assert "Traceback" not in answer.text


def test_what_is_no_document_is_told_what_to_send(served: Served) -> None:
    as_curl = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = served.client.post("/v1/threads", content=b"# A document", headers=as_curl)
    assert "give the document's own content type, as text/markdown" in answer.json()["detail"]
    answer = served.client.post("/v1/threads", json={"txt": "Bergen"})
    assert answer.json()["detail"] == "txt: is none of text, url, name"


def test_an_error_nobody_thought_of_says_nothing_of_itself(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from tidegate.store.registry import Registry

    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the secret of the document")

    monkeypatch.setattr(Registry, "page", broken)
    answer = served.client.get("/v1/threads")
    assert (answer.status_code, answer.headers["content-type"]) == (500, MEDIA_TYPE)
    assert "secret" not in answer.text
    assert "secret" not in " ".join(record.getMessage() for record in caplog.records)
    wait_for(lambda: any("RuntimeError" in record.getMessage() for record in caplog.records) or None)


def test_when_too_many_threads_wait_the_next_is_to_come_later() -> None:
    with serving(serve={"max_queued": 1, "concurrency": 1}) as served:
        answers = [served.client.post("/v1/threads", json={"text": f"{SAMPLE.read_text()} {n}"}) for n in range(12)]
        full = [answer for answer in answers if answer.status_code == 503]
        assert full
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in full)
        assert full[0].json()["type"] == "urn:tidegate:problem:queue-full"
        for answer in answers:
            if answer.status_code == 202:
                served.until(answer.json()["thread_id"], "complete")


def test_circuits_health_and_metrics_are_shown(served: Served) -> None:
    served.until(served.start(TEXT), "complete")
    assert served.client.get("/healthz").json() == {"status": "ok"}
    assert served.client.get("/readyz").json() == {"status": "ready"}
    assert "circuits" in served.client.get("/v1/circuits").json()
    metrics = served.client.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain")
    assert 'tidegate_threads{status="complete"}' in metrics.text
    described = served.client.get("/v1/openapi.json").json()
    assert described["openapi"].startswith("3.")
    assert "/v1/threads/{thread_id}/events" in described["paths"]
