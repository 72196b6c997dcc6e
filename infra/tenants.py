"""Tenants pass through here when an operator creates, lists, limits or suspends them, on a connection of the owner.

Nothing that serves calls this module: a tenant cannot see, let alone change, the list of tenants.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from infra.database import Connection, queries
from infra.limits import DOLLARS, check_limit
from schemas.errors import BadInput, Conflict, NotFound
from schemas.ids import TENANT_PATTERN

_PATTERN = re.compile(TENANT_PATTERN)


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant as an operator sees it.

    Attributes:
        limits: what its own limits override, such as ``budget_day``; empty means the defaults.
        suspended_at: since when its keys are refused.
    """

    tenant_id: str
    title: str
    limits: Mapping[str, Any]
    created_at: datetime
    suspended_at: datetime | None

    def as_dict(self) -> dict[str, Any]:
        """The tenant as `--json` shows it."""
        return asdict(self)


def check_tenant_id(tenant_id: str) -> str:
    """Refuse what cannot be a tenant's name.

    Raises:
        BadInput: says what a name may be made of.
    """
    if _PATTERN.fullmatch(tenant_id) is None:
        raise BadInput(
            "a tenant's name is 1 to 63 lower-case letters, digits, dashes and underscores",
            field="tenant",
            fix="begin with a letter or a digit, for example acme-test",
        )
    return tenant_id


async def create_tenant(
    connection: Connection,
    tenant_id: str,
    *,
    title: str = "",
    limits: Mapping[str, Any] | None = None,
    actor: str = "operator",
) -> Tenant:
    """Add a tenant.

    Raises:
        BadInput: the name is not allowed.
        Conflict: there is one of that name.
    """
    check_tenant_id(tenant_id)
    sql = queries("gateway_tenants")
    async with connection.transaction():
        row = await connection.fetchrow(sql.create, tenant_id, title, dict(limits or {}))
        if row is None:
            raise Conflict(f"the tenant {tenant_id} exists already", field="tenant")
        await connection.execute(sql.audit, tenant_id, actor, "tenant.create", tenant_id, {})
    return Tenant(**row)


async def list_tenants(connection: Connection) -> list[Tenant]:
    """All tenants, in order."""
    return [Tenant(**row) for row in await connection.fetch(queries("gateway_tenants").list)]


async def show_tenant(connection: Connection, tenant_id: str) -> Tenant:
    """One tenant.

    Raises:
        NotFound: there is none of that name.
    """
    row = await connection.fetchrow(queries("gateway_tenants").show, tenant_id)
    if row is None:
        raise NotFound(f"there is no tenant {check_tenant_id(tenant_id)}", field="tenant")
    return Tenant(**row)


async def suspend_tenant(
    connection: Connection, tenant_id: str, *, suspended: bool = True, actor: str = "operator"
) -> Tenant:
    """Shut a tenant out within a second, or let it in again; nothing of its data changes.

    Raises:
        NotFound: there is none of that name.
    """
    sql = queries("gateway_tenants")
    async with connection.transaction():
        row = await connection.fetchrow(sql.suspend, tenant_id, suspended)
        if row is None:
            raise NotFound(f"there is no tenant {check_tenant_id(tenant_id)}", field="tenant")
        action = "tenant.suspend" if suspended else "tenant.resume"
        await connection.execute(sql.audit, tenant_id, actor, action, tenant_id, {})
    return Tenant(**row)


async def set_limits(
    connection: Connection,
    tenant_id: str,
    changes: Mapping[str, Any],
    *,
    unset: Sequence[str] = (),
    actor: str = "operator",
) -> Tenant:
    """Change what a tenant may have; gateways know within a second.

    Args:
        connection: of the owner.
        tenant_id: whose limits.
        changes: limit → number; None for a budget without end, although the settings name one.
        unset: limits that are taken away, so that the default is back.
        actor: who does it.

    Raises:
        BadInput: there is no such limit, or the number is none.
        NotFound: there is no such tenant.
    """
    for name, value in changes.items():
        if value is None and name in DOLLARS:
            continue
        check_limit(name, value)
    for name in unset:
        check_limit(name, 1)
    sql = queries("gateway_tenants")
    async with connection.transaction():
        row = await connection.fetchrow(sql.set_limits, tenant_id, dict(changes), list(unset))
        if row is None:
            raise NotFound(f"there is no tenant {check_tenant_id(tenant_id)}", field="tenant")
        details = {"set": dict(changes), "unset": list(unset)}
        await connection.execute(sql.audit, tenant_id, actor, "tenant.limits", tenant_id, details)
    return Tenant(**row)
