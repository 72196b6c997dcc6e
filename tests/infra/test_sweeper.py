from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
import redis.asyncio

from infra import sweeper
from infra.bus import Bus
from infra.database import Database
from infra.local.servers import Servers
from infra.sweeper import Sweeper
from schemas.envelope import Event, parse_event


def document() -> Event:
    """An event as a caller sends it."""
    data = {"collection": "c", "document_id": str(uuid4()), "content": "text"}
    return parse_event(
        {"specversion": "1.0", "id": str(uuid4()), "source": "s", "type": "document.added", "data": data}
    )


class Gap:
    """A ledger and a Redis with a sweeper between them."""

    def __init__(self, gateway: Database, system: Database, client: redis.asyncio.Redis) -> None:
        self.gateway = gateway
        self.client = client
        self.sweeper = Sweeper(system, client, name="test", lag=0.0)

    async def publish(self, count: int, *, reach_redis: bool = True) -> list[str]:
        """Accept events; Redis may be away meanwhile."""
        client = self.client if reach_redis else redis.asyncio.Redis(host="127.0.0.1", port=1)
        results = await Bus(self.gateway, client).publish("acme", [document() for _ in range(count)])
        if not reach_redis:
            await client.aclose()
        return [str(result.event_id) for result in results]

    async def queued(self) -> set[str]:
        """The ids on the ingest queue."""
        return {member.decode() for member in await self.client.zrange("penstock:ingest", 0, -1)}


@pytest.fixture
async def gap(fresh_database: Servers, redis_client: redis.asyncio.Redis) -> AsyncIterator[Gap]:
    """A database and a Valkey of the test's own."""
    async with (
        Database.open(fresh_database.database_owner_url, role=None) as owner,
        Database.open(fresh_database.database_url, role="penstock_gateway") as gateway,
        Database.open(fresh_database.database_url, role="penstock_system") as system,
    ):
        async with owner.connection() as connection:
            await connection.execute("INSERT INTO tenants (tenant_id) VALUES ('acme')")
        yield Gap(gateway, system, redis_client)


async def test_an_emptied_redis_is_filled_again(gap: Gap) -> None:
    """After FLUSHALL the first round pushes every unfinished event."""
    ids = await gap.publish(5)
    await gap.sweeper.round()
    await gap.client.flushall()
    assert await gap.sweeper.round() == 5
    assert set(ids) == await gap.queued()


async def test_events_accepted_while_redis_was_away_are_pushed_once(gap: Gap) -> None:
    """An event that never reached Redis is found by its window; nobody looks at it a second time."""
    await gap.sweeper.round()
    ids = await gap.publish(3, reach_redis=False)
    assert set() == await gap.queued()
    assert 3 == await gap.sweeper.round() + await gap.sweeper.round()
    assert set(ids) == await gap.queued()
    await gap.client.delete("penstock:ingest")
    assert await gap.sweeper.round() == 0


async def test_a_restarted_redis_is_checked(gap: Gap) -> None:
    """Another run id means that the last second may be missing: everything unfinished is looked at."""
    ids = await gap.publish(4)
    await gap.sweeper.round()
    await gap.client.zrem("penstock:ingest", ids[0])
    await gap.client.set(sweeper.EPOCH, "another-run")
    assert await gap.sweeper.round() == 1
    assert set(ids) == await gap.queued()


async def test_finished_events_are_left_alone(gap: Gap, fresh_database: Servers) -> None:
    """What is done does not come back, however empty Redis is."""
    await gap.publish(2)
    async with (
        Database.open(fresh_database.database_owner_url, role=None) as owner,
        owner.connection() as connection,
    ):
        await connection.execute("UPDATE events SET status = 'done', finished_at = now()")
    await gap.client.flushall()
    assert await gap.sweeper.round() == 0


async def test_one_sweeper_leads(gap: Gap) -> None:
    """The second candidate does not sweep while the first one is alive, and takes over when it is not."""
    other = Sweeper(gap.sweeper._database, gap.client, name="other")
    assert [True, False, True] == [await gap.sweeper._lead(), await other._lead(), await gap.sweeper._lead()]
    await gap.client.delete(sweeper.LEADER)
    assert await other._lead()
