"""Downloads by URLs that nobody vouches for: which addresses they may lead to, and what they may cost."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import example, given
from hypothesis import strategies as st

from tidegate.errors import DocumentError, DocumentTooLarge, EmptyDocument, SettingsError, SourceUnavailable
from tidegate.resilience.faults import FaultyServer, Request
from tidegate.resilience.faults.behaviours import Reply
from tidegate.services.addresses import is_allowed, is_disguised, is_public, networks
from tidegate.services.fetching import Fetcher, shown_url
from tidegate.triggers.messages import may_pass

LOOPBACK = networks(["127.0.0.0/8", "::1"])
PUBLIC = "93.184.215.14"


def port_of(server: FaultyServer) -> int:
    return int(server.url.rpartition(":")[2].partition("/")[0])


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer(answer=lambda _: {"text": "hello"}) as started:
        yield started


async def refused(url: str, **options: object) -> DocumentError:
    with pytest.raises(DocumentError) as raised:
        await Fetcher(max_bytes=1000, **options).fetch(url)  # type: ignore[arg-type]  # as given by the test
    return raised.value


async def test_a_document_of_an_allowed_network_is_downloaded(server: FaultyServer) -> None:
    loaded = await Fetcher(max_bytes=1000, allowed=LOOPBACK).fetch(f"{server.url}/a.json?key=1#part")
    assert b"hello" in loaded.data
    assert loaded.source == f"{server.url}/a.json"
    assert server.requests[0].headers["host"].startswith("127.0.0.1")


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "017700000001",
        "0",
        "0.0.0.0",  # noqa: S104
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "[fe80::1]",
        "[fd00::1]",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "localhost",
    ],
)
async def test_no_form_of_an_inner_address_is_asked(server: FaultyServer, host: str) -> None:
    error = await refused(f"http://{host}:{port_of(server)}/")
    assert isinstance(error, SourceUnavailable)
    assert not server.requests


async def test_a_name_whose_dns_leads_inside_is_refused(server: FaultyServer) -> None:
    async def inside(_: str, __: int) -> list[str]:
        return ["127.0.0.1"]

    error = await refused(f"http://documents.example:{port_of(server)}/", resolve=inside)
    assert "not public" in str(error)
    assert not server.requests


async def test_a_name_with_one_inner_address_among_public_ones_is_refused() -> None:
    async def mixed(_: str, __: int) -> list[str]:
        return [PUBLIC, "10.0.0.1"]

    assert "not public" in str(await refused("http://documents.example/", resolve=mixed))


async def test_a_name_that_leads_elsewhere_a_moment_later_is_asked_at_the_address_that_was_checked(
    server: FaultyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: the first answer may be asked, all others lead inside."""
    asked: list[str] = []
    inner = await asyncio.start_server(lambda *_: asked.append("inside"), "127.0.0.2", 0)
    monkeypatch.setattr(socket, "getaddrinfo", rebound := Rebound(["127.0.0.1", "127.0.0.2"], socket.getaddrinfo))
    async with inner:
        url = f"http://documents.example:{port_of(server)}/"
        loaded = await Fetcher(max_bytes=1000, allowed=networks(["127.0.0.1"])).fetch(url)
    assert loaded.data
    assert rebound.names == ["documents.example"], "it was looked up once, and never by the connection"
    assert server.requests[0].headers["host"] == f"documents.example:{port_of(server)}"
    assert not asked


class Rebound:
    """Answers look-ups of one name with each address in turn; addresses are what they are."""

    def __init__(self, addresses: Sequence[str], real: Callable[..., Any]) -> None:
        self._addresses = iter(addresses)
        self._real = real
        self.names: list[str] = []

    def __call__(self, host: str, *arguments: object, **options: object) -> Any:
        if host == "documents.example":
            self.names.append(host)
            host = next(self._addresses)
        return self._real(host, *arguments, **options)


async def test_a_redirect_that_leads_inside_is_refused() -> None:
    def lead(request: Request) -> Reply:
        return Reply(status=302, headers={"Location": "http://169.254.169.254/latest/meta-data/"})

    with FaultyServer(lead) as leading:
        error = await refused(f"{leading.url}/", allowed=networks(["127.0.0.1"]))
    assert "not public" in str(error)


async def test_a_redirect_by_name_is_looked_up_and_checked_too() -> None:
    names: list[str] = []

    async def resolve(host: str, _: int) -> list[str]:
        names.append(host)
        return ["127.0.0.1"] if host == "outside.example" else ["10.1.2.3"]

    def lead(request: Request) -> Reply:
        return Reply(status=301, headers={"Location": "http://inside.example/"})

    with FaultyServer(lead) as leading:
        url = f"http://outside.example:{port_of(leading)}/"
        error = await refused(url, allowed=networks(["127.0.0.1"]), resolve=resolve)
    assert names == ["outside.example", "inside.example"]
    assert "not public" in str(error)


