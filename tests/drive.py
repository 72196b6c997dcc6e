"""Events go in, handlers run through the real runtime and ledger, and tests look at what was written.

It stands in for the engine's loop only: claims are made by test-made tokens, delays are skipped. Processes, leases and
Redis are exercised by the stories.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Self
from uuid import UUID, uuid4

from infra.database import Database
from infra.ledger import Accepted
from schemas.envelope import Event, parse_event
from workers.commit import Committer
from workers.engine.types import ClaimedJob, Verdict
from workers.handling import HandlerSpec, Resources
from workers.pools import POOLS, open_pool
from workers.runtime import Runtime


class Drive:
    """Publishes and runs events of any tenant."""

    def __init__(self, resources: Resources, owner: Database, held: AsyncExitStack) -> None:
        self.resources = resources
        self.owner = owner
        self.handlers: dict[str, HandlerSpec] = {}
        self._held = held
        self._committer = Committer(resources.database, resources.bus)
        held.push_async_callback(self._committer.aclose)

    @classmethod
    @asynccontextmanager
    async def open(cls, resources: Resources, owner: Database) -> AsyncIterator[Self]:
        """Close what `use` opened at the end."""
        async with AsyncExitStack() as held:
            yield cls(resources, owner, held)

    async def use(self, *pools: str) -> None:
        """Open these wings: ingest, answer, train, deliver."""
        for name in pools:
            self.handlers.update(await open_pool(POOLS[name], self.resources, self._held))

    async def publish(self, tenant: str, kind: str, data: Mapping[str, Any], **attributes: Any) -> UUID:
        """Publish one event, which must be accepted, and return the ledger's id."""
        raw = {
            "specversion": "1.0",
            "id": str(uuid4()),
            "source": "test",
            "type": kind,
            "data": dict(data),
            **attributes,
        }
        [result] = await self.publish_events(tenant, [parse_event(raw)])
        assert result.status in {"accepted", "duplicate"}, result
        assert result.event_id is not None
        return result.event_id

    async def publish_events(self, tenant: str, events: Sequence[Event]) -> list[Accepted]:
        """Publish events as a producer does."""
        return await self.resources.bus.publish(tenant, events)

    async def settle(self, tenant: str, *, rounds: int = 200) -> list[Verdict]:
        """Run everything that this tenant has waiting for the wings in use, until nothing is left; delays are skipped."""
        verdicts: list[Verdict] = []
        for _ in range(rounds):
            done = await self.step(tenant)
            if not done:
                return verdicts
            verdicts += done
        raise AssertionError(f"still working after {rounds} rounds")

    async def step(self, tenant: str) -> list[Verdict]:
        """Run once what is waiting, all of it side by side."""
        async with self.owner.connection() as connection:
            rows = await connection.fetch(
                "UPDATE events SET due_at = NULL WHERE tenant_id = $1 AND finished_at IS NULL AND type = ANY ($2::text[])"
                " RETURNING event_id, type, queue",
                tenant,
                sorted(self.handlers),
            )
        return await self.run([(row["event_id"], row["type"], row["queue"]) for row in rows])

    async def run(self, jobs: Sequence[tuple[UUID, str, str]], *, losses: int = 0) -> list[Verdict]:
        """Hand jobs to the runtime as one claim of the engine would; with losses, because their workers died too often."""
        runtime = Runtime(self.resources.database, self._committer, self.handlers)
        verdicts: list[Verdict] = []
        now = time.time_ns() // 1_000_000
        claimed = [
            ClaimedJob(
                str(event_id), kind, (str(event_id),), {}, 1, losses, time.time_ns() // 1000, now, now, queue
            )
            for event_id, kind, queue in jobs
        ]
        begin = runtime.judge_lost if losses else runtime.start
        await begin(claimed, lambda _, verdict: verdicts.append(verdict))
        return verdicts

    async def rows(self, sql: str, *arguments: Any) -> list[dict[str, Any]]:
        """Look at the database as its owner."""
        async with self.owner.connection() as connection:
            return [dict(row) for row in await connection.fetch(sql, *arguments)]

    async def event(self, event_id: UUID) -> dict[str, Any]:
        """One row of the ledger."""
        [row] = await self.rows("SELECT * FROM events WHERE event_id = $1", event_id)
        return row

    async def said(self, tenant: str, kind: str) -> list[dict[str, Any]]:
        """The data of the out events of one type, in order."""
        rows = await self.rows(
            "SELECT data FROM events WHERE tenant_id = $1 AND type = $2 ORDER BY accept_no", tenant, kind
        )
        return [row["data"] for row in rows]
