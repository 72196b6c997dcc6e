from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import httpx2
import pytest

from infra.database import Database
from infra.keys import create_key, list_keys, revoke_key
from infra.settings import Settings
from infra.tenants import suspend_tenant
from producers.gateway.keyring import KeyRing
from producers.gateway.server import Serving, listen, open_server
from schemas.errors import Misconfigured
from tests.producers.clients import Client, NewClient


async def until(check: Callable[[], Awaitable[bool]], seconds: float = 5.0) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(seconds):
        while not await check():  # noqa: ASYNC110 - the condition is another process's
            await asyncio.sleep(0.02)


async def test_a_revocation_and_a_suspension_work_within_their_second(
    client: Client, new_client: NewClient, owner_database: Database
) -> None:
    """A key that is cached is refused soon after it was revoked or its tenant suspended, and let in again."""
    assert (await client.call("GET", "/v1/events")).status_code == 200
    other = await new_client(tenant=client.tenant)
    assert (await other.call("GET", "/v1/events")).status_code == 200
    async with owner_database.connection() as connection:
        key_id = next(
            key.key_id for key in await list_keys(connection, client.tenant) if key.revoked_at is None
        )
        victim, survivor = (client, other)
        if (await list_keys(connection, client.tenant))[0].key_id == key_id:
            victim, survivor = (other, client)
        await revoke_key(connection, key_id)

        async def answers(one: Client, status: int) -> bool:
            return (await one.call("GET", "/v1/events")).status_code == status

        await until(lambda: answers(victim, 401))
        assert await answers(survivor, 200)
        await suspend_tenant(connection, client.tenant)
        await until(lambda: answers(survivor, 403))
        await suspend_tenant(connection, client.tenant, suspended=False)
        await until(lambda: answers(survivor, 200))


async def test_an_expired_key_is_refused(
    http: httpx2.AsyncClient, owner_database: Database, tenant: str
) -> None:
    """After its time a key is as good as none, also while it is cached."""
    soon = datetime.now(UTC) + timedelta(seconds=1.5)
    async with owner_database.connection() as connection:
        key = await create_key(connection, tenant, ["publish"], expires_at=soon)
    client = Client(http, tenant, key.key)
    assert (await client.call("GET", "/v1/events")).status_code == 200

    async def refused() -> bool:
        return (await client.call("GET", "/v1/events")).status_code == 401

    await until(refused)
    assert datetime.now(UTC) >= soon


async def test_concurrent_look_ups_are_shared_and_use_is_noted(
    gateway_database: Database, owner_database: Database, tenant: str
) -> None:
    """A burst of requests with one key asks the database once; its time of use is written in one go."""
    async with owner_database.connection() as connection:
        key = await create_key(connection, tenant, ["publish"])
    ring = KeyRing(gateway_database)
    found = await asyncio.gather(*(ring.find(key.key) for _ in range(50)))
    assert {one.key_id for one in found if one} == {key.id}
    assert len(set(map(id, found))) == 1
    await ring.flush_used()
    async with owner_database.connection() as connection:
        [listed] = await list_keys(connection, tenant)
    assert listed.last_used_at is not None


async def test_the_ops_port_tells_of_health_and_queues(
    gateway: Serving, client: Client, http: httpx2.AsyncClient
) -> None:
    """Probes, metrics and scaling figures are on a port of their own, without tenants, ids or paths."""
    await client.call("GET", "/v1/collections/books/documents/secret-name")
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{gateway.ops_port}", trust_env=False) as ops:
        assert (await ops.get("/livez")).status_code == 200
        ready = await ops.get("/readyz")
        assert (ready.status_code, set(ready.json()["checks"])) == (200, {"postgres", "redis"})
        scaling = (await ops.get("/v1/scaling/ingest")).json()
        wanted = {"ready", "deferred", "running", "oldest_ready_seconds", "dead", "wanted_workers"}
        assert wanted <= scaling.keys()
        metrics = (await ops.get("/metrics")).text
    assert 'route="/v1/collections/{collection}/documents/{document_id}"' in metrics
    assert client.tenant not in metrics
    assert "secret-name" not in metrics
    assert (await http.get("/metrics")).status_code == 404


async def test_a_taken_port_is_named(gateway: Serving) -> None:
    """The setting to change stands in the message."""
    with pytest.raises(Misconfigured) as caught:
        listen(gateway.host, gateway.port)
    assert caught.value.field == "PENSTOCK_GATEWAY_PORT"


@pytest.mark.parametrize("missing", ["database_url", "redis_url"])
async def test_a_missing_setting_is_named(settings: Settings, missing: str) -> None:
    """The gateway starts nothing of its own: what is not configured is named."""
    chosen = settings.model_copy(update={missing: None, "gateway_port": 0, "ops_port": 0})
    with pytest.raises(Misconfigured) as caught:
        async with open_server(chosen):
            raise AssertionError("started")
    assert caught.value.field == missing.upper()
