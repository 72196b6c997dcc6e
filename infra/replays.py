"""Messages that were sent, or should have been, pass through here on their way to be sent again, at a gentle pace.

A replay takes what matches: messages that have ended, or out events that the endpoint was never sent. Each replay has a
nonce, so that a request that is repeated happens once, and leaves a line in the audit log. The message keeps its
`webhook-id` and its bytes; only the `delivery.due` event is new.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from infra import outbox
from infra.database import Connection, queries
from infra.filters import compile_filter
from infra.outbox import Said
from schemas.errors import BadInput, Conflict, NotFound
from schemas.ids import uuid7, uuid7_floor
from schemas.registry import Direction, types_of
from schemas.states import DeliveryState, EndpointState
from schemas.work import Publication, Pushable

MOST = 5000
"""Messages per call; the answer says where the next call begins."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which messages are sent again.

    Attributes:
        status: how they ended; ignored when `missing`.
        types: event types, ``family.*`` or ``*``.
        filter: condition on the contents.
        error: the error's class that the last attempt ended with, such as ``timeout``.
        since: written at or after.
        until: written before; now unless given.
        missing: instead, what the endpoint was never sent: out events without a message, or with one never tried.
        after: the place where the page before ended.
    """

    status: tuple[str, ...] = (DeliveryState.DEAD,)
    types: tuple[str, ...] = ("*",)
    filter: Any = None
    error: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    missing: bool = False
    after: UUID | None = None

    def check(self) -> None:
        """Refuse what could never select anything.

        Raises:
            BadInput: names the field.
        """
        if not self.names():
            raise BadInput("types: no event that goes out matches", field="types")
        if self.missing and self.since is None:
            raise BadInput("since is needed with missing", field="since", fix="say how far back to look")
        if self.missing and self.error is not None:
            raise BadInput("what was never sent has no error", field="error")
        compile_filter(self.filter)

    def names(self) -> list[str]:
        """The types by name; a test message is no event and is found by ``*`` only."""
        every = [one.name for one in types_of(Direction.OUT)]
        return [name for name in every if outbox.matches(self.types, name)]

    def as_dict(self) -> dict[str, Any]:
        """As it is kept with the nonce."""
        return {
            "status": list(self.status), "types": list(self.types), "filter": self.filter, "error": self.error,
            "since": self.since and self.since.isoformat(), "until": self.until and self.until.isoformat(),
            "missing": self.missing, "after": self.after and str(self.after),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay does, or would do.

    Attributes:
        messages: how many.
        by_type: how many of each type.
        seconds: until the last one is due.
        after: where the next page begins; None when nothing is left.
        repeated: the nonce was used before, and nothing was done now.
    """

    replay_id: UUID
    nonce: str
    messages: int
    by_type: Mapping[str, int]
    seconds: float
    after: UUID | None
    dry_run: bool
    repeated: bool = False


async def replay(
    connection: Connection,
    tenant: str,
    endpoint_id: UUID,
    selection: Selection,
    *,
    actor: str,
    nonce: str | None = None,
    per_second: float = 50.0,
    dry_run: bool = False,
    most: int = MOST,
) -> tuple[Replayed, list[Pushable]]:
    """Send again what matches, so many a second, once per nonce.

    Returns:
        What was done, and what must be pushed to Redis after the commit.

    Raises:
        NotFound: the tenant has no such endpoint.
        Conflict: the endpoint is disabled, or the nonce was used for another selection.
        BadInput: the selection makes no sense; names the field.
    """
    selection.check()
    sql = queries("gateway_endpoints")
    endpoint = await connection.fetchrow(sql.show, tenant, endpoint_id)
    if endpoint is None:
        raise NotFound("there is no such webhook")
    _must_be_enabled(endpoint)
    if selection.missing and endpoint["callback_prefix"]:
        raise BadInput("a callback prefix receives callbacks only", field="missing")
    replay_id, name = uuid7(), nonce or str(uuid7())
    if not dry_run:
        taken = await connection.fetchval(
            sql.begin_replay, tenant, endpoint_id, name, replay_id, selection.as_dict()
        )
        if taken is None:
            return await _known(connection, tenant, endpoint_id, name, selection), []
    rows = await (_never_sent if selection.missing else _ended)(
        connection, tenant, endpoint, selection, most + 1
    )
    rows, more = rows[:most], len(rows) > most
    place = "event_id" if selection.missing else "delivery_id"
    done = Replayed(
        replay_id, name, len(rows), dict(Counter(row["type"] for row in rows)), max(0, len(rows) - 1) / per_second,
        rows[-1][place] if more else None, dry_run,
    )  # fmt: skip
    if dry_run:
        return done, []
    ids = await _messages(connection, tenant, endpoint, rows)
    jobs = await outbox.write(
        connection, [_due(tenant, endpoint_id, one, replay_id, n / per_second) for n, one in enumerate(ids)]
    )
    await connection.execute(sql.end_replay, tenant, endpoint_id, name, len(ids), done.after)
    details = {
        "replay_id": str(replay_id),
        "nonce": name,
        "messages": len(ids),
        "selection": selection.as_dict(),
    }
    await _audit(connection, tenant, actor, endpoint_id, details)
    return done, jobs


