"""All answers of an evaluation are graded to the end here; the verdict switches the alias or leaves it, and says why."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from infra.database import Connection, queries
from infra.prices import Prices
from schemas.states import RunState
from schemas.work import Publication
from workers.handling import Later, Outcome
from workers.train.asking import Desk
from workers.train.contest import Answer, Contender, Contest
from workers.train.ending import end_run
from workers.train.grading import JUDGED, TEXT_GRADERS, Grader, Similarity
from workers.train.runs import Run, Wing, note
from workers.train.verdict import Graded, Verdict, choose

CANDIDATES = frozenset({"tuned", "checkpoint"})
JUDGED_BASE = 0.5
"""The base model is as good as itself."""


async def finish(wing: Wing, desk: Desk, run: Run, contest: Contest) -> Outcome:
    """Decide, and say so: the last step of ``evaluating``.

    Raises:
        PenstockError: answers could not be embedded, or the model to be promoted could not be warmed up, for now.
    """
    graders = [*TEXT_GRADERS, Similarity(desk.embed)]
    grades = {one.model: await grade(contest, one, graders) for one in contest.contenders}
    graded = [
        _graded(wing.resources.budget.prices, contest, one, grades[one.model]) for one in contest.contenders
    ]
    candidates = [one for one in graded if one.role in CANDIDATES]
    references = [one for one in graded if one.role not in CANDIDATES]
    seed = run.run_id.int & (2**63 - 1)
    verdict = await asyncio.to_thread(choose, candidates, references, run.margin, seed)
    if verdict.promote:
        # A tuned model's first call may have to wait until it is loaded: not a person's, then.
        await desk.ask(verdict.model, contest.held[0].messages, expect=256)

    async def effect(connection: Connection) -> Sequence[Publication]:
        for contender in contest.contenders:
            await _complete_grades(connection, run, contest, contender, grades[contender.model])
        return await _carry_out(connection, wing, run, verdict, contest)

    return Later(0.0, effect)


async def grade(contest: Contest, contender: Contender, graders: Sequence[Grader]) -> list[dict[str, float]]:
    """All grades of one contender's answers, in the order of the examples; without those that do not apply."""
    cases = [contest.case(contender, one) for one in contest.held]
    found: list[dict[str, float]] = []
    for one in contest.held:
        known = contest.answers[contender.model, one.example_id].grades.get(JUDGED)
        found.append({} if known is None else {JUDGED: known})
    if contender.role == "base" and any(JUDGED in answer.grades for answer in contest.answers.values()):
        found = [{JUDGED: JUDGED_BASE} for _ in found]
    for grader in graders:
        for own, value in zip(found, await grader.grades(cases), strict=True):
            if value is not None:
                own[grader.name] = value
    return found


async def _carry_out(
    connection: Connection, wing: Wing, run: Run, verdict: Verdict, contest: Contest
) -> Sequence[Publication]:
    """Switch the alias or leave it.

    Nothing is done where the run was cancelled, or where the alias has come to mean a model that this one was not
    compared with: the next step sees to it.
    """
    sql, model = queries("train"), verdict.model
    await connection.execute(sql.alias_turn, run.tenant_id, run.alias)
    held = await connection.fetchrow(sql.hold_run, run.tenant_id, run.run_id)
    row = await connection.fetchrow(sql.alias, run.tenant_id, run.alias)
    previous = wing.resources.settings.chat_model if row is None else row["model"]
    compared = {one.model for one in contest.contenders}
    if held is None or held["cancel_asked_at"] is not None or previous not in compared:
        return []
    shown = {"table": verdict.table, "promote": verdict.promote, "reason": verdict.reason}
    await connection.execute(sql.set_evaluation, run.tenant_id, run.run_id, shown)
    await note(connection, run, "evaluated", promote=verdict.promote, reason=verdict.reason)
    ids = {"run_id": str(run.run_id), "dataset": run.dataset, "model": model}
    said = [Publication("model.evaluated", {**ids, **shown}, subject=run.dataset)]
    if not verdict.promote:
        said.append(Publication("model.rejected", {**ids, "reason": verdict.reason}, subject=run.dataset))
        return [*said, *(await end_run(connection, wing, run, RunState.REJECTED) or [])]
    if model != run.model:
        await connection.execute(
            sql.add_model, run.tenant_id, model, run.base_model, run.dataset, run.run_id, None
        )
        await connection.execute(sql.set_model, run.tenant_id, run.run_id, model)
    await connection.execute(sql.set_alias, run.tenant_id, run.alias, model, previous, run.run_id)
    change = (run.alias, model, previous, run.run_id, verdict.reason, "evaluation")
    await connection.execute(sql.add_alias_change, run.tenant_id, *change)
    switched = {"run_id": str(run.run_id), "alias": run.alias, "model": model, "previous": previous}
    said.append(Publication("model.promoted", switched, subject=run.alias))
    return [*said, *(await end_run(connection, wing, run, RunState.PROMOTED) or [])]


def _graded(
    prices: Prices, contest: Contest, contender: Contender, grades: Sequence[Mapping[str, float]]
) -> Graded:
    answers = [contest.answers[contender.model, one.example_id] for one in contest.held]
    return measured(prices, contender, answers, grades)


def measured(
    prices: Prices, contender: Contender, answers: Sequence[Answer], grades: Sequence[Mapping[str, float]]
) -> Graded:
    """Grades with what the answers cost and how long they took."""
    tokens_in = sum(answer.tokens_in for answer in answers)
    tokens_out = sum(answer.tokens_out for answer in answers)
    return Graded(
        model=contender.model,
        role=contender.role,
        grades=grades,
        errors=sum(answer.error is not None for answer in answers),
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        cost=prices.micros("chat", contender.model, tokens_in, tokens_out),
        latency_ms=[answer.latency_ms for answer in answers if answer.latency_ms is not None],
    )


async def _complete_grades(
    connection: Connection, run: Run, contest: Contest, contender: Contender, grades: Sequence[dict[str, Any]]
) -> None:
    await connection.execute(
        queries("train").complete_grades,
        run.tenant_id,
        run.run_id,
        [contender.model] * len(grades),
        [one.example_id for one in contest.held],
        grades,
    )
