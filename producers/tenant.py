"""Whose events are to be published is asked here, before anything is: only a living tenant may publish."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infra.database import Database, queries
from schemas.errors import Forbidden, NotFound


async def check_tenant(database: Database, tenant_id: str) -> Mapping[str, Any]:
    """Refuse a tenant that is none or that is shut out.

    Returns:
        The limits that an operator set for it (`infra.limits`).

    Raises:
        NotFound: there is no such tenant.
        Forbidden: it is suspended.
    """
    async with database.transaction(tenant_id, readonly=True) as connection:
        row = await connection.fetchrow(queries("gateway_tenants").show, tenant_id)
    if row is None:
        raise NotFound(
            f"there is no tenant {tenant_id}", field="tenant", fix="create it with `penstock tenants create`"
        )
    if row["suspended_at"] is not None:
        raise Forbidden(f"the tenant {tenant_id} is suspended", field="tenant")
    limits: Mapping[str, Any] = row["limits"]
    return limits
