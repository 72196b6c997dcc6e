from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis.asyncio

from infra import operations
from infra.bus import open_redis
from infra.database import Database
from producers.stream.bridge import Bridge
from schemas.errors import Misconfigured, NotFound
from tests.conftest import Stack
from tests.producers.bridges import STREAM, Seen, bridge_of, entry, running, until
from tests.producers.test_gateway_outage import Line

PAGE = (Path(__file__).parents[2] / "docs" / "bridge.md").read_text(encoding="utf-8")


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


async def test_what_cannot_be_waited_out_is_said(
    tenant: str, gateway_database: Database, redis_client: redis.asyncio.Redis
) -> None:
    """A key of another kind and an unknown tenant end the bridge."""
    await redis_client.set(STREAM, "text")
    for name, expected in ((tenant, Misconfigured), ("nobody-of-that-name", NotFound)):
        with pytest.raises(expected):
            await bridge_of(name, gateway_database, redis_client).run(asyncio.Event())
