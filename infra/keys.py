"""API keys pass through here: made and revoked by an operator, found by their hash at every request.

A secret is 256 random bits behind the prefix ``psk_``. Only its SHA-256 is kept: with so many random bits a slow
hash would protect nothing, and the gateway looks keys up thousands of times a second.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from infra.database import Connection, Database, queries
from infra.tenants import check_tenant_id
from schemas.errors import BadInput, NotFound

PREFIX = "psk_"


class Scope(StrEnum):
    """What a key may do; all within its own tenant."""

    PUBLISH = "publish"
    QUERY = "query"
    FEEDBACK = "feedback"
    TRAIN = "train"
    ADMIN = "admin"
    OPS = "ops"


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key at the only moment at which its secret is known."""

    id: str
    key: str
    tenant: str
    scopes: Sequence[str]
    expires_at: datetime | None
    rate_per_minute: int | None = None

    def __repr__(self) -> str:
        """The key without its secret, so that no log and no traceback can show it."""
        return f"NewKey(id={self.id!r}, tenant={self.tenant!r}, scopes={list(self.scopes)!r})"

    def as_dict(self) -> dict[str, Any]:
        """The key as `penstock keys create --json` shows it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """A key as it is listed."""

    tenant_id: str
    key_id: str
    title: str
    scopes: Sequence[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    rate_per_minute: int | None

    def as_dict(self) -> dict[str, Any]:
        """The key as `--json` shows it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class FoundKey:
    """Who is behind a secret that somebody sent."""

    tenant_id: str
    key_id: str
    scopes: frozenset[str]
    expires_at: datetime | None
    suspended: bool
    rate_per_minute: int | None
    limits: Mapping[str, Any]


def key_sha256(secret: str) -> bytes:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode()).digest()


def check_scopes(scopes: Sequence[str]) -> list[str]:
    """Scopes without repetition, in a fixed order.

    Raises:
        BadInput: one is unknown, or there is none.
    """
    known = [str(scope) for scope in Scope]
    unknown = sorted(set(scopes) - set(known))
    if unknown or not scopes:
        what = f"there is no scope {unknown[0][:40]!r}" if unknown else "a key needs at least one scope"
        raise BadInput(what, field="scope", fix=f"use {', '.join(known)}")
    return [scope for scope in known if scope in scopes]


async def create_key(
    connection: Connection,
    tenant_id: str,
    scopes: Sequence[str],
    *,
    title: str = "",
    expires_at: datetime | None = None,
    rate_per_minute: int | None = None,
    actor: str = "operator",
) -> NewKey:
    """Make a key, on a connection of the owner; its secret is returned here and never again.

    Raises:
        BadInput: a scope is unknown, the expiry has passed, or the rate is no rate.
        NotFound: there is no such tenant.
    """
    check_tenant_id(tenant_id)
    chosen = check_scopes(scopes)
    if expires_at is not None and expires_at <= datetime.now(UTC):
        raise BadInput("the expiry lies in the past", field="expires")
    if rate_per_minute is not None and not 1 <= rate_per_minute < 2**31:
        raise BadInput("the rate is a number of requests a minute, at least 1", field="rate")
    sql = queries("gateway_keys")
    key_id, secret = f"key_{secrets.token_hex(8)}", PREFIX + secrets.token_urlsafe(32)
    async with connection.transaction():
        if not await connection.fetchval(sql.tenant_exists, tenant_id):
            raise NotFound(
                f"there is no tenant {tenant_id}",
                field="tenant",
                fix=f"create it with `penstock tenants create {tenant_id}`",
            )
        sha = key_sha256(secret)
        await connection.execute(
            sql.create, tenant_id, key_id, sha, title, chosen, expires_at, rate_per_minute
        )
        details = {"scopes": chosen}
        await connection.execute(
            queries("gateway_tenants").audit, tenant_id, actor, "key.create", key_id, details
        )
    return NewKey(key_id, secret, tenant_id, chosen, expires_at, rate_per_minute)


async def list_keys(connection: Connection, tenant_id: str | None = None) -> list[KeyInfo]:
    """The keys of a tenant, or of all; newest first."""
    return [KeyInfo(**row) for row in await connection.fetch(queries("gateway_keys").list, tenant_id)]


async def revoke_key(
    connection: Connection, key_id: str, *, tenant_id: str | None = None, actor: str = "operator"
) -> KeyInfo:
    """End a key; every gateway refuses it within a second.

    Raises:
        NotFound: there is no such key.
    """
    async with connection.transaction():
        row = await connection.fetchrow(queries("gateway_keys").revoke, key_id, tenant_id)
        if row is None:
            raise NotFound("there is no such key", field="key")
        await connection.execute(
            queries("gateway_tenants").audit, row["tenant_id"], actor, "key.revoke", key_id, {}
        )
    return KeyInfo(**row)


async def find_key(database: Database, secret: str) -> FoundKey | None:
    """Who is behind a secret; None when nobody is, or the key was revoked."""
    async with database.connection() as connection:
        row = await connection.fetchrow(queries("gateway_keys").find, key_sha256(secret))
    if row is None:
        return None
    return FoundKey(
        row["tenant_id"],
        row["key_id"],
        frozenset(row["scopes"]),
        row["expires_at"],
        row["suspended"],
        row["rate_per_minute"],
        row["limits"],
    )


async def remember_used(database: Database, key_ids: Sequence[str]) -> None:
    """Note the time at which keys were used; the database keeps it to the minute."""
    async with database.connection() as connection:
        await connection.execute(queries("gateway_keys").used, list(key_ids))
