"""A delivery's id comes in from the queue, and everything that one attempt needs comes back, many in one round trip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from infra.coalesce import Coalescer
from infra.database import Database, queries
from infra.sealed_headers import Kept
from schemas.errors import NotFound
from schemas.states import DeliveryState, EndpointState, is_final

_GROUP = 200


@dataclass(frozen=True, slots=True)
class Due:
    """One message to one endpoint.

    Attributes:
        attempts: charged attempts so far.
        body: the bytes that are signed and sent, the same at every attempt.
        url: the endpoint's, or the callback's under its prefix.
        headers: the endpoint's own, values sealed.
        secrets: the endpoint's sealed secrets.
        rate_limit: messages per second that the endpoint's owner allows; None for as many as it takes.
        failing_since: when the endpoint's unbroken series of failures began.
        throttled_for: seconds for which the endpoint is still to be left alone; 0 when it is not.
        traceparent: the trace of the event that led to the message, if it came with one.
    """

    tenant_id: str
    delivery_id: UUID
    endpoint_id: UUID
    message_id: str
    type: str
    status: DeliveryState
    attempts: int
    body: bytes
    url: str
    endpoint_status: EndpointState
    headers: Kept
    timeout: float
    secrets: Sequence[Mapping[str, Any]]
    rate_limit: float | None
    failing_since: datetime | None
    throttled_for: float
    traceparent: str | None = None

    @property
    def is_over(self) -> bool:
        """Whether the message arrived or was given up already: a repeated event has nothing to do."""
        return is_final(self.status)


class Loader:
    """Loads what is due; calls that come at the same time share one transaction."""

    def __init__(self, database: Database) -> None:
        """Use a database that acts as the role ``penstock_worker``."""
        self._database = database
        self._load: Coalescer[tuple[str, UUID], Due | None] = Coalescer(self._group, limit=_GROUP, parallel=2)

    async def load(self, tenant: str, delivery_id: UUID) -> Due:
        """Everything about one delivery.

        Raises:
            NotFound: it was deleted, or it is another tenant's.
        """
        due = await self._load((tenant, delivery_id))
        if due is None:
            raise NotFound("the delivery or its endpoint was deleted")
        return due

    async def aclose(self) -> None:
        """Wait for what is under way."""
        await self._load.aclose()

    async def _group(self, wanted: Sequence[tuple[str, UUID]]) -> Sequence[Due | None]:
        tenants = sorted({tenant for tenant, _ in wanted})
        async with self._database.transaction(*tenants, readonly=True) as connection:
            rows = await connection.fetch(
                queries("deliver").load, [tenant for tenant, _ in wanted], [one for _, one in wanted]
            )
        found = {(row["tenant_id"], row["delivery_id"]): _due(row) for row in rows}
        return [found.get(one) for one in wanted]


def _due(row: Any) -> Due:
    return Due(
        tenant_id=row["tenant_id"],
        delivery_id=row["delivery_id"],
        endpoint_id=row["endpoint_id"],
        message_id=row["message_id"],
        type=row["type"],
        status=DeliveryState(row["status"]),
        attempts=row["attempts"],
        body=bytes(row["body"]),
        url=row["url"],
        endpoint_status=EndpointState(row["endpoint_status"]),
        headers=row["headers"],
        timeout=row["timeout_seconds"],
        secrets=row["secrets"],
        rate_limit=row["rate_limit"],
        failing_since=row["failing_since"],
        throttled_for=row["throttled_for"],
    )
