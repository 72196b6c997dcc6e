from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import pytest
import redis.asyncio

from infra import operations
from infra.bus import Bus, open_redis
from infra.database import Database
from producers.pressure import Bounds, Pressure
from producers.stream.bridge import Bridge, Source
from producers.stream.metrics import BridgeMetrics
from schemas.errors import Misconfigured, NotFound
from tests.conftest import Stack
from tests.producers.test_gateway_outage import Line

PAGE = (Path(__file__).parents[2] / "docs" / "bridge.md").read_text(encoding="utf-8")
STREAM = "acme:events"


def bridge_of(tenant: str, database: Database, client: redis.asyncio.Redis, **more: Any) -> Bridge:
    """A bridge that does not run yet."""
    bounds = more.pop("bounds", Bounds(waiting=1_000_000, queued=1_000_000))
    source = Source(STREAM, tenant, "penstock", more.pop("consumer", "one"), **more)
    return Bridge(
        source,
        Bus(database, client),
        database,
        client,
        metrics=BridgeMetrics(),
        pressure=Pressure(database, client, bounds),
    )


@asynccontextmanager
async def running(
    tenant: str, database: Database, client: redis.asyncio.Redis, **more: Any
) -> AsyncIterator[Bridge]:
    """A bridge that moves entries while the block runs."""
    bridge = bridge_of(tenant, database, client, **more)
    stop = asyncio.Event()
    task = asyncio.create_task(bridge.run(stop))
    try:
        yield bridge
    finally:
        stop.set()
        await task


def entry(name: str, **more: str | bytes) -> dict[Any, Any]:
    """A stream entry that is an event."""
    data = {"collection": "books", "document_id": name, "content": "Water."}
    return {"type": "document.added", "source": "wiki", "id": name, "data": json.dumps(data), **more}


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(30):
        while not await condition():  # noqa: ASYNC110 - what is waited for happens in a server
            await asyncio.sleep(0.02)


class Seen:
    """A tenant's ledger, and the stream."""

    def __init__(self, owner: Database, tenant: str, client: redis.asyncio.Redis) -> None:
        self._owner, self._tenant, self._redis = owner, tenant, client

    async def rows(self) -> list[dict[str, Any]]:
        """The tenant's events as they were accepted, without what Penstock said of them."""
        async with self._owner.connection() as connection:
            rows = await connection.fetch(
                "SELECT * FROM events WHERE tenant_id = $1 AND type <> 'event.dead' ORDER BY accept_no",
                self._tenant,
            )
        return [dict(row) for row in rows]

    async def names(self) -> list[str]:
        """The publishers' names for accepted events."""
        return [row["id"] for row in await self.rows() if row["status"] == "accepted"]

    async def empty(self) -> bool:
        """Whether nothing is in the stream."""
        return cast("int", await self._redis.xlen(STREAM)) == 0


@pytest.fixture
def seen(owner_database: Database, tenant: str, redis_client: redis.asyncio.Redis) -> Seen:
    """Looks at what a bridge did."""
    return Seen(owner_database, tenant, redis_client)


async def test_the_lines_in_the_docs_publish(
    stack: Stack, tenant: str, gateway_database: Database, redis_client: redis.asyncio.Redis, seen: Seen
) -> None:
    """What the page shows is entered, pushed onto its queue and deleted from the stream."""
    [code] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", code], env={"REDIS_URL": stack.servers.redis_url}, check=True
    )
    async with running(tenant, gateway_database, redis_client):
        await until(seen.empty)
    [row] = await seen.rows()
    assert (row["source"], row["id"], row["type"]) == ("wiki", "page-7-v3", "document.added")
    assert await redis_client.zscore("penstock:ingest", str(row["event_id"])) is not None
    assert [] == await redis_client.xinfo_consumers(STREAM, "penstock")


