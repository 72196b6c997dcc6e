"""Answers pass through here on their way to whoever asks for one: from its row, or, before there is one, its event."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import redis.asyncio
from redis.exceptions import RedisError

from infra.answer_stops import ask_to_stop
from infra.database import Database, queries
from schemas.errors import Conflict, NotFound
from schemas.states import AnswerState, sources

FINISHED = frozenset({AnswerState.ANSWERED, AnswerState.ABSTAINED, AnswerState.FAILED})
CANCELLED = {"code": "cancelled", "message": "the question was withdrawn"}


async def read_answer(database: Database, tenant_id: str, query_id: UUID) -> dict[str, Any]:
    """An answer as `GET /v1/queries/{id}` shows it.

    Raises:
        NotFound: this tenant asked no such question.
    """
    async with database.transaction(tenant_id, readonly=True) as connection:
        row = await connection.fetchrow(queries("answer").read, tenant_id, query_id)
    if row is None:
        raise NotFound("there is no such question", field="id")
    return {
        **dict(row),
        "id": str(query_id),
        "created_at": row["created_at"].isoformat(),
        "finished_at": None if row["finished_at"] is None else row["finished_at"].isoformat(),
    }


async def finished_answer(database: Database, tenant_id: str, query_id: UUID) -> dict[str, Any] | None:
    """The answer when it is finished, else None: what `answer_stream.follow` asks.

    Raises:
        NotFound: this tenant asked no such question.
    """
    answer = await read_answer(database, tenant_id, query_id)
    return answer if answer["status"] in FINISHED else None


async def cancel_answer(
    database: Database, client: redis.asyncio.Redis, tenant_id: str, query_id: UUID
) -> dict[str, Any]:
    """Withdraw a question: it becomes failed (`cancelled`), and a model call under way is stopped.

    Returns:
        The answer as it is now.

    Raises:
        NotFound: this tenant asked no such question.
        Conflict: it is answered already.
    """
    async with database.transaction(tenant_id) as connection:
        status = await connection.fetchval(
            queries("answer").cancel,
            tenant_id,
            query_id,
            CANCELLED,
            [state for state in sources(AnswerState.FAILED) if state not in FINISHED],
        )
    answer = await read_answer(database, tenant_id, query_id)
    if status is None and (answer["error"] or {}).get("code") != CANCELLED["code"]:
        raise Conflict(f"the question is {answer['status']} already")
    try:
        await ask_to_stop(client, str(query_id))
    except RedisError:
        # The worker finds the row before it commits; only the stop comes later.
        return answer
    return answer
