from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
import redis.asyncio

from infra.database import Connection, Database
from infra.settings import Settings
from infra.sweeper import Sweeper
from producers import Producer
from schemas.errors import BadInput, IdReused
from tests.conftest import Stack

QUEUE = "penstock:ingest"


@pytest.fixture
async def upstream(stack: Stack, tenant: str, owner_database: Database) -> AsyncIterator[Connection]:
    """An upstream system's own connection: a table `events` of its own, and its own idea of how JSON is read."""
    schema = f"app_{tenant.replace('-', '_')}"
    serving = urlsplit(stack.servers.database_url).username
    async with owner_database.connection() as owner:
        await owner.execute(f"CREATE SCHEMA {schema}")
        await owner.execute(f"CREATE TABLE {schema}.events (page text)")
        await owner.execute(f"GRANT ALL ON SCHEMA {schema} TO {serving}")
        await owner.execute(f"GRANT ALL ON {schema}.events TO {serving}")
    connection = await asyncpg.connect(stack.servers.database_url)
    await connection.execute(f"SET search_path = {schema}")
    await connection.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
    yield connection
    await connection.close()
    async with owner_database.connection() as owner:
        await owner.execute(f"DROP SCHEMA {schema} CASCADE")


async def statuses(owner_database: Database, tenant: str) -> list[str]:
    """The types of a tenant's events that are visible to others."""
    async with owner_database.connection() as connection:
        rows = await connection.fetch(
            "SELECT type FROM events WHERE tenant_id = $1 ORDER BY accept_no", tenant
        )
    return [row["type"] for row in rows]


async def fail_after_saying(producer: Producer, upstream: Connection) -> None:
    """An upstream's unit of work that breaks after its event."""
    async with producer.transaction(upstream) as outbox:
        await upstream.execute("INSERT INTO events VALUES ('page-7')")
        await outbox.document_added("books", "page-7", "Water.", id="mine")
        raise ZeroDivisionError


async def test_change_and_event_are_committed_together(
    settings: Settings,
    tenant: str,
    upstream: Connection,
    owner_database: Database,
    redis_client: redis.asyncio.Redis,
) -> None:
    """Nobody sees the event before the caller commits; afterwards it is in the ledger and on its queue."""
    async with (
        Producer(tenant=tenant, settings=settings) as producer,
        producer.transaction(upstream) as outbox,
    ):
        await upstream.execute("INSERT INTO events VALUES ('page-7')")
        said = await outbox.document_added("books", "page-7", "Water.", metadata={"lang": "en"})
        again = await outbox.document_added("books", "page-8", "Fire.", id="mine")
        assert await statuses(owner_database, tenant) == []
        assert await redis_client.zcard(QUEUE) == 0
        # The connection is its owner's again within the transaction.
        await upstream.execute("INSERT INTO events VALUES ('page-8')")
        assert await upstream.fetchval("SELECT current_setting('role')") == "none"
    assert (said.status, again.status) == ("accepted", "accepted")
    assert await statuses(owner_database, tenant) == ["document.added", "document.added"]
    waiting = {name.decode() for name in await redis_client.zrange(QUEUE, 0, -1)}
    assert waiting == {str(said.event_id), str(again.event_id)}
    assert await upstream.fetchval("SELECT count(*) FROM events") == 2


async def test_a_rollback_takes_the_event_back(
    settings: Settings, tenant: str, upstream: Connection, owner_database: Database
) -> None:
    """What the caller rolls back was never said, and may be said later under the same id."""
    async with Producer(tenant=tenant, settings=settings) as producer:
        with pytest.raises(ZeroDivisionError):
            await fail_after_saying(producer, upstream)
        assert await statuses(owner_database, tenant) == []
        assert await upstream.fetchval("SELECT count(*) FROM events") == 0
        async with producer.transaction(upstream) as outbox:
            assert (await outbox.document_added("books", "page-7", "Other.", id="mine")).status == "accepted"


async def test_a_refused_event_enters_nothing_and_spoils_nothing(
    settings: Settings, tenant: str, upstream: Connection, owner_database: Database
) -> None:
    """A bad event or a reused id is raised; a caller that catches it can go on with its transaction."""
    document: dict[str, Any] = {
        "type": "document.deleted",
        "data": {"collection": "books", "document_id": "a"},
    }
    async with Producer(tenant=tenant, settings=settings) as producer:
        await producer.document_added("books", "a", "Water.", id="taken")
        async with producer.transaction(upstream) as outbox:
            with pytest.raises(BadInput):
                await outbox.document_added("Books!", "a", "x")
            with pytest.raises(IdReused):
                await outbox.publish([document, {**document, "id": "taken"}])
            await upstream.execute("INSERT INTO events VALUES ('still here')")
            assert await outbox.publish([]) == []
            await outbox.document_deleted("books", "b")
    assert await statuses(owner_database, tenant) == ["document.added", "document.deleted"]
    assert await upstream.fetchval("SELECT page FROM events") == "still here"


async def test_a_late_commit_is_found_by_the_sweeper(
    settings: Settings,
    tenant: str,
    upstream: Connection,
    system_database: Database,
    redis_client: redis.asyncio.Redis,
) -> None:
    """An event of a transaction that was open long after later ones were looked at still reaches its queue."""
    sweeper = Sweeper(system_database, redis_client, name="test", lag=0.0)
    await sweeper.round()  # fills an emptied Redis
    async with Producer(tenant=tenant, settings=settings) as producer:
        outer = upstream.transaction()
        await outer.start()
        async with producer.transaction(upstream) as outbox:
            late = await outbox.document_added("books", "late", "Water.")
        await producer.document_added("books", "early", "Water.")
        for _ in range(3):
            await sweeper.round()
        assert await redis_client.zscore(QUEUE, str(late.event_id)) is None
        await outer.commit()
        # A savepoint cannot see the commit: nobody has told Redis yet.
        assert await redis_client.zscore(QUEUE, str(late.event_id)) is None
        for _ in range(3):
            await sweeper.round()
        assert await redis_client.zscore(QUEUE, str(late.event_id)) is not None
