"""Base, serving and tuned model answer the same held-out examples here, a few per step; then the verdict follows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from infra.database import Connection, queries
from infra.llm import Priority
from schemas.errors import CallFailed, PenstockError, Refused, Unavailable, Uncharged
from schemas.work import Publication
from workers.handling import Later, Outcome
from workers.train.examples import estimate_tokens, text_of_message
from workers.train.finish import Answer, Contender, Held, finish
from workers.train.grading import grades_of
from workers.train.runs import Run, Wing

SLICE = 32
AT_ONCE = 8
MOST_HELD = 500
"""Beyond this many examples an interval gets no narrower that is worth its price."""
PATIENCE = 3
"""Attempts after which a call that keeps failing counts as an answer that the model could not give."""


@dataclass(frozen=True, slots=True)
class _Question:
    contender: Contender
    held: Held


async def evaluate(wing: Wing, run: Run, attempt: int) -> Outcome:
    """One step in the state ``evaluating``.

    Raises:
        PenstockError: no model could be asked for now; what was answered before is kept.
    """
    held, contenders, answers = await _load(wing, run)
    done = {(answer.model, answer.example_id) for answer in answers}
    open_questions = [
        _Question(contender, one)
        for one in held
        for contender in contenders
        if (contender.model, one.example_id) not in done
    ]
    if not open_questions:
        return await finish(wing, run, held, contenders, answers)
    gate = asyncio.Semaphore(AT_ONCE)
    results = await asyncio.gather(
        *(_ask(wing, run, question, gate, attempt) for question in open_questions[:SLICE])
    )
    new = [result for result in results if isinstance(result, Answer)]
    errors = [result for result in results if isinstance(result, PenstockError)]
    if not new:
        raise errors[0]

    async def effect(connection: Connection) -> Sequence[Publication]:
        await _keep(connection, run, new)
        return []

    return Later(1.0 if errors else 0.0, effect)


async def _load(wing: Wing, run: Run) -> tuple[list[Held], list[Contender], list[Answer]]:
    assert run.model is not None
    sql = queries("train")
    async with wing.resources.database.transaction(run.tenant_id, readonly=True) as connection:
        rows = await connection.fetch(sql.holdout, run.tenant_id, run.run_id, MOST_HELD)
        alias = await connection.fetchrow(sql.alias, run.tenant_id, run.alias)
        graded = await connection.fetch(sql.graded, run.tenant_id, run.run_id)
    serving = wing.resources.settings.chat_model if alias is None else alias["model"]
    held = [Held(row["example_id"], row["messages"][:-1], _reference(row["messages"][-1])) for row in rows]
    answers = [Answer(**dict(row)) for row in graded]
    return held, contenders_of(run.base_model, serving, run.model), answers


def contenders_of(base: str, serving: str, tuned: str) -> list[Contender]:
    """Who is compared: the base model, the serving one where it is a third, and the tuned one."""
    found = [Contender("base", base)]
    if serving not in {base, tuned}:
        found.append(Contender("serving", serving))
    return [*found, Contender("tuned", tuned)]


def _reference(message: Mapping[str, Any]) -> str:
    """What was wished for: the text, or the tool calls as JSON."""
    calls = message.get("tool_calls")
    return text_of_message(message) or (orjson.dumps(calls).decode() if calls else "")


async def _ask(
    wing: Wing, run: Run, question: _Question, gate: asyncio.Semaphore, attempt: int
) -> Answer | PenstockError:
    async with gate:
        try:
            return await _answer(wing, run, question)
        except Refused as error:
            return _failed(question, error)
        except CallFailed as error:
            return _failed(question, error) if attempt >= PATIENCE else error
        except PenstockError as error:
            return error


def _failed(question: _Question, error: PenstockError) -> Answer:
    return Answer(question.contender.model, question.held.example_id, error=error.as_dict())


async def _answer(wing: Wing, run: Run, question: _Question) -> Answer:
    """One paid call, past every cache: the example's own messages without the last one."""
    budget, held, model = wing.resources.budget, question.held, question.contender.model
    asked = sum(estimate_tokens(text_of_message(message)) + 4 for message in held.prompt)
    reservation = await budget.reserve(
        run.tenant_id, "chat", model, asked, max(256, 2 * estimate_tokens(held.reference))
    )
    began = time.monotonic()
    try:
        reply = await wing.models.chat(held.prompt, model=model, priority=Priority.BACKGROUND)
    except (Refused, Uncharged, Unavailable):
        await budget.release(reservation)
        raise
    except BaseException:
        await budget.waste(reservation)
        raise
    await budget.settle(reservation, reply.tokens_in, reply.tokens_out)
    return Answer(
        model=model,
        example_id=held.example_id,
        answer=reply.text,
        grades=grades_of(reply.text, held.reference),
        tokens_in=reply.tokens_in,
        tokens_out=reply.tokens_out,
        latency_ms=(time.monotonic() - began) * 1000,
    )


async def _keep(connection: Connection, run: Run, answers: Sequence[Answer]) -> None:
    columns: list[list[Any]] = [
        [answer.model for answer in answers],
        [answer.example_id for answer in answers],
        [None if answer.answer is None else answer.answer.replace("\x00", "") for answer in answers],
        [answer.error for answer in answers],
        [dict(answer.grades) for answer in answers],
        [answer.tokens_in for answer in answers],
        [answer.tokens_out for answer in answers],
        [answer.latency_ms for answer in answers],
    ]
    await connection.execute(queries("train").add_grades, run.tenant_id, run.run_id, *columns)
