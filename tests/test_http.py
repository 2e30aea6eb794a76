from __future__ import annotations

import asyncio
import gzip
import logging
import tracemalloc
import zlib
from collections.abc import AsyncIterator

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import context, propagate, trace

from tests.servers.enrichment import Behaviour, EnrichmentServer, Reply
from tidegate.errors import NotFound, Permanent, RateLimited, Refused, ServiceError, SettingsError, Transient
from tidegate.services import http
from tidegate.testing import ManualClock

MIB = 1024 * 1024


@pytest.fixture
async def clients() -> AsyncIterator[http.Clients]:
    clients = http.Clients(timeout=5.0)
    yield clients
    await clients.aclose()


async def get(
    clients: http.Clients, url: str, *, max_bytes: int = MIB, redirects: int = 0, traced: bool = False
) -> http.Reply:
    async with clients.lent() as client:
        request = client.build_request("GET", url)
        return await http.exchange(client, request, max_bytes=max_bytes, redirects=redirects, traced=traced)


async def failure(clients: http.Clients, url: str, *, max_bytes: int = MIB, redirects: int = 0) -> ServiceError:
    """Return what the failure of a request is classified as."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - its class is what the tests look at
        await get(clients, url, max_bytes=max_bytes, redirects=redirects)
    classified = http.classify("api", ManualClock())(caught.value)
    assert classified is not None, caught.value
    return classified


async def failure_of(clients: http.Clients, behaviour: Behaviour, *, max_bytes: int = MIB) -> ServiceError:
    async with EnrichmentServer(then=behaviour) as server:
        return await failure(clients, server.url, max_bytes=max_bytes)


async def test_a_successful_answer_is_read_to_its_end(clients: http.Clients) -> None:
    async with EnrichmentServer([Reply(201, body=b"x" * 300_000)]) as server:
        reply = await get(clients, server.url)
    assert (reply.status, len(reply.body)) == (201, 300_000)
    assert server.requests[0].headers["user-agent"] == http.USER_AGENT


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, Permanent),
        (401, Refused),
        (404, NotFound),
        (408, Transient),
        (429, RateLimited),
        (500, Transient),
        (503, Transient),
    ],
)
async def test_a_status_becomes_the_failure_that_it_is(
    clients: http.Clients, status: int, expected: type[ServiceError]
) -> None:
    assert type(await failure_of(clients, status)) is expected


async def test_the_pause_that_an_answer_asks_for_is_kept(clients: http.Clients) -> None:
    limited = await failure_of(clients, Reply(429, headers={"Retry-After": "7"}))
    assert isinstance(limited, RateLimited)
    assert limited.retry_after == 7.0


async def test_a_redirect_is_a_failure_that_says_so(clients: http.Clients) -> None:
    found = await failure_of(clients, Reply(302, headers={"Location": "http://127.0.0.1:1/secret"}))
    assert isinstance(found, Permanent)
    assert found.problem == "answered 302, a redirect, which is not followed; use the final address"


async def test_a_redirect_to_another_host_refuses_every_request(clients: http.Clients) -> None:
    away = await failure_of(clients, Reply(302, headers={"Location": "http://login.invalid/?of=us"}))
    assert isinstance(away, Refused)
    assert away.problem == "answered 302 Found, to another host, as to a login; check the address and the credentials"


async def test_redirects_are_followed_where_asked_for(clients: http.Clients) -> None:
    async with EnrichmentServer([Reply(307, headers={"Location": "/else?where"}), Reply(body=b"here")]) as server:
        reply = await get(clients, server.url, redirects=1)
    assert reply.body == b"here"
    assert server.requests[1].path == "/else?where"


async def test_redirects_that_do_not_end_are_given_up(clients: http.Clients) -> None:
    async with EnrichmentServer(then=Reply(302, headers={"Location": "/again"})) as server:
        endless = await failure(clients, server.url, redirects=5)
    assert isinstance(endless, Permanent)
    assert len(server.requests) == 6


@pytest.mark.parametrize("location", ["ftp://127.0.0.1/x", "file:///etc/hosts"])
async def test_a_redirect_away_from_http_is_not_followed(clients: http.Clients, location: str) -> None:
    async with EnrichmentServer(then=Reply(302, headers={"Location": location})) as server:
        refused = await failure(clients, server.url, redirects=5)
    assert isinstance(refused, Permanent)
    assert "neither http nor https" in refused.problem


async def test_the_body_of_a_redirect_is_not_read_whole(clients: http.Clients) -> None:
    bomb = gzip.compress(bytes(8 * MIB))
    away = Reply(302, body=bomb, headers={"Location": "/else", "Content-Encoding": "gzip"})
    async with EnrichmentServer([away, Reply(body=b"here")]) as server:
        reply = await get(clients, server.url, redirects=1, max_bytes=100)
    assert reply.body == b"here"


async def test_a_refused_connection_is_transient(clients: http.Clients) -> None:
    async with EnrichmentServer() as server:
        server.down("refuse")
        refused = await failure(clients, server.url)
    assert isinstance(refused, Transient)
    assert refused.problem == "the connection was refused"


async def test_a_reset_connection_is_transient(clients: http.Clients) -> None:
    reset = await failure_of(clients, "reset")
    assert isinstance(reset, Transient)
    assert "broke off" in reset.problem


async def test_half_a_body_is_transient(clients: http.Clients) -> None:
    half = await failure_of(clients, Reply(body=b'{"name": "Norwich"}', cut=9))
    assert isinstance(half, Transient)
    assert "broke off" in half.problem


async def test_a_host_that_does_not_exist_is_named_as_such(clients: http.Clients) -> None:
    unknown = await failure(clients, "http://no-such-host.invalid/")
    assert isinstance(unknown, Transient)
    assert unknown.problem == "no host has this name"


async def test_what_is_not_http_is_transient(clients: http.Clients) -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        spoken = await failure(clients, f"http://127.0.0.1:{port}/")
    assert isinstance(spoken, Transient)


async def test_silence_is_transient() -> None:
    clients = http.Clients(timeout=0.05)
    silent = await failure_of(clients, "hang")
    await clients.aclose()
    assert isinstance(silent, Transient)
    assert silent.problem == "no answer in time"


async def test_a_body_over_the_limit_is_not_read_to_its_end(clients: http.Clients) -> None:
    async with EnrichmentServer(then=Reply(body=b"x" * 1001)) as server:
        with pytest.raises(http.BodyTooLargeError):
            await get(clients, server.url, max_bytes=1000)
        assert len((await get(clients, server.url, max_bytes=1001)).body) == 1001


async def test_a_body_that_says_it_is_too_large_is_not_waited_for(clients: http.Clients) -> None:
    endless = Reply(body=b"", headers={"Content-Length": str(10**15)}, cut=0)
    assert "larger than 1000 bytes" in (await failure_of(clients, endless, max_bytes=1000)).problem


async def test_a_body_without_a_length_is_limited_as_well(clients: http.Clients) -> None:
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (5000, b"x" * 5000)
    chunked = Reply(body=chunks, headers={"Transfer-Encoding": "chunked", "Content-Length": None})
    async with EnrichmentServer(then=chunked) as server:
        assert len((await get(clients, server.url, max_bytes=5000)).body) == 5000
        with pytest.raises(http.BodyTooLargeError):
            await get(clients, server.url, max_bytes=4999)


async def test_compressed_bodies_are_expanded(clients: http.Clients) -> None:
    packed = gzip.compress(b"one ", mtime=0) + gzip.compress(b"two")
    async with EnrichmentServer([Reply(body=packed, headers={"Content-Encoding": "gzip"})]) as server:
        assert (await get(clients, server.url)).body == b"one two"
        assert server.requests[0].headers["accept-encoding"] == "gzip"


async def test_a_compression_bomb_is_not_expanded(clients: http.Clients) -> None:
    bomb = gzip.compress(bytes(64 * MIB))
    async with EnrichmentServer(then=Reply(body=bomb, headers={"Content-Encoding": "gzip"})) as server:
        tracemalloc.start()
        exploded = await failure(clients, server.url, max_bytes=MIB)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert isinstance(exploded, Transient)
    assert "larger" in exploded.problem
    assert peak < 10 * MIB


async def test_what_expands_to_nothing_is_not_read_without_end(clients: http.Clients) -> None:
    nothing = gzip.compress(b"") * 1000
    headers: dict[str, str | None] = {"Content-Encoding": "gzip", "Content-Length": None}
    async with EnrichmentServer(then=Reply(body=nothing, headers=headers)) as server:
        assert "larger" in (await failure(clients, server.url, max_bytes=1000)).problem


@pytest.mark.parametrize(
    ("encoding", "body", "problem"),
    [
        ("gzip", gzip.compress(b"x" * 5000, mtime=0)[:-9], "cut off"),
        ("gzip", b"no gzip at all", "not the gzip"),
        ("br", b"whatever", "another method"),
        ("gzip, gzip", b"whatever", "another method"),
    ],
)
async def test_a_body_that_cannot_be_expanded_is_unusable(
    clients: http.Clients, encoding: str, body: bytes, problem: str
) -> None:
    broken = await failure_of(clients, Reply(body=body, headers={"Content-Encoding": encoding}))
    assert isinstance(broken, Transient)
    assert problem in broken.problem


@given(st.lists(st.binary(max_size=3000), max_size=4), st.integers(1, 50), st.integers(0, 12_000))
def test_gunzip_gives_the_beginning_of_what_was_packed(members: list[bytes], piece: int, limit: int) -> None:
    packed, whole = b"".join(map(gzip.compress, members)), b"".join(members)
    gunzip, found = http._Gunzip(), b""
    for start in range(0, len(packed), piece):
        found += gunzip.feed(packed[start : start + piece], limit + 1 - len(found))
        if len(found) > limit:
            break
    assert found == whole[: limit + 1]
    if len(whole) <= limit:
        assert gunzip.is_complete


def test_gunzip_notices_a_missing_end() -> None:
    gunzip = http._Gunzip()
    gunzip.feed(zlib.compress(b"x" * 100, wbits=31)[:-1], 1000)
    assert not gunzip.is_complete


async def test_a_connection_is_used_again_after_an_error(clients: http.Clients) -> None:
    ports: list[tuple[str, int]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ports.append(writer.get_extra_info("peername"))
        for _ in range(2):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 404 No\r\nContent-Length: 4\r\n\r\nnone")
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        await failure(clients, url)
        await failure(clients, url)
    assert len(ports) == 1


async def test_other_exceptions_are_no_failures_of_the_service() -> None:
    classify = http.classify("api", ManualClock())
    assert classify(KeyError("bug")) is None
    assert classify(asyncio.CancelledError()) is None


class Observer(httpx.AsyncBaseTransport):
    """Notes the OpenTelemetry context of a request, as an instrumentation of httpx would see it."""

    def __init__(self) -> None:
        self.suppressed: list[object] = []
        self.sent: list[httpx.Headers] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.suppressed.append(context.get_value(context._SUPPRESS_HTTP_INSTRUMENTATION_KEY))
        self.sent.append(request.headers)
        return httpx.Response(200, stream=httpx.ByteStream(b"{}"))


async def test_other_instrumentation_is_suppressed_within_an_exchange_only() -> None:
    observer = Observer()
    clients = http.Clients(timeout=1.0, transport=observer)
    await get(clients, "http://api.example/")
    await clients.aclose()
    assert observer.suppressed == [True]
    assert context.get_value(context._SUPPRESS_HTTP_INSTRUMENTATION_KEY) is None


async def test_the_trace_goes_on_at_the_server_where_that_is_wanted() -> None:
    observer = Observer()
    clients = http.Clients(timeout=1.0, transport=observer)
    parent = trace.NonRecordingSpan(trace.SpanContext(1, 2, False, trace.TraceFlags(1)))
    with trace.use_span(parent):
        await get(clients, "http://api.example/", traced=True)
        await get(clients, "http://api.example/")
    await clients.aclose()
    carried = [trace.get_current_span(propagate.extract(sent)).get_span_context().trace_id for sent in observer.sent]
    assert carried == [1, 0]


async def test_addresses_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    caplog.set_level(logging.INFO, logger="httpx")
    clients = http.Clients(timeout=1.0, transport=Observer())
    await get(clients, "http://api.example/?key=s3cret")
    assert "s3cret" not in caplog.text
    async with clients.lent() as client:
        await client.get("http://api.example/?by=others")
    assert "by=others" in caplog.text
    await clients.aclose()


async def test_an_api_cannot_leave_cookies_behind(clients: http.Clients) -> None:
    async with EnrichmentServer(then=Reply(headers={"Set-Cookie": "who=you; Path=/"})) as server:
        await get(clients, server.url)
        await get(clients, server.url)
    assert "cookie" not in server.requests[1].headers


def test_each_event_loop_has_its_clients_which_close_with_it() -> None:
    clients = http.Clients(timeout=5.0)
    seen: list[httpx.AsyncClient] = []

    async def use(url: str) -> None:
        async with clients.lent() as client:
            seen.append(client)
        async with clients.lent() as client:
            assert client is seen[-1]
        assert (await get(clients, url)).status == 200

    with EnrichmentServer() as server:
        for _ in range(3):
            asyncio.run(use(server.url))
    assert len({id(client) for client in seen}) == 3
    assert all(client.is_closed for client in seen)


async def test_requests_at_the_same_time_have_a_client_each_and_later_ones_the_same() -> None:
    clients = http.Clients(timeout=5.0, connections=2)
    async with clients.lent() as first, clients.lent() as second, clients.lent() as third:
        assert len({id(client) for client in (first, second, third)}) == 3
    assert [client.is_closed for client in (first, second, third)] == [False, False, True], "two are kept"
    async with clients.lent() as again:
        assert again is first, "the one that was used last"
    await clients.aclose()


async def test_a_connection_that_was_not_used_for_long_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    clients = http.Clients(timeout=5.0)
    async with clients.lent() as first, clients.lent() as second:
        pass
    monkeypatch.setattr(http, "_KEPT_IDLE", -1.0)
    async with clients.lent() as again:
        assert again is first
    assert second.is_closed
    await clients.aclose()


async def test_clients_that_were_closed_are_replaced() -> None:
    clients = http.Clients(timeout=5.0)
    async with clients.lent() as first:
        await clients.aclose()
        await clients.aclose()
        assert not first.is_closed, "its request goes on"
    assert first.is_closed
    async with clients.lent() as second:
        assert second is not first
    assert not second.is_closed
    await clients.aclose()


@pytest.fixture(autouse=True)
def _direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reach the loopback servers directly, whatever proxy this machine has."""
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.mark.parametrize(
    ("variable", "value", "way_out"),
    [
        ("all_proxy", "socks5://user:secret@127.0.0.1:1", r"pip install 'httpx\[socks\]'"),
        ("HTTP_PROXY", "ftp://user:secret@x", "give http://HOST:PORT"),
        ("https_proxy", "http://x:secret", "give http://HOST:PORT"),
    ],
)
async def test_a_proxy_that_cannot_be_used_is_named_by_its_variable(
    clients: http.Clients, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, way_out: str
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=f"{variable}.*cannot be used.*{way_out}") as caught:
        await get(clients, "http://127.0.0.1:1/")
    assert "secret" not in str(caught.value)
