from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import redis.asyncio

from infra import operations
from infra.bus import Bus
from infra.database import Connection, Database
from infra.local.servers import Servers
from infra.operations import REPLAY_CAP, DeadFilter
from infra.sweeper import Sweeper
from schemas.envelope import parse_event
from schemas.errors import BadInput, NotFound, PenstockError, Unavailable

INGEST = "penstock:ingest"


@dataclass(frozen=True, slots=True)
class Office:
    """What an operator has: the owner's connection, Redis, and a sweeper that runs beside."""

    owner: Connection
    client: redis.asyncio.Redis
    bus: Bus
    sweeper: Sweeper

    async def publish(self, count: int = 1, *, tenant: str = "acme") -> list[UUID]:
        """Accept documents."""
        raw = [
            {
                "specversion": "1.0",
                "id": str(uuid4()),
                "source": "s",
                "type": "document.added",
                "data": {"collection": "c", "document_id": "d", "content": "canary"},
            }
            for _ in range(count)
        ]
        results = await self.bus.publish(tenant, [parse_event(one) for one in raw])
        # Ids of one millisecond are in no order, so tests that speak of order take the sorted ids.
        return sorted(result.event_id for result in results if result.event_id is not None)

    async def kill(self, ids: list[UUID], error: PenstockError | None = None) -> None:
        """Let events be given up, as a worker does it."""
        await self.owner.execute(
            "UPDATE events SET status = 'dead', attempts = 5, losses = 2, finished_at = now(), dead_at = now(), error = $2"
            " WHERE event_id = ANY ($1::uuid[])",
            ids,
            (error or Unavailable("away", fix="wait")).as_dict(),
        )
        await self.client.zrem(INGEST, *(str(one) for one in ids))

    async def dead(self, **which: Any) -> list[UUID]:
        """The ids that a filter finds."""
        return [row["event_id"] for row in await operations.list_dead(self.owner, DeadFilter(**which))]

    async def queued(self) -> set[str]:
        """The ids on the ingest queue."""
        return {member.decode() for member in await self.client.zrange(INGEST, 0, -1)}

    async def audit(self) -> list[tuple[str, str, str, Any]]:
        """The audit lines in order."""
        rows = await self.owner.fetch(
            "SELECT tenant_id, actor, action, details FROM audit_log ORDER BY at, 1"
        )
        return [tuple(row.values()) for row in rows]


@pytest.fixture
async def office(fresh_database: Servers, redis_client: redis.asyncio.Redis) -> AsyncIterator[Office]:
    """A ledger of the test's own with two tenants."""
    async with (
        Database.open(fresh_database.database_owner_url, role=None, size=1) as owner,
        Database.open(fresh_database.database_url, role="penstock_gateway", size=2) as gateway,
        Database.open(fresh_database.database_url, role="penstock_system", size=2) as system,
        owner.connection() as connection,
    ):
        await connection.execute("INSERT INTO tenants (tenant_id) VALUES ('acme'), ('other')")
        bus = Bus(gateway, redis_client)
        yield Office(connection, redis_client, bus, Sweeper(system, redis_client, name="test", lag=0.0))
        await bus.aclose()


async def test_dead_events_are_found_by_each_filter(office: Office) -> None:
    """Tenant, queue, type, error, time and id; newest first; no payload."""
    [first, second] = await office.publish(2)
    [foreign] = await office.publish(tenant="other")
    newest_first = sorted([first, second, foreign], reverse=True)
    [alive] = await office.publish()
    await office.kill([first, foreign])
    await office.kill([second], BadInput("bad"))
    assert newest_first == await office.dead()
    assert [second, first] == await office.dead(tenant="acme")
    assert [second] == await office.dead(error="bad_input")
    assert [first] == await office.dead(event_id=first)
    assert 3 == len(await office.dead(queue=INGEST, type="document.added"))
    assert [] == await office.dead(queue="penstock:train")
    assert [] == await office.dead(since=datetime.now(UTC) + timedelta(hours=1))
    assert "canary" not in str(await operations.list_dead(office.owner, DeadFilter()))
    assert alive not in await office.dead()


async def test_a_replayed_event_starts_its_life_again(office: Office) -> None:
    """Accepted, without attempts or losses, on its queue, with its story and an audit line."""
    [event_id] = await office.publish()
    await office.kill([event_id])
    dead = await operations.list_dead(office.owner, DeadFilter())
    assert 1 == await operations.replay(office.owner, office.client, dead, actor="ada")
    event = await operations.show_event(office.owner, event_id)
    assert ("accepted", 0, 0, None) == (
        event["status"],
        event["attempts"],
        event["losses"],
        event["finished_at"],
    )
    assert ("replayed", "ada") == (event["story"][-1]["what"], event["story"][-1]["by"])
    assert {str(event_id)} == await office.queued()
    assert [("acme", "ada", "dead.replay", {"events": 1})] == await office.audit()
    assert [] == await office.dead()


async def test_two_operators_replay_an_event_once(office: Office) -> None:
    """Those that came back meanwhile do not count."""
    ids = await office.publish(3)
    await office.kill(ids)
    seen = await operations.list_dead(office.owner, DeadFilter())
    assert 3 == await operations.replay(office.owner, office.client, seen)
    assert 0 == await operations.replay(office.owner, office.client, seen)
    assert 1 == len(await office.audit())


