"""What an effect says next passes through here into the same transaction: follow-up events and webhook messages.

Out events are written done. For each endpoint that matches there is one `deliveries` row, holding the bytes that will
be signed and sent at every attempt, and one `delivery.due` event that a deliver worker will take.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson

from infra.database import Connection, queries
from infra.egress.url import lies_under
from infra.filters import compile_filter
from schemas.ids import EventId, new_event_id, uuid7
from schemas.registry import EVENT_TYPES
from schemas.work import Publication, Pushable, Work

THIN_ABOVE = 20_000
"""A body above so many bytes is sent thin (ids only, the rest by the API), unless the endpoint's owner wants it full."""


@dataclass(frozen=True, slots=True)
class Said:
    """A publication with its cause."""

    tenant_id: str
    publication: Publication
    cause: EventId | None = None
    attributes: dict[str, Any] | None = None


def said_by(work: Work, publications: Sequence[Publication]) -> list[Said]:
    """Publications that a piece of work caused; thread and trace go on."""
    inherited = {
        name: work.attributes[name] for name in ("correlationid", "traceparent") if name in work.attributes
    }
    return [
        Said(
            work.tenant_id,
            one,
            work.event_id,
            {
                **inherited,
                **one.attributes,
                **({"correlationid": one.correlationid} if one.correlationid else {}),
                "causationid": str(work.event_id),
            },
        )
        for one in publications
    ]


@dataclass(frozen=True, slots=True)
class _Row:
    """Something said, with its ids; its number only where a message names it."""

    said: Said
    event_id: EventId
    accept_no: int | None = None


async def write(
    connection: Connection, said: Sequence[Said], ends: Sequence[Mapping[str, Any]] = ()
) -> list[Pushable]:
    """Write events and their deliveries on a transaction that acts for their tenants.

    Args:
        connection: in that transaction.
        said: by effects, or by somebody else.
        ends: of the attempts that said it, see `infra.attempts.ends`.

    Returns:
        What must be pushed to Redis after the commit.
    """
    if not said and not ends:
        return []
    rows = [_Row(one, new_event_id()) for one in said]
    matched = await _matched(connection, rows)
    if matched:
        rows = await _numbered(connection, rows)
        numbered = {row.event_id: row for row in rows}
        dues = await _deliveries(
            connection, [replace(one, row=numbered[one.row.event_id]) for one in matched]
        )
        rows += [_Row(one, new_event_id()) for one in dues]
    entered = orjson.dumps([_entered(row) for row in rows]).decode()
    await connection.execute(queries("ledger").write, entered, orjson.dumps(ends).decode())
    return [
        Pushable(
            row.event_id, row.said.publication.type, queue, row.said.publication.delay, row.said.tenant_id
        )
        for row in rows
        if (queue := EVENT_TYPES[row.said.publication.type].queue) is not None
    ]


def _entered(row: _Row) -> dict[str, Any]:
    """An event as the ledger's statement reads it."""
    one, kind = row.said.publication, EVENT_TYPES[row.said.publication.type]
    return {
        "tenant_id": row.said.tenant_id,
        "event_id": str(row.event_id),
        "type": one.type,
        "major": kind.major,
        "queue": kind.queue,
        "subject": one.subject,
        "data": one.data,
        "accept_no": row.accept_no,
        "attributes": row.said.attributes or {},
        "caused_by": None if row.said.cause is None else str(row.said.cause),
        "delay": one.delay,
    }


async def _numbered(connection: Connection, rows: Sequence[_Row]) -> list[_Row]:
    numbers = await connection.fetch(queries("ledger").accept_numbers, len(rows))
    return [replace(row, accept_no=number[0]) for row, number in zip(rows, numbers, strict=True)]


def matches(types: Sequence[str], name: str) -> bool:
    """Whether an endpoint's subscription covers an event type: exact, ``family.*`` or ``*``."""
    return any(one in {"*", name} or (one.endswith(".*") and name.startswith(one[:-1])) for one in types)


def message_id(event_id: UUID) -> str:
    """The `webhook-id` of an event, the same at every attempt and for every endpoint."""
    return f"msg_{event_id.hex}"


def body_of(name: str, event_id: UUID, sequence: int, data: Any, at: datetime) -> bytes:
    """The bytes that a webhook receives."""
    return orjson.dumps(
        {
            "type": name,
            "timestamp": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "data": data,
            "id": message_id(event_id),
            "sequence": sequence,
        }
    )


