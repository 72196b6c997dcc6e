from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any
from uuid import uuid4

import pytest
import redis.asyncio
from pydantic import SecretStr

from infra.bus import open_redis
from infra.database import Database
from infra.settings import Settings
from tests.conftest import open_resources
from tests.drive import Drive
from tests.infra.raw_server import Exchange, raw_server
from tests.workers.deliver.conftest import Register, Say
from workers.deliver.breaker import MINIMUM
from workers.deliver.rate import LONGEST, Rates

STATES = "SELECT endpoint_id, status, attempts FROM deliveries WHERE tenant_id = $1"
ENDPOINT = (
    "SELECT status, status_reason, failing_since, extract(epoch FROM throttled_until - now()) AS pause"
    " FROM webhook_endpoints WHERE endpoint_id = $1"
)


class Moody:
    """A receiver whose answer a test may change."""

    def __init__(self, status: int, **headers: str) -> None:
        self.status, self.headers = status, headers

    async def __call__(self, exchange: Exchange) -> None:
        """Answer."""
        await exchange.reply(self.status, b"", **self.headers)


async def states(drive: Drive, tenant: str, endpoint: object) -> list[tuple[str, int]]:
    """Status and attempts of an endpoint's deliveries."""
    rows = await drive.rows(STATES, tenant)
    return sorted((row["status"], row["attempts"]) for row in rows if row["endpoint_id"] == endpoint)


async def show(drive: Drive, endpoint: object) -> dict[str, Any]:
    """An endpoint's row."""
    [row] = await drive.rows(ENDPOINT, endpoint)
    return row


@pytest.fixture
async def other_worker(
    settings: Settings, worker_database: Database, redis_client: redis.asyncio.Redis, owner_database: Database
) -> AsyncIterator[Drive]:
    """A second worker process's deliver pool, with a memory of its own."""
    async with AsyncExitStack() as held:
        opened = await held.enter_async_context(open_resources(settings, worker_database, redis_client))
        drive = await held.enter_async_context(Drive.open(opened, owner_database))
        await drive.use("deliver")
        yield drive


async def test_asked_to_slow_down_every_worker_does(
    drive: Drive, other_worker: Drive, tenant: str, register: Register, say: Say
) -> None:
    """After one 429 nothing more is sent to the endpoint until the pause is over, by no worker, and no attempt is charged."""
    await drive.use("deliver")
    moody = Moody(429, retry_after="120")
    async with raw_server(moody) as server:
        endpoint = await register(f"http://127.0.0.1:{server.port}/")
        await say(document_id="d0")
        await drive.step(tenant)
        for number in range(1, 5):
            await say(document_id=f"d{number}")
        await drive.step(tenant)
        await other_worker.step(tenant)
        assert 1 == len(server.heads)
        assert [("pending", 0)] * 4 + [("retrying", 1)] == await states(drive, tenant, endpoint.id)
        row = await show(drive, endpoint.id)
        assert ("throttled", "the receiver answered 429") == (row["status"], row["status_reason"])
        assert 100 < row["pause"] <= 120
        waits = await drive.rows(
            "SELECT extract(epoch FROM due_at - now()) AS wait FROM events WHERE tenant_id = $1"
            " AND type = 'delivery.due'",
            tenant,
        )
        assert all(wait["wait"] > 90 for wait in waits)

        moody.status = 204
        await drive.rows(
            "UPDATE webhook_endpoints SET throttled_until = now() WHERE endpoint_id = $1 RETURNING 1",
            endpoint.id,
        )
        async with AsyncExitStack() as held:
            fresh = await held.enter_async_context(Drive.open(drive.resources, drive.owner))
            await fresh.use("deliver")
            await fresh.settle(tenant)
    assert {"delivered"} == {status for status, _ in await states(drive, tenant, endpoint.id)}
    row = await show(drive, endpoint.id)
    assert ("active", None, None, None) == tuple(row.values())