async def test_bad_entries_become_dead_letters_and_hold_up_nothing(
    tenant: str,
    gateway_database: Database,
    redis_client: redis.asyncio.Redis,
    owner_database: Database,
    seen: Seen,
) -> None:
    """Each has its reason, once however often it is read; good ones between them are accepted; a replay brings it back."""
    bad: list[dict[Any, Any]] = [
        {"data": b"\xff\x00"},
        entry("a", data="{}"),
        {"id": "x", "subjectref": "p-7"},
    ]
    for one in (entry("a"), bad[0], entry("b"), *bad[1:]):
        await redis_client.xadd(STREAM, one)
    async with running(tenant, gateway_database, redis_client):
        await until(seen.empty)
    assert await seen.names() == ["a", "b"]
    dead = [row for row in await seen.rows() if row["status"] == "dead"]
    assert {"stream.refused"} == {row["type"] for row in dead}
    assert sorted(row["error"]["field"] for row in dead) == ["data", "data.collection", "type"]
    [about] = [row for row in dead if row["attributes"]]
    assert about["attributes"] == {"subjectref": "p-7"}
    async with owner_database.connection() as connection:
        listed = await operations.list_dead(connection, operations.DeadFilter(tenant=tenant))
        assert {row["event_id"] for row in dead} == {row["event_id"] for row in listed}
        assert 3 == await operations.replay(connection, redis_client, listed)
        assert [] == await operations.list_dead(connection, operations.DeadFilter(tenant=tenant))
    fields = [one[1] for one in await redis_client.xrange(STREAM)]
    assert {b"data": b"\xff\x00"} in fields
    assert len(fields) == 3


async def test_what_a_dead_bridge_left_is_taken_over(
    tenant: str, gateway_database: Database, redis_client: redis.asyncio.Redis, seen: Seen
) -> None:
    """Entries that were read and never acknowledged are entered by another bridge, those entered before only once."""
    await redis_client.xgroup_create(STREAM, "penstock", id="0", mkstream=True)
    for number in range(50):
        await redis_client.xadd(STREAM, entry(str(number)))
    taken = await redis_client.xreadgroup("penstock", "killed", {STREAM: ">"}, count=40)
    async with running(tenant, gateway_database, redis_client, consumer="before"):
        await until(lambda: _holds(seen, 10))
    # The killed one had entered these before it died.
    for _, fields in taken[0][1][:5]:
        await redis_client.xadd(STREAM, fields)
    async with running(tenant, gateway_database, redis_client, batch=7, idle=0.05):
        await until(seen.empty)
    assert sorted(await seen.names(), key=int) == [str(number) for number in range(50)]
    assert 0 == (await redis_client.xpending(STREAM, "penstock"))["pending"]


async def _holds(seen: Seen, count: int) -> bool:
    return len(await seen.names()) == count


async def test_an_emptied_redis_gets_its_group_again(
    tenant: str, gateway_database: Database, redis_client: redis.asyncio.Redis, seen: Seen
) -> None:
    """A bridge that waits while everything is flushed goes on with what comes next."""
    async with running(tenant, gateway_database, redis_client):
        await redis_client.xadd(STREAM, entry("before"))
        await until(lambda: _holds(seen, 1))
        await redis_client.flushall()
        await redis_client.xadd(STREAM, entry("after"))
        await until(lambda: _holds(seen, 2))
    assert await seen.names() == ["before", "after"]


async def test_entries_may_be_kept(
    tenant: str, gateway_database: Database, redis_client: redis.asyncio.Redis, seen: Seen
) -> None:
    """With `keep` the stream is its publisher's to trim, and reading it again changes nothing."""
    await redis_client.xadd(STREAM, entry("a"))
    for _ in range(2):
        async with running(tenant, gateway_database, redis_client, keep=True):
            await until(lambda: _holds(seen, 1))
            await until(lambda: _acknowledged(redis_client))
        assert 1 == await redis_client.xlen(STREAM)
        await redis_client.xgroup_destroy(STREAM, "penstock")
    assert await seen.names() == ["a"]


async def _acknowledged(client: redis.asyncio.Redis) -> bool:
    groups = await client.xinfo_groups(STREAM)
    return bool(groups and groups[0]["pending"] == 0 and groups[0]["last-delivered-id"] != b"0-0")


async def test_outages_are_waited_out(
    stack: Stack, tenant: str, redis_client: redis.asyncio.Redis, seen: Seen
) -> None:
    """While PostgreSQL or Redis is away nothing is acknowledged and nothing is lost; back, it goes on by itself."""
    postgres, valkey = urlsplit(stack.servers.database_url), urlsplit(stack.servers.redis_url)
    lines = [Line(str(one.hostname), int(one.port or 0)) for one in (postgres, valkey)]
    async with lines[0].open(), lines[1].open():
        urls = [
            one.geturl().replace(f":{one.port}/", f":{line.listening}/")
            for one, line in zip((postgres, valkey), lines, strict=True)
        ]
        client = open_redis(urls[1])
        async with (
            Database.open(urls[0], role="penstock_gateway", size=2) as database,
            running(tenant, database, client) as bridge,
        ):
            for number, line in enumerate(lines):
                line.cut()
                await redis_client.xadd(STREAM, entry(str(number)))
                await until(lambda: _troubled(bridge))
                assert len(await seen.names()) == number
                line.whole = True
                await until(lambda count=number + 1: _holds(seen, count))  # type: ignore[misc]
        await client.aclose(close_connection_pool=True)
    assert await seen.empty()


