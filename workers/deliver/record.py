"""Decisions pass through here into rows: attempts, deliveries' new states, and what their endpoints have come to.

Records that commit together are written by one statement (`write_all`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from infra.database import Connection, queries
from schemas.errors import Permanent
from schemas.ids import uuid7
from schemas.states import DeliveryState, EndpointState, sources
from schemas.work import Publication
from workers.deliver.due import Due
from workers.deliver.schedule import (
    Dead,
    Decision,
    Delivered,
    Disable,
    OurFault,
    RetryAt,
    described,
    error_class,
)
from workers.deliver.send import Attempt


@dataclass(frozen=True, slots=True)
class Record:
    """What is to be written about one attempt.

    Attributes:
        attempt: None when nothing was sent.
        pause: seconds for which the endpoint is left alone from now on, or None.
    """

    due: Due
    attempt: Attempt | None
    decision: Decision
    pause: float | None = None

    @property
    def number(self) -> int:
        """The charged attempt that this was, or would have been."""
        return self.due.attempts + 1

    def after(self) -> tuple[DeliveryState, float | None]:
        """The delivery's next state, and the seconds until it is due again."""
        match self.decision:
            case Delivered():
                return DeliveryState.DELIVERED, None
            case RetryAt(delay=delay):
                return DeliveryState.RETRYING, delay
            case Dead() | Disable():
                return DeliveryState.DEAD, None

    @property
    def charged(self) -> int:
        """Charged attempts so far: a fault of ours is not one, and a message never sent is not dead of one."""
        free = self.attempt is None or (isinstance(self.decision, RetryAt) and not self.decision.charged)
        return self.due.attempts if free else self.number

    def error(self) -> dict[str, Any] | None:
        """What the delivery shows of a failure."""
        if isinstance(self.decision, Delivered):
            return None
        code = (error_class(self.attempt.result) if self.attempt is not None else None) or "not_sent"
        if isinstance(self.decision, Dead | Disable):
            return {"code": code, "message": self.decision.reason}
        return {"code": code, "message": described(self.attempt.result) if self.attempt is not None else ""}

    def row(self) -> tuple[Any, ...]:
        """The columns of the query `record`."""
        status, delay = self.after()
        attempt = self.attempt
        logged: tuple[Any, ...] = (None,) * 7
        if attempt is not None:
            logged = (
                uuid7(int(attempt.at.timestamp() * 1000)), self.number, attempt.status, attempt.elapsed_ms,
                error_class(attempt.result), attempt.head, attempt.at,
            )  # fmt: skip
        before = ",".join(sources(status))
        return (
            self.due.tenant_id, self.due.delivery_id, *logged, str(status), before, self.charged, delay, self.error(),
        )  # fmt: skip


@dataclass(slots=True)
class _Said:
    """What the attempts of one commit say of their endpoint."""

    failed: bool | None = None
    pause: float | None = None
    reason: str | None = None


async def write_all(connection: Connection, records: Sequence[Record]) -> Sequence[Sequence[Publication]]:
    """Write what attempts came to, on a transaction that acts for their tenants; nothing follows from it."""
    rows = [record.row() for record in records]
    await connection.execute(queries("deliver").record, *(list(column) for column in zip(*rows, strict=True)))
    if said := _endpoints(records):
        order = sorted(said)
        await connection.execute(
            queries("deliver").endpoints,
            [tenant for tenant, _ in order],
            [endpoint for _, endpoint in order],
            [said[one].failed for one in order],
            [said[one].pause for one in order],
            [said[one].reason for one in order],
        )
    return [[] for _ in records]


def _endpoints(records: Sequence[Record]) -> dict[tuple[str, UUID], _Said]:
    """Endpoints of which there is news; a success in the same commit outweighs the failures beside it."""
    said: dict[tuple[str, UUID], _Said] = {}
    for record in records:
        due, attempt = record.due, record.attempt
        if attempt is None or isinstance(attempt.result, OurFault):
            continue
        delivered = isinstance(record.decision, Delivered)
        known = due.failing_since is None and due.endpoint_status is EndpointState.ACTIVE
        if record.pause is None and (known if delivered else due.failing_since is not None):
            continue
        one = said.setdefault((due.tenant_id, due.endpoint_id), _Said())
        one.failed = not delivered and one.failed is not False
        if record.pause is not None:
            one.pause, one.reason = max(record.pause, one.pause or 0.0), described(attempt.result)
    return said


async def disable(connection: Connection, record: Record, reason: str) -> Sequence[Publication]:
    """Send the endpoint nothing more, and tell the others, once."""
    tenant, endpoint = record.due.tenant_id, record.due.endpoint_id
    changed = await connection.fetchval(
        queries("deliver").disable_endpoint, tenant, endpoint, sources(EndpointState.DISABLED), reason
    )
    said = Publication(
        "endpoint.disabled", {"endpoint_id": str(endpoint), "reason": reason}, subject=str(endpoint)
    )
    return [said] if changed is not None else []


class GaveUp(Permanent):
    """The message could not be delivered."""

    code = "undeliverable"

    def __init__(self, message: str, record: Record) -> None:
        """Carry what is written in the transaction that buries the event."""
        super().__init__(message)
        self.record = record
