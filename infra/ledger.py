"""Events pass through here into the ledger (`accept`), out to a worker (`claim`), and to their end (`finish`).

The ledger is the record: outbox, idempotency record, audit trail, dead letters and what replay reads. Each call here
takes many events and costs one or two round trips.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

import orjson
from asyncpg.pgproto.pgproto import UUID as FastUUID  # noqa: N811 - it is a UUID, and so is its base.

from infra.database import Connection, Database, queries
from schemas.envelope import Event
from schemas.errors import IdReused, PenstockError
from schemas.ids import EventId, TenantId, uuid7_bytes
from schemas.registry import EVENT_TYPES
from schemas.states import EventState
from schemas.work import Work

NAMED = ("partitionkey", "dataref", "correlationid", "causationid", "subjectref", "traceparent")
"""Attributes of an event that are kept without a column of their own, besides its extensions and its time."""


def event_uuid(text: str) -> UUID:
    """An event's id from its text; asyncpg's class, an eighth of the time of Python's own.

    Raises:
        ValueError: it is no UUID.
    """
    return FastUUID(text)


class Offered(NamedTuple):
    """One event that a tenant wants to publish; a named tuple, because publishing makes one per event."""

    tenant_id: str
    event: Event
    event_id: EventId


# Not frozen, for the same reason.
@dataclass(slots=True)
class Accepted:
    """What became of one offered event.

    Attributes:
        index: its place in the batch.
        event_id: the ledger's id; for a duplicate the id of the event that came first; None when rejected.
        status: ``accepted``, ``duplicate`` or ``rejected``.
        error: why it was rejected.
    """

    index: int
    event_id: EventId | None
    source: str
    id: str
    status: str
    error: PenstockError | None = None

    def as_dict(self) -> dict[str, Any]:
        """The result as `POST /v1/events` shows it."""
        return {
            "index": self.index,
            "event_id": None if self.event_id is None else str(self.event_id),
            "source": self.source,
            "id": self.id,
            "status": self.status,
            "error": None if self.error is None else self.error.as_dict(),
        }


def offer(tenant_id: str, events: Sequence[Event]) -> list[Offered]:
    """Give events the ids under which they will be known inside, in their order."""
    # asyncpg's own class: made, written, compared and sent ten times as fast as its parent in the standard library.
    return [
        Offered(tenant_id, event, EventId(FastUUID(minted)))
        for event, minted in zip(events, uuid7_bytes(len(events)), strict=True)
    ]


def data_sha256(event: Event) -> bytes:
    """What tells a harmless repetition from a reused id: type, version, subject, sequence and data, in canonical order."""
    parts = [event.type, event.major, event.subject, event.sequence, event.data]
    return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).digest()


def attributes_of(event: Event) -> dict[str, Any]:
    """The CloudEvents attributes that have no column of their own, as they are kept."""
    kept = dict(event.extensions)
    if event.time is not None:
        kept["time"] = event.time  # orjson writes it, in RFC 3339
    for name in NAMED:
        value = getattr(event, name)
        if value is not None:
            kept[name] = value
    return kept


async def accept(connection: Connection, offered: Sequence[Offered]) -> list[Accepted]:
    """Enter events on a transaction that acts for their tenants.

    Used by the bus in groups, and by a producer inside its own transaction (the outbox).

    Returns:
        One result per offered event, in order: accepted, duplicate, or rejected with `IdReused`.
    """
    sql = queries("ledger")
    # One text, not an array per column: asyncpg looks at every element of an array several times, in Python.
    rows = orjson.dumps([_row(one) for one in offered]).decode()
    tag = await connection.execute(sql.accept, rows)
    if int(tag.rpartition(" ")[2]) == len(offered):
        return [_accepted(index, one) for index, one in enumerate(offered)]
    # Some keys were not free: what is kept under each tells ours from others'.
    found = await connection.fetch(
        sql.find_keys,
        [one.tenant_id for one in offered],
        [one.event.source for one in offered],
        [one.event.id for one in offered],
    )
    kept: dict[tuple[str, str, str], Any] = {
        (row["tenant_id"], row["source"], row["id"]): row for row in found
    }
    return [
        _judged(index, one, kept[one.tenant_id, one.event.source, one.event.id])
        for index, one in enumerate(offered)
    ]


def _row(one: Offered) -> dict[str, Any]:
    """An event as the ledger's statement reads it; what is not given is NULL."""
    event = one.event
    row: dict[str, Any] = {
        "tenant_id": one.tenant_id,
        "event_id": str(one.event_id),
        "source": event.source,
        "id": event.id,
        "type": event.type,
        "major": event.major,
        "queue": EVENT_TYPES[event.type].queue,
        "data": event.data,
        "attributes": attributes_of(event),
        "sha": data_sha256(event).hex(),
    }
    if event.subject is not None:
        row["subject"] = event.subject
    if event.sequence is not None:
        row["sequence"] = event.sequence
    if event.expirytime is not None:
        row["expires_at"] = event.expirytime
    return row


def _accepted(index: int, one: Offered) -> Accepted:
    return Accepted(index, one.event_id, one.event.source, one.event.id, "accepted")


def _judged(index: int, one: Offered, kept: Mapping[str, Any]) -> Accepted:
    """What became of an event, by what is kept under its key."""
    event = one.event
    if kept["event_id"] == one.event_id:
        return _accepted(index, one)
    if kept["data_sha256"] == data_sha256(event):
        return Accepted(index, EventId(kept["event_id"]), event.source, event.id, "duplicate")
    error = IdReused(field="id", fix="give changed data an id of its own")
    return Accepted(index, None, event.source, event.id, "rejected", error)


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
    """Lock the rows that still carry our tokens; a row that is missing belongs to somebody else now."""
    rows = await connection.fetch(
        queries("ledger").lock,
        [work.tenant_id for work in works],
        [work.event_id for work in works],
        [work.token for work in works],
    )
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


async def finish(connection: Connection, finishes: Sequence[Finish]) -> None:
    """Write the ends of attempts in one statement, on a transaction that has locked their rows."""
    await connection.execute(
        queries("ledger").finish,
        [one.work.tenant_id for one in finishes],
        [one.work.event_id for one in finishes],
        *_columns(finishes),
    )


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
    """What both ways to finish write."""
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
