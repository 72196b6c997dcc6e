"""Webhook endpoints pass through here between their owner and the database; their secrets only sealed.

Everything runs on a transaction that acts for the one tenant. What follows a replay or a test is a `delivery.due`
event, which the caller pushes after the commit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from infra import outbox
from infra.database import Connection, queries
from infra.egress.headers import check_headers
from infra.filters import compile_filter
from infra.sealed_headers import Kept, seal_headers
from infra.secretbox import SecretBox
from infra.signing_secrets import new_secret, rotate, seal_secret
from schemas.errors import BadInput, Conflict, NotFound
from schemas.ids import new_event_id, uuid7
from schemas.registry import Direction, types_of
from schemas.states import EndpointState
from schemas.work import Publication, Pushable

TEST_TYPE = "webhook.test"
OVERLAP = 24 * 3600.0
MOST_SECRETS = 5
_RESERVED = ("webhook-", "content-")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What an owner decides about an endpoint.

    Attributes:
        types: out event types, ``family.*`` or ``*``.
        filter: which contents; the operators of metadata filters. None for all.
        payload: ``full``, ``thin`` for ids only, or ``auto``: thin when it is large.
        headers: sent along with every message.
        timeout_seconds: for everything, the reply's body included.
        rate_limit: messages per second at most; None for as many as it takes.
        callback_prefix: the URL is the prefix of questions' callback URLs and receives nothing else.
    """

    url: str
    types: tuple[str, ...] = ("*",)
    filter: Any = None
    payload: str = "auto"
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_seconds: float = 15.0
    rate_limit: float | None = None
    callback_prefix: bool = False
    description: str = ""
    status: str = EndpointState.ACTIVE

    def check(self) -> None:
        """Refuse what could never work.

        Raises:
            BadInput: names the field.
        """
        for one in self.types:
            if not _subscribes(one):
                known = ", ".join(each.name for each in types_of(Direction.OUT))
                raise BadInput(
                    f"types: {one[:60]!r} is no event that goes out", field="types", fix=f"use *, {known}"
                )
        compile_filter(self.filter)
        check_headers(self.headers)
        for name in self.headers:
            if name.lower().startswith(_RESERVED):
                raise BadInput(f"the header {name} is set with every message", field="headers")


def _subscribes(pattern: str) -> bool:
    return pattern == "*" or any(outbox.matches([pattern], one.name) for one in types_of(Direction.OUT))


def shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """An endpoint as its owner sees it: which secrets there are, and none of them."""
    out = {name: row[name] for name in row if name not in {"endpoint_id", "secrets", "headers"}}
    # A header may carry a credential of the receiver's: its name is shown, its value never again.
    out["headers"] = dict.fromkeys(row["headers"], "…")
    out["secrets"] = [{"id": one["id"], "until": one["until"]} for one in row["secrets"]]
    return {"id": str(row["endpoint_id"]), **out}


async def create_endpoint(
    connection: Connection, box: SecretBox, tenant: str, endpoint: Endpoint, secret: str | None = None
) -> dict[str, Any]:
    """Add an endpoint.

    Returns:
        The endpoint with its ``secret``, shown here and never again.

    Raises:
        BadInput: names the field.
    """
    endpoint.check()
    endpoint_id = uuid7()
    given = new_secret() if secret is None else secret
    sealed = seal_secret(box, given, tenant=tenant, endpoint=str(endpoint_id))
    columns = _columns(endpoint, _sealed(box, endpoint, tenant, endpoint_id))[:-1]
    row = await connection.fetchrow(
        queries("gateway_endpoints").create, tenant, endpoint_id, *columns, [sealed]
    )
    assert row is not None
    return shown(dict(row)) | {"secret": given}


def _sealed(box: SecretBox | None, one: Endpoint, tenant: str, endpoint_id: UUID) -> Kept:
    if not one.headers:
        return {}
    assert box is not None
    return seal_headers(box, one.headers, tenant=tenant, endpoint=str(endpoint_id))


def _columns(one: Endpoint, headers: Kept) -> list[Any]:
    return [
        one.url, list(one.types), one.filter, one.payload, dict(headers), one.timeout_seconds,
        one.rate_limit, one.callback_prefix, one.description, one.status,
    ]  # fmt: skip


async def show_endpoint(connection: Connection, tenant: str, endpoint_id: UUID) -> dict[str, Any]:
    """One endpoint.

    Raises:
        NotFound: the tenant has none of that id.
    """
    row = await connection.fetchrow(queries("gateway_endpoints").show, tenant, endpoint_id)
    if row is None:
        raise _not_found()
    return shown(dict(row))


async def list_endpoints(
    connection: Connection, tenant: str, *, after: UUID | None, limit: int
) -> list[dict[str, Any]]:
    """Endpoints, oldest first; one more than `limit` when there are more."""
    rows = await connection.fetch(queries("gateway_endpoints").page, tenant, after, limit + 1)
    return [shown(dict(row)) for row in rows]


