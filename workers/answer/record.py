"""What became of a question passes through here into its row and its out event, in the effect's transaction.

An answer of a tenant without webhooks is one call: it writes all that ends the question's event.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import orjson

from infra.answers import CANCELLED
from infra.database import Connection, Database, queries
from infra.outbox import said_by
from schemas.errors import PenstockError
from schemas.ids import new_event_id
from schemas.inbound import QueryReceived
from schemas.registry import EVENT_TYPES
from schemas.states import AnswerState, sources
from schemas.work import Publication, Work
from workers.answer.cache import keep, keepable
from workers.answer.result import Result, failed
from workers.handling import Effect, OneCall


def effect_of(work: Work, query: QueryReceived, result: Result) -> Effect | OneCall:
    """What writes a result."""

    async def effect(connection: Connection) -> Sequence[Publication]:
        return await write(connection, work, query, result)

    if result.status in {AnswerState.ANSWERED, AnswerState.ABSTAINED}:
        return OneCall(end_answers, (query, result), effect)
    return effect


async def end_answers(
    database: Database, answers: Sequence[tuple[Work, tuple[QueryReceived, Result]]]
) -> Mapping[UUID, bool]:
    """Write answers, what they say and the ends of their events, where nothing has to be judged first.

    Returns:
        Whether each event that was ours has ended.
    """
    rows = orjson.dumps([_row(work, query, result) for work, (query, result) in answers]).decode()
    tenants = sorted({work.tenant_id for work, _ in answers})
    # What may become an answer may become an abstention.
    open_states = sources(AnswerState.ANSWERED)
    found = await database.call(tenants, queries("answer").end, rows, open_states)
    return {row["event_id"]: row["ended"] for row in found}


def _row(work: Work, query: QueryReceived, result: Result) -> dict[str, Any]:
    """An answer as `answers_end` reads it: its event's data hold most of it."""
    said = _announcement(work, query, result)
    [caused] = said_by(work, [said])
    kept = result.keep_as if keepable(work, result) else None
    return {
        "tenant_id": work.tenant_id,
        "event_id": str(work.event_id),
        "token": work.token,
        "attempts": work.attempt,
        "collections": query.collections,
        "standalone": result.standalone,
        "alias": result.alias,
        "keep_as": None if kept is None else kept.hex(),
        "said_id": str(new_event_id()),
        "type": said.type,
        "major": EVENT_TYPES[said.type].major,
        "data": said.data,
        "attributes": caused.attributes,
    }


async def write(
    connection: Connection, work: Work, query: QueryReceived, result: Result
) -> Sequence[Publication]:
    """Write an answer and say so. An answer that is finished already stays as it is and is not announced again."""
    kept = await connection.fetchval(
        queries("answer").finish,
        work.tenant_id,
        work.event_id,
        result.status,
        query.question,
        result.standalone,
        query.collections,
        result.answer,
        result.structured,
        list(result.citations),
        list(result.passages),
        dict(result.report),
        result.alias,
        result.model,
        dict(result.usage),
        dict(result.timings_ms),
        result.error,
        work.attributes.get("subjectref"),
        work.accepted_at,
        sources(result.status),
    )
    if kept is not None:
        if result.keep_as is not None:
            await keep(connection, work, result.keep_as, result)
        return [_announcement(work, query, result)]
    standing = await connection.fetchrow(queries("answer").stands, work.tenant_id, work.event_id)
    if standing is not None and (standing["error"] or {}).get("code") == CANCELLED["code"]:
        return [_announcement(work, query, failed(CANCELLED))]
    return []


async def write_dead(connection: Connection, work: Work, error: PenstockError) -> Sequence[Publication]:
    """Write that a question was given up."""
    data = dict(work.data)
    collections = data.get("collections")
    query = QueryReceived.model_construct(
        question=str(data.get("question", "")),
        collections=[str(one) for one in collections] if isinstance(collections, list) else [],
        callback_url=data.get("callback_url"),
    )
    return await write(connection, work, query, failed(error.as_dict()))


def _announcement(work: Work, query: QueryReceived, result: Result) -> Publication:
    query_id = str(work.event_id)
    if result.status is AnswerState.FAILED:
        return Publication(
            "query.failed",
            {"query_id": query_id, "error": result.error},
            subject=query_id,
            callback_url=query.callback_url,
        )
    data = {
        "query_id": query_id,
        "status": result.status,
        "question": query.question,
        "answer": result.answer,
        "structured": result.structured,
        "citations": list(result.citations),
        "passages": list(result.passages),
        "model": result.model,
        "usage": dict(result.usage),
        "timings_ms": dict(result.timings_ms),
        "report": dict(result.report),
    }
    return Publication("query.answered", data, subject=query_id, callback_url=query.callback_url)
