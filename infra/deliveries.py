"""Messages to a webhook endpoint with their attempts pass through here to the endpoint's owner; never their bodies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from infra.database import Connection, queries
from infra.endpoints import show_endpoint
from schemas.errors import NotFound
from schemas.states import DeliveryState


async def list_deliveries(
    connection: Connection,
    tenant: str,
    endpoint_id: UUID,
    *,
    status: DeliveryState | None,
    after: UUID | None,
    limit: int,
) -> list[dict[str, Any]]:
    """Messages to an endpoint with their attempts, newest first; one more than `limit` when there are more.

    Raises:
        NotFound: the tenant has no such endpoint.
    """
    sql = queries("gateway_endpoints")
    await show_endpoint(connection, tenant, endpoint_id)
    state = None if status is None else str(status)
    return await _tried(
        connection,
        tenant,
        await connection.fetch(sql.deliveries, tenant, endpoint_id, state, after, limit + 1),
    )


async def show_delivery(connection: Connection, tenant: str, delivery_id: UUID) -> dict[str, Any]:
    """One message with its attempts.

    Raises:
        NotFound: the tenant has none of that id.
    """
    rows = await connection.fetch(queries("gateway_endpoints").delivery, tenant, delivery_id)
    if not rows:
        raise NotFound("there is no such delivery")
    [shown_row] = await _tried(connection, tenant, rows)
    return shown_row


async def _tried(connection: Connection, tenant: str, rows: Sequence[Any]) -> list[dict[str, Any]]:
    """Deliveries with their attempts."""
    tried: dict[UUID, list[dict[str, Any]]] = {row["delivery_id"]: [] for row in rows}
    for attempt in await connection.fetch(queries("gateway_endpoints").attempts, tenant, list(tried)):
        tried[attempt["delivery_id"]].append(
            {
                name: attempt[name]
                for name in ("attempt", "status_code", "elapsed_ms", "error", "response_head", "at")
            }
        )
    return [
        {
            "id": str(row["delivery_id"]),
            **{name: value for name, value in row.items() if name != "delivery_id"},
        }
        | {"tried": tried[row["delivery_id"]]}
        for row in rows
    ]
