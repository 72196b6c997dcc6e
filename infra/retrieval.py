"""A question passes through here and comes back as passages: embedded once per embedding space, searched in one call.

The gateway's search and the answer wing use the same function. Ranking happens in PostgreSQL
(`search_passages`, last in migrations/0028_search_for_words.sql); see docs/decisions/0007-answers.md.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args
from uuid import UUID

import asyncpg

from infra import vectors
from infra.budget import Budget
from infra.database import Database, queries
from infra.filters import compile_filter
from infra.llm import ModelApi
from infra.recall import RecallCheck
from schemas.errors import BadInput, CallFailed, NotFound, Unavailable
from schemas.inbound import MAX_QUESTION, MAX_TOP_K
from schemas.values import no_nul

Mode = Literal["hybrid", "vector", "text"]
MODES: tuple[str, ...] = get_args(Mode)
MAX_COLLECTIONS = 16
EMBEDDED_BYTES = 8000
"""So much of a question is embedded: within the provider's 8,192 tokens whatever the language."""


@dataclass(frozen=True, slots=True)
class Part:
    """A chunk as a part of a passage."""

    chunk_id: UUID
    position: int
    text: str
    heading: str | None
    page: int | None


@dataclass(frozen=True, slots=True)
class Span:
    """Where a part begins in a passage's text; it may begin with the end of the part before it."""

    start: int
    part: Part


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk that was found.

    Attributes:
        score: reciprocal-rank fusion of the two searches; orders passages of one search, says nothing by itself.
        similarity: cosine to the question, -1 to 1; None when only words were searched.
        coverage: 0 to 1, the share of the question's words that occur in the chunk, weighed by their rarity.
        neighbours: the chunks beside it in its document, as far as they were asked for.
        spans: the chunks that `text` is made of, where it was merged from several.
    """

    chunk_id: UUID
    document_id: str
    collection: str
    position: int
    text: str
    heading: str | None
    page: int | None
    tokens: int
    title: str | None
    metadata: Mapping[str, Any]
    score: float
    similarity: float | None
    coverage: float
    neighbours: Sequence[Part] = ()
    spans: Sequence[Span] = ()

    def as_dict(self) -> dict[str, Any]:
        """The passage as `POST …/search` returns it."""
        return {
            "document_id": self.document_id,
            "chunk_id": str(self.chunk_id),
            "collection": self.collection,
            "text": self.text,
            "heading": self.heading,
            "page": self.page,
            "title": self.title,
            "score": round(self.score, 6),
            "similarity": None if self.similarity is None else round(self.similarity, 4),
            "coverage": round(self.coverage, 4),
            "metadata": dict(self.metadata),
        }


@dataclass(frozen=True, slots=True)
class Collection:
    """What a search must know of a collection."""

    name: str
    space_id: int
    generation: int
    settings: Mapping[str, Any]
    model: str
    dimensions: int


@dataclass(frozen=True, slots=True)
class Found:
    """Passages, best first, and what finding them took."""

    passages: Sequence[Passage]
    embed_tokens: int = 0
    embed_model: str | None = None
    timings_ms: Mapping[str, float] = field(default_factory=dict)


async def search(  # noqa: PLR0917 - the three sources, the tenant, and what is asked
    database: Database,
    models: ModelApi,
    budget: Budget,
    tenant_id: str,
    collections: Sequence[str],
    question: str,
    *,
    filter: Any = None,  # noqa: A002 - the field's name, as callers know it
    top_k: int = 8,
    mode: Mode = "hybrid",
) -> list[Passage]:
    """Find passages for a question.

    Args:
        database: acts as ``penstock_worker`` or ``penstock_gateway``.
        models: embeds the question, unless `mode` is ``text``.
        budget: the embedding is reserved and settled here.
        tenant_id: whose collections.
        collections: names; all must exist.
        question: any text.
        filter: condition on metadata, see `infra.filters`.
        top_k: passages at most.
        mode: by vector, by text, or both fused.

    Raises:
        BadInput: question, filter, top_k or mode; names the field.
        NotFound: a collection does not exist.
        BudgetExceeded, RateLimited, Unavailable …: the question could not be embedded.
    """
    retriever = Retriever(database, models, budget)
    known = await retriever.look_up(tenant_id, collections)
    found = await retriever.find(tenant_id, known, question, filter=filter, top_k=top_k, mode=mode)
    return list(found.passages)


@dataclass(frozen=True, slots=True)
class Retriever:
    """What a search draws on."""

    database: Database
    models: ModelApi
    budget: Budget
    recall: RecallCheck = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "recall", RecallCheck(self.database))

    async def look_up(self, tenant_id: str, names: Sequence[str]) -> list[Collection]:
        """Collections by name.

        Raises:
            NotFound: one of them does not exist; names it.
            BadInput: none or too many are named.
        """
        wanted = named(names)
        async with self.database.transaction(tenant_id, readonly=True) as connection:
            rows = await connection.fetch(queries("retrieval").collections, tenant_id, wanted)
        return chosen(wanted, [Collection(**row) for row in rows])

    async def find(
        self,
        tenant_id: str,
        collections: Sequence[Collection],
        question: str,
        *,
        filter: Any = None,  # noqa: A002 - as in search
        top_k: int = 8,
        mode: Mode = "hybrid",
        around: int = 0,
    ) -> Found:
        """Find passages in collections that were looked up; arguments and errors as for `search`.

        Args beyond those: `around`, how many chunks before and behind each passage come with it as `neighbours`.
        """
        _check(question, top_k, mode)
        condition = compile_filter(filter)
        spaces: dict[tuple[int, str, int], list[str]] = defaultdict(list)
        for one in collections:
            spaces[one.space_id, one.model, one.dimensions].append(one.name)

        async def within(space_id: int, model: str, dimensions: int, names: list[str]) -> Found:
            started = time.monotonic()
            vector, tokens = None, 0
            if mode != "text":
                vector, tokens = await self._embed(tenant_id, question, model, dimensions)
            embedded = time.monotonic()
            arguments = (names, space_id, vector, question, mode, top_k, condition, around)
            rows = await self.database.read(tenant_id, queries("retrieval").search, *arguments)
            if vector is not None:
                self.recall.sample(tenant_id, names, space_id, vector)
            timings = {
                "embed": (embedded - started) * 1000,
                "search": (time.monotonic() - embedded) * 1000,
            }
            return Found([_passage(row) for row in rows], tokens, model if tokens else None, timings)

        if len(spaces) == 1:
            [(space, names)] = spaces.items()
            return await within(*space, names)
        found = await asyncio.gather(*(within(*space, names) for space, names in spaces.items()))
        return _merged(found, top_k)

    async def _embed(self, tenant_id: str, question: str, model: str, dimensions: int) -> tuple[bytes, int]:
        """The question as wire bytes of a halfvec, and the tokens it took."""
        text = question.encode()[:EMBEDDED_BYTES].decode(errors="ignore")
        reservation = await self.budget.reserve(tenant_id, "embed", model, len(text) // 3 + 1)
        try:
            embedded = await self.models.embed([text], model=model, dimensions=dimensions)
        except (CallFailed, Unavailable, asyncio.CancelledError):
            # It may have been paid for.
            await self.budget.waste(reservation)
            raise
        except BaseException:
            await self.budget.release(reservation)
            raise
        await self.budget.settle(reservation, embedded.tokens)
        return vectors.to_wire(embedded.vectors)[0], embedded.tokens


def named(names: Sequence[str]) -> list[str]:
    """Names of collections, each once.

    Raises:
        BadInput: none or too many are named.
    """
    wanted = list(dict.fromkeys(names))
    if not 1 <= len(wanted) <= MAX_COLLECTIONS:
        raise BadInput(f"name 1 to {MAX_COLLECTIONS} collections", field="collections")
    return wanted


def chosen(wanted: Sequence[str], known: Sequence[Collection]) -> list[Collection]:
    """The collections in the order in which they were named.

    Raises:
        NotFound: one of them does not exist; names it.
    """
    found = {one.name: one for one in known}
    for name in wanted:
        if name not in found:
            raise NotFound(f"there is no collection {name[:100]!r}", field="collections")
    return [found[name] for name in wanted]


def _passage(row: asyncpg.Record) -> Passage:
    known = dict(row)
    beside = [Part(UUID(one.pop("chunk_id")), **one) for one in known.pop("beside") or ()]
    return Passage(**known, neighbours=beside)


def _check(question: str, top_k: int, mode: str) -> None:
    if not question.strip():
        raise BadInput("the question is empty", field="question")
    if len(question) > MAX_QUESTION:
        raise BadInput(f"the question is longer than {MAX_QUESTION} characters", field="question")
    try:
        no_nul(question)
    except ValueError as error:
        raise BadInput(f"the question {error}", field="question") from None
    if isinstance(top_k, bool) or not 1 <= top_k <= MAX_TOP_K:
        raise BadInput(f"top_k must be from 1 to {MAX_TOP_K}", field="top_k")
    if mode not in MODES:
        raise BadInput(f"mode must be one of {', '.join(MODES)}", field="mode")


def _merged(found: Sequence[Found], top_k: int) -> Found:
    """The results of several spaces as one: by score, each text once."""
    best: dict[str, Passage] = {}
    for passage in sorted((p for one in found for p in one.passages), key=lambda p: (-p.score, p.chunk_id)):
        best.setdefault(passage.text, passage)
    return Found(
        list(best.values())[:top_k],
        sum(one.embed_tokens for one in found),
        found[0].embed_model,
        {name: max(one.timings_ms.get(name, 0.0) for one in found) for name in ("embed", "search")},
    )
