"""A question that was answered before finds its answer here; the same question in flight waits for the first one.

The key covers all that decides an answer: the collections with their generation, which every commit raises, the
question, its history and filter, the template, the examples and the model. So nothing has to be invalidated. Only
whole answers of the model that was meant are kept: no abstention, no failure, nothing cut off or replaced.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from infra.aliases import Resolved
from infra.database import Connection, Database, queries
from infra.retrieval import Collection
from infra.templates import Template
from schemas.inbound import QueryReceived
from schemas.states import AnswerState
from schemas.work import Work

if TYPE_CHECKING:
    from workers.answer.result import Result

Kept = Mapping[str, Any]
_FIELDS = ("answer", "structured", "citations", "passages", "standalone", "model")


def cache_key(
    query: QueryReceived,
    collections: Sequence[Collection],
    template: Template,
    resolved: Resolved,
    examples: str,
) -> bytes:
    """What tells this question from every other of its tenant."""
    parts = {
        "collections": sorted([one.name, one.space_id, one.generation] for one in collections),
        "settings": sorted([one.name, dict(one.settings)] for one in collections),
        "question": query.question,
        "history": [turn.model_dump() for turn in query.history],
        "filter": query.filter,
        "top_k": query.top_k,
        "schema": query.response_schema,
        "template": [template.name, template.version, template.body.model_dump()],
        "model": resolved.model,
        "examples": examples,
    }
    return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).digest()


@dataclass(slots=True)
class Seat:
    """A question's place at the cache.

    Attributes:
        kept: the answer, if there is one.
        offered: what this question was answered with; those who wait for it take it from here.
    """

    kept: Kept | None
    offered: Kept | None = None


class AnswerCache:
    """Exact repetitions, within a tenant."""

    def __init__(self, database: Database) -> None:
        """Read through a database that acts as ``penstock_worker``."""
        self._database = database
        self._flights: dict[tuple[str, bytes], asyncio.Future[Kept | None]] = {}

    @asynccontextmanager
    async def look(self, tenant_id: str, key: bytes) -> AsyncIterator[Seat]:
        """Wait while the same question is being answered, then look; whoever finds nothing answers within the block."""
        while (flight := self._flights.get((tenant_id, key))) is not None:
            kept = await asyncio.shield(flight)
            if kept is not None:
                yield Seat(kept)
                return
        mine = self._flights[tenant_id, key] = asyncio.get_running_loop().create_future()
        seat = Seat(None)
        try:
            seat.kept = await self._load(tenant_id, key)
            yield seat
        finally:
            del self._flights[tenant_id, key]
            mine.set_result(seat.offered or seat.kept)

    async def _load(self, tenant_id: str, key: bytes) -> Kept | None:
        async with self._database.transaction(tenant_id, readonly=True) as connection:
            row = await connection.fetchrow(queries("answer").cached, tenant_id, key)
        return None if row is None else {**row["result"], "query_id": str(row["query_id"])}


def keepable(work: Work, result: Result) -> Kept | None:
    """What may be kept of a result; None when it is not a whole answer of the model that was meant."""
    replaced = result.report.keys() & {"instead_of", "truncated", "same_as"}
    if result.status is not AnswerState.ANSWERED or replaced:
        return None
    return {**{name: getattr(result, name) for name in _FIELDS}, "query_id": str(work.event_id)}


async def keep(connection: Connection, work: Work, key: bytes, result: Result) -> None:
    """Keep an answer, in the transaction that writes it."""
    kept = keepable(work, result)
    if kept is not None:
        await connection.execute(queries("answer").cache, work.tenant_id, key, work.event_id, kept)
