from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr

from infra.database import Database
from infra.keys import create_key
from infra.limits import SENTENCES, TenantLimits, check_limit
from infra.local.servers import Servers
from infra.settings import Settings
from infra.tenants import create_tenant, set_limits
from producers.gateway.rates import Rates
from producers.gateway.server import open_server
from producers.pressure import Bounds, Load, find_excess
from schemas.envelope import parse_event
from schemas.errors import BadInput
from tests.producers.clients import (
    STRUCTURED,
    Client,
    NewClient,
    cloud_event,
    document_event,
    example_event,
)


async def limited(owner: Database, new_client: NewClient, tenant: str, **limits: Any) -> Client:
    """A key that the gateway has not seen before, of a tenant with limits."""
    async with owner.connection() as connection:
        await set_limits(connection, tenant, limits)
    return await new_client(tenant=tenant)


async def statuses(client: Client, *events: dict[str, Any]) -> list[str]:
    """What becomes of each event of a batch."""
    return [
        (one["error"] or {}).get("field", "") if one["status"] == "rejected" else one["status"]
        for one in await client.publish(*events)
    ]


async def test_each_limit_of_a_tenant_holds(
    new_client: NewClient, owner_database: Database, tenant: str
) -> None:
    """What would pass a limit is refused and names it, one by one within a batch."""
    client = await limited(
        owner_database, new_client, tenant, documents=2, examples=1, queries=1, endpoints=1
    )
    many = [document_event(name) for name in ("a", "b", "c")]
    assert ["accepted", "accepted", "documents"] == await statuses(client, *many)
    assert ["accepted", "examples"] == await statuses(client, example_event("one"), example_event("two"))
    ask = [cloud_event("query.received", {"collections": ["books"], "question": q}) for q in ("x", "y")]
    assert ["accepted", "queries"] == await statuses(client, *ask)
    hooks = [
        await client.call("POST", "/v1/webhooks", json={"url": "http://127.0.0.1:9/a"}) for _ in range(2)
    ]
    assert [201, 429] == [hook.status_code for hook in hooks]
    assert ("endpoints", "limit_reached") == (hooks[1].json()["field"], hooks[1].json()["code"])
    assert int(hooks[1].headers["retry-after"]) > 0
    client = await limited(owner_database, new_client, tenant, documents=9, bytes=30)
    assert ["bytes"] == await statuses(client, document_event("big") | {"id": "big"})


async def test_a_version_of_a_known_document_takes_no_place(
    new_client: NewClient, owner_database: Database, tenant: str
) -> None:
    """At its limit a tenant can still change what it has, and no more."""
    async with owner_database.connection() as connection:
        await connection.execute(
            "INSERT INTO collections (tenant_id, name, space_id) SELECT $1, 'books', space_ensure('t', 'm', 8)",
            tenant,
        )
        await connection.execute(
            "INSERT INTO documents (tenant_id, collection_id, document_id, status, sequence, explicit_sequence)"
            " SELECT tenant_id, collection_id, 'a', 'indexed', 1, false FROM collections WHERE tenant_id = $1",
            tenant,
        )
    client = await limited(owner_database, new_client, tenant, documents=1)
    assert ["accepted", "documents"] == await statuses(client, document_event("a"), document_event("b"))


