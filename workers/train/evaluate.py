"""Base, serving and tuned model answer the same held-out examples here, a few per step; then the verdict follows.

In this order: the context of each question is retrieved once, the models answer with it, a judge compares where one is
set. Each step keeps what it paid for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from infra.database import Connection, queries
from schemas.errors import CallFailed, PenstockError, Refused
from schemas.work import Publication
from workers.handling import Later, Outcome
from workers.train.asking import Desk
from workers.train.contest import Answer, Contender, Contest, Held, load_contest
from workers.train.context import keep, retrieve
from workers.train.examples import estimate_tokens
from workers.train.finish import finish
from workers.train.grading import JUDGED
from workers.train.judge import Judge
from workers.train.runs import Run, Wing

SLICE = 32
AT_ONCE = 8
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
    desk = Desk(wing.resources, wing.models, run.tenant_id)
    contest = await load_contest(wing, run)
    bare = [one for one in contest.held if one.passages is None]
    if bare:
        return await _retrieve(desk, run, bare[:SLICE])
    unanswered = [
        _Question(contender, one)
        for one in contest.held
        for contender in contest.contenders
        if (contender.model, one.example_id) not in contest.answers
    ]
    if unanswered:
        return await _answer(desk, run, unanswered[:SLICE], attempt)
    judge_model = wing.resources.settings.judge_model
    if judge_model is not None:
        unjudged = [
            _Question(contender, one)
            for one in contest.held
            for contender in contest.contenders[1:]
            if JUDGED not in contest.answers[contender.model, one.example_id].grades
        ]
        if unjudged:
            return await _judge(Judge(desk, judge_model), run, contest, unjudged[:SLICE])
    return await finish(wing, desk, run, contest)


async def _retrieve(desk: Desk, run: Run, held: Sequence[Held]) -> Outcome:
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(prompt: Sequence[Any]) -> list[Any]:
        async with gate:
            return await retrieve(desk, run.collections, prompt)

    found = await asyncio.gather(*(one(each.prompt) for each in held))

    async def effect(connection: Connection) -> Sequence[Publication]:
        for each, passages in zip(held, found, strict=True):
            await keep(connection, run.tenant_id, run.run_id, each.example_id, passages)
        return []

    return Later(0.0, effect)


async def _answer(desk: Desk, run: Run, questions: Sequence[_Question], attempt: int) -> Outcome:
    gate = asyncio.Semaphore(AT_ONCE)
    results = await asyncio.gather(*(_ask(desk, question, gate, attempt) for question in questions))
    new = [result for result in results if isinstance(result, Answer)]
    errors = [result for result in results if isinstance(result, PenstockError)]
    if not new:
        raise errors[0]
    return Later(1.0 if errors else 0.0, partial(_keep, run=run, answers=new))


async def _ask(
    desk: Desk, question: _Question, gate: asyncio.Semaphore, attempt: int
) -> Answer | PenstockError:
    model, held = question.contender.model, question.held
    async with gate:
        try:
            expect = max(256, 2 * estimate_tokens(held.reference))
            timed = await desk.ask(model, held.messages, expect=expect)
        except Refused as error:
            return Answer(model, held.example_id, error=error.as_dict())
        except CallFailed as error:
            return Answer(model, held.example_id, error=error.as_dict()) if attempt >= PATIENCE else error
        except PenstockError as error:
            return error
    reply = timed.reply
    return Answer(
        model,
        held.example_id,
        reply.text,
        tokens_in=reply.tokens_in,
        tokens_out=reply.tokens_out,
        latency_ms=timed.latency_ms,
    )


async def _judge(judge: Judge, run: Run, contest: Contest, questions: Sequence[_Question]) -> Outcome:
    grades = await judge.grades([contest.case(one.contender, one.held) for one in questions])

    async def effect(connection: Connection) -> Sequence[Publication]:
        await connection.execute(
            queries("train").complete_grades,
            run.tenant_id,
            run.run_id,
            [one.contender.model for one in questions],
            [one.held.example_id for one in questions],
            [{JUDGED: grade} for grade in grades],
        )
        return []

    return Later(0.0, effect)


async def _keep(connection: Connection, *, run: Run, answers: Sequence[Answer]) -> Sequence[Publication]:
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
    return []
