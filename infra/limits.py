"""What a tenant wants to add passes through here and is held against the limits that an operator set for it.

A tenant without limits costs nothing. Counts are taken from the ledger and the tables, kept for a few seconds and
added up in between, so that a limit may be passed by what other processes accept in the meantime, and by no more.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from infra.database import Connection, Database, queries
from schemas.envelope import Event
from schemas.errors import BadInput, LimitReached

REQUESTS = "requests_per_minute"
FRESH = 2.0
"""Seconds for which a count is believed; for longer when it takes long, so that counting stays cheap."""
FRESH_QUERIES = 0.25
COST_SHARE = 20
LONG_WAIT = 60.0


class Limit(StrEnum):
    """What is counted before it is accepted."""

    DOCUMENTS = "documents"
    BYTES = "bytes"
    CHUNKS = "chunks"
    EXAMPLES = "examples"
    ENDPOINTS = "endpoints"
    QUERIES = "queries"


SENTENCES: dict[str, str] = {
    Limit.DOCUMENTS: "documents, over all collections",
    Limit.BYTES: "bytes of text in passages",
    Limit.CHUNKS: "passages",
    Limit.EXAMPLES: "training examples that are not withdrawn",
    Limit.ENDPOINTS: "webhook endpoints",
    Limit.QUERIES: "questions in flight at once",
    "collections": "collections (1000 unless set)",
    REQUESTS: "requests a minute of each key, where the key has no rate of its own",
    "budget_day": "US dollars a day",
    "budget_month": "US dollars a month",
}
"""Every limit that can be set, with what it counts."""
DOLLARS = {"budget_day", "budget_month"}
_ADDS: dict[str, tuple[Limit, ...]] = {
    "document.added": (Limit.DOCUMENTS, Limit.BYTES, Limit.CHUNKS),
    "example.recorded": (Limit.EXAMPLES,),
    "feedback.received": (Limit.EXAMPLES,),
    "training.batch_ready": (Limit.EXAMPLES,),
    "query.received": (Limit.QUERIES,),
}


def check_limit(name: str, value: Any) -> float | int:
    """A limit as it may be set.

    Raises:
        BadInput: there is no such limit, or it is no number from 0.
    """
    if name not in SENTENCES:
        raise BadInput(
            f"there is no limit {name[:40]!r}", field="limit", fix=f"use one of {', '.join(SENTENCES)}"
        )
    whole = name not in DOLLARS
    least = 1 if name == REQUESTS else 0
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or value < least:
        kind = "a whole number" if whole else "a number"
        raise BadInput(f"{name} is {kind}, at least {least}", field=name)
    return value


def wanted(event: Event, limit: Limit) -> int:
    """How much of something an event would add; chunks are known only when a document has been cut."""
    if limit is Limit.BYTES:
        content = event.data.get("content")
        return len(content.encode()) if isinstance(content, str) else 0
    if event.type == "training.batch_ready":
        return len(event.data.get("examples") or ())
    if event.type == "feedback.received":
        return int(event.data.get("corrected") is not None)
    return 1


def refusal(limit: Limit, allowed: int) -> LimitReached:
    """What is said to whoever reached a limit."""
    return LimitReached(
        f"the tenant may have {allowed} {SENTENCES[limit]}",
        field=limit,
        fix="remove some, or ask for more",
        retry_after=1.0 if limit is Limit.QUERIES else LONG_WAIT,
    )


@dataclass(slots=True)
class _Count:
    value: int
    until: float


class TenantLimits:
    """Counts what tenants with limits have; one of the gateway's resources."""

    def __init__(self, database: Database) -> None:
        """Use a database that acts as the gateway."""
        self._database = database
        self._counts: dict[tuple[str, Limit], _Count] = {}

    async def refuse(
        self, tenant: str, limits: Mapping[str, Any], events: Sequence[Event]
    ) -> dict[int, LimitReached]:
        """Which of these events, by index, would pass a limit of their tenant; the others are counted in."""
        refused: dict[int, LimitReached] = {}
        for limit in Limit:
            allowed = limits.get(limit)
            indexes = [
                index
                for index, event in enumerate(events)
                if index not in refused and limit in _ADDS.get(event.type, ())
            ]
            if allowed is None or not indexes:
                continue
            over = await self._over(tenant, limit, int(allowed), [events[index] for index in indexes])
            refused |= {indexes[place]: refusal(limit, int(allowed)) for place in over}
        return refused

    def forget(self, tenant: str) -> None:
        """Count anew next time: what was counted in did not get into the ledger."""
        for limit in Limit:
            self._counts.pop((tenant, limit), None)

    async def _over(self, tenant: str, limit: Limit, allowed: int, events: Sequence[Event]) -> list[int]:
        count = await self._count(tenant, limit)
        sizes = [wanted(event, limit) for event in events]
        if limit is Limit.DOCUMENTS and count.value + sum(sizes) > allowed:
            known = await self._known_documents(tenant, events)
            sizes = [
                0 if (event.data["collection"], event.data["document_id"]) in known else 1 for event in events
            ]
        over: list[int] = []
        for place, size in enumerate(sizes):
            if size and count.value + size > allowed:
                over.append(place)
            else:
                count.value += 0 if limit is Limit.CHUNKS else size
        return over

    async def _count(self, tenant: str, limit: Limit) -> _Count:
        now = time.monotonic()
        held = self._counts.get((tenant, limit))
        if held is not None and held.until > now:
            return held
        async with self._database.transaction(tenant, readonly=True) as connection:
            value = await connection.fetchval(queries("gateway_limits")[limit], tenant)
        took = time.monotonic() - now
        fresh = FRESH_QUERIES if limit is Limit.QUERIES else FRESH
        held = self._counts[tenant, limit] = _Count(int(value), now + max(fresh, COST_SHARE * took))
        return held

    async def _known_documents(self, tenant: str, events: Sequence[Event]) -> set[tuple[str, str]]:
        async with self._database.transaction(tenant, readonly=True) as connection:
            rows = await connection.fetch(
                queries("gateway_limits").known_documents,
                tenant,
                [event.data["collection"] for event in events],
                [event.data["document_id"] for event in events],
            )
        return {(row["collection"], row["document_id"]) for row in rows}


async def check_endpoints(connection: Connection, tenant: str, limits: Mapping[str, Any]) -> None:
    """Refuse one endpoint more than a tenant may have, within the transaction that would make it.

    Raises:
        LimitReached: there is no place left.
    """
    allowed = limits.get(Limit.ENDPOINTS)
    if allowed is None:
        return
    if await connection.fetchval(queries("gateway_limits").endpoints, tenant) >= allowed:
        raise refusal(Limit.ENDPOINTS, int(allowed))


async def usage(connection: Connection, tenant: str) -> dict[str, int]:
    """How much a tenant has of everything that is counted, on a connection that may see it."""
    sql = queries("gateway_limits")
    return {str(limit): int(await connection.fetchval(sql[limit], tenant)) for limit in Limit}
