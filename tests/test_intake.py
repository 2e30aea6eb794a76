from __future__ import annotations

import asyncio
import gzip
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.servers.enrichment import EnrichmentServer, Reply
from tidegate.errors import DocumentError, DocumentTooLarge, EmptyDocument, SourceUnavailable
from tidegate.services import intake
from tidegate.services.intake import Loaded, load, shown
from tidegate.testing import ManualClock

LIMIT = 100_000


@pytest.fixture(autouse=True)
def _direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reach the loopback servers directly, whatever proxy this machine has."""
    monkeypatch.setenv("NO_PROXY", "*")


async def refusal(kind: type[DocumentError], source: Any, **how: Any) -> str:
    with pytest.raises(DocumentError) as caught:
        await load(source, **{"max_bytes": LIMIT, "clock": ManualClock(auto=True), **how})
    assert type(caught.value) is kind, caught.value
    return str(caught.value)


async def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_bytes(b"\xff\x00 as it is\r\n")
    for source in (tmp_path / "note.txt", str(tmp_path / "note.txt")):
        loaded = await load(source, max_bytes=LIMIT)
        assert loaded == Loaded(b"\xff\x00 as it is\r\n", str(tmp_path / "note.txt"), None)


async def test_bytes_and_text_are_taken_as_they_are() -> None:
    assert await load(b"%PDF", name="report.pdf", max_bytes=LIMIT) == Loaded(b"%PDF", "report.pdf")
    assert await load(b"x", media_type="text/html", max_bytes=LIMIT) == Loaded(b"x", "bytes", "text/html")
    text = await load(text="Grüße", max_bytes=LIMIT)
    assert text == Loaded("Grüße".encode(), "text", "text/plain; charset=utf-8")
    path_like = await load(text="/etc/hosts", max_bytes=LIMIT)
    assert path_like.data == b"/etc/hosts"


async def test_a_source_and_a_text_at_once_are_a_mistake() -> None:
    with pytest.raises(TypeError):
        await load("x", text="y", max_bytes=LIMIT)
    with pytest.raises(TypeError):
        await load(max_bytes=LIMIT)


async def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    assert "does not exist" in await refusal(SourceUnavailable, tmp_path / "none.txt")
    (tmp_path / "file").touch()
    assert "cannot be read" in await refusal(SourceUnavailable, tmp_path / "file" / "below")
    assert "cannot be read" in await refusal(SourceUnavailable, "x" * 5000)
    assert "no valid path" in await refusal(SourceUnavailable, "a\0b")


async def test_a_folder_is_said_to_be_one(tmp_path: Path) -> None:
    assert "is a folder; name a file in it" in await refusal(SourceUnavailable, tmp_path)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="permissions are POSIX's")
async def test_a_file_without_permission_is_said_to_be_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = tmp_path / "closed.txt"
    closed.write_text("secret")
    closed.chmod(0)
    if os.geteuid() == 0:  # root may read everything: let the system refuse as it refuses others

        def refuse(*_: object) -> int:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(os, "open", refuse)
    assert "may not be read" in await refusal(SourceUnavailable, closed)


async def test_a_pipe_or_a_device_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    async with asyncio.timeout(5):
        assert "is no regular file" in await refusal(SourceUnavailable, tmp_path / "pipe")
        assert "is no regular file" in await refusal(SourceUnavailable, "/dev/zero")


async def test_a_pipe_that_takes_a_files_place_is_refused_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"x")
    regular = (tmp_path / "file").stat()
    monkeypatch.setattr(Path, "stat", lambda _: regular)
    async with asyncio.timeout(5):
        assert "is no regular file" in await refusal(SourceUnavailable, tmp_path / "pipe")


async def test_a_document_over_the_limit_is_refused(tmp_path: Path) -> None:
    large = tmp_path / "large.txt"
    large.write_bytes(b"x" * LIMIT)
    assert len((await load(large, max_bytes=LIMIT)).data) == LIMIT
    large.write_bytes(b"x" * (LIMIT + 1))
    for source in (large, b"x" * (LIMIT + 1)):
        assert f"larger than {LIMIT} bytes" in await refusal(DocumentTooLarge, source)
    assert "max_document_bytes" in await refusal(DocumentTooLarge, None, text="é" * LIMIT)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs a file that is larger than it says")
async def test_a_file_that_is_larger_than_it_says_is_not_read_whole() -> None:
    await refusal(DocumentTooLarge, "/proc/self/maps", max_bytes=100)


async def test_nothing_at_all_is_no_document(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    for source in (tmp_path / "empty.txt", b""):
        assert "is empty" in await refusal(EmptyDocument, source)
    await refusal(EmptyDocument, None, text="")


async def test_a_files_name_can_be_printed_and_stored(tmp_path: Path) -> None:
    strange = tmp_path / os.fsdecode(b"na\nme\x1b[31m\xff\xe2\x80\xae.txt")
    strange.write_bytes(b"x")
    source = (await load(strange, max_bytes=LIMIT)).source
    assert source.endswith("/na\ufffdme\ufffd[31m\ufffd\ufffd.txt")
    source.encode()


def test_names_in_any_language_are_shown_as_they_are() -> None:
    assert shown("Отчёт 報告 ü.pdf") == "Отчёт 報告 ü.pdf"


async def test_a_url_is_read_with_its_media_type() -> None:
    page = Reply(body=b"<p>Hello", headers={"Content-Type": "text/html; charset=latin-1"})
    async with EnrichmentServer(then=page) as server:
        url = server.url + "/page.html?token=s3cret#part"
        loaded = await load(url.replace("//", "//user:s3cret@"), max_bytes=LIMIT)
        told = await load(url, media_type="text/plain", name="a page", max_bytes=LIMIT)
    assert loaded == Loaded(b"<p>Hello", server.url + "/page.html", "text/html; charset=latin-1")
    assert told == Loaded(b"<p>Hello", "a page", "text/plain")
    assert server.requests[0].path == "/enrich/page.html?token=s3cret"
    assert server.requests[0].headers["authorization"].startswith("Basic ")


async def test_credentials_stay_with_their_host() -> None:
    async with EnrichmentServer(then=Reply(body=b"there")) as other:
        elsewhere = Reply(302, headers={"Location": other.url})
        async with EnrichmentServer(then=elsewhere) as server:
            loaded = await load(server.url.replace("//", "//user:s3cret@"), max_bytes=LIMIT)
    assert loaded.data == b"there"
    assert loaded.source == server.url
    assert "authorization" not in other.requests[0].headers


async def test_a_download_is_tried_again() -> None:
    clock = ManualClock(auto=True)
    async with EnrichmentServer([503, "reset", Reply(body=b"at last")]) as server:
        loaded = await load(server.url, max_bytes=LIMIT, clock=clock)
    assert loaded.data == b"at last"
    assert clock.slept == [0.5, 1.0]


@pytest.mark.parametrize(("asked", "slept"), [("7", 7.0), ("5000", 30.0)])
async def test_a_server_that_asks_for_a_pause_gets_it(asked: str, slept: float) -> None:
    clock = ManualClock(auto=True)
    async with EnrichmentServer([Reply(429, headers={"Retry-After": asked}), Reply(body=b"x")]) as server:
        await load(server.url, max_bytes=LIMIT, clock=clock)
    assert clock.slept == [slept]


@pytest.mark.parametrize(
    ("behaviour", "problem", "requests"),
    [
        (404, "answered 404 Not Found; check the URL", 1),
        (401, "download it with your credentials", 1),
        (500, "answered 500 Internal Server Error; try again later", 3),
        ("reset", "broke off", 3),
        (Reply(body=b"x" * 100, cut=50), "broke off", 3),
        (Reply(302, headers={"Location": "/again"}), "redirects again and again", 6),
        (Reply(302, headers={"Location": "file:///etc/hosts"}), "neither http nor https", 1),
        (Reply(300), "is not followed", 1),
    ],
)
async def test_a_download_that_fails_says_why(behaviour: Any, problem: str, requests: int) -> None:
    async with EnrichmentServer(then=behaviour) as server:
        message = await refusal(SourceUnavailable, server.url + "?s3cret")
    assert problem in message
    assert "s3cret" not in message
    assert len(server.requests) == requests


async def test_a_server_that_is_not_there_says_why() -> None:
    async with EnrichmentServer() as server:
        server.down("refuse")
        assert "the connection was refused" in await refusal(SourceUnavailable, server.url)
    assert "no host has this name" in await refusal(SourceUnavailable, "http://no-such-host.invalid/x.pdf")


@pytest.mark.parametrize("behaviour", ["hang", Reply(body=b"x" * 1000, every=0.02)])
async def test_a_download_that_never_ends_is_given_up(behaviour: Any) -> None:
    async with EnrichmentServer(then=behaviour) as server:
        assert "no answer in time" in await refusal(SourceUnavailable, server.url, timeout=0.05)


async def test_a_download_over_the_limit_is_stopped() -> None:
    async with EnrichmentServer(then=Reply(body=b"x" * (LIMIT + 1))) as server:
        assert f"larger than {LIMIT} bytes" in await refusal(DocumentTooLarge, server.url)
        assert len(server.requests) == 1
    bomb = Reply(body=gzip.compress(bytes(50 * LIMIT)), headers={"Content-Encoding": "gzip"})
    async with EnrichmentServer(then=bomb) as server:
        await refusal(DocumentTooLarge, server.url)


async def test_an_empty_download_is_no_document() -> None:
    async with EnrichmentServer(then=Reply(body=b"")) as server:
        await refusal(EmptyDocument, server.url)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("file:///etc/hosts", "cannot be read by file"),
        ("ftp://user:s3cret@host/x", "cannot be read by ftp"),
        ("s3://bucket/key?s3cret", "cannot be read by s3"),
        ("http://", "cannot be read by http"),
        ("http:///path", "cannot be read by http"),
        ("http://user:s3cret@host:port/", "is no valid URL"),
        ("http://host/\n", "is no valid URL"),
    ],
)
async def test_what_is_no_web_address_is_refused(url: str, problem: str) -> None:
    message = await refusal(SourceUnavailable, url)
    assert problem in message
    assert "user" not in message
    assert "s3cret" not in message


async def test_standard_input_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"x" * LIMIT)
    with (tmp_path / "in").open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert await load("-", max_bytes=LIMIT) == Loaded(b"x" * LIMIT, "stdin")
    with (tmp_path / "in").open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        await refusal(DocumentTooLarge, "-", max_bytes=LIMIT - 1)


async def test_a_standard_input_that_was_replaced_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"piped")))
    assert (await load("-", name="mail", max_bytes=LIMIT)) == Loaded(b"piped", "mail")


class Endless(io.RawIOBase):
    """Standard input that never ends."""

    def __init__(self) -> None:
        self.pieces = 0

    @property
    def buffer(self) -> Endless:
        return self

    def read(self, size: int = -1, /) -> bytes:
        self.pieces += 1
        assert self.pieces < 100
        return b"x" * 1000


async def test_a_standard_input_that_never_ends_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    endless = Endless()
    monkeypatch.setattr(sys, "stdin", endless)
    await refusal(DocumentTooLarge, "-", max_bytes=2500)
    assert endless.pieces == 3


@pytest.mark.parametrize("stdin", [None, "closed"])
async def test_no_standard_input_is_unavailable(
    stdin: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "in").touch()
    with (tmp_path / "in").open() as file:
        pass
    monkeypatch.setattr(sys, "stdin", None if stdin is None else file)
    assert "cannot be read" in await refusal(SourceUnavailable, "-")


def test_waiting_for_standard_input_can_be_interrupted() -> None:
    program = (
        "import asyncio\n"
        "from tidegate.services.intake import load\n"
        "print('waiting', flush=True)\n"
        "asyncio.run(load('-', max_bytes=9))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"waiting\n"
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        process.wait(timeout=20)  # its standard input is still open
        assert process.stderr is not None
        complaint = process.stderr.read()
    assert process.returncode != 0
    assert b"KeyboardInterrupt" in complaint
    assert b"Fatal" not in complaint


def test_of_a_name_as_long_as_a_message_no_more_than_its_end_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[int] = []

    def spy(name: str) -> str:
        looked_at.append(len(name))
        return name

    monkeypatch.setattr(intake, "shown", spy)
    assert intake.only_name("a/" * 100_000 + "b" * 100_000 + "/end.txt", "document") == "end.txt"
    assert intake.only_name("b" * 100_000, "document") == "b" * intake.LONGEST_NAME
    assert max(looked_at) == intake.LONGEST_NAME
