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
from typing import Any

import orjson

from infra.aliases import Resolved
from infra.database import Connection, Database, queries
from infra.retrieval import Collection, chosen, named
from infra.templates import Template
from schemas.inbound import QueryReceived
from schemas.states import AnswerState
from schemas.work import Work
from workers.answer.result import Result

Kept = Mapping[str, Any]
LINGER = 5.0
"""Seconds for which an answer is offered in memory: longer than its commit takes."""
_FIELDS = ("answer", "structured", "citations", "passages", "standalone", "model")


def question_key(query: QueryReceived, template: Template, resolved: Resolved, examples: str) -> bytes:
    """What tells this question from every other of its tenant, but for its collections and their generations."""
    parts = {
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


@dataclass(frozen=True, slots=True)
class Prepared:
    """What one look at the database says of a question.

    Attributes:
        key: the question's, completed by its collections and their generations.
        kept: what the same question was answered with.
    """

    collections: Sequence[Collection]
    key: bytes
    kept: Kept | None


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

    async def prepare(self, tenant_id: str, names: Sequence[str], key: bytes) -> Prepared:
        """Look up a question's collections, and whether it was answered before.

        Raises:
            NotFound: a collection does not exist; names it.
            BadInput: none or too many are named.
        """
        wanted = named(names)
        rows = [
            dict(row) for row in await self._database.read(tenant_id, queries("answer").prepare, wanted, key)
        ]
        # The same in every row.
        whole, query_id, result = b"", None, None
        for row in rows:
            whole, query_id, result = row.pop("sha256"), row.pop("query_id"), row.pop("result")
        collections = chosen(wanted, [Collection(**row) for row in rows])
        return Prepared(collections, whole, None if result is None else {**result, "query_id": str(query_id)})

    @asynccontextmanager
    async def sit(self, tenant_id: str, prepared: Prepared) -> AsyncIterator[Seat]:
        """Wait while the same question is being answered; whoever finds nothing answers within the block."""
        place = tenant_id, prepared.key
        kept = prepared.kept
        while kept is None and (flight := self._flights.get(place)) is not None:
            kept = await asyncio.shield(flight)
        if kept is not None:
            yield Seat(kept)
            return
        loop = asyncio.get_running_loop()
        mine = self._flights[place] = loop.create_future()
        seat = Seat(None)
        try:
            yield seat
        finally:
            mine.set_result(seat.offered)
            if seat.offered is None:
                del self._flights[place]
            else:
                # Whoever looked at the database before this answer is committed finds it here.
                loop.call_later(LINGER, self._flights.pop, place, None)


def keepable(work: Work, result: Result) -> Kept | None:
    """What may be kept of a result; None when it is not a whole answer of the model that was meant."""
    replaced = result.report.keys() & {"instead_of", "truncated", "same_as"}
    if result.status is not AnswerState.ANSWERED or replaced:
        return None
    return {**{name: getattr(result, name) for name in _FIELDS}, "query_id": str(work.event_id)}


async def keep(connection: Connection, work: Work, key: bytes, result: Result) -> None:
    """Keep an answer, in the transaction that writes it."""
    if keepable(work, result) is not None:
        await connection.execute(queries("answer").cache, work.tenant_id, key, work.event_id)
