"""What an operator asks of the ledger passes through here: events, dead letters, replay. On the owner's connection.

Payloads stay where they are: ids, types, states, times and errors are enough to decide what to do next.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import redis.asyncio

from infra import letters
from infra.database import Connection, queries
from infra.push import push
from schemas.errors import BadInput, NotFound
from schemas.work import Pushable

REPLAY_CAP = 10_000


@dataclass(frozen=True, slots=True)
class DeadFilter:
    """Which dead events; what is None does not matter."""

    tenant: str | None = None
    queue: str | None = None
    type: str | None = None
    error: str | None = None
    since: datetime | None = None
    event_id: UUID | None = None
    until: datetime | None = None


async def counts(connection: Connection) -> list[dict[str, Any]]:
    """Unfinished and dead events per queue, type and status."""
    return _rows(await connection.fetch(queries("operations").counts))


async def list_events(
    connection: Connection,
    *,
    tenant: str | None = None,
    kind: str | None = None,
    status: str | None = None,
    before: UUID | None = None,
    limit: int = 50,
) -> list[dict[str, Any]]:
    """Events, newest first."""
    return _rows(await connection.fetch(queries("operations").events, tenant, kind, status, before, limit))


async def show_event(connection: Connection, event_id: UUID) -> dict[str, Any]:
    """One event with its story and what it caused.

    Raises:
        NotFound: the ledger has no such event.
    """
    sql = queries("operations")
    row = await connection.fetchrow(sql.event, event_id)
    if row is None:
        raise NotFound(f"the ledger has no event {event_id}")
    caused = await connection.fetch(sql.caused, row["tenant_id"], event_id)
    return {**dict(row), "caused": _rows(caused)}


def explain(event: dict[str, Any], *, now: datetime) -> str:
    """One sentence that says where an event stands and what happens next."""
    status, error = event["status"], event.get("error") or {}
    reason = f"{error.get('code')}: {error.get('message')}" if error else "no error"
    match status:
        case "done":
            took = (event["finished_at"] - event["accepted_at"]).total_seconds()
            return f"Done {took:.1f} s after it was accepted, in attempt {event['attempts']}."
        case "dead":
            fix = f" {error['fix']}." if error.get("fix") else ""
            return f"Given up after {event['attempts']} attempts ({reason}).{fix} `penstock dead replay` brings it back."
        case "running":
            return f"A worker has held it for {(now - event['started_at']).total_seconds():.0f} s under token {event['token']}."
        case "paused_budget":
            return (
                "The tenant's budget is used up; it runs again when the period ends or the limit is raised."
            )
        case "retrying":
            when = "due now" if event["due_at"] is None else f"due at {event['due_at']:%H:%M:%S}"
            return f"Attempt {event['attempts']} failed ({reason}); the next one is {when}."
        case _ if event["due_at"] is not None:
            return f"It waits until {event['due_at']:%Y-%m-%d %H:%M:%S} ({reason})."
        case _:
            waited = (now - event["accepted_at"]).total_seconds()
            return f"Accepted {waited:.0f} s ago and not yet taken: is a {event['queue']} worker running, or the queue paused?"


async def list_dead(connection: Connection, which: DeadFilter, *, limit: int = 50) -> list[dict[str, Any]]:
    """Dead events, newest first."""
    rows = await connection.fetch(
        queries("operations").dead,
        which.tenant,
        which.queue,
        which.type,
        which.error,
        which.since,
        which.event_id,
        limit,
        which.until,
    )
    return _rows(rows)


async def replay(
    connection: Connection,
    client: redis.asyncio.Redis,
    events: Sequence[dict[str, Any]],
    *,
    per_second: float = 50.0,
    actor: str = "operator",
) -> int:
    """Bring dead events back onto their queues, staggered, and refused stream entries onto their streams.

    There is one audit line per tenant.

    Returns:
        How many came back; those that somebody else replayed meanwhile do not count.
    """
    if len(events) > REPLAY_CAP:
        raise BadInput(
            f"{len(events)} events at once", field="limit", fix=f"replay at most {REPLAY_CAP} at a time"
        )
    ids = [event["event_id"] for event in reversed(events)]
    waits = [index / per_second for index in range(len(ids))]
    async with connection.transaction():
        rows = await connection.fetch(queries("operations").replay, ids, waits, actor)
        entries = await letters.put_back(connection, client, ids, actor=actor)
        await audit(connection, [row["tenant_id"] for row in (*rows, *entries)], actor, "dead.replay")
    await push(
        client,
        [Pushable(row["event_id"], row["type"], row["queue"], row["wait"], row["tenant_id"]) for row in rows],
    )
    return len(rows) + len(entries)


async def discard(
    connection: Connection, events: Sequence[dict[str, Any]], *, actor: str = "operator"
) -> int:
    """Take dead events off the list for good, with one audit line per tenant."""
    async with connection.transaction():
        rows = await connection.fetch(
            queries("operations").discard, [event["event_id"] for event in events], actor
        )
        await audit(connection, [row["tenant_id"] for row in rows], actor, "dead.discard")
    return len(rows)


async def audit(connection: Connection, tenants: Iterable[str], actor: str, action: str) -> None:
    """Write one audit line per tenant, with how often it is named; work of nobody has the empty name."""
    lines = [{"tenant_id": tenant, "events": events} for tenant, events in Counter(tenants).items()]
    if lines:
        await connection.execute(queries("operations").audit, lines, actor, action)


def _rows(records: Sequence[Any]) -> list[dict[str, Any]]:
    return [dict(record) for record in records]