async def test_what_did_not_get_in_is_not_counted(
    gateway_database: Database, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events count from when they are let through; those that the ledger could not take are given back."""
    monkeypatch.setattr("infra.limits.FRESH", 3600.0)
    limits, allowed = TenantLimits(gateway_database), {"examples": 1}
    event = parse_event(example_event())
    assert {} == await limits.refuse(tenant, allowed, [event])
    assert [0] == list(await limits.refuse(tenant, allowed, [event]))
    limits.forget(tenant)
    assert {} == await limits.refuse(tenant, allowed, [event])


@pytest.mark.parametrize(
    ("name", "value"),
    [("documents", -1), ("documents", 1.5), ("documents", True), ("coffee", 1), ("requests_per_minute", 0)],
)
def test_a_limit_that_cannot_be_is_refused(name: str, value: Any) -> None:
    """A mistyped limit would limit nothing."""
    with pytest.raises(BadInput):
        check_limit(name, value)
    assert all(check_limit(one, 1) == 1 for one in SENTENCES)


async def test_a_key_has_a_rate(
    http: httpx2.AsyncClient, owner_database: Database, tenant: str, new_client: NewClient
) -> None:
    """Every answer says how the key stands; beyond its rate it is 429 and told when, and no other key is held up."""
    async with owner_database.connection() as connection:
        key = await create_key(connection, tenant, ["ops"], rate_per_minute=3)
    slow = Client(http, tenant, key.key)
    answers = [await slow.call("GET", "/v1/events") for _ in range(4)]
    assert [200, 200, 200, 429] == [answer.status_code for answer in answers]
    assert '"key";q=3;w=60' == answers[0].headers["ratelimit-policy"]
    assert ['"key";r=2', '"key";r=0'] == [answers[n].headers["ratelimit"].split(";t=")[0] for n in (0, 3)]
    assert answers[3].json()["code"] == "too_many_requests"
    assert 1 <= int(answers[3].headers["retry-after"]) <= 60
    other = await new_client(tenant=tenant)
    assert (await other.call("GET", "/v1/events")).status_code == 200


def test_a_minute_ends() -> None:
    """A key's requests count within their minute; a request too many costs nothing of the next one."""
    rates = Rates()
    assert [1, 0, -1, -1] == [rates.count("k", 2, now).left for now in (0.0, 1.0, 2.0, 59.0)]
    assert 1 == rates.count("k", 2, 59.5).seconds
    assert (1, 60) == ((again := rates.count("k", 2, 60.0)).left, again.seconds)


@pytest.mark.parametrize(
    ("load", "queues", "word"),
    [
        (Load(9, {"a": 4}), ["a"], None),
        (Load(10, {}), [], "ledger"),
        (Load(0, {"a": 5, "b": 0}), ["a"], "queue a"),
        (Load(0, {"a": 5, "b": 0}), ["b"], None),
    ],
)
def test_when_nothing_more_is_taken(load: Load, queues: list[str], word: str | None) -> None:
    """A full ledger holds up everything, a full queue what would go there."""
    reason = find_excess(load, Bounds(waiting=10, queued=5), queues)
    assert reason is None if word is None else word in str(reason)


async def test_a_full_ledger_is_said_and_recovers(settings: Settings, fresh_database: Servers) -> None:
    """Over its bound the gateway takes nothing and says when to come back; when work is done it goes on by itself."""
    update = {
        "database_url": SecretStr(fresh_database.database_url),
        "gateway_port": 0,
        "ops_port": 0,
        "max_waiting": 2,
    }
    async with (
        Database.open(fresh_database.database_owner_url, role=None, size=1) as owner,
        open_server(settings.model_copy(update=update)) as serving,
        httpx2.AsyncClient(base_url=serving.url, trust_env=False, timeout=30) as http,
    ):
        async with owner.connection() as connection:
            await create_tenant(connection, "acme")
            key = await create_key(connection, "acme", ["publish"])
        client = Client(http, "acme", key.key)

        async def publish(number: int) -> httpx2.Response:
            return await client.call(
                "POST", "/v1/events", json=example_event(str(number), id=str(number)), headers=STRUCTURED
            )

        async def until(status: int, number: int = 0) -> tuple[httpx2.Response, int]:
            async with asyncio.timeout(30):
                while (answer := await publish(number)).status_code != status:
                    number += answer.status_code == 202
                    await asyncio.sleep(0.1)
            return answer, number

        answer, number = await until(503)
        assert "overloaded" == answer.json()["code"]
        assert int(answer.headers["retry-after"]) >= 1
        async with owner.connection() as connection:
            assert number == await connection.fetchval("SELECT count(*) FROM events")
            await connection.execute("UPDATE events SET status = 'done', finished_at = now()")
        answer, _ = await until(202, number)
        assert "accepted" == answer.json()["results"][0]["status"]
