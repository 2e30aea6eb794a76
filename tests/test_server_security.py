"""What protects the HTTP interface, each rule by breaking it over a socket."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.servers.service import Served, serving, wait_for
from tidegate import Settings
from tidegate.errors import SettingsError
from tidegate.server import bodies, listening
from tidegate.server import tokens as tokens_
from tidegate.server.documents import Submission
from tidegate.server.problems import MEDIA_TYPE
from tidegate.server.service import Service

TOKEN, OTHER, HASHED = "first-token-of-test", "second-token-of-test", "third-token-of-test"
TEXT = "Ada Lovelace lived in London."


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving(max_document_bytes=20_000) as service:
        yield service


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    file = tmp_path_factory.mktemp("tokens") / "tokens"
    file.write_text(f"# of the test\n\n{OTHER}\nsha256:{hashlib.sha256(HASHED.encode()).hexdigest()}\n")
    with serving(serve={"tokens": [TOKEN], "tokens_file": str(file)}) as service:
        yield service


def raw(served: Served, *pieces: bytes, seconds: float = 5.0) -> bytes:
    """Send bytes over a connection of their own, and return what comes until it is closed, or nothing more does."""
    address = urlsplit(served.service.url)
    with socket.create_connection((address.hostname, address.port), timeout=seconds) as connection:
        received = b""
        try:
            for piece in pieces:
                connection.sendall(piece)
            while chunk := connection.recv(65536):
                received += chunk
        except OSError:
            pass  # it was closed in the middle, or nothing more came: what was received is what counts
        return received


@pytest.mark.parametrize("path", ["/v1/threads", "/v1/circuits", "/metrics", "/v1/openapi.json", "/v1/nowhere"])
@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer wrong",
        f"Basic {TOKEN}",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        TOKEN,
    ],
)
def test_without_one_of_its_tokens_nothing_is_told(guarded: Served, path: str, header: str | None) -> None:
    answer = guarded.client.get(path, headers={} if header is None else {"Authorization": header})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"] == MEDIA_TYPE


@pytest.mark.parametrize("token", [TOKEN, OTHER, HASHED])
def test_each_of_several_tokens_counts(guarded: Served, token: str) -> None:
    assert guarded.client.get("/v1/threads", headers={"Authorization": f"Bearer {token}"}).status_code == 200
    assert guarded.client.get("/metrics", headers={"authorization": f"bearer {token}"}).status_code == 200


def test_the_hash_of_a_token_is_no_token(guarded: Served) -> None:
    digest = hashlib.sha256(HASHED.encode()).hexdigest()
    for given in (digest, f"sha256:{digest}"):
        assert guarded.client.get("/v1/threads", headers={"Authorization": f"Bearer {given}"}).status_code == 401


def test_health_is_told_without_a_token(guarded: Served) -> None:
    assert guarded.client.get("/healthz").status_code == 200
    assert guarded.client.get("/readyz").status_code == 200


def test_a_file_of_tokens_that_changes_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens_, "_LOOK_EVERY", 0.0)
    file = tmp_path / "tokens"
    file.write_text("the-old-token\n")
    with serving(serve={"tokens_file": str(file)}) as served:

        def status(token: str) -> int:
            return served.client.get("/v1/threads", headers={"Authorization": f"Bearer {token}"}).status_code

        assert (status("the-old-token"), status("the-new-token")) == (200, 401)
        file.with_suffix(".new").write_text("the-new-token\n")
        file.with_suffix(".new").replace(file)
        wait_for(lambda: True if (status("the-old-token"), status("the-new-token")) == (401, 200) else None)
        file.unlink()  # what was read last counts: nobody is let in, and nobody locked out, by a slip
        assert (status("the-old-token"), status("the-new-token")) == (401, 200)
        file.write_text("")
        wait_for(lambda: True if status("the-new-token") == 401 else None)


def test_no_token_is_kept_as_it_is(guarded: Served) -> None:
    kept = repr(vars(guarded.service._tokens))
    assert not any(token in kept for token in (TOKEN, OTHER, HASHED))


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])  # noqa: S104 - it must be refused
def test_without_a_token_it_does_not_start_for_other_machines(host: str) -> None:
    with pytest.raises(SettingsError, match="there is no token"):
        Service(Settings.read(serve={"host": host, "port": 0}))


def test_an_unsigned_webhook_does_not_start_for_other_machines() -> None:
    hook = {"kind": "webhook", "unsigned": True}
    with pytest.raises(SettingsError, match="is unsigned"):
        Service(Settings.read(serve={"host": "0.0.0.0", "port": 0, "tokens": ["t"]}, trigger=[hook]))  # noqa: S104


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no token"),
        ("# none\n", "holds no token"),
        ("two words\n", "no header holds"),
        (None, "cannot be read"),
    ],
)
def test_a_file_without_a_token_stops_the_start(tmp_path: Path, content: str | None, message: str) -> None:
    file = tmp_path / "tokens"
    if content is not None:
        file.write_text(content)
    with pytest.raises(SettingsError, match=message):
        Service(Settings.read(serve={"port": 0, "tokens_file": str(file)}))


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "10.0.0.1", "", "[::2]"])
def test_a_name_that_was_bound_to_this_machine_by_somebodys_dns_is_refused(served: Served, host: str) -> None:
    for path in ("/v1/threads", "/healthz", "/metrics"):
        answer = served.client.get(path, headers={"Host": host})
        assert answer.status_code == 421
        assert answer.headers["content-type"] == MEDIA_TYPE


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "127.9.9.9:8321", "[::1]:8321"])
def test_names_of_this_machine_are_answered(served: Served, host: str) -> None:
    assert served.client.get("/healthz", headers={"Host": host}).status_code == 200


def test_a_page_of_another_site_cannot_start_a_thread(served: Served) -> None:
    answer = served.client.post("/v1/threads", json={"text": TEXT}, headers={"Origin": "https://evil.example"})
    assert answer.status_code == 403
    assert served.client.get("/healthz", headers={"Origin": "http://localhost:3000"}).status_code == 200
    assert served.client.get("/healthz", headers={"Origin": "http://["}).status_code == 403


def test_a_document_that_says_it_is_too_large_is_not_read(served: Served) -> None:
    head = b"POST /v1/threads HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999999\r\n\r\n"
    began = time.monotonic()
    received = raw(served, head, seconds=0.7)
    assert received.startswith(b"HTTP/1.1 413 ")
    assert b"max_document_bytes" in received
    assert time.monotonic() - began < 4.0


@pytest.mark.parametrize("kind", ["text/plain", "application/json", "multipart/form-data; boundary=b"])
def test_a_document_in_chunks_is_read_to_the_limit_and_no_further(served: Served, kind: str) -> None:
    sent = 0

    def chunks() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(10_000):
            sent += 10_000
            yield b"a" * 10_000

    answer = served.client.post("/v1/threads", content=chunks(), headers={"Content-Type": kind})
    assert answer.status_code == 413
    assert answer.headers["content-type"] == MEDIA_TYPE
    assert sent < 50_000_000, "it went on taking what it had refused"


def test_a_text_in_json_is_as_large_as_any_document(served: Served) -> None:
    assert served.client.post("/v1/threads", json={"text": "a" * 20_000}).status_code == 202
    assert served.client.post("/v1/threads", json={"text": "a" * 20_001}).status_code == 413
    assert served.client.post("/v1/threads", files={"file": ("a", b"a" * 20_001)}).status_code == 413


def test_json_of_many_values_is_refused_before_it_takes_their_room(monkeypatch: pytest.MonkeyPatch) -> None:
    body = b'{"text": [' + b"[]," * 30_000 + b"0]}"  # of 100 MB a parser makes 5 GB
    monkeypatch.setattr(Submission, "model_validate_json", None)
    with serving() as served:
        answer = served.client.post("/v1/threads", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert "more than 1000 values" in answer.json()["detail"]


def test_a_body_that_comes_in_drops_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies.read_body, "__kwdefaults__", {"setting": "", "seconds": 0.3})
    with serving() as served:
        head = b"POST /v1/threads HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nabc"
        assert raw(served, head).startswith(b"HTTP/1.1 408 ")


def test_a_head_that_comes_in_drops_is_cut_off(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "HEAD_SECONDS", 0.3)
    for begun in (b"", b"GET / HT", b"GET /healthz HTTP/1.1\r\nHost: loc"):
        began = time.monotonic()
        assert raw(served, begun, seconds=10.0) == b""
        assert time.monotonic() - began < 5.0
    both = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /"
    assert raw(served, both, seconds=10.0).count(b"HTTP/1.1") == 1, "the second head is late, the first is answered"


def test_what_nobody_reads_does_not_keep_a_connection(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "LINGER_SECONDS", 0.3)
    address = urlsplit(served.service.url)
    with socket.create_connection((address.hostname, address.port), timeout=5.0) as connection:
        connection.sendall(b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n")

        def drip() -> bool | None:
            try:
                connection.sendall(b"a")
            except OSError:
                return True
            return None

        assert connection.recv(20).startswith(b"HTTP/1.1 404")
        wait_for(drip)


@pytest.mark.parametrize(
    "request_",
    [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n", b"GET / HTTP/1.1\r\nA: " + b"a" * 100_000 + b"\r\n\r\n"],
)
def test_what_is_no_http_and_a_head_without_end_are_problems_too(served: Served, request_: bytes) -> None:
    received = raw(served, request_)
    assert received.startswith(b"HTTP/1.1 400 ")
    assert MEDIA_TYPE.encode() in received


def test_a_request_with_a_length_that_comes_in_chunks_hides_no_second_one(served: Served) -> None:
    head = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
    received = raw(served, head + b"0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 400 ")
    assert received.count(b"HTTP/1.1") == 1


@contextmanager
def reading_slowly(served: Served) -> Iterator[socket.socket]:
    """Connect so that next to nothing of an answer has room on its way."""
    served.service._socket.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    address = urlsplit(served.service.url)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((address.hostname, address.port))
        yield connection


def test_who_takes_no_answers_keeps_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "TAKING_SECONDS", 0.3)
    with serving() as served, reading_slowly(served) as connection:
        connection.settimeout(0.1)

        def ask() -> bool | None:
            try:
                connection.send(b"GET /v1/openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100)
            except TimeoutError:
                return None  # nobody reads them any more
            except OSError:
                return True
            return None

        wait_for(ask)


def test_who_takes_a_long_answer_slowly_gets_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "TAKING_SECONDS", 0.1)
    with serving() as served:
        thread_id = served.start("\n\n".join(f"It cost {number} dollars." for number in range(1000)))
        served.until(thread_id, "complete")
        with reading_slowly(served) as connection:
            head = f"GET /v1/threads/{thread_id} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            connection.sendall(head.encode())
            received = b""
            while chunk := connection.recv(1024):
                received += chunk
                time.sleep(0.002)
        assert json.loads(received.partition(b"\r\n\r\n")[2])["thread_id"] == thread_id


def test_connections_are_bounded(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "MOST_CONNECTIONS", 3)
    address = urlsplit(served.service.url)
    held = [socket.create_connection((address.hostname, address.port), timeout=5.0) for _ in range(6)]
    try:
        assert all(connection.recv(100).startswith(b"HTTP/1.1 503") for connection in held[3:])
    finally:
        for connection in held:
            connection.close()


def test_bodies_that_come_at_once_are_bounded() -> None:
    room = bodies.Room(10)
    with room.share() as first:
        first.take(6)
        with room.share() as second, pytest.raises(Exception, match="too many documents"):
            second.take(5)
        first.take(4)
    with room.share() as third:
        third.take(10)


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("/etc/shadow", "shadow"),
        ("..\\..\\windows\\system.ini", "system.ini"),
        ("C:\\a\\b.pdf", "b.pdf"),
        ("..", "document"),
        ("a/..", "document"),
        ("\x1b[31mred\x07.txt", "\N{REPLACEMENT CHARACTER}[31mred\N{REPLACEMENT CHARACTER}.txt"),
        ("a" * 190 + ".txt", "a" * 190 + ".txt"),
    ],
)
def test_a_name_from_outside_is_a_name_and_never_a_path(served: Served, name: str, kept: str) -> None:
    answer = served.client.post("/v1/threads", content=TEXT, params={"name": name})
    thread_id = answer.json()["thread_id"]
    assert served.client.get(f"/v1/threads/{thread_id}").json()["source"] == kept
    assert os.sep not in thread_id


@pytest.mark.parametrize(
    ("kind", "head"),
    [
        ("multipart/form-data; boundary=" + "(" * 3000, b""),
        ("multipart/form-data; boundary=b", b"Content-Disposition: form-data; name=" + b"(" * 7000),
        (
            "multipart/form-data; boundary=b",
            b'Content-Disposition: form-data; name="file"\r\nContent-Type: ' + b"(" * 7000,
        ),
    ],
)
def test_headers_of_a_form_that_are_nested_without_end_are_refused(served: Served, kind: str, head: bytes) -> None:
    body = b"--b\r\n" + head + b"\r\n\r\nAda\r\n--b--\r\n"
    assert served.client.post("/v1/threads", content=body, headers={"Content-Type": kind}).status_code == 400


def test_a_name_in_a_form_is_no_path_either(served: Served) -> None:
    body = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="../../../tmp/x.txt"\r\n\r\n'
        + TEXT.encode()
        + b"\r\n--b--\r\n"
    )
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    thread_id = served.client.post("/v1/threads", content=body, headers=kind).json()["thread_id"]
    assert served.client.get(f"/v1/threads/{thread_id}").json()["source"] == "x.txt"


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/healthz",
        "http://localhost:{port}/healthz",
        "http://2130706433/",
        "http://0x7f.0.0.1/",
        "http://0177.0.0.1/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::1]:{port}/healthz",
        "http://169.254.169.254/latest/meta-data/",
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "http://user:secret@example.org/",
        "nonsense",
    ],
)
def test_a_url_that_leads_inside_is_refused(served: Served, url: str) -> None:
    url = url.format(port=urlsplit(served.service.url).port)
    answer = served.client.post("/v1/threads", json={"url": url})
    assert answer.status_code == 422, answer.text
    assert answer.json()["type"] == "urn:tidegate:problem:document-unusable"
    assert "secret" not in answer.text
