"""A Redis stream and a bridge over it, for tests: entries go in here, and what became of them is looked at."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import redis.asyncio

from infra.bus import Bus
from infra.database import Database
from producers.pressure import Bounds, Pressure
from producers.stream.bridge import Bridge, Source
from producers.stream.metrics import BridgeMetrics

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