async def test_a_dead_endpoint_is_cut_off_and_others_are_not(
    drive: Drive, tenant: str, register: Register, say: Say
) -> None:
    """After eight attempts in vain the breaker opens: what waits is sent nowhere and charged nothing; others go on."""
    await drive.use("deliver")
    async with raw_server(Moody(200)) as server:
        well = await register(f"http://127.0.0.1:{server.port}/")
        dead = await register("http://127.0.0.1:1/")
        for number in range(MINIMUM + 5):
            await say(document_id=f"d{number}")
        for _ in range(MINIMUM):
            await drive.step(tenant)
        tried = await drive.rows(
            "SELECT 1 FROM delivery_attempts WHERE tenant_id = $1 AND error = 'connect'", tenant
        )
        assert MINIMUM <= len(tried) <= MINIMUM + 2
        await say(document_id="later")
        await drive.step(tenant)
    assert [("delivered", 1)] * (MINIMUM + 6) == await states(drive, tenant, well.id)
    assert ("pending", 0) in await states(drive, tenant, dead.id)
    row = await show(drive, dead.id)
    assert ("throttled", "the connection was refused") == (row["status"], row["status_reason"])
    assert row["failing_since"] is not None
    assert "active" == (await show(drive, well.id))["status"]


async def test_five_days_of_failures_disable(drive: Drive, tenant: str, register: Register, say: Say) -> None:
    """An endpoint that did nothing but fail for five days is disabled, and the others are told where and why."""
    await drive.use("deliver")
    async with raw_server(Moody(500)) as bad, raw_server(Moody(200)) as other:
        endpoint = await register(f"http://127.0.0.1:{bad.port}/", types=("document.*",))
        await register(f"http://127.0.0.1:{other.port}/", types=("endpoint.disabled",))
        await say(document_id="d1")
        await drive.step(tenant)
        await drive.rows(
            "UPDATE webhook_endpoints SET failing_since = failing_since - interval '5 days'"
            " WHERE endpoint_id = $1 RETURNING 1",
            endpoint.id,
        )
        await drive.settle(tenant)
        told = [json.loads(body) for body in other.bodies]
    reason = "nothing but failures for five days; at last: the receiver answered 500"
    assert [{"endpoint_id": str(endpoint.id), "reason": reason}] == [one["data"] for one in told]
    assert ["endpoint.disabled"] == [one["type"] for one in told]
    assert [("dead", 2)] == await states(drive, tenant, endpoint.id)
    row = await show(drive, endpoint.id)
    assert ("disabled", reason, None) == (row["status"], row["status_reason"], row["pause"])


async def test_a_success_begins_the_five_days_anew(
    drive: Drive, tenant: str, register: Register, say: Say
) -> None:
    """One message that arrived ends the series of failures, however long it was."""
    await drive.use("deliver")
    moody = Moody(500)
    async with raw_server(moody) as server:
        endpoint = await register(f"http://127.0.0.1:{server.port}/")
        await say(document_id="d1")
        await drive.step(tenant)
        assert (await show(drive, endpoint.id))["failing_since"] is not None
        moody.status = 200
        await drive.settle(tenant)
    assert (await show(drive, endpoint.id))["failing_since"] is None


async def test_a_rate_limit_holds(drive: Drive, tenant: str, register: Register, say: Say) -> None:
    """Above its rate an endpoint is sent nothing; what is too early comes back uncharged, one after the other."""
    await drive.use("deliver")
    async with raw_server(Moody(200)) as server:
        endpoint = await register(f"http://127.0.0.1:{server.port}/", rate_limit=0.02)
        for number in range(4):
            await say(document_id=f"d{number}")
        await drive.step(tenant)
        await drive.step(tenant)
        assert 1 == len(server.heads)
    assert [("delivered", 1)] + [("pending", 0)] * 3 == await states(drive, tenant, endpoint.id)


