from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from infra.database import Database
from infra.keys import (
    Scope,
    check_scopes,
    create_key,
    find_key,
    key_sha256,
    list_keys,
    remember_used,
    revoke_key,
)
from schemas.errors import BadInput, NotFound


async def test_only_the_hash_of_a_secret_is_kept(owner_database: Database, tenant: str) -> None:
    """The secret is returned once; the database holds its SHA-256 and nothing else of it."""
    async with owner_database.connection() as connection:
        key = await create_key(connection, tenant, ["query", "publish"], title="CI")
        row = await connection.fetchrow("SELECT * FROM api_keys WHERE key_id = $1", key.id)
    assert row is not None
    assert key.key.startswith("psk_")
    assert row["key_sha256"] == key_sha256(key.key)
    assert key.key.removeprefix("psk_") not in str(dict(row))
    assert key.key not in repr(key)
    assert key.as_dict() == {
        "id": key.id,
        "key": key.key,
        "tenant": tenant,
        "scopes": ["publish", "query"],
        "expires_at": None,
        "rate_per_minute": None,
    }


async def test_the_gateway_finds_a_key_by_its_secret(
    owner_database: Database, gateway_database: Database, tenant: str
) -> None:
    """The role that serves sees no key without a tenant, and finds one by its secret alone."""
    async with owner_database.connection() as connection:
        key = await create_key(connection, tenant, ["ops"])
    async with gateway_database.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM api_keys") == 0
    found = await find_key(gateway_database, key.key)
    assert found is not None
    assert (found.tenant_id, found.key_id, found.scopes, found.suspended) == (
        tenant,
        key.id,
        frozenset({"ops"}),
        False,
    )
    assert await find_key(gateway_database, key.key + "x") is None


async def test_a_revoked_key_is_found_no_more(
    owner_database: Database, gateway_database: Database, tenant: str
) -> None:
    """Revocation keeps the row, so that it can be seen that and when it was; a second time changes nothing."""
    async with owner_database.connection() as connection:
        key = await create_key(connection, tenant, ["publish"])
        first = await revoke_key(connection, key.id)
        second = await revoke_key(connection, key.id, tenant_id=tenant)
        [listed] = await list_keys(connection, tenant)
        with pytest.raises(NotFound):
            await revoke_key(connection, key.id, tenant_id="somebody-else")
    assert first.revoked_at is not None
    assert first == second == listed
    assert await find_key(gateway_database, key.key) is None


async def test_use_is_remembered(owner_database: Database, gateway_database: Database, tenant: str) -> None:
    """The time at which a key was last used can be seen in the listing."""
    async with owner_database.connection() as connection:
        key = await create_key(connection, tenant, ["publish"])
        assert (await list_keys(connection, tenant))[0].last_used_at is None
        await remember_used(gateway_database, [key.id])
        assert (await list_keys(connection, tenant))[0].last_used_at is not None


@pytest.mark.parametrize("scopes", [[], ["root"], ["publish", "Query"]])
def test_unknown_scopes_are_refused(scopes: list[str]) -> None:
    """A mistyped scope must not become a key that can do less than was meant."""
    with pytest.raises(BadInput) as caught:
        check_scopes(scopes)
    assert caught.value.field == "scope"


def test_scopes_stand_once_and_in_order() -> None:
    """However they are given."""
    assert check_scopes(["query", "publish", "query"]) == ["publish", "query"]
    assert check_scopes([scope.value for scope in Scope]) == [scope.value for scope in Scope]


async def test_a_key_needs_a_tenant_and_a_future(owner_database: Database, tenant: str) -> None:
    """An unknown tenant and an expiry that has passed are refused."""
    async with owner_database.connection() as connection:
        with pytest.raises(NotFound):
            await create_key(connection, "no-such-tenant", ["publish"])
        with pytest.raises(BadInput):
            await create_key(connection, "No Tenant", ["publish"])
        with pytest.raises(BadInput):
            await create_key(
                connection, tenant, ["publish"], expires_at=datetime.now(UTC) - timedelta(seconds=1)
            )
        assert await list_keys(connection, tenant) == []