async def test_redirects_are_followed_five_times() -> None:
    def lead(request: Request) -> Reply | int:
        number = int(request.path.rpartition("/")[2])
        return Reply(status=307, headers={"Location": f"/{number - 1}"}) if number else 200

    with FaultyServer(lead, answer=lambda _: {"text": "at last"}) as leading:
        fetcher = Fetcher(max_bytes=1000, allowed=LOOPBACK)
        assert b"at last" in (await fetcher.fetch(f"{leading.url}/5")).data
        with pytest.raises(SourceUnavailable, match="more than 5 times"):
            await fetcher.fetch(f"{leading.url}/6")


@pytest.mark.parametrize("location", ["file:///etc/passwd", "http://a:b@127.0.0.1/", "http://[", "gopher://x/"])
async def test_a_redirect_to_what_is_no_web_address_is_refused(location: str) -> None:
    with FaultyServer(lambda _: Reply(status=302, headers={"Location": location})) as leading:
        assert isinstance(await refused(f"{leading.url}/", allowed=LOOPBACK), SourceUnavailable)


async def test_other_ports_than_the_webs_are_for_allowed_networks_alone() -> None:
    async def public(_: str, __: int) -> list[str]:
        return [PUBLIC]

    error = await refused("http://documents.example:6379/", resolve=public)
    assert "port" in str(error)


@pytest.mark.parametrize(
    "url",
    ["", "a", "//example.org", "ftp://example.org/", "http://", "http://a:b@example.org/", "http://" + "a" * 5000],
)
async def test_what_is_no_web_address_is_refused_without_quoting_secrets(url: str) -> None:
    error = await refused(url)
    assert isinstance(error, SourceUnavailable)
    assert "a:b" not in str(error)


async def test_a_document_that_is_too_large_is_not_read_to_its_end(server: FaultyServer) -> None:
    with FaultyServer(answer=lambda _: {"text": "a" * 5000}) as large, pytest.raises(DocumentTooLarge):
        await Fetcher(max_bytes=1000, allowed=LOOPBACK).fetch(large.url)


async def test_a_document_that_comes_in_drops_is_cut_off_in_the_time_for_all_of_it() -> None:
    with FaultyServer(lambda _: Reply(json={"text": "a" * 500}, every=0.02)) as dripping:
        error = await refused(f"{dripping.url}/", allowed=LOOPBACK, seconds=0.3)
    assert "did not come in 0.3 s" in str(error)
    assert may_pass(error)


@pytest.mark.parametrize(("status", "passes"), [(404, False), (410, False), (401, False), (503, True), (429, True)])
async def test_what_is_not_there_says_whether_it_may_be_later(status: int, passes: bool) -> None:
    with FaultyServer(lambda _: status) as failing:
        error = await refused(f"{failing.url}/", allowed=LOOPBACK)
    assert isinstance(error, SourceUnavailable)
    assert may_pass(error) is passes


async def test_an_empty_document_is_said_to_be_empty() -> None:
    async def empty(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    nothing = await asyncio.start_server(empty, "127.0.0.1", 0)
    async with nothing:
        url = f"http://127.0.0.1:{nothing.sockets[0].getsockname()[1]}/"
        assert isinstance(await refused(url, allowed=LOOPBACK), EmptyDocument)


async def test_no_proxy_of_the_environment_is_used(server: FaultyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert (await Fetcher(max_bytes=1000, allowed=LOOPBACK).fetch(server.url)).data


async def test_hosts_whose_dns_does_not_answer_hold_up_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = threading.Event()

    def hanging(*_: object, **__: object) -> list[Any]:
        answers.wait(20.0)
        raise socket.gaierror(socket.EAI_AGAIN, "no answer")

    monkeypatch.setattr(socket, "getaddrinfo", hanging)
    fetcher = Fetcher(max_bytes=1000, at_once=40)
    fetching = [asyncio.create_task(fetcher.fetch(f"http://h{number}.example/")) for number in range(40)]
    try:
        await asyncio.sleep(0)
        async with asyncio.timeout(10.0):
            await asyncio.to_thread(int)  # more than the 32 threads of asyncio at most are asked for
    finally:
        answers.set()
    assert {type(each) for each in await asyncio.gather(*fetching, return_exceptions=True)} == {SourceUnavailable}


async def test_the_next_address_is_asked_where_one_cannot_be_reached(server: FaultyServer) -> None:
    async def two(_: str, __: int) -> list[str]:
        return ["127.0.0.3", "127.0.0.1"]

    url = f"http://documents.example:{port_of(server)}/"
    assert (await Fetcher(max_bytes=1000, allowed=LOOPBACK, resolve=two).fetch(url)).data


class TlsServer:
    """Answers over TLS with a certificate for one name, and notes the names that it was asked for."""

    def __init__(self, folder: Path, name: str) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .sign(key, hashes.SHA256())
        )
        encoding = serialization.Encoding.PEM
        (folder / "certificate").write_bytes(certificate.public_bytes(encoding))
        no_password = serialization.NoEncryption()
        (folder / "key").write_bytes(key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, no_password))
        self.trusting = ssl.create_default_context(cafile=str(folder / "certificate"))
        self.names: list[str | None] = []
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(folder / "certificate", folder / "key")
        self._context.sni_callback = lambda _, asked, __: self.names.append(asked)

    async def start(self) -> asyncio.Server:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
            await writer.drain()
            writer.close()
            await writer.wait_closed()

        return await asyncio.start_server(answer, "127.0.0.1", 0, ssl=self._context)


