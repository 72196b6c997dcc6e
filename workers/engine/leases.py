"""The jobs that this worker holds under lease; all are renewed in one call, and those lost are called out.

The same beat measures how late the event loop runs: a loop that is blocked for longer than the lease loses its
work to others, so a worker whose lag passes a third of the lease reports itself unhealthy.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice
from typing import Final

import structlog

from workers.engine.link import RedisLink
from workers.engine.store import QueueStore, Settlement
from workers.engine.types import ClaimedJob

BATCH: Final = 1000
BEATS_PER_LEASE: Final = 3

log = structlog.get_logger()


class Leases:
    """What is held, and its heartbeat.

    Args:
        store: the queue.
        link: waits while Redis is away.
        lost: called for each job that another worker has now.
        ended: called with the jobs that have left this worker, and how.
    """

    def __init__(
        self,
        store: QueueStore,
        link: RedisLink,
        *,
        lost: Callable[[ClaimedJob], None],
        ended: Callable[[Sequence[tuple[ClaimedJob, Settlement]]], None] | None = None,
    ) -> None:
        self.held: dict[str, ClaimedJob] = {}
        self.lag = 0.0
        self._store = store
        self._link = link
        self._lost = lost
        self._ended = ended
        self._period = store.lease_ms / 1000 / BEATS_PER_LEASE

    @property
    def healthy(self) -> bool:
        """Whether the event loop was on time at the last beat."""
        return self.lag < self._period

    def add(self, jobs: Iterable[ClaimedJob]) -> None:
        """Hold jobs. If an older claim of one is still here, that one is lost: its lease ran out unnoticed."""
        held = self.held
        for job in jobs:
            older = held.get(job.job_id)
            held[job.job_id] = job
            if older is not None:
                self._lost(older)

    def settled(self, settlements: Sequence[Settlement]) -> None:
        """Stop renewing jobs that have left this worker; a later claim of the same job stays."""
        held = self.held
        left: list[tuple[ClaimedJob, Settlement]] = []
        for settlement in settlements:
            job = held.get(settlement.job_id)
            if job is not None and job.token == settlement.token:
                del held[settlement.job_id]
                left.append((job, settlement))
        if self._ended is not None:
            self._ended(left)

    async def beat(self) -> None:
        """Renew until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + self._period
            await asyncio.sleep(self._period)
            self.lag = loop.time() - due
            if not self.healthy:
                log.warning("engine.loop_blocked", seconds=round(self.lag, 3))
            await self.renew()

    async def renew(self) -> None:
        """Renew all leases once, and call out those that are lost."""
        jobs = iter(list(self.held.values()))
        while batch := list(islice(jobs, BATCH)):
            pairs = [(job.job_id, job.token) for job in batch]
            tokens = dict(pairs)
            for job_id in await self._link.persist(partial(self._store.renew, pairs)):
                job = self.held.get(job_id)
                if job is not None and job.token == tokens[job_id]:
                    del self.held[job_id]
                    log.warning("engine.lease_lost", job_id=job_id, function=job.function)
                    self._lost(job)
