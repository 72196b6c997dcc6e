"""A queue with lanes for tests: filled by `infra.push`, emptied by claims."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable
from typing import Any, cast
from uuid import UUID

from arq.connections import ArqRedis

from infra import queue_keys
from infra.push import push
from schemas.work import Pushable
from tests.workers.engine.harness import QUEUE
from workers.engine.store import Claim, QueueStore, Settlement

TENANTS = ("ada", "bob", "cyd")


class Queue:
    """A queue that a test fills by `infra.bus` and empties by claims."""

    def __init__(self, pool: ArqRedis) -> None:
        self.pool = pool
        self.tenant: dict[str, str] = {}

    def store(self, *, lease_ms: int = 30_000, **limits: int) -> QueueStore:
        """One worker's store; limits are written `tenant_ada=1`."""
        bounds = {name.replace("_", " ").replace("each", "*"): limit for name, limit in limits.items()}
        return QueueStore(self.pool, QUEUE, lease_ms=lease_ms, memory_ms=60_000, limits=bounds)

    async def push(
        self, tenant: str, count: int = 1, *, kind: str = "document.added", delay: float = 0.0
    ) -> list[str]:
        """Push events of a tenant."""
        ids = [UUID(int=len(self.tenant) + number) for number in range(count)]
        await push(self.pool, [Pushable(one, kind, QUEUE, delay, tenant) for one in ids])
        self.tenant |= {str(one): tenant for one in ids}
        return [str(one) for one in ids]

    def shares(self, claim: Claim) -> Counter[str]:
        """How many jobs of each tenant a claim brought; those of arq's own producers count as such."""
        return Counter(self.tenant.get(job.job_id, "arq") for job in claim.jobs)

    async def lanes(self) -> dict[str, list[str]]:
        """What waits in each lane that has a turn."""
        found: dict[str, list[str]] = {}
        for urgent in (True, False):
            turns = queue_keys.turns(QUEUE, urgent=urgent)
            for lane in await cast("Awaitable[list[bytes]]", self.pool.lrange(turns, 0, -1)):
                assert lane.decode() not in found
                key = queue_keys.lane_prefix(QUEUE) + lane.decode()
                ids = await cast("Awaitable[list[bytes]]", self.pool.lrange(key, 0, -1))
                found[lane.decode()] = [one.decode() for one in ids]
        return found


async def finish(store: QueueStore, claim: Claim, verb: Any = "done", delay_ms: int = 0) -> None:
    """End all jobs of a claim in one way."""
    if claim.jobs:
        await store.finish([Settlement(job.job_id, claim.token, verb, delay_ms) for job in claim.jobs])
