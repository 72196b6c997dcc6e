import json
import secrets
from collections.abc import Awaitable
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
import redis.asyncio

from infra import queue_keys
from infra.bus import Bus
from infra.database import Database
from infra.governor import Governor
from infra.governor_rules import Priority
from schemas.envelope import parse_event
from schemas.errors import PoolPaused
from tests.cli.commands import Penstock
from workers.engine.deadletters import letter_for
from workers.engine.types import ClaimedJob


@pytest.fixture
async def dead_event(
    gateway_database: Database, owner_database: Database, redis_client: redis.asyncio.Redis, tenant: str
) -> UUID:
    """A document that was given up."""
    bus = Bus(gateway_database, redis_client)
    data = {"collection": "c", "document_id": "d", "content": "canary"}
    raw = {"specversion": "1.0", "id": str(uuid4()), "source": "s", "type": "document.added", "data": data}
    [accepted] = await bus.publish(tenant, [parse_event(raw)])
    await bus.aclose()
    assert accepted.event_id is not None
    async with owner_database.connection() as connection:
        await connection.execute(
            "UPDATE events SET status = 'dead', attempts = 5, finished_at = now(), dead_at = now(), error = $2"
            " WHERE event_id = $1",
            accepted.event_id,
            {"code": "unreadable", "message": "The document cannot be read"},
        )
    await redis_client.zrem("penstock:ingest", str(accepted.event_id))
    return accepted.event_id


def test_a_tenant_and_its_keys_are_made_listed_and_taken_back(penstock: Penstock) -> None:
    """A key's secret is shown once; a revoked key says since when."""
    name = f"cli-{secrets.token_hex(4)}"
    assert name == penstock.json("tenants", "create", name, "--title", "Acme")["tenant_id"]
    assert name in {one["tenant_id"] for one in penstock.json("tenants", "list")}
    assert "Acme" == penstock.json("tenants", "show", name)["title"]
    key = penstock.json("keys", "create", "--tenant", name, "--scope", "publish", "--scope", "query")
    assert (name, ["publish", "query"]) == (key["tenant"], sorted(key["scopes"]))
    listed = penstock.run("keys", "list", "--tenant", name, "--json").stdout
    assert key["key"] not in listed
    penstock.run("keys", "revoke", key["id"])
    [row] = penstock.json("keys", "list", "--tenant", name)
    assert row["revoked_at"] is not None
    assert penstock.json("tenants", "suspend", name)["suspended_at"] is not None
    assert penstock.json("tenants", "suspend", name, "--resume")["suspended_at"] is None
    penstock.run("tenants", "limits", name, "--set", "documents=5", "--set", "budget_day=2.5")
    now = penstock.json("tenants", "limits", name, "--unset", "documents", "--set", "queries=3")
    limits = {one["limit"]: (one["allowed"], one["used"]) for one in now}
    assert {"documents": (None, 0), "queries": (3, 0), "budget_day": (2.5, None)} == {
        limit: limits[limit] for limit in ("documents", "queries", "budget_day")
    }


async def test_a_pause_of_the_model_api_is_shown_and_ended(
    penstock: Penstock, redis_client: redis.asyncio.Redis
) -> None:
    """The reason stands in `governor show` and in `status`; `governor resume` lets calls go on."""
    governor = Governor(redis_client, "account")
    reason = PoolPaused("the model API refused the key (401)", fix="set a valid key")
    with pytest.raises(PoolPaused):
        async with governor.call("some-model", 1, Priority.INGEST):
            raise reason
    [shown] = penstock.json("governor", "show")
    assert ("some-model", reason.message) == (shown["model"], shown["paused"])
    assert reason.message in penstock.run("status").stdout
    assert "ended 1" in penstock.run("governor", "resume").stdout
    assert [None] == [one["paused"] for one in penstock.json("status")["models"]]


def test_a_tenant_is_made_once(penstock: Penstock) -> None:
    """The second one of a name fails in one line."""
    name = f"cli-{secrets.token_hex(4)}"
    penstock.run("tenants", "create", name)
    assert "error: " in penstock.run("tenants", "create", name, expect=1).stderr


def test_events_are_listed_shown_and_explained(penstock: Penstock, dead_event: UUID, tenant: str) -> None:
    """By tenant, type and state; with their story, and without their payload."""
    [row] = penstock.json(
        "events", "list", "--tenant", tenant, "--type", "document.added", "--status", "dead"
    )
    assert str(dead_event) == row["event_id"]
    assert [] == penstock.json("events", "list", "--tenant", tenant, "--status", "done")
    shown = penstock.run("events", "show", str(dead_event), "--json").stdout
    assert "unreadable" == json.loads(shown)["error"]["code"]
    assert "canary" not in shown
    assert "Given up after 5 attempts" in penstock.run("events", "explain", str(dead_event)).stdout


def test_an_event_that_does_not_exist_is_said(penstock: Penstock) -> None:
    """Exit 1 and the id."""
    missing = str(uuid4())
    assert missing in penstock.run("events", "show", missing, expect=1).stderr


def test_dead_events_are_replayed(penstock: Penstock, dead_event: UUID, tenant: str) -> None:
    """A dry run counts; the real one brings them back, once."""
    [row] = penstock.json("dead", "list", "--tenant", tenant, "--queue", "ingest")
    assert (str(dead_event), "unreadable") == (row["event_id"], row["code"])
    assert {"matched": 1, "replayed": 0} == penstock.json("dead", "replay", "--tenant", tenant, "--dry-run")
    assert {"matched": 1, "replayed": 1} == penstock.json("dead", "replay", "--tenant", tenant)
    assert {"matched": 0, "replayed": 0} == penstock.json("dead", "replay", "--tenant", tenant)
    assert "accepted" == penstock.json("events", "show", str(dead_event))["status"]


