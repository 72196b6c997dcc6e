"""What became of a question passes through here into its row and its out event, in the effect's transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from infra.answers import CANCELLED
from infra.database import Connection, queries
from infra.retrieval import Passage
from schemas.errors import PenstockError
from schemas.inbound import QueryReceived
from schemas.states import AnswerState, sources
from schemas.work import Publication, Work
from workers.answer.cache import keep


@dataclass(frozen=True, slots=True)
class Result:
    """A finished answer.

    Attributes:
        standalone: the question as it was searched for, when it had a history.
        report: what was left out, cut out or replaced on the way, for whoever wants to know why.
        error: why there is none, when it failed.
        keep_as: under which key the same question may be answered from it.
    """

    status: AnswerState
    answer: str | None = None
    structured: Any = None
    citations: Sequence[Mapping[str, Any]] = ()
    passages: Sequence[Mapping[str, Any]] = ()
    standalone: str | None = None
    alias: str | None = None
    model: str | None = None
    usage: Mapping[str, Any] = field(default_factory=dict)
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)
    error: Mapping[str, str] | None = None
    keep_as: bytes | None = None


def failed(error: Mapping[str, str], **known: Any) -> Result:
    """An answer that could not be made."""
    return Result(AnswerState.FAILED, error=error, **known)


def refer(passages: Sequence[Passage]) -> list[dict[str, Any]]:
    """Supplied passages without their text: what the row and the stream say of them."""
    return [_refer(marker, one) for marker, one in enumerate(passages, 1)]


def _refer(marker: int, passage: Passage) -> dict[str, Any]:
    return {
        "marker": marker,
        "document_id": passage.document_id,
        "chunk_id": str(passage.chunk_id),
        "collection": passage.collection,
        "title": passage.title,
        "heading": passage.heading,
        "page": passage.page,
        "score": round(passage.score, 6),
        "similarity": None if passage.similarity is None else round(passage.similarity, 4),
        "coverage": round(passage.coverage, 4),
        **({"chunks": [str(span.part.chunk_id) for span in passage.spans]} if passage.spans else {}),
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
        "model": result.model,
        "usage": dict(result.usage),
        "timings_ms": dict(result.timings_ms),
        "report": dict(result.report),
    }
    return Publication("query.answered", data, subject=query_id, callback_url=query.callback_url)
