"""A question with its evidence passes through here: prompt, model, verification; a result comes out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import orjson
import structlog

from infra.aliases import Aliases, Resolved
from infra.answer_stream import AnswerWriter
from infra.coalesce import Coalescer
from infra.database import queries
from infra.llm import ModelApi
from infra.retrieval import Collection, Passage
from infra.templates import Template
from schemas.errors import CallFailed, PenstockError, Refused
from schemas.inbound import QueryReceived
from schemas.states import AnswerState, sources
from schemas.work import Work
from workers.answer.clock import Clock
from workers.answer.context import merge
from workers.answer.examples import ExampleShelves
from workers.answer.finishing import Finished, finish_structured, finish_text
from workers.answer.generate import Call, Generated, Generator
from workers.answer.prompt import Prompt, build_prompt, with_turns
from workers.answer.result import Result, refer
from workers.answer.structured import response_format
from workers.handling import Resources

_log = structlog.get_logger("penstock.answer")
SHOWN_AFTER = 0.25
"""Seconds after which a row says that its answer is being written."""
_REPAIR = (
    "Your reply does not satisfy the schema ({fault}). Reply again, with JSON that does and nothing else."
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question with everything that was looked up for it.

    Attributes:
        schema: the caller's, checked.
    """

    work: Work
    query: QueryReceived
    resolved: Resolved
    template: Template
    collections: Sequence[Collection]
    schema: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Task:
    """A question that has evidence.

    Attributes:
        question: standing alone, when it had a history.
    """

    asked: Asked
    question: str
    evidence: Sequence[Passage]


@dataclass(frozen=True, slots=True)
class _Written:
    prompt: Prompt
    generated: Generated
    finished: Finished
    shown: Sequence[Mapping[str, Any]]
    repaired: bool = False


