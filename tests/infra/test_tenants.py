from __future__ import annotations

import secrets

import pytest

from infra.database import Database
from infra.tenants import create_tenant, list_tenants, set_limits, show_tenant, suspend_tenant
from schemas.errors import BadInput, Conflict, NotFound


async def test_a_tenant_is_made_once_and_shown(owner_database: Database) -> None:
    """Made, it is in the list and can be shown; a second one of the name is refused."""
    name = f"acme-{secrets.token_hex(4)}"
    async with owner_database.connection() as connection:
        made = await create_tenant(connection, name, title="Acme", limits={"collections": 3})
        assert (made.title, made.limits, made.suspended_at) == ("Acme", {"collections": 3}, None)
        assert await show_tenant(connection, name) == made
        assert name in {one.tenant_id for one in await list_tenants(connection)}
        with pytest.raises(Conflict):
            await create_tenant(connection, name)
        audit = await connection.fetchval("SELECT action FROM audit_log WHERE tenant_id = $1", name)
    assert audit == "tenant.create"


@pytest.mark.parametrize("name", ["", "Acme", "-acme", "a,b", "a" * 64, "ä", "a b", "a\n"])
async def test_names_that_cannot_be_are_refused(owner_database: Database, name: str) -> None:
    """A comma, above all, would let a transaction act for two tenants."""
    async with owner_database.connection() as connection:
        with pytest.raises(BadInput) as caught:
            await create_tenant(connection, name)
    assert caught.value.field == "tenant"


async def test_a_tenant_is_suspended_and_let_in_again(owner_database: Database, tenant: str) -> None:
    """The time of the first suspension stays; letting in again forgets it."""
    async with owner_database.connection() as connection:
        first = await suspend_tenant(connection, tenant)
        assert first.suspended_at is not None
        assert (await suspend_tenant(connection, tenant)).suspended_at == first.suspended_at
        assert (await suspend_tenant(connection, tenant, suspended=False)).suspended_at is None
        for act in (show_tenant, suspend_tenant):
            with pytest.raises(NotFound):
                await act(connection, "no-such-tenant")


async def test_limits_are_set_and_taken_away(owner_database: Database, tenant: str) -> None:
    """What is not named stays; a budget may be without end; an unknown name and tenant are refused."""
    async with owner_database.connection() as connection:
        await set_limits(connection, tenant, {"documents": 5, "budget_day": None})
        now = await set_limits(connection, tenant, {"queries": 2}, unset=["documents"])
        assert {"budget_day": None, "queries": 2} == now.limits
        with pytest.raises(BadInput):
            await set_limits(connection, tenant, {"coffee": 1})
        with pytest.raises(NotFound):
            await set_limits(connection, "nobody", {"documents": 1})
