from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import asyncpg
import httpx2
import pytest
from pydantic import SecretStr

from infra.database import Database, database_error, translated
from infra.keys import create_key
from infra.settings import Settings
from producers.gateway.server import open_server
from schemas.errors import Unavailable
from tests.conftest import Stack
from tests.producers.clients import STRUCTURED, Client, example_event


class Line:
    """A line to a server that can be cut and mended."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port, self.whole = host, port, True
        self.listening = 0
        self._writers: list[asyncio.StreamWriter] = []

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Relay while the block runs."""
        server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        self.listening = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            server.close()
            self.cut()

    def cut(self) -> None:
        """End every connection, and let none through."""
        self.whole = False
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.whole:
            writer.transport.abort()
            return
        far_reader, far_writer = await asyncio.open_connection(self.host, self.port)
        self._writers += [writer, far_writer]
        await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass  # the line was cut, which is what it is for
    finally:
        writer.transport.abort()


@pytest.fixture
async def line(stack: Stack) -> AsyncIterator[Line]:
    """The line from a gateway to PostgreSQL."""
    parts = urlsplit(stack.servers.database_url)
    one = Line(str(parts.hostname), int(parts.port or 0))
    async with one.open():
        yield one


async def test_an_outage_of_the_database_is_said_and_ends_by_itself(
    settings: Settings, stack: Stack, line: Line, owner_database: Database, tenant: str
) -> None:
    """Without PostgreSQL nothing is promised: 503 with Retry-After, and not ready; back, it serves again."""
    url = stack.servers.database_url.replace(f":{line.port}/", f":{line.listening}/")
    assert url != stack.servers.database_url
    async with owner_database.connection() as connection:
        key = await create_key(connection, tenant, ["publish"])
    update = {"database_url": SecretStr(url), "gateway_port": 0, "ops_port": 0}
    async with (
        open_server(settings.model_copy(update=update)) as serving,
        httpx2.AsyncClient(base_url=serving.url, trust_env=False, timeout=30) as http,
    ):
        client = Client(http, tenant, key.key)
        first = await client.call("POST", "/v1/events", json=example_event(), headers=STRUCTURED)
        assert first.status_code == 202
        line.cut()
        event = example_event("while away")
        away = await client.call("POST", "/v1/events", json=event, headers=STRUCTURED)
        assert (away.status_code, away.json()["code"]) == (503, "unavailable")
        assert int(away.headers["retry-after"]) > 0
        ready = await http.get(f"http://127.0.0.1:{serving.ops_port}/readyz")
        assert (ready.status_code, (await http.get("/healthz")).status_code) == (503, 200)
        line.whole = True
        back = await client.call("POST", "/v1/events", json=event, headers=STRUCTURED)
        assert (back.status_code, back.json()["results"][0]["status"]) == (202, "accepted")


def test_a_connection_that_ends_during_a_query_is_an_outage() -> None:
    """Asyncpg has an error of its own for it, which is no mistake of ours."""
    ended = asyncpg.InternalClientError("unexpected message")
    assert isinstance(database_error(ended), Unavailable)
    with pytest.raises(Unavailable), translated():
        raise ended
