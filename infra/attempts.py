"""A worker's attempts at events pass through here: taken under a token (`claim`), and written at their end (`finish`).

Each call takes many events and costs one round trip.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson

from infra.database import Connection, Database, queries
from schemas.ids import EventId, TenantId
from schemas.states import EventState
from schemas.work import Work


@dataclass(frozen=True, slots=True)
class NotYet:
    """A claimed event that is not due; `delay` in seconds."""

    delay: float


async def claim(database: Database, wanted: Sequence[tuple[UUID, int]]) -> dict[UUID, Work | NotYet]:
    """Take events under their fencing tokens; what is finished or held under a newer token does not come back.

    Args:
        database: acts as the role ``penstock_worker``.
        wanted: (event id, token) pairs.
    """
    async with database.connection() as connection:
        rows = await connection.fetch(
            queries("ledger").claim, [event_id for event_id, _ in wanted], [token for _, token in wanted]
        )
    now = datetime.now(UTC)
    found: dict[UUID, Work | NotYet] = {}
    for row in rows:
        # By position, which costs half: the columns come as `ledger_claim` names them.
        event_id, tenant_id, source, key, kind, major, subject, data, sequence, *rest = row
        accept_no, attributes, expires_at, attempts, losses, accepted_at, not_before, token = rest
        if not_before is not None:
            found[event_id] = NotYet(max(0.0, (not_before - now).total_seconds()))
            continue
        after = (accept_no, attributes, expires_at, attempts + 1, losses, accepted_at, token)
        named = (EventId(event_id), TenantId(tenant_id), source, key, kind, major, subject, data, sequence)
        found[event_id] = Work(*named, *after)
    return found


async def known(database: Database, event_ids: Sequence[UUID]) -> set[UUID]:
    """Which of these ids have a ledger row, finished or not."""
    async with database.connection() as connection:
        return {row["event_id"] for row in await connection.fetch(queries("ledger").known, list(event_ids))}


async def lock(connection: Connection, works: Sequence[Work]) -> dict[UUID, EventState]:
    """Act for the tenants of works, and lock the rows that still carry our tokens.

    Args:
        connection: in a transaction that acts for nobody yet.
        works: of any tenants.

    Returns:
        States by event; one that is missing belongs to somebody else now.
    """
    tenants = sorted({work.tenant_id for work in works})
    wanted = [
        {"tenant_id": work.tenant_id, "event_id": str(work.event_id), "token": work.token} for work in works
    ]
    sql = queries("ledger").lock
    rows = await connection.fetch(sql, ",".join(tenants), orjson.dumps(wanted).decode())
    return {row["event_id"]: EventState(row["status"]) for row in rows}


@dataclass(frozen=True, slots=True)
class Finish:
    """How an attempt ended, for the ledger row.

    Attributes:
        status: the state that follows ``running``.
        attempts: charged attempts so far, this one included when it is charged.
        delay: seconds until the event is due again, for states that wait.
        error: why, as `PenstockError.as_dict` gives it.
        note: a line for the event's story: {"what", …}; the time is added here.
    """

    work: Work
    status: EventState
    attempts: int
    delay: float | None = None
    error: Mapping[str, Any] | None = None
    note: Mapping[str, Any] | None = None


def ends(finishes: Sequence[Finish]) -> list[dict[str, Any]]:
    """The ends of attempts as `infra.outbox.write` takes them."""
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    return [
        {
            "tenant_id": one.work.tenant_id,
            "event_id": str(one.work.event_id),
            "status": one.status,
            "attempts": one.attempts,
            "delay": one.delay,
            "error": one.error,
            "note": None if one.note is None else {"at": at, **one.note},
        }
        for one in finishes
    ]


async def finish_bare(database: Database, finishes: Sequence[Finish]) -> set[UUID]:
    """Write the ends of attempts that have no effect: checked by token, locked and written in one round trip.

    Args:
        database: acts as the role ``penstock_worker``.
        finishes: not ``dead``: a burial has an effect.

    Returns:
        The events that were ours; nothing was written of the others.
    """
    async with database.connection() as connection:
        rows = await connection.fetch(
            queries("ledger").finish_bare,
            [one.work.tenant_id for one in finishes],
            [one.work.event_id for one in finishes],
            [one.work.token for one in finishes],
            *_columns(finishes),
        )
    return {row["event_id"] for row in rows}


def _columns(finishes: Sequence[Finish]) -> tuple[list[Any], ...]:
    """How attempts ended, column by column."""
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    return (
        [str(one.status) for one in finishes],
        [one.attempts for one in finishes],
        _sparse([one.delay for one in finishes]),
        _sparse([one.error for one in finishes]),
        _sparse([None if one.note is None else {"at": at, **one.note} for one in finishes]),
    )


def _sparse(values: list[Any]) -> list[Any]:
    """Nothing for nothing: `unnest` fills up what is short, and asyncpg looks at each element of an array twice."""
    return values if any(value is not None for value in values) else []