def message_body(name: str, event_id: UUID, sequence: int, data: Any, at: datetime, *, payload: str) -> bytes:
    """The same for an endpoint that wants it ``full``, ``thin``, or ``auto``: thin when it is large."""
    if payload != "thin":
        body = body_of(name, event_id, sequence, data, at)
        if payload == "full" or len(body) <= THIN_ABOVE:
            return body
    return body_of(name, event_id, sequence, thin(data), at)


def thin(data: Any) -> dict[str, Any]:
    """Ids and states only: what stays of a payload that is too large or must not leave in full."""
    short = (str, int, float, bool, type(None))
    return {
        key: value
        for key, value in dict(data).items()
        if isinstance(value, short)
        and (key.endswith("_id") or key in {"collection", "dataset", "status", "sequence", "model"})
    }


async def _matched(connection: Connection, rows: Sequence[_Row]) -> list[_Match]:
    """The endpoints that receive what is said, by type, callback URL and content."""
    out = [row for row in rows if EVENT_TYPES[row.said.publication.type].queue is None]
    if not out:
        return []
    tenants = sorted({row.said.tenant_id for row in out})
    endpoints = defaultdict(list)
    for record in await connection.fetch(queries("ledger").endpoints, tenants):
        endpoints[record["tenant_id"]].append(record)
    every = [
        _Match(row, *to)
        for row in out
        for to in _receivers(endpoints[row.said.tenant_id], row.said.publication)
    ]
    return await _filtered(connection, every)


async def _deliveries(connection: Connection, matched: Sequence[_Match]) -> list[Said]:
    """Write the messages, and return the `delivery.due` events to say."""
    now = datetime.now(UTC)
    bodies: dict[tuple[UUID, str], bytes] = {}
    columns: list[tuple[Any, ...]] = []
    dues: list[Said] = []
    for one in matched:
        row, delivery_id, payload = one.row, uuid7(), one.endpoint["payload"]
        if (body := bodies.get((row.event_id, payload))) is None:
            publication = row.said.publication
            assert row.accept_no is not None
            body = bodies[row.event_id, payload] = message_body(
                publication.type, row.event_id, row.accept_no, publication.data, now, payload=payload
            )
        endpoint_id, kind = one.endpoint["endpoint_id"], row.said.publication.type
        message = (
            row.said.tenant_id,
            delivery_id,
            endpoint_id,
            message_id(row.event_id),
            row.event_id,
            kind,
            one.url,
            body,
        )
        columns.append(message)
        due = Publication("delivery.due", {"delivery_id": str(delivery_id)}, subject=str(endpoint_id))
        dues.append(Said(row.said.tenant_id, due, row.event_id, row.said.attributes))
    await connection.execute(
        queries("ledger").deliver, *(list(column) for column in zip(*columns, strict=True))
    )
    return dues


@dataclass(frozen=True, slots=True)
class _Match:
    """An out event and an endpoint that may receive it; `url` where it is not the endpoint's own."""

    row: _Row
    endpoint: Any
    url: str | None


def _receivers(endpoints: Sequence[Any], one: Publication) -> list[tuple[Any, str | None]]:
    """The endpoints whose subscription covers an event, and the one whose prefix covers its callback URL."""
    receivers: list[tuple[Any, str | None]] = [
        (endpoint, None)
        for endpoint in endpoints
        if not endpoint["callback_prefix"] and matches(endpoint["types"], one.type)
    ]
    if one.callback_url is not None:
        under = (e for e in endpoints if e["callback_prefix"] and lies_under(one.callback_url, e["url"]))
        receivers += [(prefix, one.callback_url) for prefix in [next(under, None)] if prefix is not None]
    return receivers


async def _filtered(connection: Connection, every: Sequence[_Match]) -> list[_Match]:
    """Those whose endpoint has no content filter, or one that the event's data passes; one round trip where there are any."""
    asked = [(index, one) for index, one in enumerate(every) if one.endpoint["filter"] is not None]
    if not asked:
        return list(every)
    rows = await connection.fetch(
        queries("ledger").filtered,
        [index for index, _ in asked],
        [one.row.said.publication.data for _, one in asked],
        [compile_filter(one.endpoint["filter"]) for _, one in asked],
    )
    passed = {row["index"] for row in rows}
    return [one for index, one in enumerate(every) if one.endpoint["filter"] is None or index in passed]
