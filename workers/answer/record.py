"""What became of a question passes through here into its row and its out event, in the effect's transaction."""

from __future__ import annotations

from collections.abc import Sequence

from infra.answers import CANCELLED
from infra.database import Connection, queries
from schemas.errors import PenstockError
from schemas.inbound import QueryReceived
from schemas.states import AnswerState, sources
from schemas.work import Publication, Work
from workers.answer.cache import keep
from workers.answer.result import Result, failed


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