@pytest.mark.parametrize("name", ["documents.example", "others.example"])
async def test_the_certificate_is_checked_for_the_name_and_not_for_the_address(tmp_path: Path, name: str) -> None:
    async def here(_: str, __: int) -> list[str]:
        return ["127.0.0.1"]

    tls = TlsServer(tmp_path, name)
    server = await tls.start()
    async with server:
        url = f"https://documents.example:{server.sockets[0].getsockname()[1]}/a.txt"
        fetcher = Fetcher(max_bytes=1000, allowed=LOOPBACK, resolve=here, tls=tls.trusting)
        if name == "documents.example":
            assert (await fetcher.fetch(url)).data == b"hello"
        else:
            with pytest.raises(SourceUnavailable):
                await fetcher.fetch(url)
    assert tls.names == ["documents.example"]


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("1.1.1.1", True),
        ("2606:4700::1111", True),
        ("2001:4860:4860::8888", True),
        ("::ffff:8.8.8.8", True),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::808:808", False),
        ("64:ff9b:1::1", False),
        ("2002:808:808::", False),
        ("2001::1", False),
        ("2001:db8::1", False),
        ("::8.8.8.8", False),
        ("100::1", False),
        ("ff02::1", False),
        ("fec0::1", False),
        ("2606:4700::1111%eth0", False),
        ("192.0.2.1", False),
        ("198.18.0.1", False),
        ("100.127.255.255", False),
        ("240.0.0.1", False),
    ],
)
def test_which_addresses_are_public(address: str, public: bool) -> None:
    assert is_public(ipaddress.ip_address(address)) is public


@given(st.ip_addresses(v=4))
@example(ipaddress.IPv4Address("192.88.99.1"))
def test_no_public_address_is_one_that_python_calls_private(address: ipaddress.IPv4Address) -> None:
    if is_public(address):
        assert address.is_global
        assert not any((address.is_private, address.is_multicast, address.is_reserved, address.is_loopback))


@given(st.ip_addresses(v=6))
@example(ipaddress.IPv6Address("2002:7f00:1::"))
@example(ipaddress.IPv6Address("64:ff9b::a00:1"))
def test_no_public_address_of_ipv6_is_local_or_holds_one_of_ipv4(address: ipaddress.IPv6Address) -> None:
    if is_public(address) and address.ipv4_mapped is None:
        assert address in ipaddress.IPv6Network("2000::/3")
        assert address.sixtofour is None
        assert address.teredo is None
        assert not any((address.is_link_local, address.is_multicast, address.is_loopback, address.is_site_local))


@given(st.ip_addresses(v=4))
def test_an_address_of_ipv4_inside_of_ipv6_is_judged_as_what_it_is(address: ipaddress.IPv4Address) -> None:
    mapped = ipaddress.IPv6Address(f"::ffff:{address}")
    assert is_public(mapped) is is_public(address)
    assert is_allowed(mapped, networks(["10.0.0.0/8"])) is is_allowed(address, networks(["10.0.0.0/8"]))
    for prefix in ("64:ff9b::", "::"):
        assert not is_public(ipaddress.IPv6Address(f"{prefix}{address}"))


@given(st.ip_addresses(v=4))
def test_four_decimal_numbers_are_an_address_and_every_other_form_is_disguised(address: ipaddress.IPv4Address) -> None:
    number = int(address)
    assert not is_disguised(str(address))
    for form in (f"{number}", f"{number:#x}", f"0{number:o}", f"{number >> 24}.{number & 0xFFFFFF}", f"{address}."):
        assert is_disguised(form)


@pytest.mark.parametrize("host", ["example.org", "1.example.org", "a1", "0x.example", "face.book", "::1"])
def test_a_name_is_no_disguised_address(host: str) -> None:
    assert not is_disguised(host)


@pytest.mark.parametrize("network", ["10.0.0.1/8", "nonsense", "10.0.0.0/33", ""])
def test_a_network_that_is_none_is_a_wrong_setting(network: str) -> None:
    with pytest.raises(SettingsError, match=r"serve\.allow_networks"):
        networks([network])


def test_a_url_is_shown_without_what_may_be_secret() -> None:
    assert shown_url("https://user:word@example.org/a/b.pdf?token=1#x") == "https://example.org/a/b.pdf"
    assert "word" not in shown_url("http://user:word@[/")
