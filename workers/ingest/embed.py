"""Chunks of many jobs come in, leave for the model API in few large requests, and come back as vectors.

The tenant's cache is asked first; what is missing is reserved with the budget, packed with the chunks of other jobs,
embedded, and kept in the cache at once: whatever happens to the job afterwards, its vectors are not paid for again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import structlog

from infra import vectors
from infra.budget import Budget, Reservation
from infra.budget_book import Home
from infra.coalesce import Coalescer
from infra.database import Database, queries
from infra.llm import ModelApi, Priority
from schemas.errors import CallFailed, PenstockError, PoolPaused, Refused, Unavailable, Uncharged
from workers.ingest.bisect import Outcome, blamed, divide
from workers.ingest.chunk import Chunk
from workers.ingest.version import Space

MOST_TEXTS = 2048
MOST_TOKENS = 200_000
"""Estimated; the provider takes 300,000 real ones, and an estimate may be too low by a third for prose."""
LIGHTEST = -(-MOST_TOKENS // MOST_TEXTS)
"""A text weighs at least so much, so that one sum keeps both limits of a request."""
_DEADLINE = 0.005
_REQUESTS = 4
_AWAY = 5.0
_log = structlog.get_logger("penstock.ingest")


@dataclass(frozen=True, slots=True)
class Text:
    """One text to be embedded for one tenant."""

    tenant_id: str
    space_id: int
    sha256: bytes
    text: str
    tokens: int
    """Estimated."""


@dataclass(frozen=True, slots=True)
class Vector:
    """What one text became.

    Attributes:
        wire: halfvec wire bytes.
        tokens: its share of the tokens that the provider counted.
    """

    wire: bytes
    tokens: float


@dataclass(frozen=True, slots=True)
class Wanted:
    """Content hashes that may be in a tenant's cache."""

    tenant_id: str
    space_id: int
    hashes: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Embedded:
    """The vectors of a document's new chunks.

    Attributes:
        wires: content hash → halfvec wire bytes.
        called: how many texts were sent to the model API for it.
    """

    wires: Mapping[bytes, bytes]
    called: int