async def test_a_replay_is_staggered_oldest_first(office: Office) -> None:
    """A thousand documents that died of an outage do not come back in one second."""
    ids = await office.publish(3)
    await office.kill(ids)
    seen = await operations.list_dead(office.owner, DeadFilter())
    await operations.replay(office.owner, office.client, seen, per_second=0.1)
    rows = await office.owner.fetch(
        "SELECT event_id, due_at - now() AS wait FROM events ORDER BY due_at NULLS FIRST"
    )
    assert ids == [row["event_id"] for row in rows]
    assert rows[0]["wait"] is None
    assert timedelta(seconds=15) < rows[2]["wait"] <= timedelta(seconds=20)
    scores = [await office.client.zscore(INGEST, str(one)) for one in ids]
    assert scores == sorted(scores)


async def test_a_replay_whose_push_was_lost_is_found_by_the_sweeper(office: Office) -> None:
    """The ledger says accepted, Redis never heard of it: the next round pushes it, although its id is old."""
    [event_id] = await office.publish()
    await office.kill([event_id])
    await office.sweeper.round()
    await office.sweeper.round()
    away = redis.asyncio.Redis(host="127.0.0.1", port=1)
    dead = await operations.list_dead(office.owner, DeadFilter())
    with pytest.raises((redis.asyncio.ConnectionError, PenstockError)):
        await operations.replay(office.owner, away, dead)
    await away.aclose()
    assert set() == await office.queued()
    assert 1 == await office.sweeper.round() + await office.sweeper.round()
    assert {str(event_id)} == await office.queued()


async def test_discarded_events_leave_the_list_and_stay_in_the_ledger(office: Office) -> None:
    """Nobody is asked about them again; their story says who did it, per tenant."""
    [mine] = await office.publish()
    [foreign] = await office.publish(tenant="other")
    await office.kill([mine, foreign])
    dead = await operations.list_dead(office.owner, DeadFilter())
    assert 2 == await operations.discard(office.owner, dead, actor="ada")
    assert [] == await office.dead()
    event = await operations.show_event(office.owner, mine)
    assert ("dead", "discarded") == (event["status"], event["story"][-1]["what"])
    lines = [("acme", "ada", "dead.discard", {"events": 1}), ("other", "ada", "dead.discard", {"events": 1})]
    assert lines == await office.audit()
    assert 0 == await operations.discard(office.owner, dead, actor="ada")
    await office.client.flushall()
    assert 0 == await office.sweeper.round()


async def test_too_many_at_once_are_refused(office: Office) -> None:
    """The cap is named, and nothing is touched."""
    with pytest.raises(BadInput) as caught:
        await operations.replay(office.owner, office.client, [{"event_id": UUID(int=1)}] * (REPLAY_CAP + 1))
    assert ("limit", True) == (caught.value.field, str(REPLAY_CAP) in (caught.value.fix or ""))


async def test_an_unknown_event_is_not_found(office: Office) -> None:
    """The id is said, so that a typing error is seen."""
    with pytest.raises(NotFound, match=str(UUID(int=1))):
        await operations.show_event(office.owner, UUID(int=1))


async def test_counts_tell_what_waits_and_what_died(office: Office) -> None:
    """Per queue, type and state; finished events are not counted."""
    ids = await office.publish(3)
    await office.kill(ids[:1])
    await office.owner.execute(
        "UPDATE events SET status = 'done', finished_at = now() WHERE event_id = $1", ids[1]
    )
    found = {(row["type"], row["status"]): row["events"] for row in await operations.counts(office.owner)}
    assert {("document.added", "accepted"): 1, ("document.added", "dead"): 1} == found


NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
EVENT: dict[str, Any] = {
    "accepted_at": NOW - timedelta(seconds=9), "started_at": NOW - timedelta(seconds=4), "finished_at": None, "due_at": None,
    "attempts": 2, "token": 7, "queue": INGEST, "error": None,
}  # fmt: skip
PROBLEM = {"code": "unavailable", "message": "away", "fix": "wait"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"status": "done", "finished_at": NOW}, ["9.0 s", "attempt 2"]),
        ({"status": "dead", "error": PROBLEM}, ["2 attempts", "unavailable: away", "wait", "dead replay"]),
        ({"status": "running"}, ["4 s", "token 7"]),
        ({"status": "paused_budget"}, ["budget", "limit is raised"]),
        ({"status": "retrying", "error": PROBLEM, "due_at": NOW}, ["Attempt 2 failed", "12:00:00"]),
        ({"status": "retrying", "error": PROBLEM}, ["unavailable: away", "due now"]),
        ({"status": "accepted", "due_at": NOW}, ["waits until 2026-01-01 12:00:00"]),
        ({"status": "accepted"}, ["9 s ago", "not yet taken", INGEST]),
    ],
)
def test_an_event_is_explained_in_one_sentence(changes: dict[str, Any], words: list[str]) -> None:
    """Where it stands and what happens next."""
    sentence = operations.explain({**EVENT, **changes}, now=NOW)
    assert [] == [word for word in words if word not in sentence]
