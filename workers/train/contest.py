"""What is compared in an evaluation: held-out examples, the models that answer them, and their answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import orjson

from infra.database import queries
from workers.train.context import question_of, with_context
from workers.train.examples import text_of_message
from workers.train.grading import Case
from workers.train.runs import Run, Wing

MOST_HELD = 500
"""Beyond this many examples an interval gets no narrower that is worth its price."""


@dataclass(frozen=True, slots=True)
class Held:
    """A held-out example: what is asked, what was wished for, and what was retrieved; None where nothing was yet."""

    example_id: UUID
    prompt: Sequence[Mapping[str, Any]]
    reference: str
    passages: Sequence[Mapping[str, Any]] | None = ()

    @property
    def messages(self) -> list[dict[str, Any]]:
        """What every model is asked."""
        return with_context(self.prompt, self.passages or ())


@dataclass(frozen=True, slots=True)
class Contender:
    """A model that is compared; role is ``base``, ``serving``, ``checkpoint`` or ``tuned``."""

    role: str
    model: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model made of an example, as it is kept; a grade of None was looked for and does not apply."""

    model: str
    example_id: UUID
    answer: str | None = None
    error: Mapping[str, Any] | None = None
    grades: Mapping[str, float | None] = field(default_factory=dict)
    tokens_in: int = 0
    tokens_out: int = 0
    latency_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Contest:
    """An evaluation as it stands. The base model comes first, the tuned one last."""

    held: Sequence[Held]
    contenders: Sequence[Contender]
    answers: Mapping[tuple[str, UUID], Answer]

    def case(self, contender: Contender, held: Held) -> Case:
        """One contender's answer to one example, to be graded."""
        rival = self.answers.get((self.contenders[0].model, held.example_id))
        return Case(
            question=question_of(held.prompt),
            reference=held.reference,
            answer=self.answers[contender.model, held.example_id].answer,
            sources=len(held.passages or ()),
            rival=None if rival is None else rival.answer,
        )


async def load_contest(wing: Wing, run: Run) -> Contest:
    """An evaluation as the database has it, against the model that serves now."""
    assert run.model is not None
    sql = queries("train")
    async with wing.resources.database.transaction(run.tenant_id, readonly=True) as connection:
        rows = await connection.fetch(sql.holdout, run.tenant_id, run.run_id, MOST_HELD)
        alias = await connection.fetchrow(sql.alias, run.tenant_id, run.alias)
        graded = await connection.fetch(sql.graded, run.tenant_id, run.run_id)
        contexts = await connection.fetch(sql.contexts, run.tenant_id, run.run_id)
    serving = wing.resources.settings.chat_model if alias is None else alias["model"]
    known = {row["example_id"]: row["passages"] for row in contexts}
    held = [
        Held(
            row["example_id"],
            row["messages"][:-1],
            reference_of(row["messages"][-1]),
            known.get(row["example_id"]) if run.collections else (),
        )
        for row in rows
    ]
    answers = {(row["model"], row["example_id"]): Answer(**dict(row)) for row in graded}
    return Contest(held, contenders_of(run.base_model, serving, run.model, run.contenders), answers)


def contenders_of(base: str, serving: str, tuned: str, checkpoints: Sequence[str] = ()) -> list[Contender]:
    """Who is compared: the base model, the serving one where it is a third, checkpoints, and the tuned one."""
    found = [Contender("base", base)]
    if serving not in {base, tuned}:
        found.append(Contender("serving", serving))
    found += [Contender("checkpoint", model) for model in checkpoints if model not in {base, serving, tuned}]
    return [*found, Contender("tuned", tuned)]


def reference_of(message: Mapping[str, Any]) -> str:
    """What was wished for: the text, or the tool calls as JSON."""
    calls = message.get("tool_calls")
    return text_of_message(message) or (orjson.dumps(calls).decode() if calls else "")
