"""A dataset's held-out questions go up the whole ladder here: template, examples, retrieval, tuning; advice comes out.

Each rung keeps what the ones below it have, except that a tuned model is shown no examples: it has learned them. Nothing
is written: it is a question that somebody asks and pays for, not a run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np

from infra.database import queries
from infra.templates import Templates
from infra.vectors import to_wire
from schemas.errors import CallFailed, Conflict, NotFound, Refused
from workers.train.asking import Desk
from workers.train.contest import Answer, Contender, Contest, Held, reference_of
from workers.train.context import retrieve, with_context
from workers.train.examples import estimate_tokens
from workers.train.finish import grade, measured
from workers.train.grading import PRIMARY, TEXT_GRADERS
from workers.train.nearness import project, prompt_text
from workers.train.verdict import Graded, bootstrap

AT_ONCE = 8
SHOWN = 3
"""Examples of a few-shot prompt."""
SEED = 7


@dataclass(frozen=True, slots=True)
class Rung:
    """One way to answer.

    Attributes:
        examples: whether the nearest training examples are shown.
        context: whether passages are retrieved.
    """

    name: str
    model: str
    examples: bool
    context: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """The rungs with what they are worth, and which one pays."""

    dataset: str
    rungs: list[dict[str, Any]]
    advice: str


@dataclass(frozen=True, slots=True)
class _Question:
    held: Held
    shown: Sequence[Mapping[str, Any]]


def rungs_of(base: str, tuned: str | None, *, context: bool) -> list[Rung]:
    """The rungs that there are: retrieval where a collection is named, tuning where a tuned model serves."""
    found = [Rung("template", base, False, False), Rung("few-shot", base, True, False)]
    if context:
        found.append(Rung("retrieval", base, True, True))
    if tuned is not None and tuned != base:
        found.append(Rung("tuned", tuned, False, context))
    return found


async def compare(desk: Desk, dataset: str, collections: Sequence[str], limit: int) -> Comparison:
    """Answer held-out questions on every rung.

    Args:
        desk: on the tenant's account.
        dataset: whose holdout.
        collections: for the retrieval rung; the dataset's own unless given.
        limit: questions at most.

    Raises:
        NotFound: there is no such dataset.
        Conflict: nothing is held out yet.
        PenstockError: a model cannot be asked now.
    """
    sql, tenant = queries("train"), desk.tenant_id
    async with desk.resources.database.transaction(tenant, readonly=True) as connection:
        row = await connection.fetchrow(sql.ladder, tenant, dataset)
        rows = await connection.fetch(sql.held_out, tenant, dataset, limit)
    if row is None:
        raise NotFound(f"there is no dataset {dataset}", field="dataset")
    if not rows:
        raise Conflict("the dataset holds out no examples yet", field="dataset", fix="record more examples")
    wanted = list(collections or row["collections"])
    rungs = rungs_of(row["base_model"], row["model"], context=bool(wanted))
    template = await Templates(desk.resources.database).read(tenant, None)
    system = {"role": "system", "content": template.body.system}
    vectors = await _vectors(desk, [one["messages"] for one in rows])
    gate = asyncio.Semaphore(AT_ONCE)

    async def prepared(messages: Sequence[Mapping[str, Any]], example_id: UUID, vector: bytes) -> _Question:
        async with gate:
            passages = await retrieve(desk, wanted, messages[:-1]) if wanted else []
            async with desk.resources.database.transaction(tenant, readonly=True) as connection:
                near = await connection.fetch(
                    sql.nearest_train, tenant, dataset, desk.resources.settings.embed_model, vector, SHOWN
                )
        turns = [one for one in messages[:-1] if one["role"] not in {"system", "developer"}]
        own = [one for one in messages[:-1] if one["role"] in {"system", "developer"}] or [system]
        held = Held(example_id, [*own, *turns], reference_of(messages[-1]), passages)
        # The nearest one last: next to the question.
        return _Question(held, [turn for each in reversed(near) for turn in each["messages"]])

    questions = await asyncio.gather(
        *(
            prepared(one["messages"], one["example_id"], vector)
            for one, vector in zip(rows, vectors, strict=True)
        )
    )
    graded = [await _climb(desk, rung, questions, gate) for rung in rungs]
    return Comparison(dataset, [_shown(one, graded[0]) for one in graded], advise(graded, row["margin"]))


async def _vectors(desk: Desk, messages: Sequence[Sequence[Mapping[str, Any]]]) -> list[bytes]:
    texts = [prompt_text(one) or "-" for one in messages]
    known = await desk.embed(sorted(set(texts)))
    return to_wire(project(np.asarray([known[text] for text in texts], dtype=np.float32)))


async def _climb(desk: Desk, rung: Rung, questions: Sequence[_Question], gate: asyncio.Semaphore) -> Graded:
    """All questions on one rung."""

    async def one(question: _Question) -> Answer:
        held = question.held
        prompt = list(held.prompt)
        if rung.examples:
            first = next(
                index for index, turn in enumerate(prompt) if turn["role"] not in {"system", "developer"}
            )
            prompt[first:first] = [dict(turn) for turn in question.shown]
        messages = with_context(prompt, held.passages or () if rung.context else ())
        async with gate:
            try:
                timed = await desk.ask(
                    rung.model, messages, expect=max(256, 2 * estimate_tokens(held.reference))
                )
            except (Refused, CallFailed) as error:
                return Answer(rung.model, held.example_id, error=error.as_dict())
        reply = timed.reply
        return Answer(
            rung.model,
            held.example_id,
            reply.text,
            tokens_in=reply.tokens_in,
            tokens_out=reply.tokens_out,
            latency_ms=timed.latency_ms,
        )

    answers = await asyncio.gather(*(one(question) for question in questions))
    contender = Contender(rung.name, rung.model)
    held = [question.held for question in questions]
    contest = Contest(held, [contender], {(rung.model, one.example_id): one for one in answers})
    grades = await grade(contest, contender, TEXT_GRADERS)
    return measured(desk.resources.budget.prices, contender, answers, grades)


def advise(rungs: Sequence[Graded], margin: float) -> str:
    """The lowest rung that no higher one beats beyond doubt, with what the others brought.

    Args:
        rungs: lowest first, with the same questions in the same order.
        margin: what the lower bound of a gain has to clear.
    """
    best, said = rungs[0], []
    for rung in rungs[1:]:
        gain = bootstrap(_gains(rung, best), SEED)
        pays = gain.low > margin
        said.append(
            f"{rung.role} {'pays' if pays else 'does not pay'} over {best.role}: "
            f"{gain.mean:+.3f}, between {gain.low:+.3f} and {gain.high:+.3f}"
        )
        best = rung if pays else best
    return f"use {best.role}" + "".join(f"; {one}" for one in said)


def _gains(rung: Graded, other: Graded) -> list[float]:
    pairs = zip(rung.grades, other.grades, strict=True)
    return [ours.get(PRIMARY, 0.0) - theirs.get(PRIMARY, 0.0) for ours, theirs in pairs]


def _shown(one: Graded, lowest: Graded) -> dict[str, Any]:
    """One line of the ladder."""
    count = len(one.grades)
    quality = bootstrap([grades.get(PRIMARY, 0.0) for grades in one.grades], SEED)
    gain = bootstrap(_gains(one, lowest), SEED)
    return {
        "rung": one.role,
        "model": one.model,
        "examples": count,
        "errors": one.errors,
        "quality": round(quality.mean, 4),
        "quality_low": round(quality.low, 4),
        "quality_high": round(quality.high, 4),
        "gain": round(gain.mean, 4),
        "gain_low": round(gain.low, 4),
        "tokens_per_answer": round((one.tokens_in + one.tokens_out) / count, 1),
        "usd_per_1000": round(one.cost / count / 1000, 6),
        "latency_ms": round(float(np.median(one.latency_ms)), 1) if len(one.latency_ms) else None,
    }
