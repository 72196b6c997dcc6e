"""Events pass through here into the ledger on somebody else's transaction, beside the change that they tell of.

For the length of one statement the connection acts as the gateway and for one tenant; then it is its owner's again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from infra.database import Connection, act_for, queries, translated
from infra.ledger import Accepted, accept, offer
from producers.calls import Calls
from producers.naming import raw_event
from schemas.envelope import Event
from schemas.registry import EVENT_TYPES
from schemas.work import Pushable

ROLE = "penstock_gateway"
SEARCH_PATH = "public, pg_temp"
"""The caller may have an `events` table of its own."""


class Outbox(Calls):
    """Publishes on a connection whose transaction somebody else commits.

    Attributes:
        committed: what must be pushed to Redis once the transaction has committed.
    """

    def __init__(
        self, tenant: str, connection: Connection, read: Callable[[Mapping[str, Any]], Event]
    ) -> None:
        """Use a connection within its transaction; `read` makes an event of a mapping."""
        self._tenant = tenant
        self._connection = connection
        self._read = read
        self.committed: list[Pushable] = []

    async def publish(self, events: Sequence[Event | Mapping[str, Any]]) -> list[Accepted]:
        """Enter events; they exist when the caller's transaction commits, and not before.

        Returns:
            One result per event, in order: accepted or duplicate.

        Raises:
            BadInput, IdReused: an event is refused. Nothing of this call was entered, and the caller's transaction can
                go on.
        """
        if not events:
            return []
        offered = offer(
            self._tenant, [given if isinstance(given, Event) else self._read(given) for given in events]
        )
        with translated():
            async with self._connection.transaction():
                before = await self._act(ROLE, SEARCH_PATH)
                await act_for(self._connection, [self._tenant])
                results = await accept(self._connection, offered)
                for one in results:
                    if one.error is not None:
                        raise one.error
                await self._act_as_before(*before)
        self.committed += [
            Pushable(one.event_id, one.event.type, queue, tenant=one.tenant_id)
            for one, result in zip(offered, results, strict=True)
            if result.status == "accepted" and (queue := EVENT_TYPES[one.event.type].queue) is not None
        ]
        return results

    async def publish_one(
        self, kind: str, data: dict[str, Any], attributes: Mapping[str, Any], subject: str | None = None
    ) -> Accepted:
        """Enter one event or raise why not; values that are None are left out."""
        [result] = await self.publish([raw_event(kind, data, attributes, subject)])
        return result

    async def _act(self, role: str, search_path: str) -> tuple[str, str, str]:
        """Take on a role and a search path until the transaction ends.

        Returns:
            The role, the search path and the tenants that the connection had.
        """
        sql = queries("outbox")
        row = await self._connection.fetchrow(sql.standing)
        assert row is not None
        await self._connection.execute(sql.act, role, search_path)
        return row["role"], row["search_path"], row["tenants"]

    async def _act_as_before(self, role: str, search_path: str, tenants: str) -> None:
        await act_for(self._connection, [tenants])
        await self._connection.execute(queries("outbox").act, role, search_path)
