"""Stored chunks pass through here to another embedding model: filled in the background, then switched to at once.

The collection is served from its old space all the while; what is written meanwhile is found missing and filled too.
Running it again goes on where it stopped. The switch waits for the writers of the moment, finds nothing missing, and
changes the space in one transaction. Vectors of the old space stay, so going back is the same step the other way.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import structlog

from infra import vectors
from infra.budget import Budget
from infra.budget_book import Home
from infra.database import Database, queries
from infra.llm import ModelApi, Priority
from schemas.errors import CallFailed, NotFound, Unavailable

BATCH = 512
BATCH_TOKENS = 100_000
_START = UUID(int=0)
_log = structlog.get_logger("penstock.reembed")


@dataclass(frozen=True, slots=True)
class Target:
    """Which collection goes where.

    Attributes:
        space_id: the target's embedding space; None when nobody has made it yet.
        current: the model that the collection is searched with now.
    """

    tenant_id: str
    collection: str
    collection_id: int
    provider: str
    model: str
    dimensions: int
    space_id: int | None
    current: str
    is_current: bool


@dataclass(frozen=True, slots=True)
class Estimate:
    """What there is to do.

    Attributes:
        chunks: of the collection.
        missing: without a vector in the target's space.
        tokens: of the missing ones, estimated.
        dollars: what embedding them costs.
    """

    chunks: int
    missing: int
    tokens: int
    dollars: float


class Reembedding:
    """Moves one collection to another model."""

    def __init__(self, database: Database, models: ModelApi | None, budget: Budget, target: Target) -> None:
        """Use a database that acts as ``penstock_worker``; without models only `estimate` can be asked."""
        self._database = database
        self._models = models
        self._budget = budget
        self.target = target

    async def estimate(self) -> Estimate:
        """What is missing and what it costs; nothing is made or called."""
        target = self.target
        async with self._database.transaction(target.tenant_id, readonly=True) as connection:
            sql, home = queries("reembed"), (target.tenant_id, target.collection_id)
            if target.space_id is None:
                row = await connection.fetchrow(sql.whole, *home)
                assert row is not None
                chunks, missing, tokens = row["chunks"], row["chunks"], row["tokens"]
            else:
                row = await connection.fetchrow(sql.size, *home, target.space_id)
                assert row is not None
                chunks, missing, tokens = row["chunks"], row["missing"], row["missing_tokens"]
        micros = self._budget.prices.micros("embed", target.model, tokens)
        return Estimate(chunks, missing, tokens, micros / 1e6)

    async def run(self, progress: Callable[[int], None] = lambda _: None) -> int:
        """Fill what is missing, then switch; returns how many vectors were made.

        Args:
            progress: told after each batch how many vectors it made.

        Raises:
            BudgetExceeded, RateLimited, PoolPaused, Unavailable …: what was filled stays; run it again to go on.
        """
        made, space_id = 0, await self._space()
        while True:
            made += await self._fill(space_id, progress)
            if await self._switch(space_id):
                _log.info("reembed.switched", collection=self.target.collection_id, space=space_id, made=made)
                return made

    async def _space(self) -> int:
        target = self.target
        if target.space_id is not None:
            return target.space_id
        async with self._database.transaction(target.tenant_id) as connection:
            found: int = await connection.fetchval(
                queries("reembed").ensure_space, target.provider, target.model, target.dimensions
            )
        return found

    async def _fill(self, space_id: int, progress: Callable[[int], None]) -> int:
        """Walk once through the chunks that have no vector."""
        target, made, behind = self.target, 0, _START
        while True:
            async with self._database.transaction(target.tenant_id, readonly=True) as connection:
                rows = await connection.fetch(
                    queries("reembed").missing,
                    *(target.tenant_id, target.collection_id, space_id, behind, BATCH),
                )
            if not rows:
                return made
            chosen: list[Any] = []
            total = 0
            for row in rows:
                total += row["tokens"]
                if chosen and total > BATCH_TOKENS:
                    break
                chosen.append(row)
            wires = await self._embed(chosen)
            ids = [row["chunk_id"] for row in chosen]
            async with self._database.transaction(target.tenant_id) as connection:
                await connection.execute(
                    queries("reembed").add, space_id, target.tenant_id, target.collection_id, ids, wires
                )
            made, behind = made + len(ids), ids[-1]
            progress(len(ids))

    async def _embed(self, chunks: Sequence[Any]) -> list[bytes]:
        assert self._models is not None
        target = self.target
        tokens = sum(chunk["tokens"] for chunk in chunks)
        shares: defaultdict[Home, float] = defaultdict(float)
        for chunk in chunks:
            home = Home(target.tenant_id, target.collection_id, chunk["document_id"])
            shares[home] += chunk["tokens"] / tokens
        reservation = await self._budget.reserve(target.tenant_id, "embed", target.model, tokens)
        try:
            embedded = await self._models.embed(
                [chunk["text"] for chunk in chunks],
                model=target.model,
                dimensions=target.dimensions,
                priority=Priority.BACKGROUND,
                tokens=tokens,
            )
        except (CallFailed, Unavailable):
            await self._budget.waste(reservation, shares)
            raise
        except BaseException:
            await self._budget.release(reservation)
            raise
        await self._budget.settle(reservation, embedded.tokens, documents=shares)
        return vectors.to_wire(embedded.vectors)

    async def _switch(self, space_id: int) -> bool:
        """Change the space, unless something was written since the last look."""
        target, sql = self.target, queries("reembed")
        async with self._database.transaction(target.tenant_id) as connection:
            await connection.fetchval(sql.hold_writers, target.tenant_id, target.collection_id)
            row = await connection.fetchrow(sql.size, target.tenant_id, target.collection_id, space_id)
            if row is None or row["missing"]:
                return False
            await connection.execute(sql.switch, target.tenant_id, target.collection_id, space_id)
        return True


async def find_target(
    database: Database,
    tenant_id: str,
    collection: str,
    *,
    provider: str,
    model: str,
    dimensions: int | None = None,
) -> Target:
    """Look up a collection and the space that it is to go to.

    Args:
        database: acts as ``penstock_worker``.
        tenant_id: whose collection.
        collection: its name.
        provider: see `infra.collections.provider_of`.
        model: the embedding model that it is to have.
        dimensions: the width; as it is now unless given.

    Raises:
        NotFound: the tenant has no such collection.
    """
    sql = queries("reembed")
    async with database.transaction(tenant_id, readonly=True) as connection:
        row = await connection.fetchrow(sql.collection, tenant_id, collection)
        if row is None:
            raise NotFound(f"the tenant has no collection {collection[:100]!r}", field="name")
        width = dimensions or row["dimensions"]
        space_id: int | None = await connection.fetchval(sql.find_space, provider, model, width)
    return Target(
        tenant_id=tenant_id,
        collection=collection,
        collection_id=row["collection_id"],
        provider=provider,
        model=model,
        dimensions=width,
        space_id=space_id,
        current=row["model"],
        is_current=space_id == row["space_id"],
    )
