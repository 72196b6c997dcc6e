from __future__ import annotations

import asyncio
import datetime as dt
import ssl
from ipaddress import ip_address
from pathlib import Path

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from infra.egress import Egress, EgressPolicy
from schemas.errors import BlockedTarget, CallFailed, Unavailable
from tests.infra.names import FixedNames
from tests.infra.raw_server import Exchange, RawServer, raw_server

NAMES = FixedNames(
    {"good.example": ["127.0.0.1"], "other.example": ["127.0.0.1"], "bad.example": ["10.0.0.1"]}
)


async def ok(exchange: Exchange) -> None:
    """Answer 200."""
    await exchange.reply(200, b"hello")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for good.example and 127.0.0.1 that is its own authority, with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "good.example")])
    now = dt.datetime.now(dt.UTC)
    names = [x509.DNSName("good.example"), x509.IPAddress(ip_address("127.0.0.1"))]
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    path.write_bytes(
        built.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return path


@pytest.fixture
def server_tls(certificate: Path) -> ssl.SSLContext:
    """The server's side."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
def client_tls(certificate: Path) -> ssl.SSLContext:
    """The client's side, trusting that one authority."""
    return ssl.create_default_context(cafile=str(certificate))


async def test_tls_verifies_the_name(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    """The connection goes to the address, and TLS still verifies the host's name."""
    policy = EgressPolicy.parse("127.0.0.1:*", https_only=True)
    async with (
        raw_server(ok, tls=server_tls) as server,
        Egress(policy, resolver=NAMES, tls=client_tls) as egress,
    ):
        assert 200 == (await egress.request("GET", f"https://good.example:{server.port}/")).status
        assert 200 == (await egress.request("GET", f"https://127.0.0.1:{server.port}/")).status
        with pytest.raises(CallFailed, match=r"other\.example") as caught:
            await egress.request("GET", f"https://other.example:{server.port}/")
    assert "tls" == caught.value.field
    assert 2 == len(server.heads)


async def test_unknown_authority(server_tls: ssl.SSLContext) -> None:
    """A certificate that nobody vouches for is refused, and nothing is sent."""
    async with (
        raw_server(ok, tls=server_tls) as server,
        Egress(EgressPolicy.parse("127.0.0.1:*"), resolver=NAMES) as egress,
    ):
        with pytest.raises(CallFailed) as caught:
            await egress.request("GET", f"https://good.example:{server.port}/")
    assert "tls" == caught.value.field
    assert [] == server.heads


def test_verification_cannot_be_switched_off() -> None:
    """A TLS context that does not verify is refused."""
    context = ssl.create_default_context()
    context.check_hostname = False
    with pytest.raises(ValueError, match="verified"):
        Egress(EgressPolicy.parse(), tls=context)


async def connect(exchange: Exchange) -> None:
    """Be a CONNECT proxy: join the two ends until either hangs up."""
    _, target, _ = exchange.head.split("\r\n")[0].split(" ")
    host, _, port = target.rpartition(":")
    reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    await exchange.say(b"HTTP/1.1 200 Connected\r\n\r\n")

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
        sink.close()

    try:
        await asyncio.gather(pump(exchange.reader, writer), pump(reader, exchange.writer))
    finally:
        writer.close()
        await writer.wait_closed()


def through(server: RawServer, proxy: RawServer) -> EgressPolicy:
    """A policy that allows the server and goes through the proxy."""
    return EgressPolicy.parse(f"127.0.0.1:{server.port}", proxy=f"http://u:p@127.0.0.1:{proxy.port}")


async def test_proxy_gets_the_checked_address(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    """The proxy is told the address that was checked, so that it cannot resolve the name to another one."""
    async with (
        raw_server(ok, tls=server_tls) as server,
        raw_server(connect) as proxy,
        Egress(through(server, proxy), resolver=NAMES, tls=client_tls) as egress,
    ):
        reply = await egress.request("GET", f"https://good.example:{server.port}/x")
    assert b"hello" == reply.body
    assert proxy.heads[0].startswith(f"CONNECT 127.0.0.1:{server.port} HTTP/1.1\r\n")
    assert "Proxy-Authorization: Basic dTpw\r\n" in proxy.heads[0]
    assert "Proxy-Authorization" not in server.heads[0]
    assert f"Host: good.example:{server.port}\r\n" in server.heads[0]


async def test_plain_http_goes_through_the_tunnel() -> None:
    """Plain http takes the tunnel too."""
    async with (
        raw_server(ok) as server,
        raw_server(connect) as proxy,
        Egress(through(server, proxy), resolver=NAMES) as egress,
    ):
        await egress.request("GET", f"http://good.example:{server.port}/x")
    assert [True, False] == [proxy.heads[0].startswith("CONNECT"), server.heads[0].startswith("CONNECT")]


async def test_proxy_never_hears_of_a_forbidden_target() -> None:
    """The guard stands before the proxy."""
    async with (
        raw_server(ok) as server,
        raw_server(connect) as proxy,
        Egress(through(server, proxy), resolver=NAMES) as egress,
    ):
        with pytest.raises(BlockedTarget):
            await egress.request("GET", "http://bad.example/")
    assert 0 == proxy.connections


@pytest.mark.parametrize(
    ("raw", "error", "field"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", Unavailable, "PENSTOCK_EGRESS_PROXY"),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", Unavailable, "PENSTOCK_EGRESS_PROXY"),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", CallFailed, "connect"),
        (b"nonsense\r\n\r\n", Unavailable, "PENSTOCK_EGRESS_PROXY"),
        (b"", Unavailable, "PENSTOCK_EGRESS_PROXY"),
        (b"HTTP/1.1 200 " + b"x" * 20_000, Unavailable, "PENSTOCK_EGRESS_PROXY"),
    ],
)
async def test_proxy_faults_are_ours(raw: bytes, error: type[CallFailed | Unavailable], field: str) -> None:
    """A proxy that refuses us is our fault; one that cannot reach the target reports the target's."""

    async def refuse(exchange: Exchange) -> None:
        await exchange.say(raw)
        exchange.writer.close()

    async with (
        raw_server(ok) as server,
        raw_server(refuse) as proxy,
        Egress(through(server, proxy), resolver=NAMES) as egress,
    ):
        with pytest.raises(error) as caught:
            await egress.request("GET", f"http://good.example:{server.port}/x")
    assert field == caught.value.field
    assert 0 == server.connections


async def test_silent_proxy_is_our_fault() -> None:
    """A proxy that does not answer within the deadline, or does not listen, is our fault."""

    async def silent(exchange: Exchange) -> None:
        await exchange.reader.read()

    async with (
        raw_server(ok) as server,
        raw_server(silent) as proxy,
        Egress(through(server, proxy), resolver=NAMES) as egress,
    ):
        with pytest.raises(Unavailable) as caught:
            await egress.request("GET", f"http://good.example:{server.port}/x", timeout=0.2)
        assert "PENSTOCK_EGRESS_PROXY" == caught.value.field
    gone = through(server, RawServer(port=1))
    async with Egress(gone, resolver=NAMES) as egress:
        with pytest.raises(Unavailable):
            await egress.request("GET", f"http://good.example:{server.port}/x")


async def test_production_loop(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    """On uvloop, on which workers run, plain http, TLS, a tunnel, a bad name and a refusal end as they do here."""

    async def all_of_it() -> list[object]:
        found: list[object] = []
        async with (
            raw_server(ok) as plain,
            raw_server(ok, tls=server_tls) as server,
            raw_server(connect) as proxy,
        ):
            policy = EgressPolicy.parse("127.0.0.1:*")
            async with Egress(policy, resolver=NAMES, tls=client_tls) as egress:
                for _ in range(2):
                    for url in (f"http://127.0.0.1:{plain.port}/", f"https://good.example:{server.port}/"):
                        found.append((await egress.request("POST", url, content=b"x" * 200_000)).body)  # noqa: PERF401
                for url in (f"https://other.example:{server.port}/", "http://127.0.0.1:1/"):
                    with pytest.raises(CallFailed) as caught:
                        await egress.request("GET", url)
                    found.append(caught.value.field)
            async with Egress(through(server, proxy), resolver=NAMES, tls=client_tls) as egress:
                found.append((await egress.request("GET", f"https://good.example:{server.port}/")).body)
        return [*found, plain.connections]

    def on_uvloop() -> list[object]:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(all_of_it())

    assert [*[b"hello"] * 4, "tls", "connect", b"hello", 1] == await asyncio.to_thread(on_uvloop)
