"""One question's way through the wing: expired or withdrawn, searched, abstained or answered, and written down."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import cast

import structlog

from infra.aliases import Aliases, Resolved
from infra.answer_stops import StopWatch
from infra.answer_stream import AnswerWriter
from infra.answers import CANCELLED
from infra.database import Connection
from infra.filters import compile_filter
from infra.llm import ModelApi
from infra.response_schema import check_schema
from infra.retrieval import Found, Retriever
from infra.templates import Template, Templates
from schemas.errors import PenstockError
from schemas.inbound import QueryReceived
from schemas.registry import read_data
from schemas.states import AnswerState
from schemas.work import Publication, Work
from workers.answer.cache import AnswerCache, Kept, Prepared, keepable, question_key
from workers.answer.clock import Clock
from workers.answer.condense import condense
from workers.answer.examples import ExampleShelves
from workers.answer.gate import relevant
from workers.answer.prompt import check_room
from workers.answer.record import effect_of, write_dead
from workers.answer.result import Result, failed
from workers.answer.writing import Asked, Author, Task
from workers.handling import Done, Outcome, Resources

EXPIRED = {"code": "expired", "message": "nobody waits for this answer any more"}
_log = structlog.get_logger("penstock.answer")


class Answerer:
    """Handles `query.received`."""

    def __init__(self, resources: Resources, models: ModelApi) -> None:
        """Use what the pool opened."""
        self._resources = resources
        self._models = models
        self._retriever = Retriever(resources.database, models, resources.budget)
        self._aliases = Aliases(resources.database, resources.settings.chat_model)
        self._templates = Templates(resources.database)
        self._shelves = ExampleShelves(resources.database)
        self._cache = AnswerCache(resources.database)
        self._stops = StopWatch(resources.redis)
        self._author = Author(resources, models, self._aliases, self._shelves)

    async def aclose(self) -> None:
        """Watch no more questions."""
        await self._stops.aclose()

    async def handle(self, work: Work) -> Outcome:
        """Answer one question."""
        query = cast("QueryReceived", read_data(work.type, work.major, work.data))
        clock = Clock(work.accepted_at)
        writer = AnswerWriter(self._resources.redis, str(work.event_id))
        result = await self._within_deadline(work, query, writer, clock)
        writer.write("finished", {"status": result.status})
        await writer.flush()
        _log.info(
            "answer.finished",
            status=result.status,
            model=result.model,
            passages=len(result.passages),
            citations=len(result.citations),
            timings_ms=dict(result.timings_ms),
        )
        return Done(effect_of(work, query, result))

    @staticmethod
    async def on_dead(connection: Connection, work: Work, error: PenstockError) -> Sequence[Publication]:
        """The question is given up: say why."""
        return await write_dead(connection, work, error)

    async def _within_deadline(
        self, work: Work, query: QueryReceived, writer: AnswerWriter, clock: Clock
    ) -> Result:
        """Answer as long as somebody waits, and no longer: until the deadline, or until the question is withdrawn."""
        left = None if work.expires_at is None else (work.expires_at - datetime.now(UTC)).total_seconds()
        if left is not None and left <= 0:
            return failed(EXPIRED)
        limit = asyncio.timeout(left)
        with self._stops.over(str(work.event_id), limit) as watched:
            try:
                async with limit:
                    return await self._answer(work, query, writer, clock)
            except TimeoutError:
                if not limit.expired():
                    raise
                return failed(CANCELLED if watched.stopped else EXPIRED, timings_ms=clock.shown())

    async def _answer(self, work: Work, query: QueryReceived, writer: AnswerWriter, clock: Clock) -> Result:
        stopped, looked_up = await asyncio.gather(
            writer.begin(), self._look_up(work, query), return_exceptions=True
        )
        if isinstance(stopped, BaseException):
            raise stopped
        if stopped:
            return failed(CANCELLED)
        if isinstance(looked_up, BaseException):
            raise looked_up
        asked, prepared = looked_up
        clock.lap("prepare")
        async with self._cache.sit(work.tenant_id, prepared) as seat:
            clock.lap("cache")
            if seat.kept is not None:
                result = _again(seat.kept, query, writer, clock)
            else:
                result = replace(await self._afresh(asked, writer, clock), keep_as=prepared.key)
                seat.offered = keepable(work, result)
        return replace(result, alias=asked.resolved.alias)

    async def _look_up(self, work: Work, query: QueryReceived) -> tuple[Asked, Prepared]:
        """What a question means now, and whether it was answered before."""
        tenant = work.tenant_id
        schema = None if query.response_schema is None else check_schema(query.response_schema)
        compile_filter(query.filter)
        # What was known last is most likely true still, so the cache is asked at the same time; if not, once more.
        before = self._aliases.known(tenant, query.model), self._templates.known(tenant, query.template)
        meant = asyncio.gather(
            self._aliases.resolve(tenant, query.model), self._templates.read(tenant, query.template)
        )
        prepared: Prepared | None = None
        match before:
            case (Resolved() as resolved, Template() as template):
                prepared, now = await asyncio.gather(self._prepare(tenant, query, resolved, template), meant)
            case _:
                now = await meant
        resolved, template = now
        if prepared is None or (resolved, template) != before:
            prepared = await self._prepare(tenant, query, resolved, template)
        return Asked(work, query, resolved, template, prepared.collections, schema), prepared

    async def _prepare(
        self, tenant: str, query: QueryReceived, resolved: Resolved, template: Template
    ) -> Prepared:
        """Whether a question of this meaning was answered before."""
        shown = "" if resolved.tuned else await self._shelves.stamp(tenant, resolved.alias)
        key = question_key(query, template, resolved, shown)
        return await self._cache.prepare(tenant, query.collections, key)

    async def _afresh(self, asked: Asked, writer: AnswerWriter, clock: Clock) -> Result:
        """Search, weigh the evidence, and have it answered."""
        query, tenant = asked.query, asked.work.tenant_id
        question = query.question
        # Before anything is paid: what cannot fit into a prompt cannot be answered.
        check_room(asked.template.body, question)
        if query.history:
            question = await condense(
                self._models, self._resources.budget, tenant, asked.resolved.base, query.history, question
            )
            clock.lap("condense")
        found = await self._retriever.find(
            tenant,
            asked.collections,
            question,
            filter=query.filter,
            top_k=query.top_k,
            around=asked.template.body.neighbours,
        )
        clock.lap("retrieve")
        clock.note(found.timings_ms)
        evidence = relevant(found.passages, asked.collections)
        if evidence:
            result = await self._author.answer(Task(asked, question, evidence), writer, clock)
        else:
            result = _without_evidence(found, clock)
        return replace(
            result,
            standalone=question if query.history else None,
            usage={**result.usage, "embed_tokens": found.embed_tokens},
        )


def _again(kept: Kept, query: QueryReceived, writer: AnswerWriter, clock: Clock) -> Result:
    """The answer that the same question got before."""
    writer.write("retrieved", {"passages": kept["passages"]}, later=True)
    if query.stream and query.response_schema is None:
        writer.write("token", {"text": kept["answer"]}, later=True)
    for citation in kept["citations"]:
        writer.write("citation", citation, later=True)
    return Result(
        AnswerState.ANSWERED,
        answer=kept["answer"],
        structured=kept["structured"],
        citations=kept["citations"],
        passages=kept["passages"],
        standalone=kept["standalone"],
        model=kept["model"],
        usage={"tokens_in": 0, "tokens_out": 0, "cost_usd": 0.0, "embed_tokens": 0},
        timings_ms=clock.shown(),
        report={"same_as": kept["query_id"]},
    )


def _without_evidence(found: Found, clock: Clock) -> Result:
    """Nothing bears on the question: no model is asked."""
    nearest = max((one.similarity or 0.0 for one in found.passages), default=None)
    return Result(
        AnswerState.ABSTAINED,
        timings_ms=clock.shown(),
        report={
            "reason": "nothing relevant was found",
            "nearest": None if nearest is None else round(nearest, 4),
        },
    )
