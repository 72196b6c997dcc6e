from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from infra.egress import Egress, EgressPolicy
from infra.egress.stream import Line
from schemas.errors import CallFailed
from tests.infra.raw_server import Exchange, raw_server

LOOPBACK = EgressPolicy.parse("127.0.0.1:*")


async def ok(exchange: Exchange) -> None:
    """Answer 200."""
    await exchange.reply(200, b"hello")


def idle(egress: Egress) -> int:
    """How many connections wait for their next request."""
    return sum(len(waiting) for waiting in egress._kept._waiting.values())


class Packets(asyncio.Protocol):
    """Keeps what comes as it comes, and answers once a request is complete."""

    def __init__(self, came: list[bytes]) -> None:
        self.came = came

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the pen."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Keep one packet."""
        self.came.append(data)
        if data.endswith(b"body"):
            self.transport.write(b"HTTP/1.1 204 No Content\r\n\r\n")


@asynccontextmanager
async def lazy_reader() -> AsyncIterator[tuple[int, asyncio.Event]]:
    """A server that accepts and reads nothing until it is told to; then it answers."""
    go, tasks = asyncio.Event(), set[asyncio.Task[None]]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await answer(reader, writer)
        except asyncio.CancelledError:
            writer.transport.abort()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        [size] = [
            int(line.split(": ")[1]) for line in head.split("\r\n") if line.startswith("Content-Length")
        ]
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n%08d" % len(await reader.readexactly(size))
        )
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1024)
    async with server:
        yield server.sockets[0].getsockname()[1], go
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_request_is_one_packet() -> None:
    """Head and body leave together: the receiver wakes up once."""
    came: list[bytes] = []
    server = await asyncio.get_running_loop().create_server(lambda: Packets(came), "127.0.0.1", 0)
    async with server, Egress(LOOPBACK) as egress:
        port = server.sockets[0].getsockname()[1]
        assert 204 == (await egress.request("POST", f"http://127.0.0.1:{port}/", content=b"body")).status
    assert 1 == len(came)
    assert came[0].endswith(b"\r\n\r\nbody")


async def test_a_slow_reader_is_waited_for() -> None:
    """A body larger than all buffers on the way leaves at the reader's pace, and arrives whole."""
    async with lazy_reader() as (port, go), Egress(LOOPBACK) as egress:
        size = 20 * 1024 * 1024
        sending = asyncio.create_task(
            egress.request("POST", f"http://127.0.0.1:{port}/", content=bytes(size), timeout=60)
        )
        await asyncio.sleep(0.05)
        assert not sending.done()
        go.set()
        assert f"{size:08d}".encode() == (await sending).body


async def test_a_deadline_while_sending_is_theirs() -> None:
    """A receiver that stops reading in the middle of a request is cut off at the deadline."""
    async with lazy_reader() as (port, _), Egress(LOOPBACK) as egress:
        with pytest.raises(CallFailed) as caught:
            await egress.request("POST", f"http://127.0.0.1:{port}/", content=bytes(20_000_000), timeout=0.2)
    assert "timeout" == caught.value.field


async def test_what_comes_too_fast_waits_outside() -> None:
    """However much the other side sends, only a little of it is in our memory."""

    async def flood(exchange: Exchange) -> None:
        while True:
            await exchange.say(b"x" * 65536)

    async with raw_server(flood) as server:
        line = await Line.connect("127.0.0.1", server.port, 5)
        await line.write(b"GET / HTTP/1.1\r\n\r\n")
        await line.read(1)
        await asyncio.sleep(0.1)
        assert len(line._came) <= 1024 * 1024
        for _ in range(100):
            assert 0 < len(await line.read(65536)) <= 65536
        await line.aclose()


async def test_only_so_many_connections_wait() -> None:
    """Connections above the bound are closed after their request; each origin's newest one serves the next."""
    async with raw_server(ok) as server, Egress(LOOPBACK, max_idle=2) as egress:
        url = f"http://127.0.0.1:{server.port}/"
        await asyncio.gather(*(egress.request("GET", url) for _ in range(5)))
        assert 2 == idle(egress)
        opened = server.connections
        for _ in range(5):
            await egress.request("GET", url)
        assert opened == server.connections


async def test_connections_to_other_origins_do_not_stay_for_ever() -> None:
    """What nobody came back for is closed when its time is up, by whoever comes next."""
    async with raw_server(ok) as one, raw_server(ok) as other, Egress(LOOPBACK) as egress:
        egress._kept.seconds = 0.05
        await egress.request("GET", f"http://127.0.0.1:{one.port}/")
        await asyncio.sleep(0.1)
        await egress.request("GET", f"http://127.0.0.1:{other.port}/")
        assert [other.port] == [port for _, _, port in egress._kept._waiting]


@pytest.mark.parametrize("close", [True, False])
async def test_an_exchange_that_was_not_complete_ends_its_connection(*, close: bool) -> None:
    """After a reply that says close, or one that was cut short by us, the connection is not used again."""

    async def answer(exchange: Exchange) -> None:
        await (exchange.reply(200, b"ok", connection="close") if close else exchange.reply(200, b"x" * 100))

    async with raw_server(answer) as server, Egress(LOOPBACK) as egress:
        for _ in range(2):
            await egress.request("GET", f"http://127.0.0.1:{server.port}/", max_bytes=10)
            assert 0 == idle(egress)
    assert 2 == server.connections


async def test_a_cancelled_request_ends_its_connection() -> None:
    """A connection on which an answer is outstanding is never given to the next request."""
    arrived = asyncio.Event()

    async def silent(exchange: Exchange) -> None:
        del exchange
        arrived.set()
        await asyncio.Event().wait()

    async with raw_server(silent) as server, Egress(LOOPBACK) as egress:
        asking = asyncio.create_task(egress.request("GET", f"http://127.0.0.1:{server.port}/"))
        await arrived.wait()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert 0 == idle(egress)
