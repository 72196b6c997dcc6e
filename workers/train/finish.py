"""All answers of an evaluation are graded to the end here; the verdict switches the alias or leaves it, and says why."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

import numpy as np

from infra.database import Connection, queries
from infra.llm import Priority
from schemas.errors import Refused, Unavailable, Uncharged
from schemas.states import RunState
from schemas.work import Publication
from workers.handling import Later, Outcome
from workers.train.ending import end_run
from workers.train.examples import estimate_tokens
from workers.train.grading import CORRECTED, SIMILARITY, corrected_f1, cosine
from workers.train.runs import Run, Wing, note
from workers.train.verdict import Graded, Verdict, decide

EMBED_AT_ONCE = 100
LONGEST_TEXT = 16_000
"""Characters: below the token limit of every embedding model."""


@dataclass(frozen=True, slots=True)
class Held:
    """A held-out example: what is asked, and what was wished for."""

    example_id: UUID
    prompt: Sequence[Mapping[str, Any]]
    reference: str


@dataclass(frozen=True, slots=True)
class Contender:
    """A model that is compared; role is ``base``, ``serving`` or ``tuned``."""

    role: str
    model: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model made of an example, as it is kept."""

    model: str
    example_id: UUID
    answer: str | None = None
    error: Mapping[str, Any] | None = None
    grades: Mapping[str, float] = field(default_factory=dict)
    tokens_in: int = 0
    tokens_out: int = 0
    latency_ms: float | None = None


async def finish(
    wing: Wing, run: Run, held: Sequence[Held], contenders: Sequence[Contender], answers: Sequence[Answer]
) -> Outcome:
    """Decide, and say so: the last step of ``evaluating``."""
    answers = await _with_similarity(wing, run, held, answers)
    answers = await asyncio.to_thread(with_corrected_f1, held, contenders, answers)
    by_pair = {(answer.model, answer.example_id): answer for answer in answers}
    graded = [
        _graded(wing, one, [by_pair[one.model, example.example_id] for example in held]) for one in contenders
    ]
    seed = run.run_id.int & (2**63 - 1)
    verdict = await asyncio.to_thread(decide, graded[-1], graded[:-1], run.margin, seed)

    async def effect(connection: Connection) -> Sequence[Publication]:
        await _complete_grades(connection, run, answers)
        return await _carry_out(connection, wing, run, verdict, {one.model for one in contenders})

    return Later(0.0, effect)


async def _carry_out(
    connection: Connection, wing: Wing, run: Run, verdict: Verdict, compared: AbstractSet[str]
) -> Sequence[Publication]:
    """Switch the alias or leave it.

    Nothing is done where the run was cancelled, or where the alias has come to mean a model that this one was not
    compared with: the next step sees to it.
    """
    assert run.model is not None
    sql = queries("train")
    await connection.execute(sql.alias_turn, run.tenant_id, run.alias)
    held = await connection.fetchrow(sql.hold_run, run.tenant_id, run.run_id)
    row = await connection.fetchrow(sql.alias, run.tenant_id, run.alias)
    previous = wing.resources.settings.chat_model if row is None else row["model"]
    if held is None or held["cancel_asked_at"] is not None or previous not in compared:
        return []
    shown = {"table": verdict.table, "promote": verdict.promote, "reason": verdict.reason}
    await connection.execute(sql.set_evaluation, run.tenant_id, run.run_id, shown)
    await note(connection, run, "evaluated", promote=verdict.promote, reason=verdict.reason)
    ids = {"run_id": str(run.run_id), "dataset": run.dataset, "model": run.model}
    said = [Publication("model.evaluated", {**ids, **shown}, subject=run.dataset)]
    if not verdict.promote:
        said.append(Publication("model.rejected", {**ids, "reason": verdict.reason}, subject=run.dataset))
        return [*said, *(await end_run(connection, wing, run, RunState.REJECTED) or [])]
    await connection.execute(sql.set_alias, run.tenant_id, run.alias, run.model, previous, run.run_id)
    await connection.execute(
        sql.add_alias_change,
        run.tenant_id,
        run.alias,
        run.model,
        previous,
        run.run_id,
        verdict.reason,
        "evaluation",
    )
    switched = {"run_id": str(run.run_id), "alias": run.alias, "model": run.model, "previous": previous}
    said.append(Publication("model.promoted", switched, subject=run.alias))
    return [*said, *(await end_run(connection, wing, run, RunState.PROMOTED) or [])]


