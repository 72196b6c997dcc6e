from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from infra.database import Connection, Database
from infra.local.servers import Servers
from infra.maintain import LOCK, Maintainer
from schemas.ids import uuid7, uuid7_floor

NOW = datetime.now(UTC)
PARTITIONS = """
SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = $1::text::regclass ORDER BY 1
"""


@pytest.fixture
async def owner(fresh_database: Servers) -> AsyncIterator[Database]:
    """The owner of a migrated database of the test's own."""
    async with Database.open(fresh_database.database_owner_url, role=None, size=2) as database:
        yield database


@pytest.fixture
async def connection(owner: Database) -> AsyncIterator[Connection]:
    """For looking at what was done."""
    async with owner.connection() as opened:
        yield opened


def day(offset: int) -> str:
    """The suffix of the partition of a day."""
    return f"{NOW + timedelta(days=offset):%Y%m%d}"


def id_of(days_ago: int) -> UUID:
    """An event id that was minted so many days ago."""
    return uuid7(int((NOW - timedelta(days=days_ago)).timestamp() * 1000))


async def make_old_partition(connection: Connection, table: str, days_ago: int) -> str:
    """A partition of a past day, as it is left by time."""
    start = (NOW - timedelta(days=days_ago)).replace(hour=0, minute=0, second=0, microsecond=0)
    name = f"{table}_{start:%Y%m%d}"
    low, high = uuid7_floor(start), uuid7_floor(start + timedelta(days=1))
    await connection.execute(
        f"CREATE TABLE {name} PARTITION OF {table} FOR VALUES FROM ('{low}') TO ('{high}')"
    )
    return name


async def put_event(connection: Connection, event_id: UUID, *, finished: bool) -> None:
    """One row of the ledger."""
    await connection.execute(
        "INSERT INTO events (tenant_id, event_id, source, id, type, queue, data, status, finished_at)"
        " VALUES ('acme', $1::uuid, 's', $1::uuid::text, 'document.added', 'penstock:ingest', '{}', $2, $3)",
        event_id,
        "done" if finished else "accepted",
        NOW if finished else None,
    )


async def partitions(connection: Connection, table: str) -> list[str]:
    """The partitions of a table by name."""
    return [row["relname"] for row in await connection.fetch(PARTITIONS, table)]


@pytest.mark.parametrize("table", ["events", "delivery_attempts"])
async def test_partitions_are_made_three_days_ahead(
    fresh_database: Servers, owner: Database, connection: Connection, table: str
) -> None:
    """Today's and the next three days' partitions are there; what is missing is made, the rest is left."""
    await connection.execute(f"DROP TABLE {table}_{day(2)}, {table}_{day(3)}")
    done = await Maintainer(fresh_database.database_owner_url).round(owner)
    assert 2 == done[f"{table}_partitions"]
    expected = {f"{table}_{day(offset)}" for offset in range(4)} | {f"{table}_default"}
    assert expected == set(await partitions(connection, table))
    again = await Maintainer(fresh_database.database_owner_url).round(owner)
    assert 0 == again[f"{table}_partitions"]


async def test_an_old_partition_goes_and_its_unfinished_rows_stay(
    fresh_database: Servers, owner: Database, connection: Connection
) -> None:
    """What is done goes with its partition; what still waits moves to the default partition and keeps its data."""
    name = await make_old_partition(connection, "events", 40)
    await make_old_partition(connection, "events", 20)
    done, waiting = id_of(40), id_of(40)
    await put_event(connection, done, finished=True)
    await put_event(connection, waiting, finished=False)
    before = await connection.fetchrow("SELECT * FROM events WHERE event_id = $1", waiting)
    result = await Maintainer(fresh_database.database_owner_url).round(owner)
    assert 1 == result["events_dropped"]
    left = await partitions(connection, "events")
    assert name not in left
    assert f"events_{day(-20)}" in left
    rows = await connection.fetch("SELECT tableoid::regclass::text AS home, * FROM events")
    assert [("events_default", waiting)] == [(row["home"], row["event_id"]) for row in rows]
    assert before is not None
    assert {"home": "events_default", **dict(before)} == dict(rows[0])


async def test_old_delivery_attempts_go_as_a_whole(
    fresh_database: Servers, owner: Database, connection: Connection
) -> None:
    """An attempt is over when it is written: nothing is moved."""
    name = await make_old_partition(connection, "delivery_attempts", 40)
    result = await Maintainer(fresh_database.database_owner_url).round(owner)
    assert 1 == result["delivery_attempts_dropped"]
    assert name not in await partitions(connection, "delivery_attempts")


async def test_old_idempotency_keys_and_left_reservations_go(
    fresh_database: Servers, owner: Database, connection: Connection
) -> None:
    """Keys after 400 days, promises of money a day after they expired; younger ones stay."""
    await connection.execute("INSERT INTO tenants (tenant_id) VALUES ('acme')")
    await connection.execute(
        "INSERT INTO event_keys (tenant_id, source, id, event_id, data_sha256, accepted_at) "
        "SELECT 'acme', 's', n::text, gen_random_uuid(), '', now() - n * interval '1 day' FROM unnest(ARRAY[399, 401]) n"
    )
    await connection.execute(
        "INSERT INTO budget_reservations (tenant_id, reservation_id, purpose, model, cost_micros, expires_at) "
        "SELECT 'acme', gen_random_uuid(), 'chat', n::text, 1, now() - n * interval '1 day' FROM unnest(ARRAY[0, 2]) n"
    )
    result = await Maintainer(fresh_database.database_owner_url).round(owner)
    assert (1, 1) == (result["event_keys"], result["reservations"])
    assert "399" == await connection.fetchval("SELECT id FROM event_keys")
    assert "0" == await connection.fetchval("SELECT model FROM budget_reservations")


async def test_one_maintainer_works_at_a_time(
    fresh_database: Servers, owner: Database, connection: Connection
) -> None:
    """While another one holds the lock, a round does nothing; afterwards it does its work."""
    maintainer = Maintainer(fresh_database.database_owner_url)
    await connection.execute("SELECT pg_advisory_lock($1)", LOCK)
    assert {} == await maintainer.round(owner)
    await connection.execute("SELECT pg_advisory_unlock($1)", LOCK)
    assert "events_partitions" in await maintainer.round(owner)


async def test_what_was_answered_is_forgotten_after_its_days(
    fresh_database: Servers, owner: Database, connection: Connection
) -> None:
    """Kept answers go with their keys; an event's key stays, and so does what is young. Old caches go too."""
    await connection.execute("INSERT INTO tenants (tenant_id) VALUES ('acme')")
    keys = {"old": uuid7(), "new": uuid7()}
    for name, event_id in keys.items():
        for source in ("penstock:gateway/requests", "https://upstream.example"):
            await connection.execute(
                "INSERT INTO event_keys (tenant_id, source, id, event_id, data_sha256)"
                " VALUES ('acme', $1, $2, $3, '')",
                source,
                name,
                event_id if source.startswith("penstock") else uuid7(),
            )
        await connection.execute(
            "INSERT INTO request_replies (tenant_id, event_id, claimed_until, made_at) VALUES ('acme', $1, $2, $2)",
            event_id,
            NOW - timedelta(days=3 if name == "old" else 1),
        )
    done = await Maintainer(fresh_database.database_owner_url).round(owner)
    kept = await connection.fetch("SELECT source, id FROM event_keys ORDER BY source, id")
    assert ["new", "old", "new"] == [row["id"] for row in kept]
    assert {"answers", "answer_cache", "deliveries", "embedding_cache", "replies"} <= done.keys()
