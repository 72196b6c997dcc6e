import dataclasses
import time
from typing import Any
from uuid import uuid4

import pytest
import redis.asyncio

from infra import attempts, ledger
from infra.attempts import NotYet
from infra.bus import Bus
from infra.database import Database
from schemas.envelope import Event, parse_event
from schemas.errors import IdReused
from schemas.work import Work
from tests.conftest import NewTenant


def document(name: str = "d1", *, content: str = "text", **attributes: Any) -> Event:
    """An event as a caller sends it."""
    data = {"collection": "c", "document_id": name, "content": content}
    return parse_event(
        {
            "specversion": "1.0",
            "id": str(uuid4()),
            "source": "test",
            "type": "document.added",
            "data": data,
            **attributes,
        }
    )


@pytest.fixture
async def bus(gateway_database: Database, redis_client: redis.asyncio.Redis) -> Bus:
    """The gateway's bus."""
    return Bus(gateway_database, redis_client)


def test_the_hash_tells_a_repetition_from_a_reused_id() -> None:
    """Key order does not matter; other data, another sequence or another subject does."""
    first = ledger.data_sha256(document(subject="s"))
    data = {"content": "text", "document_id": "d1", "collection": "c"}
    assert first == ledger.data_sha256(document(subject="s", data=data))
    others = [document(subject="s", content="other"), document(subject="s", sequence=1), document()]
    assert all(first != ledger.data_sha256(other) for other in others)


async def test_an_accepted_event_is_in_the_ledger_and_on_its_queue(
    bus: Bus, tenant: str, redis_client: redis.asyncio.Redis, owner_database: Database
) -> None:
    """Publishing writes one row and pushes its id, nothing else, onto the queue of its type."""
    event = document(subject="s", sequence=7, correlationid="thread")
    [accepted] = await bus.publish(tenant, [event])
    assert accepted.status == "accepted"
    async with owner_database.connection() as connection:
        row = await connection.fetchrow("SELECT * FROM events WHERE event_id = $1", accepted.event_id)
    assert row is not None
    assert (tenant, "document.added", "s", 7, "accepted") == (
        row["tenant_id"], row["type"], row["subject"], row["sequence"], row["status"],
    )  # fmt: skip
    assert {"correlationid": "thread"} == row["attributes"]
    assert event.data == row["data"]
    assert await redis_client.zscore("penstock:ingest", str(accepted.event_id)) is not None
    payload = await redis_client.get(f"arq:job:{accepted.event_id}")
    assert payload is not None
    assert b"text" not in payload
    assert await redis_client.ttl(f"arq:job:{accepted.event_id}") == -1


async def test_the_same_event_again_is_a_duplicate(bus: Bus, tenant: str) -> None:
    """Source and id are the caller's key: a repetition is told the first event's id and enters nothing."""
    event = document()
    [first] = await bus.publish(tenant, [event])
    [again] = await bus.publish(tenant, [event])
    assert ("duplicate", first.event_id) == (again.status, again.event_id)


async def test_a_reused_id_with_other_data_is_refused(bus: Bus, tenant: str) -> None:
    """The same key with other data is refused, and the batch's other events are accepted."""
    event = document()
    await bus.publish(tenant, [event])
    changed = parse_event(
        {"specversion": "1.0", "id": event.id, "source": "test", "type": "document.added",
         "data": {"collection": "c", "document_id": "d1", "content": "other"}}
    )  # fmt: skip
    refused, accepted = await bus.publish(tenant, [changed, document()])
    assert ("rejected", "accepted") == (refused.status, accepted.status)
    assert isinstance(refused.error, IdReused)


async def test_a_repetition_within_one_batch_enters_once(bus: Bus, tenant: str) -> None:
    """Of two equal events of one batch the first becomes a row and the second its duplicate."""
    event = document()
    results = await bus.publish(tenant, [event, event])
    assert ["accepted", "duplicate"] == [result.status for result in results]
    assert results[0].event_id == results[1].event_id


async def test_an_event_that_only_the_database_refuses_is_refused_alone(bus: Bus, tenant: str) -> None:
    """What passed the gate and cannot be stored all the same is rejected by itself; its neighbours are accepted."""
    nul = dataclasses.replace(document(), data={"collection": "c", "document_id": "d", "content": "nul \x00"})
    results = await bus.publish(tenant, [document(), nul, document()])
    assert ["accepted", "rejected", "accepted"] == [result.status for result in results]
    assert "nul" not in str(results[1].error)


async def test_tenants_do_not_share_keys(bus: Bus, new_tenant: NewTenant) -> None:
    """The same source and id of two tenants are two events."""
    event = document()
    [one] = await bus.publish(await new_tenant(), [event])
    [other] = await bus.publish(await new_tenant(), [event])
    assert ("accepted", "accepted") == (one.status, other.status)


async def test_redis_away_is_no_error(gateway_database: Database, tenant: str) -> None:
    """The promise needs the ledger only: without Redis an event is accepted all the same."""
    nowhere = redis.asyncio.Redis(host="127.0.0.1", port=1)
    [accepted] = await Bus(gateway_database, nowhere).publish(tenant, [document()])
    assert accepted.status == "accepted"
    await nowhere.aclose()


async def test_a_claim_returns_the_event_once(bus: Bus, tenant: str, worker_database: Database) -> None:
    """Under a newer token an event comes back with what its handler needs; under an older one it does not."""
    [accepted] = await bus.publish(tenant, [document(sequence=3)])
    assert accepted.event_id is not None
    token = time.time_ns() // 1000
    found = await attempts.claim(worker_database, [(accepted.event_id, token)])
    work = found[accepted.event_id]
    assert isinstance(work, Work)
    assert (tenant, 3, 1, 0, token) == (work.tenant_id, work.sequence, work.attempt, work.losses, work.token)
    older = await attempts.claim(worker_database, [(accepted.event_id, token - 1)])
    assert isinstance(older[accepted.event_id], NotYet)
    newer = (await attempts.claim(worker_database, [(accepted.event_id, token + 1)]))[accepted.event_id]
    assert isinstance(newer, Work)
    assert newer.losses == 1


async def test_an_unknown_id_does_not_come_back(worker_database: Database) -> None:
    """The ledger, not Redis, says which events exist."""
    unknown = uuid4()
    assert await attempts.claim(worker_database, [(unknown, 1)]) == {}
    assert set() == await attempts.known(worker_database, [unknown])
