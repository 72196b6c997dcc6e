"""A decision passes through here into rows: the attempt, the delivery's new state, and what its endpoint has come to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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
    """What is to be written about one attempt; `write` is the effect."""

    due: Due
    attempt: Attempt | None
    decision: Decision

    @property
    def number(self) -> int:
        """The charged attempt that this was, or would have been."""
        return self.due.attempts + 1

    async def write(self, connection: Connection) -> Sequence[Publication]:
        """Write it on a transaction that acts for the delivery's tenant."""
        if self.attempt is not None:
            await self._log(connection, self.attempt)
        await self._settle(connection)
        return await self._endpoint(connection)

    async def _log(self, connection: Connection, attempt: Attempt) -> None:
        await connection.execute(
            queries("deliver").log_attempt,
            self.due.tenant_id,
            uuid7(int(attempt.at.timestamp() * 1000)),
            self.due.delivery_id,
            self.number,
            attempt.status,
            attempt.elapsed_ms,
            error_class(attempt.result),
            attempt.head,
            attempt.at,
        )

    async def _settle(self, connection: Connection) -> None:
        after, delay = self._after()
        # A fault of ours is not an attempt, and a message that was never sent is not dead of one.
        charged = self.attempt is not None and not (
            isinstance(self.decision, RetryAt) and not self.decision.charged
        )
        await connection.execute(
            queries("deliver").settle,
            self.due.tenant_id,
            self.due.delivery_id,
            after,
            sources(after),
            self.number if charged else self.due.attempts,
            delay,
            self._error(),
        )

    def _after(self) -> tuple[DeliveryState, float | None]:
        match self.decision:
            case Delivered():
                return DeliveryState.DELIVERED, None
            case RetryAt(delay=delay):
                return DeliveryState.RETRYING, delay
            case Dead() | Disable():
                return DeliveryState.DEAD, None

    def _error(self) -> dict[str, Any] | None:
        match self.decision:
            case Delivered():
                return None
            case Dead(reason=reason) | Disable(reason=reason):
                return {"code": self._code(), "message": reason}
            case RetryAt():
                return {
                    "code": self._code(),
                    "message": described(self.attempt.result) if self.attempt else "",
                }

    def _code(self) -> str:
        return (error_class(self.attempt.result) if self.attempt is not None else None) or "not_sent"

    async def _endpoint(self, connection: Connection) -> Sequence[Publication]:
        """Keep since when the endpoint fails, and disable it where that was decided."""
        tenant, endpoint = self.due.tenant_id, self.due.endpoint_id
        sql = queries("deliver")
        if isinstance(self.decision, Disable):
            reason = self.decision.reason
            changed = await connection.fetchval(
                sql.disable_endpoint, tenant, endpoint, sources(EndpointState.DISABLED), reason
            )
            said = Publication("endpoint.disabled", {"endpoint_id": str(endpoint), "reason": reason})
            return [said] if changed is not None else []
        if self.attempt is None or isinstance(self.attempt.result, OurFault):
            return []
        failed = not isinstance(self.decision, Delivered)
        if failed is (self.due.failing_since is None):
            await connection.execute(sql.endpoint_failing, tenant, endpoint, failed)
        return []


class GaveUp(Permanent):
    """The message could not be delivered."""

    code = "undeliverable"

    def __init__(self, message: str, record: Record) -> None:
        """Carry what is written in the transaction that buries the event."""
        super().__init__(message)
        self.record = record
