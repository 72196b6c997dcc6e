from __future__ import annotations

import json

import redis.asyncio

from infra.database import Database
from producers.pressure import Bounds
from producers.stream.bridge import Bridge
from tests.producers.bridges import STREAM, Seen, entry, running, until


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
