"""How many jobs a worker claims, and the claim itself; what it brought although the worker stops goes back untouched."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from typing import Final

from workers.engine.lifetime import Lifetime
from workers.engine.outbox import Outbox
from workers.engine.schedule import Schedule
from workers.engine.store import Claim, QueueStore, Settlement

CLAIM_LIMIT: Final = 1000
LAST_CLAIM: Final = 1.0


class Claiming(Lifetime):
    """A worker's claims, under our names and, for those who call them, under arq's."""

    _store: QueueStore
    _outbox: Outbox
    _schedule: Schedule

    def _room(self) -> int:
        """How many jobs may be claimed now."""
        if not self.allow_pick_jobs:
            return 0
        free = min(self.max_jobs - self.job_counter, self.queue_read_limit, CLAIM_LIMIT)
        if self.burst and self.max_burst_jobs >= 0:
            free = min(free, self.max_burst_jobs - self._jobs_started())
        return self._schedule.room(free=free, running=self.job_counter)

    async def _claim(self, room: int, *, alone: bool = False) -> Claim:
        claiming = self.loop.create_task(
            self._store.claim(want=room, alone=alone, aborts=self.allow_abort_jobs)
        )
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:
            # A claim on its way cannot be unsaid: without this its jobs would wait for their leases to run out.
            done, _ = await asyncio.wait([claiming], timeout=LAST_CLAIM)
            if done and claiming.exception() is None:
                self._return(claiming.result())
            claiming.cancel()
            raise

    def _return(self, claim: Claim) -> None:
        """Give back what a claim brought, untouched."""
        for candidate in claim.jobs:
            self._outbox.put(Settlement(candidate.job_id, claim.token, "again", outcome="given_back"))

    async def start_jobs(self, job_ids: list[bytes]) -> None:
        """Claim and start these jobs, as arq's method of this name does; the main loop does not use it."""
        self._take(await self._store.claim(want=max(1, self._room()), ids=job_ids))

    async def _poll_iteration(self) -> None:
        """One claim and one round of housekeeping, as arq's method of this name; the main loop does not use it."""
        room = self._room()
        if room > 0:
            self._take(await self._claim(room))
        await self._tick()

    def _jobs_started(self) -> int:
        return self.jobs_complete + self.jobs_retried + self.jobs_failed + self.job_counter

    @abstractmethod
    def _take(self, claim: Claim) -> None:
        """Start what a claim brought."""

    @abstractmethod
    async def _tick(self) -> None:
        """Housekeeping."""
