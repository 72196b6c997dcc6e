from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator

import pytest

from infra import index_policy
from infra.database import Connection, Database
from infra.index_policy import Action, Policy, Space, decide, threshold
from infra.local.servers import Servers
from infra.maintain import Maintainer
from infra.spaces import list_spaces, set_policy
from schemas.errors import NotFound

MANY = threshold(256)


@pytest.mark.parametrize(
    ("policy", "rows", "present", "valid", "settled", "expected"),
    [
        (Policy.AUTO, 0, False, False, True, Action.KEEP),
        (Policy.AUTO, MANY - 1, False, False, True, Action.KEEP),
        (Policy.AUTO, MANY, False, False, True, Action.BUILD),
        (Policy.AUTO, MANY, True, False, True, Action.REBUILD),
        (Policy.AUTO, MANY, True, False, False, Action.REBUILD),
        (Policy.AUTO, MANY, True, True, False, Action.SETTLE),  # the builder died before it could
        (Policy.AUTO, MANY, True, True, True, Action.KEEP),
        (Policy.AUTO, 0, True, True, True, Action.KEEP),  # it has shrunk, or is older than the policy
        (Policy.DEFERRED, MANY, False, False, True, Action.KEEP),
        (Policy.DEFERRED, MANY, True, True, False, Action.DROP),
        (Policy.DEFERRED, MANY, True, False, True, Action.DROP),
    ],
)
def test_what_becomes_of_an_index(
    policy: Policy, rows: int, present: bool, valid: bool, settled: bool, expected: Action
) -> None:
    """A space that outgrows exact search gets its index; a backfill goes without."""
    assert expected is decide(Space(1, "m", 256, policy, rows, present, valid, settled))


@pytest.mark.parametrize(("dimensions", "expected"), [(256, 15_625), (1536, 2_604), (4000, 2_000)])
def test_wider_vectors_need_an_index_sooner(dimensions: int, expected: int) -> None:
    """What counts is how many numbers an exact search compares."""
    assert expected == threshold(dimensions)


@pytest.fixture
async def owner(fresh_database: Servers) -> AsyncIterator[Database]:
    """The owner of a database of the test's own."""
    async with Database.open(fresh_database.database_owner_url, role=None, size=4) as database:
        yield database


async def fill(connection: Connection, count: int) -> int:
    """A space with so many vectors; returns its number."""
    tenant = f"t-{secrets.token_hex(4)}"
    space: int = await connection.fetchval("SELECT space_ensure('test', $1, 2)", tenant)
    await connection.execute("INSERT INTO tenants (tenant_id, title) VALUES ($1, 'test')", tenant)
    collection = await connection.fetchval(
        "INSERT INTO collections (tenant_id, name, space_id) VALUES ($1, 'c', $2) RETURNING collection_id",
        tenant,
        space,
    )
    await connection.execute(
        "INSERT INTO documents (tenant_id, collection_id, document_id, status, sequence, explicit_sequence)"
        " VALUES ($1, $2, 'd', 'indexed', 1, true)",
        tenant,
        collection,
    )
    await connection.execute(
        "WITH made AS (INSERT INTO chunks (tenant_id, collection_id, document_id, chunk_id, position, text, tokens,"
        " sha256, words) SELECT $1, $2, 'd', gen_random_uuid(), n, 'x', 1, '', '' FROM generate_series(1, $3) n"
        " RETURNING chunk_id, position) SELECT vectors_add($4, array_agg($1::text), array_agg($2::bigint),"
        " array_agg(chunk_id), array_agg(ARRAY[cos(position), sin(position)]::halfvec)) FROM made",
        tenant,
        collection,
        count,
        space,
    )
    return space


async def test_an_index_is_built_while_the_space_is_written(
    owner: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new space has none; past the threshold maintain builds it although a writer is at work, and a backfill drops it."""
    monkeypatch.setattr(index_policy, "FEWEST", 40)
    monkeypatch.setattr(index_policy, "EXACT_NUMBERS", 0)
    async with owner.connection() as connection:
        small, large = await fill(connection, 39), await fill(connection, 40)
        assert [False, False] == [space.present for space in await list_spaces(connection)]
    assert {large: Action.BUILD} == await Maintainer.tend(owner)
    assert {} == await Maintainer.tend(owner)
    async with owner.connection() as connection:
        assert {small: False, large: True} == {s.space_id: s.valid for s in await list_spaces(connection)}
        await set_policy(connection, large, Policy.DEFERRED)
    assert {large: Action.DROP} == await Maintainer.tend(owner)
    async with owner.connection() as connection:
        assert {small: False, large: False} == {s.space_id: s.present for s in await list_spaces(connection)}
        with pytest.raises(NotFound):
            await set_policy(connection, 999, Policy.AUTO)


async def test_a_build_that_was_broken_off_is_made_good(
    owner: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CREATE INDEX CONCURRENTLY leaves an invalid index when it is cut; it is dropped and built anew."""
    monkeypatch.setattr(index_policy, "FEWEST", 40)
    monkeypatch.setattr(index_policy, "EXACT_NUMBERS", 0)
    async with owner.connection() as connection, owner.connection() as reader:
        space = await fill(connection, 40)
        # An old transaction keeps the build waiting for ever; it is cut while it waits.
        hold = reader.transaction(isolation="repeatable_read")
        await hold.start()
        await reader.fetchval("SELECT count(*) FROM tenants")
        await connection.execute("SET statement_timeout = '300ms'")
        building = asyncio.create_task(
            connection.execute(
                f"CREATE INDEX CONCURRENTLY vectors_{space}_hnsw ON vectors_{space}"
                " USING hnsw (embedding halfvec_ip_ops)"
            )
        )
        await asyncio.wait([building])
        assert building.exception() is not None
        await hold.rollback()
        await connection.execute("RESET statement_timeout")
        [found] = await list_spaces(connection)
        assert (True, False) == (found.present, found.valid)
    assert {space: Action.REBUILD} == await Maintainer.tend(owner)
    async with owner.connection() as connection:
        assert [True] == [one.valid for one in await list_spaces(connection)]