def test_dead_events_are_discarded(penstock: Penstock, dead_event: UUID, tenant: str) -> None:
    """They leave the list for good and stay in the ledger."""
    assert {"matched": 1, "discarded": 1} == penstock.json("dead", "discard", "--event", str(dead_event))
    assert [] == penstock.json("dead", "list", "--tenant", tenant)
    assert "dead" == penstock.json("events", "show", str(dead_event))["status"]


async def test_dead_jobs_without_a_row_are_listed_replayed_and_discarded_too(
    penstock: Penstock, redis_client: redis.asyncio.Redis, owner_database: Database, tenant: str
) -> None:
    """An operator need not know in which store a dead letter is; what is done to it is audited."""
    payload = b'{"t":null,"f":"odd.job","a":["canary"],"k":{},"et":1,"lane":"b/odd.job/%s"}' % tenant.encode()
    names = [f"{tenant}-{number}" for number in range(3)]
    for at, name in enumerate(names):
        job = ClaimedJob(name, "odd.job", (), {}, 3, 0, 1, 1_700_000_000_000, 0, "penstock:answer")
        letter = letter_for(job, error="not_in_ledger", message="no event has this id")
        fields = {name: letter + b"\n" + payload}
        await cast("Awaitable[int]", redis_client.hset(queue_keys.dead("penstock:answer"), mapping=fields))
        await redis_client.zadd(queue_keys.dead_times("penstock:answer"), {name: at})
    listed = penstock.json("dead", "list", "--tenant", tenant, "--error", "not_in_ledger")
    assert set(names) == {row["event_id"] for row in listed}
    shown = penstock.run("dead", "show", names[0], "--json").stdout
    assert ("engine", 3, []) == tuple(
        json.loads(shown)[name] if name != "trace" else json.loads(shown)["error"][name]
        for name in ("store", "attempts", "trace")
    )
    assert "canary" not in shown
    filters = ("--tenant", tenant, "--queue", "answer", "--type", "odd.job", "--since-hours", "1")
    assert {"matched": 3, "replayed": 0} == penstock.json("dead", "replay", *filters, "--dry-run")
    assert {"matched": 2, "replayed": 2} == penstock.json("dead", "replay", *filters, "--limit", "2")
    assert {"matched": 1, "discarded": 1} == penstock.json("dead", "discard", *filters, "--until-hours", "0")
    assert 2 == await redis_client.zcard("penstock:answer")
    async with owner_database.connection() as connection:
        audit = await connection.fetch("SELECT action, details FROM audit_log WHERE tenant_id = $1", tenant)
    assert [("dead.discard", {"events": 1}), ("dead.replay", {"events": 2})] == sorted(
        tuple(row) for row in audit
    )
    assert names[0] in penstock.run("dead", "show", names[0], expect=1).stderr


async def test_a_queue_is_paused_resumed_drained_and_rebuilt(
    penstock: Penstock, redis_client: redis.asyncio.Redis
) -> None:
    """Each by its short name; `status` shows the pause; an unknown queue is told which there are."""
    assert {"queue": "penstock:ingest", "paused": True} == penstock.json("queues", "pause", "ingest")
    paused = {one["queue"]: one["paused"] for one in penstock.json("status")["queues"]}
    assert {
        "penstock:ingest": True,
        "penstock:answer": False,
        "penstock:train": False,
        "penstock:deliver": False,
    } == paused
    penstock.run("queues", "resume", "ingest")
    assert not any(one["paused"] for one in penstock.json("status")["queues"])
    assert "drained" in penstock.run("queues", "drain", "deliver", "--timeout", "5").stdout
    assert "pushed" in penstock.run("queues", "rebuild").stdout
    await redis_client.delete("penstock:ingest", "penstock:train")
    await redis_client.zadd("penstock:ingest", {"waits": 1})
    left = {"queue": "penstock:ingest", "drained": False, "left": 1}
    assert left == json.loads(
        penstock.run("queues", "drain", "ingest", "--timeout", "0", "--json", expect=1).stdout
    )
    ready = {one["queue"]: one["ready"] for one in penstock.json("queues", "list")}
    assert (1, 0) == (ready["penstock:ingest"], ready["penstock:train"])
    assert "ingest" in penstock.run("queues", "pause", "lunch", expect=2).stderr


def test_listings_are_readable_without_json(penstock: Penstock, dead_event: UUID) -> None:
    """The tables for people show the same things."""
    assert str(dead_event) in penstock.run("events", "list").stdout
    assert "unreadable" in penstock.run("dead", "list").stdout
    assert "penstock:ingest" in penstock.run("status").stdout
    penstock.run("usage")


def test_secrets_may_come_from_files(penstock: Penstock, dead_event: UUID, tenant: str) -> None:
    """NAME_FILE stands for NAME, without the newline at its end."""
    environment: dict[str, Any] = dict(penstock.environment)
    files: dict[str, str] = {}
    for name in (
        "DATABASE_URL",
        "REDIS_URL",
        "PENSTOCK_DATABASE_OWNER_URL",
        "OPENAI_API_KEY",
        "PENSTOCK_SECRET_KEYS",
    ):
        path = penstock.folder / name
        path.write_text(environment.pop(name) + "\n", encoding="utf-8")
        files[f"{name}_FILE"] = str(path)
    by_files = Penstock(penstock.folder, {**environment, **files})
    assert by_files.json("doctor")["ok"]
    assert str(dead_event) == by_files.json("dead", "list", "--tenant", tenant)[0]["event_id"]


def test_migrate_and_maintain_can_be_repeated(penstock: Penstock) -> None:
    """On a database that is up to date both do nothing and say so."""
    assert "up to date" in penstock.run("migrate").stdout
    penstock.run("maintain", "--once")
