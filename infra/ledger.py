"""Events pass through here into the ledger: the caller's key and the event, or what stands under the key already.

The ledger is the record: outbox, idempotency record, audit trail, dead letters and what replay reads. Each call here
takes many events and costs one or two round trips. What a worker does with them is in `infra.attempts`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg
import orjson
from asyncpg.pgproto.pgproto import UUID as FastUUID  # noqa: N811 - it is a UUID, and so is its base.

from infra.database import Connection, Database, queries
from schemas.envelope import Event
from schemas.errors import IdReused, PenstockError
from schemas.ids import EventId, uuid7_bytes
from schemas.registry import EVENT_TYPES

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
    tag = await connection.execute(sql.accept, _rows(offered))
    if int(tag.rpartition(" ")[2]) == len(offered):
        return [_accepted(index, one) for index, one in enumerate(offered)]
    # Some keys were not free: what is kept under each tells ours from others'.
    found = await connection.fetch(
        sql.find_keys,
        [one.tenant_id for one in offered],
        [one.event.source for one in offered],
        [one.event.id for one in offered],
    )
    return _all_judged(offered, found)


async def enter(database: Database, offered: Sequence[Offered]) -> list[Accepted]:
    """Enter events of any tenants as one round trip that is a transaction of its own; results as for `accept`.

    Raises:
        Unavailable: the database could not commit.
        Permanent: it refuses one of them; nothing was entered.
    """
    tenants = sorted({one.tenant_id for one in offered})
    found = await database.call(tenants, queries("ledger").enter, _rows(offered))
    if not found:
        return [_accepted(index, one) for index, one in enumerate(offered)]
    return _all_judged(offered, found)


def _all_judged(offered: Sequence[Offered], found: Sequence[asyncpg.Record]) -> list[Accepted]:
    kept: dict[tuple[str, str, str], Any] = {
        (row["tenant_id"], row["source"], row["id"]): row for row in found
    }
    return [
        _judged(index, one, kept[one.tenant_id, one.event.source, one.event.id])
        for index, one in enumerate(offered)
    ]


def _rows(offered: Sequence[Offered]) -> str:
    """One text, not an array per column: asyncpg looks at every element of an array several times, in Python."""
    return orjson.dumps([_row(one) for one in offered]).decode()


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