async def change_endpoint(
    connection: Connection,
    box: SecretBox | None,
    tenant: str,
    endpoint_id: UUID,
    changes: Mapping[str, Any],
) -> dict[str, Any]:
    """Change what an owner may change.

    Args:
        connection: acts for the tenant.
        box: seals headers; not needed where none are given.
        tenant: whose endpoint it is.
        endpoint_id: which one.
        changes: fields of `Endpoint`, checked for shape already.

    Raises:
        NotFound: the tenant has none of that id.
        BadInput: names the field.
    """
    sql = queries("gateway_endpoints")
    row = await connection.fetchrow(sql.lock, tenant, endpoint_id)
    if row is None:
        raise _not_found()
    before = Endpoint(
        row["url"], tuple(row["types"]), row["filter"], row["payload"], {},
        row["timeout_seconds"], row["rate_limit"], row["callback_prefix"], row["description"], row["status"],
    )  # fmt: skip
    given: dict[str, Any] = {**changes, "types": tuple(changes.get("types", before.types))}
    after = replace(before, **given)
    after.check()
    headers = row["headers"] if "headers" not in changes else _sealed(box, after, tenant, endpoint_id)
    changed = await connection.fetchrow(sql.change, tenant, endpoint_id, *_columns(after, headers))
    assert changed is not None
    return shown(dict(changed))


async def delete_endpoint(connection: Connection, tenant: str, endpoint_id: UUID) -> None:
    """Remove an endpoint and its deliveries.

    Raises:
        NotFound: the tenant has none of that id.
    """
    if await connection.fetchval(queries("gateway_endpoints").delete, tenant, endpoint_id) is None:
        raise _not_found()


async def rotate_secret(
    connection: Connection,
    box: SecretBox,
    tenant: str,
    endpoint_id: UUID,
    *,
    secret: str | None = None,
    overlap: float = OVERLAP,
) -> dict[str, Any]:
    """Give an endpoint a new secret; for `overlap` seconds the one before signs too.

    Returns:
        The endpoint with its new ``secret``, shown here and never again.

    Raises:
        NotFound: the tenant has none of that id.
        Conflict: as many secrets sign already as a header can well carry.
    """
    sql = queries("gateway_endpoints")
    row = await connection.fetchrow(sql.lock, tenant, endpoint_id)
    if row is None:
        raise _not_found()
    given = new_secret() if secret is None else secret
    fresh = seal_secret(box, given, tenant=tenant, endpoint=str(endpoint_id))
    now = datetime.now(UTC)
    living = [
        one for one in row["secrets"] if one["until"] is None or datetime.fromisoformat(one["until"]) > now
    ]
    if overlap > 0 and len(living) >= MOST_SECRETS:
        raise Conflict(
            f"{MOST_SECRETS} secrets sign for this endpoint already",
            field="overlap_seconds",
            fix="wait until an overlap has passed, or give 0, which ends all secrets before the new one",
        )
    entries = rotate(living, fresh, now + timedelta(seconds=overlap))
    await connection.execute(sql.set_secrets, tenant, endpoint_id, entries)
    return await show_endpoint(connection, tenant, endpoint_id) | {"secret": given}


async def send_test(connection: Connection, tenant: str, endpoint_id: UUID) -> tuple[UUID, list[Pushable]]:
    """Send a test message to an endpoint, signed like any other.

    Returns:
        The delivery's id, and what must be pushed to Redis after the commit.

    Raises:
        NotFound: the tenant has none of that id.
        Conflict: the endpoint is disabled.
    """
    endpoint = await show_endpoint(connection, tenant, endpoint_id)
    if endpoint["status"] == EndpointState.DISABLED:
        raise Conflict("the endpoint is disabled", field="status", fix="enable it first")
    delivery_id, event_id = uuid7(), new_event_id()
    [number] = await connection.fetch(queries("ledger").accept_numbers, 1)
    body = outbox.body_of(
        TEST_TYPE, event_id, number[0], {"endpoint_id": str(endpoint_id)}, datetime.now(UTC)
    )
    await connection.execute(
        queries("gateway_endpoints").test_message,
        tenant, delivery_id, endpoint_id, outbox.message_id(event_id), event_id, TEST_TYPE, body,
    )  # fmt: skip
    return delivery_id, await _due(connection, tenant, delivery_id, endpoint_id)


async def _due(connection: Connection, tenant: str, delivery_id: UUID, endpoint_id: UUID) -> list[Pushable]:
    due = Publication("delivery.due", {"delivery_id": str(delivery_id)}, subject=str(endpoint_id))
    return await outbox.write(connection, [outbox.Said(tenant, due)])


def _not_found() -> NotFound:
    return NotFound("there is no such webhook")