class Embedder:
    """Embeds for all jobs of a process."""

    def __init__(self, database: Database, models: ModelApi, budget: Budget) -> None:
        """Use a database that acts as the role ``penstock_worker``."""
        self._database = database
        self._models = models
        self._budget = budget
        self._lookup: Coalescer[Wanted, dict[bytes, bytes]] = Coalescer(
            self._look_up,
            limit=500,
            weight=lambda wanted: len(wanted.hashes),
            weight_limit=10_000,
            parallel=2,
        )
        self._spaces: dict[Space, Coalescer[Sequence[Text], Sequence[Outcome[Vector]]]] = {}

    async def embed(self, home: Home, space: Space, chunks: Sequence[Chunk]) -> Embedded:
        """Find or make the vectors of a document's chunks.

        Raises:
            BudgetExceeded: the tenant's budget does not allow it now.
            Refused: the provider refuses one of the texts.
            CallFailed: the reply was of no use, such as a vector with NaN or of another width.
            RateLimited, PoolPaused, Uncharged: the model API has to be waited for.
        """
        needed = {chunk.sha256: chunk for chunk in chunks}
        if not needed:
            return Embedded({}, 0)
        found = await self._lookup(Wanted(home.tenant_id, space.space_id, tuple(needed)))
        missing = [chunk for digest, chunk in needed.items() if digest not in found]
        if missing:
            found |= await self._call(home, space, missing)
        return Embedded(found, len(missing))

    async def aclose(self) -> None:
        """Wait for requests under way."""
        await self._lookup.aclose()
        for coalescer in self._spaces.values():
            await coalescer.aclose()

    async def _call(self, home: Home, space: Space, chunks: Sequence[Chunk]) -> dict[bytes, bytes]:
        """Embed chunks together with those of other jobs, and book what this cost the tenant and the document."""
        texts = [
            Text(home.tenant_id, space.space_id, chunk.sha256, chunk.text, chunk.tokens) for chunk in chunks
        ]
        estimated = sum(text.tokens for text in texts)
        reservation = await self._budget.reserve(home.tenant_id, "embed", space.model, estimated)
        coalescer = self._coalescer(space)
        parts = list(_parts(texts))
        try:
            found = await asyncio.gather(*map(coalescer, parts), return_exceptions=True)
        except asyncio.CancelledError:
            # The request goes on for the other jobs, and may be paid for.
            await self._budget.waste(reservation, {home: 1.0})
            raise
        results: list[Vector | BaseException] = []
        for part, outcomes in zip(parts, found, strict=True):
            results += [outcomes] * len(part) if isinstance(outcomes, BaseException) else outcomes
        await self._book(reservation, home, texts, results)
        wires: dict[bytes, bytes] = {}
        for text, result in zip(texts, results, strict=True):
            if isinstance(result, BaseException):
                raise _classified(result)
            wires[text.sha256] = result.wire
        return wires

    async def _book(
        self,
        reservation: Reservation,
        home: Home,
        texts: Sequence[Text],
        results: Sequence[Vector | BaseException],
    ) -> None:
        """Settle what was embedded; what may have been paid for without a result is waste."""
        paid = [result.tokens for result in results if isinstance(result, Vector)]
        lost = sum(
            text.tokens
            for text, result in zip(texts, results, strict=True)
            if isinstance(result, CallFailed | Unavailable)
        )
        if lost:
            share = replace(
                reservation,
                tokens_in=lost,
                cost=reservation.cost * lost / max(1, reservation.tokens_in),
                reservation_id=None,
            )
            await self._budget.waste(share, {home: 1.0})
        if paid:
            await self._budget.settle(reservation, round(sum(paid)), documents={home: 1.0})
        else:
            await self._budget.release(reservation)

    def _coalescer(self, space: Space) -> Coalescer[Sequence[Text], Sequence[Outcome[Vector]]]:
        if space not in self._spaces:

            async def flush(parts: Sequence[Sequence[Text]]) -> list[Sequence[Outcome[Vector]]]:
                outcomes = await self._request(space, [text for part in parts for text in part])
                ends = list(accumulate(map(len, parts)))
                return [outcomes[end - len(part) : end] for end, part in zip(ends, parts, strict=True)]

            self._spaces[space] = Coalescer(
                flush,
                limit=MOST_TEXTS,
                weight=lambda part: sum(map(_weight, part)),
                weight_limit=MOST_TOKENS,
                linger=_DEADLINE,
                parallel=_REQUESTS,
            )
        return self._spaces[space]

    async def _request(self, space: Space, texts: Sequence[Text]) -> list[Outcome[Vector]]:
        """One packed request, divided only when the provider refuses some of its texts."""

        async def once(part: Sequence[Text]) -> Sequence[Vector]:
            estimated = sum(text.tokens for text in part)
            embedded = await self._models.embed(
                [text.text for text in part],
                model=space.model,
                dimensions=space.dimensions,
                priority=Priority.INGEST,
                tokens=estimated,
            )
            wires = vectors.to_wire(embedded.vectors)
            each = (embedded.tokens or estimated) / estimated
            return [Vector(wire, text.tokens * each) for wire, text in zip(wires, part, strict=True)]

        results = await divide(texts, once)
        await self._keep(texts, results)
        return results

    async def _keep(self, texts: Sequence[Text], results: Sequence[Outcome[Vector]]) -> None:
        rows = sorted(
            {
                (text.tenant_id, text.space_id, text.sha256, result.wire)
                for text, result in zip(texts, results, strict=True)
                if isinstance(result, Vector)
            }
        )
        if not rows:
            return
        tenants = sorted({tenant_id for tenant_id, *_ in rows})
        try:
            async with self._database.transaction(*tenants) as connection:
                await connection.execute(
                    queries("ingest").cache, *(list(column) for column in zip(*rows, strict=True))
                )
        except PenstockError as error:
            _log.warning(
                "ingest.cache_not_written",
                error=error.code,
                vectors=len(rows),
                next_step="the jobs go on; a repeat of their texts will be paid for",
            )

    async def _look_up(self, wanted: Sequence[Wanted]) -> list[dict[bytes, bytes] | BaseException]:
        tenants = sorted({one.tenant_id for one in wanted})
        rows = [(one.tenant_id, one.space_id, digest) for one in wanted for digest in one.hashes]
        async with self._database.transaction(*tenants, readonly=True) as connection:
            found = await connection.fetch(
                queries("ingest").find_cached, *(list(column) for column in zip(*rows, strict=True))
            )
        known = {(row["tenant_id"], row["space_id"], row["sha256"]): row["embedding"] for row in found}
        return [
            {
                digest: known[one.tenant_id, one.space_id, digest]
                for digest in one.hashes
                if (one.tenant_id, one.space_id, digest) in known
            }
            for one in wanted
        ]


def _weight(text: Text) -> int:
    return max(text.tokens, LIGHTEST)


def _parts(texts: Sequence[Text]) -> Iterator[list[Text]]:
    """A document's texts in parts that fit a request each; nearly always one."""
    part: list[Text] = []
    total = 0
    for text in texts:
        total += _weight(text)
        if part and total > MOST_TOKENS:
            yield part
            part, total = [], _weight(text)
        part.append(text)
    if part:
        yield part


def _classified(error: BaseException) -> BaseException:
    """Whose fault an error of the model API is: an outage burns no attempt (promise P9), and buries no document."""
    if isinstance(error, Unavailable):
        return Uncharged(error.message, retry_after=error.retry_after or _AWAY)
    if isinstance(error, Refused) and blamed(error, 1):
        return Refused(
            f"the document cannot be embedded: {error.message}",
            provider_status=error.provider_status,
            provider_code=error.provider_code,
        )
    if isinstance(error, Refused):
        return PoolPaused(
            error.message,
            field="PENSTOCK_EMBED_MODEL",
            fix="make the embedding model and its dimensions known ones",
        )
    return error