def _graded(wing: Wing, contender: Contender, answers: Sequence[Answer]) -> Graded:
    tokens_in = sum(answer.tokens_in for answer in answers)
    tokens_out = sum(answer.tokens_out for answer in answers)
    return Graded(
        model=contender.model,
        role=contender.role,
        grades=[answer.grades for answer in answers],
        errors=sum(answer.error is not None for answer in answers),
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        cost=wing.resources.budget.prices.micros("chat", contender.model, tokens_in, tokens_out),
        latency_ms=[answer.latency_ms for answer in answers if answer.latency_ms is not None],
    )


async def _with_similarity(
    wing: Wing, run: Run, held: Sequence[Held], answers: Sequence[Answer]
) -> list[Answer]:
    """Add how near each answer is to its reference, by embeddings; no text, no nearness."""
    references = {one.example_id: one.reference for one in held}
    texts = sorted(
        {text for text in [*references.values(), *(a.answer or "" for a in answers)] if text.strip()}
    )
    vectors: dict[str, np.ndarray[Any, np.dtype[np.float32]]] = {}
    for start in range(0, len(texts), EMBED_AT_ONCE):
        some = texts[start : start + EMBED_AT_ONCE]
        vectors.update(zip(some, await _embed(wing, run, some), strict=True))
    found: list[Answer] = []
    for answer in answers:
        given, wished = vectors.get(answer.answer or ""), vectors.get(references.get(answer.example_id, ""))
        near = 0.0 if given is None or wished is None else cosine(given, wished)
        grades = {**answer.grades, SIMILARITY: near} if answer.error is None else answer.grades
        found.append(replace(answer, grades=grades))
    return found


async def _embed(wing: Wing, run: Run, texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
    settings, budget = wing.resources.settings, wing.resources.budget
    cut = [text[:LONGEST_TEXT] for text in texts]
    reservation = await budget.reserve(
        run.tenant_id, "embed", settings.embed_model, sum(estimate_tokens(text) for text in cut)
    )
    try:
        embedded = await wing.models.embed(
            cut,
            model=settings.embed_model,
            dimensions=settings.embed_dimensions,
            priority=Priority.BACKGROUND,
        )
    except (Refused, Uncharged, Unavailable):
        await budget.release(reservation)
        raise
    except BaseException:
        await budget.waste(reservation)
        raise
    await budget.settle(reservation, embedded.tokens)
    return embedded.vectors


def with_corrected_f1(
    held: Sequence[Held], contenders: Sequence[Contender], answers: Sequence[Answer]
) -> list[Answer]:
    """Add the grade that decides, model by model; without the answers of models that are not compared."""
    by_pair = {(answer.model, answer.example_id): answer for answer in answers}
    found: list[Answer] = []
    for contender in contenders:
        own = [by_pair[contender.model, one.example_id] for one in held]
        grades = corrected_f1([(answer.answer, one.reference) for answer, one in zip(own, held, strict=True)])
        found += [
            replace(answer, grades={**answer.grades, CORRECTED: grade}) if answer.error is None else answer
            for answer, grade in zip(own, grades, strict=True)
        ]
    return found


async def _complete_grades(connection: Connection, run: Run, answers: Sequence[Answer]) -> None:
    await connection.execute(
        queries("train").complete_grades,
        run.tenant_id,
        run.run_id,
        [answer.model for answer in answers],
        [answer.example_id for answer in answers],
        [dict(answer.grades) for answer in answers],
    )