async def _troubled(bridge: Bridge) -> bool:
    return bridge.trouble is not None


async def test_a_suspended_tenant_is_waited_for(
    tenant: str,
    gateway_database: Database,
    redis_client: redis.asyncio.Redis,
    owner_database: Database,
    seen: Seen,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its entries stay in the stream until it is let in again."""
    monkeypatch.setattr("producers.stream.bridge.TENANT_EVERY", 0.0)
    suspend = "UPDATE tenants SET suspended_at = CASE WHEN $2 THEN now() END WHERE tenant_id = $1"
    async with owner_database.connection() as connection:
        await connection.execute(suspend, tenant, True)
        await redis_client.xadd(STREAM, entry("a"))
        async with running(tenant, gateway_database, redis_client) as bridge:
            await until(lambda: _troubled(bridge))
            assert await seen.names() == []
            await connection.execute(suspend, tenant, False)
            await until(lambda: _holds(seen, 1))


async def test_a_full_ledger_keeps_the_backlog_in_the_stream(
    tenant: str,
    gateway_database: Database,
    redis_client: redis.asyncio.Redis,
    owner_database: Database,
    seen: Seen,
) -> None:
    """As many events unfinished as may be: the bridge waits and says so, and goes on when work has been done."""
    await redis_client.xadd(STREAM, entry("a"))
    async with running(tenant, gateway_database, redis_client):
        await until(seen.empty)
    async with owner_database.connection() as connection:
        held = await connection.fetchval("SELECT count(*) FROM events WHERE finished_at IS NULL")
        async with running(tenant, gateway_database, redis_client, bounds=Bounds(held, 1_000_000)) as bridge:
            await redis_client.xadd(STREAM, entry("b"))
            await until(lambda: _is_waiting(bridge, "overloaded"))
            assert ["a"] == await seen.names()
            assert 1 == await redis_client.xlen(STREAM)
            finish = "UPDATE events SET status = 'done', finished_at = now() WHERE tenant_id = $1"
            await connection.execute(finish, tenant)
            await until(seen.empty)
    assert ["b"] == await seen.names()


async def test_a_tenants_limits_hold_at_the_stream_too(
    tenant: str,
    gateway_database: Database,
    redis_client: redis.asyncio.Redis,
    owner_database: Database,
    seen: Seen,
) -> None:
    """A document too many is refused with the reason; a question too many waits until one has been answered."""
    async with owner_database.connection() as connection:
        limits = {"documents": 1, "queries": 1}
        await connection.execute("UPDATE tenants SET limits = $2 WHERE tenant_id = $1", tenant, limits)
        for name in ("a", "b"):
            await redis_client.xadd(STREAM, entry(name))
            data = json.dumps({"collections": ["books"], "question": "Where?"})
            await redis_client.xadd(STREAM, entry(f"q-{name}", type="query.received", data=data))
        async with running(tenant, gateway_database, redis_client) as bridge:
            await until(lambda: _is_waiting(bridge, "limit_reached"))
            assert ["a", "q-a"] == await seen.names()
            [dead] = [row for row in await seen.rows() if row["type"] == "stream.refused"]
            assert ("limit_reached", "documents") == (dead["error"]["code"], dead["error"]["field"])
            await connection.execute(
                "UPDATE events SET status = 'done', finished_at = now() WHERE id = 'q-a' AND tenant_id = $1",
                tenant,
            )
            await until(seen.empty)
    assert ["a", "q-b"] == await seen.names()


async def _is_waiting(bridge: Bridge, why: str) -> bool:
    return bridge.trouble == why


async def test_what_cannot_be_waited_out_is_said(
    tenant: str, gateway_database: Database, redis_client: redis.asyncio.Redis
) -> None:
    """A key of another kind and an unknown tenant end the bridge."""
    await redis_client.set(STREAM, "text")
    for name, expected in ((tenant, Misconfigured), ("nobody-of-that-name", NotFound)):
        with pytest.raises(expected):
            await bridge_of(name, gateway_database, redis_client).run(asyncio.Event())