class Author:
    """Has questions answered by a model."""

    def __init__(
        self, resources: Resources, models: ModelApi, aliases: Aliases, shelves: ExampleShelves
    ) -> None:
        """Use what the pool opened."""
        self._resources = resources
        self._shelves = shelves
        self._begin: Coalescer[Task, None] = Coalescer(self._begin_all, limit=64)
        self._generator = Generator(models, resources.budget, aliases)

    async def answer(self, task: Task, writer: AnswerWriter, clock: Clock) -> Result:
        """Answer a question from its evidence.

        Raises:
            PenstockError: no answer could be made now.
        """
        async with self._showing(task):
            written = await self._write(task, writer, clock)
        for one in written.finished.verified.citations:
            writer.write("citation", one.as_dict(), later=True)
        clock.lap("verify")
        return self._result(task, written, clock)

    async def _write(self, task: Task, writer: AnswerWriter, clock: Clock) -> _Written:
        """Prompt, call and check; once more with half the passages when the provider finds the prompt too long."""
        try:
            return await self._attempt(task, writer, clock)
        except Refused as error:
            if error.provider_code != "context_length_exceeded":
                raise
        body = task.asked.template.body
        shorter = body.model_copy(update={"max_prompt_tokens": body.max_prompt_tokens // 2})
        await writer.begin()
        asked = replace(task.asked, template=replace(task.asked.template, body=shorter))
        return await self._attempt(replace(task, asked=asked), writer, clock)

    async def _attempt(self, task: Task, writer: AnswerWriter, clock: Clock) -> _Written:
        body = task.asked.template.body
        examples = (
            []
            if task.asked.resolved.tuned
            else await self._shelves.nearest(
                task.asked.work.tenant_id, task.asked.resolved.alias, task.question, body.few_shot
            )
        )
        narrow, wide = merge(task.evidence)
        prompt = build_prompt(body, task.question, narrow, examples, wide=wide)
        clock.lap("prompt")
        shown = refer(prompt.passages)
        writer.write("retrieved", {"passages": shown}, soon=True)
        call = Call(
            task.asked.work.tenant_id,
            task.asked.resolved,
            body.max_answer_tokens,
            body.temperature,
            streamed=task.asked.query.stream and task.asked.schema is None,
            response_format=None if task.asked.schema is None else response_format(task.asked.schema),
        )
        generated = await self._generator.generate(call, prompt, writer)
        clock.lap("model")
        clock.note({"first_token": generated.first_token_ms})
        if task.asked.schema is None:
            return _Written(prompt, generated, finish_text(generated.text, prompt.passages), shown)
        try:
            finished = finish_structured(generated.text, task.asked.schema, prompt.passages)
            return _Written(prompt, generated, finished, shown)
        except CallFailed as error:
            return await self._repair(
                task, call, _Written(prompt, generated, finish_text("", ()), shown), error, writer
            )

    async def _repair(
        self, task: Task, call: Call, written: _Written, error: CallFailed, writer: AnswerWriter
    ) -> _Written:
        """Show the model what is wrong with its JSON, once.

        Raises:
            CallFailed: the second reply is no better.
        """
        assert task.asked.schema is not None
        prompt = with_turns(
            task.asked.template.body,
            written.prompt,
            written.generated.text,
            _REPAIR.format(fault=error.message),
        )
        if prompt is None:
            raise error
        again = await self._generator.generate(call, prompt, writer)
        finished = finish_structured(again.text, task.asked.schema, prompt.passages)
        both = replace(
            again,
            tokens_in=again.tokens_in + written.generated.tokens_in,
            tokens_out=again.tokens_out + written.generated.tokens_out,
        )
        return _Written(prompt, both, finished, written.shown, repaired=True)

    @asynccontextmanager
    async def _showing(self, task: Task) -> AsyncIterator[None]:
        """Let the row say that a model is writing, where that takes longer than a moment."""
        begun: list[asyncio.Task[None]] = []
        due = asyncio.get_running_loop().call_later(
            SHOWN_AFTER, lambda: begun.append(asyncio.create_task(self._show_streaming(task)))
        )
        try:
            yield
        finally:
            due.cancel()
            # A row that is on its way must not arrive after the one that says how it ended.
            if begun:
                await asyncio.wait(begun)

    async def _show_streaming(self, task: Task) -> None:
        """Let the row say that a model is writing; when that fails, the answer goes on."""
        try:
            await self._begin(task)
        except PenstockError as error:
            _log.warning("answer.state_not_shown", error=error.code, reason=error.message)

    async def _begin_all(self, tasks: Sequence[Task]) -> list[None]:
        """Write the rows of all questions that got so far at the same time, in one call."""
        rows = [
            {
                "tenant_id": task.asked.work.tenant_id,
                "query_id": str(task.asked.work.event_id),
                "question": task.asked.query.question,
                "collections": task.asked.query.collections,
                "alias": task.asked.resolved.alias,
                "subjectref": task.asked.work.attributes.get("subjectref"),
                "created_at": task.asked.work.accepted_at,
            }
            for task in tasks
        ]
        tenants = sorted({task.asked.work.tenant_id for task in tasks})
        open_states = sources(AnswerState.STREAMING)
        sql = queries("answer").begin
        await self._resources.database.call(tenants, sql, orjson.dumps(rows).decode(), open_states)
        return [None] * len(tasks)

    def _result(self, task: Task, written: _Written, clock: Clock) -> Result:
        prompt, generated, finished = written.prompt, written.generated, written.finished
        notes = {
            "dropped": prompt.dropped,
            "instead_of": generated.instead_of,
            "truncated": generated.finish_reason == "length",
            "repaired": written.repaired,
        }
        cost = self._resources.budget.prices.micros(
            "chat", generated.model, generated.tokens_in, generated.tokens_out
        )
        return Result(
            finished.status,
            answer=finished.answer,
            structured=finished.structured,
            citations=[one.as_dict() for one in finished.verified.citations],
            passages=written.shown,
            model=generated.model,
            usage={
                "tokens_in": generated.tokens_in,
                "tokens_out": generated.tokens_out,
                "cost_usd": round(cost / 1e6, 6),
            },
            timings_ms=clock.shown(),
            report={
                "template": {"name": task.asked.template.name, "version": task.asked.template.version},
                **{name: note for name, note in notes.items() if note},
                **finished.report,
            },
        )