async def replay_delivery(
    connection: Connection, tenant: str, delivery_id: UUID, *, actor: str
) -> list[Pushable]:
    """Send one message again, under the same `webhook-id`.

    Returns:
        What must be pushed to Redis after the commit.

    Raises:
        NotFound: the tenant has no such delivery.
        Conflict: it is still under way, or its endpoint is disabled.
    """
    sql = queries("gateway_endpoints")
    row = await connection.fetchrow(sql.delivery_status, tenant, delivery_id)
    if row is None:
        raise NotFound("there is no such delivery")
    if row["status"] not in {DeliveryState.DEAD, DeliveryState.DELIVERED}:
        raise Conflict(f"the delivery is {row['status']}: it is still under way", field="status")
    endpoint = await connection.fetchrow(sql.show, tenant, row["endpoint_id"])
    assert endpoint is not None, "a foreign key holds it"
    _must_be_enabled(endpoint)
    replay_id = uuid7()
    await connection.execute(sql.replay_many, tenant, [delivery_id])
    details = {"replay_id": str(replay_id), "delivery_id": str(delivery_id), "messages": 1}
    await _audit(connection, tenant, actor, row["endpoint_id"], details)
    return await outbox.write(connection, [_due(tenant, row["endpoint_id"], delivery_id, replay_id, 0.0)])


def _must_be_enabled(endpoint: Any) -> None:
    if endpoint["status"] == EndpointState.DISABLED:
        raise Conflict(
            "the endpoint is disabled", field="status", fix="enable it first: `penstock webhooks enable ID`"
        )


async def _known(
    connection: Connection, tenant: str, endpoint_id: UUID, nonce: str, selection: Selection
) -> Replayed:
    """What the nonce did when it was used first."""
    row = await connection.fetchrow(queries("gateway_endpoints").known_replay, tenant, endpoint_id, nonce)
    assert row is not None, "the insert met it"
    if row["selection"] != selection.as_dict():
        raise Conflict("the nonce was used for another replay", field="nonce", fix="give a new one")
    return Replayed(
        row["replay_id"], nonce, row["messages"], {}, 0.0, row["next_after"], dry_run=False, repeated=True
    )


async def _ended(
    connection: Connection, tenant: str, endpoint: Any, wanted: Selection, limit: int
) -> Sequence[Any]:
    """Deliveries that match."""
    return await connection.fetch(
        queries("gateway_endpoints").replayable, tenant, endpoint["endpoint_id"], list(wanted.status),
        None if "*" in wanted.types else wanted.names(), wanted.since, wanted.until, wanted.error,
        compile_filter(wanted.filter), wanted.after, limit,
    )  # fmt: skip


async def _never_sent(
    connection: Connection, tenant: str, endpoint: Any, wanted: Selection, limit: int
) -> Sequence[Any]:
    """Out events that match the selection and the endpoint's own subscription."""
    assert wanted.since is not None
    names = [name for name in wanted.names() if outbox.matches(endpoint["types"], name)]
    until = wanted.until or datetime.now(UTC) + timedelta(seconds=1)
    conditions = [one for one in (wanted.filter, endpoint["filter"]) if one]
    return await connection.fetch(
        queries("gateway_endpoints").never_sent, tenant, endpoint["endpoint_id"], names, uuid7_floor(wanted.since),
        uuid7_floor(until), compile_filter({"$and": conditions} if conditions else None), wanted.after, limit,
    )  # fmt: skip


async def _messages(connection: Connection, tenant: str, endpoint: Any, rows: Sequence[Any]) -> list[UUID]:
    """Bring messages back to their beginning, and write those that there are none of; returns the deliveries."""
    columns: list[tuple[Any, ...]] = []
    ids: list[UUID] = []
    for row in rows:
        ids.append(row["delivery_id"] or uuid7())
        if row["delivery_id"] is None:
            body = outbox.message_body(
                row["type"],
                row["event_id"],
                row["accept_no"],
                row["data"],
                row["accepted_at"],
                payload=endpoint["payload"],
            )
            message_id = outbox.message_id(row["event_id"])
            columns.append(
                (
                    tenant,
                    ids[-1],
                    endpoint["endpoint_id"],
                    message_id,
                    row["event_id"],
                    row["type"],
                    None,
                    body,
                )
            )
    if columns:
        await connection.execute(
            queries("ledger").deliver, *(list(column) for column in zip(*columns, strict=True))
        )
    there = [row["delivery_id"] for row in rows if row["delivery_id"] is not None]
    await connection.execute(queries("gateway_endpoints").replay_many, tenant, there)
    return ids


def _due(tenant: str, endpoint_id: UUID, delivery_id: UUID, replay_id: UUID, delay: float) -> Said:
    due = Publication(
        "delivery.due", {"delivery_id": str(delivery_id)}, subject=str(endpoint_id), delay=delay
    )
    return Said(tenant, due, attributes={"correlationid": f"replay:{replay_id}"})


async def _audit(
    connection: Connection, tenant: str, actor: str, endpoint_id: UUID, details: Mapping[str, Any]
) -> None:
    await connection.execute(
        queries("gateway_tenants").audit, tenant, actor, "webhook.replay", str(endpoint_id), dict(details)
    )
