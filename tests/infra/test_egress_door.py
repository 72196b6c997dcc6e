from __future__ import annotations

import asyncio
import errno

import httpcore2
import pytest

from infra.egress import Egress, EgressPolicy
from infra.egress.dial import GuardedBackend, _refused
from schemas.errors import BadInput, BlockedTarget, CallFailed, TooLarge, Unavailable, Unreadable
from tests.infra.names import FixedNames
from tests.infra.raw_server import Exchange, raw_server

LOOPBACK = EgressPolicy.parse("127.0.0.0/8:*,[::1]:*")


async def ok(exchange: Exchange) -> None:
    """Answer 200 with the length of what came."""
    await exchange.reply(200, str(len(exchange.body)).encode(), content_type="text/plain")


async def silent(exchange: Exchange) -> None:
    """Never answer."""
    await exchange.reader.read()


async def dripping(exchange: Exchange) -> None:
    """Answer at once, then one byte at a time, for ever."""
    await exchange.say(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while True:
        await exchange.say(b"x")
        await asyncio.sleep(0.01)


async def endless(exchange: Exchange) -> None:
    """Answer with a body that never ends."""
    await exchange.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        await exchange.say(b"1000\r\n" + b"x" * 4096 + b"\r\n")


async def test_request_arrives_as_written() -> None:
    """Method, target, Host, own headers and the body's bytes arrive unchanged, and the connection is kept."""
    async with (
        raw_server(ok) as server,
        Egress(LOOPBACK, resolver=FixedNames({"good.example": ["127.0.0.1"]})) as egress,
    ):
        url = f"http://good.example:{server.port}/hook?x=%20y"
        reply = await egress.request("POST", url, headers={"X-Own": "ü"}, content=b"\x00\xff")
        await egress.request("POST", url, content=b"again")
    assert (200, b"2", False) == (reply.status, reply.body, reply.truncated)
    assert {"content-type": "text/plain", "content-length": "1"} == dict(reply.headers)
    assert [b"\x00\xff", b"again"] == server.bodies
    assert server.heads[0].startswith("POST /hook?x=%20y HTTP/1.1\r\n")
    assert f"Host: good.example:{server.port}\r\n" in server.heads[0]
    assert "X-Own: ü\r\n" in server.heads[0]
    assert 1 == server.connections


async def test_rebinding_between_check_and_connect() -> None:
    """A name that is public when it is checked and private a moment later is never connected to at the second."""
    names = FixedNames({"rebind.example": [["127.0.0.2"], ["127.0.0.1"]]})
    async with raw_server(ok) as server:
        policy = EgressPolicy.parse("127.0.0.2:*")
        async with Egress(policy, resolver=names) as egress:
            with pytest.raises(CallFailed, match="refused"):
                await egress.request("GET", f"http://rebind.example:{server.port}/")
            assert ["rebind.example"] == names.asked
            with pytest.raises(BlockedTarget):
                await egress.request("GET", f"http://rebind.example:{server.port}/")
    assert 0 == server.connections


async def test_kept_connection_is_the_checked_one() -> None:
    """A connection that was checked when it was opened serves later requests without asking the names again."""
    names = FixedNames({"rebind.example": [["127.0.0.1"], ["10.0.0.1"]]})
    async with raw_server(ok) as server, Egress(LOOPBACK, resolver=names) as egress:
        for _ in range(3):
            assert 200 == (await egress.request("GET", f"http://rebind.example:{server.port}/")).status
    assert ["rebind.example"] == names.asked


async def test_a_connection_that_was_hung_up_is_not_reused() -> None:
    """A kept connection that the other side closed is noticed, and the next request opens another one."""
    closed = asyncio.Event()

    async def leaving(exchange: Exchange) -> None:
        await exchange.reply(200)
        exchange.writer.close()
        await exchange.writer.wait_closed()
        closed.set()

    async with raw_server(leaving) as server, Egress(LOOPBACK) as egress:
        await egress.request("GET", f"http://127.0.0.1:{server.port}/")
        await closed.wait()
        assert 200 == (await egress.request("GET", f"http://127.0.0.1:{server.port}/")).status
    assert 2 == server.connections


async def test_one_forbidden_answer_blocks_the_name() -> None:
    """A name with a permitted and a forbidden address is not connected to at all, and the error names neither."""
    names = FixedNames({"mixed.example": ["127.0.0.1", "10.9.8.7"]})
    async with raw_server(ok) as server, Egress(LOOPBACK, resolver=names) as egress:
        with pytest.raises(BlockedTarget) as caught:
            await egress.request("GET", f"http://mixed.example:{server.port}/")
    assert 0 == server.connections
    assert "10.9.8.7" not in str(caught.value.as_dict())


async def test_second_address_is_tried() -> None:
    """Where the first checked address does not answer, the next one is tried."""
    names = FixedNames({"two.example": ["127.0.0.3", "127.0.0.1"]})
    async with raw_server(ok) as server, Egress(LOOPBACK, resolver=names) as egress:
        assert 200 == (await egress.request("GET", f"http://two.example:{server.port}/")).status


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_is_not_followed(status: int) -> None:
    """A redirect to the metadata address comes back as a reply; for a document it is an error."""

    async def redirect(exchange: Exchange) -> None:
        await exchange.reply(status, b"moved", location="http://169.254.169.254/latest/meta-data/")

    async with raw_server(redirect) as server, Egress(LOOPBACK) as egress:
        reply = await egress.request("POST", f"http://127.0.0.1:{server.port}/", content=b"{}")
        with pytest.raises(Unreadable, match="redirect"):
            await egress.fetch(f"http://127.0.0.1:{server.port}/")
    assert status == reply.status
    assert 2 == len(server.heads)


async def test_no_cookie_is_kept() -> None:
    """A receiver's cookie is not sent back: the next request may be another tenant's."""

    async def baking(exchange: Exchange) -> None:
        await exchange.reply(200, b"", set_cookie="id=1")

    async with raw_server(baking) as server, Egress(LOOPBACK) as egress:
        for _ in range(2):
            await egress.request("GET", f"http://127.0.0.1:{server.port}/")
    assert "cookie" not in server.heads[1].lower()


@pytest.mark.parametrize("script", [silent, dripping])
async def test_deadline_covers_the_body(script: object) -> None:
    """A receiver that is silent, or that drips its body, is cut off at the deadline; that is its own fault."""
    async with raw_server(script) as server, Egress(LOOPBACK) as egress:  # type: ignore[arg-type]
        with pytest.raises(CallFailed) as caught:
            await egress.request("GET", f"http://127.0.0.1:{server.port}/", timeout=0.2)
    assert "timeout" == caught.value.field
    assert 1 == server.connections


async def test_endless_body_is_capped() -> None:
    """Only the first bytes of an endless body are read; a document so long is refused."""
    async with raw_server(endless) as server, Egress(LOOPBACK) as egress:
        reply = await egress.request("GET", f"http://127.0.0.1:{server.port}/", max_bytes=10_000)
        with pytest.raises(TooLarge):
            await egress.fetch(f"http://127.0.0.1:{server.port}/", max_bytes=10_000)
    assert (10_000, True) == (len(reply.body), reply.truncated)


@pytest.mark.parametrize(
    "raw",
    [b"", b"SSH-2.0-OpenSSH_9.9\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort", b"HTTP/1.1 200 OK\r\n" + b"A: " + b"x" * 200_000, b"HTTP/1.1 OK\r\n\r\n"],
)  # fmt: skip
async def test_malformed_reply(raw: bytes) -> None:
    """A reply that is cut or is not HTTP is the receiver's fault."""

    async def malformed(exchange: Exchange) -> None:
        await exchange.say(raw)
        exchange.writer.close()

    async with raw_server(malformed) as server, Egress(LOOPBACK) as egress:
        with pytest.raises(CallFailed) as caught:
            await egress.request("GET", f"http://127.0.0.1:{server.port}/")
    assert "protocol" == caught.value.field


@pytest.mark.parametrize(
    "headers",
    [{"Host": "x"}, {"content-length": "9"}, {"Transfer-Encoding": "chunked"}, {"X": "a\r\nB: c"}, {"X\r\nY": "a"}, {"X Y": "a"}, {"X": "\u20ac"}, {"": "a"}],
)  # fmt: skip
async def test_header_injection(headers: dict[str, str]) -> None:
    """Headers that frame the message, or that would begin another header, are refused."""
    async with raw_server(ok) as server, Egress(LOOPBACK) as egress:
        with pytest.raises(BadInput) as caught:
            await egress.request("POST", f"http://127.0.0.1:{server.port}/", headers=headers, content=b"")
    assert "headers" == caught.value.field
    assert [] == server.heads


async def test_unknown_name_is_their_fault() -> None:
    """A name that does not exist is the target's fault."""
    async with Egress(LOOPBACK, resolver=FixedNames({})) as egress:
        with pytest.raises(CallFailed) as caught:
            await egress.request("GET", "http://missing.example/")
    assert "dns" == caught.value.field


class DeadNames:
    """Name servers that never answer."""

    async def resolve(self, host: str, port: int) -> list[str]:
        """Wait for ever."""
        await asyncio.Event().wait()
        raise AssertionError(host, port)

    async def aclose(self) -> None:
        """Nothing to release."""


async def test_silent_name_servers_are_our_fault() -> None:
    """When our name servers do not answer, the target is not blamed."""
    async with Egress(LOOPBACK, resolver=DeadNames()) as egress:
        with pytest.raises(Unavailable) as caught:
            await egress.request("GET", "http://good.example/", timeout=0.1)
    assert "dns" == caught.value.field


@pytest.mark.parametrize(
    ("number", "address", "ours"),
    [(errno.EMFILE, "8.8.8.8", True), (errno.ENETUNREACH, "8.8.8.8", True), (errno.ENETUNREACH, "2606:4700::1", False), (errno.ECONNREFUSED, "8.8.8.8", False), (errno.EHOSTUNREACH, "8.8.8.8", False), (None, "8.8.8.8", False)],
)  # fmt: skip
def test_whose_fault_a_failed_connection_is(number: int | None, address: str, ours: bool) -> None:
    """Running out of files, or having no network, is our fault; a refusal is theirs."""
    from ipaddress import ip_address  # noqa: PLC0415 - only here

    error = httpcore2.ConnectError()
    error.__cause__ = OSError(number, "said") if number is not None else OSError("said")
    assert ours is isinstance(_refused(error, ip_address(address)), Unavailable)


async def test_socket_files_are_never_opened() -> None:
    """The guarded backend connects to no socket file."""
    async with Egress(LOOPBACK) as egress:
        backend = egress._kept.backend
        assert isinstance(backend, GuardedBackend)
        with pytest.raises(BlockedTarget):
            await backend.connect_unix_socket("/run/x.sock")


async def test_fetch_gives_the_document() -> None:
    """A document comes with its media type, charset and bytes."""

    async def page(exchange: Exchange) -> None:
        await exchange.reply(200, b"<p>hi", content_type='Text/HTML; charset="utf-8"', etag='"1"')

    async with raw_server(page) as server, Egress(LOOPBACK) as egress:
        document = await egress.fetch(f"http://127.0.0.1:{server.port}/p")
    assert (b"<p>hi", "text/html", "utf-8", '"1"') == (
        document.body,
        document.media_type,
        document.charset,
        document.headers["etag"],
    )
    assert "Accept-Encoding: identity\r\n" in server.heads[0]


@pytest.mark.parametrize(
    ("status", "headers", "error"),
    [(404, {}, Unreadable), (403, {}, Unreadable), (204, {}, Unreadable), (206, {}, Unreadable), (503, {"retry_after": "7"}, CallFailed), (429, {}, CallFailed), (200, {"content_encoding": "gzip"}, Unreadable)],
)  # fmt: skip
async def test_fetch_refusals(status: int, headers: dict[str, str], error: type[Exception]) -> None:
    """A server that fails for now is asked again later, for as long as it says; another answer is final."""

    async def answer(exchange: Exchange) -> None:
        await exchange.reply(status, b"", **headers)

    async with raw_server(answer) as server, Egress(LOOPBACK) as egress:
        with pytest.raises(error) as caught:
            await egress.fetch(f"http://127.0.0.1:{server.port}/")
    if isinstance(caught.value, CallFailed):
        assert (7.0 if "retry_after" in headers else None) == caught.value.retry_after