async def test_callbacks_share_their_prefix(drive: Drive, tenant: str, register: Register, say: Say) -> None:
    """Callbacks have the pause of the endpoint whose prefix covers them, whatever their own address is."""
    await drive.use("deliver")
    async with raw_server(Moody(503)) as server:
        prefix = f"http://127.0.0.1:{server.port}/callbacks"
        endpoint = await register(prefix, callback_prefix=True)
        await say(callback_url=f"{prefix}/1", document_id="d1")
        await drive.step(tenant)
        await say(callback_url=f"{prefix}/2", document_id="d2")
        await drive.step(tenant)
        assert ["POST /callbacks/1 HTTP/1.1"] == [head.split("\r\n")[0] for head in server.heads]
    assert [("pending", 0), ("retrying", 1)] == await states(drive, tenant, endpoint.id)
    assert "throttled" == (await show(drive, endpoint.id))["status"]


async def test_a_dead_proxy_is_our_fault(
    settings: Settings,
    worker_database: Database,
    redis_client: redis.asyncio.Redis,
    owner_database: Database,
    tenant: str,
    register: Register,
    say: Say,
) -> None:
    """While our egress proxy is away messages wait, no attempt is charged, and no endpoint is blamed."""
    changed = settings.model_copy(update={"egress_proxy": SecretStr("http://127.0.0.1:1")})
    async with AsyncExitStack() as held:
        opened = await held.enter_async_context(open_resources(changed, worker_database, redis_client))
        drive = await held.enter_async_context(Drive.open(opened, owner_database))
        await drive.use("deliver")
        endpoint = await register("http://127.0.0.1:9/")
        for number in range(MINIMUM + 1):
            await say(document_id=f"d{number}")
        await drive.step(tenant)
        rows = await drive.rows("SELECT status, attempts, error FROM deliveries WHERE tenant_id = $1", tenant)
        assert {0} == {row["attempts"] for row in rows}
        tried = [row for row in rows if row["status"] == "retrying"]
        assert {"ours:PENSTOCK_EGRESS_PROXY"} == {row["error"]["code"] for row in tried}
        assert {"retrying", "pending"} >= {row["status"] for row in rows}
        row = await show(drive, endpoint.id)
        assert ("active", None, None) == (row["status"], row["failing_since"], row["pause"])


class TestRates:
    """The pace itself."""

    async def test_all_processes_share_it(self, redis_client: redis.asyncio.Redis) -> None:
        """Two processes together keep the rate: places are given one interval apart, and refusals take none."""
        one, other, endpoint = Rates(redis_client), Rates(redis_client), uuid4()
        waits = [await rates.wait(endpoint, 2.0) for rates in (one, other, one, other, one)]
        assert 0 == waits[0]
        for wait, expected in zip(waits[1:3], (0.5, 1.0), strict=True):
            assert expected - 0.3 <= wait <= expected
        assert all(LONGEST < wait <= 1.5 for wait in waits[3:])
        assert 0 == await one.wait(uuid4(), 2.0)

    async def test_the_key_expires(self, redis_client: redis.asyncio.Redis) -> None:
        """Nothing stays in Redis when an endpoint rests."""
        await Rates(redis_client).wait(uuid4(), 10.0)
        [key] = await redis_client.keys("penstock:v1:rate:*")
        assert 0 < await redis_client.pttl(key) <= 1200

    async def test_without_redis_each_process_counts(self) -> None:
        """While Redis is away the limit holds per process."""
        nobody = open_redis("redis://127.0.0.1:1/0")
        clock = iter([0.0, 0.0, 0.0, 0.6])
        rates, endpoint = Rates(nobody, lambda: next(clock)), uuid4()
        assert [0.0, 0.5, 1.0, 0.9] == [round(await rates.wait(endpoint, 2.0), 3) for _ in range(4)]
        await nobody.aclose(close_connection_pool=True)

    @pytest.mark.parametrize("per_second", [100.0, 10_000.0])
    async def test_a_fast_endpoint_may_get_a_few_at_once(
        self, redis_client: redis.asyncio.Redis, per_second: float
    ) -> None:
        """Up to a tenth of a second's worth needs no wait."""
        rates, endpoint = Rates(redis_client), uuid4()
        assert {0.0} == set(await asyncio.gather(*(rates.wait(endpoint, per_second) for _ in range(10))))
