"""What arq's own users call besides `main`: arq's names for one claim, for some jobs, and for how many have started."""

from __future__ import annotations

from abc import abstractmethod

from workers.engine.lifetime import Lifetime
from workers.engine.store import Claim, QueueStore


class Face(Lifetime):
    """Methods of `arq.Worker` that the main loop does not use."""

    _store: QueueStore

    async def start_jobs(self, job_ids: list[bytes]) -> None:
        """Claim and start these jobs."""
        self._take(await self._store.claim(want=max(1, self._room()), ids=job_ids))

    async def _poll_iteration(self) -> None:
        """One claim and one round of housekeeping."""
        room = self._room()
        if room > 0:
            self._take(await self._claim(room))
        await self._tick()

    def _jobs_started(self) -> int:
        return self.jobs_complete + self.jobs_retried + self.jobs_failed + self.job_counter

    @abstractmethod
    def _room(self) -> int:
        """How many jobs may be claimed now."""

    @abstractmethod
    async def _claim(self, room: int, *, alone: bool = False) -> Claim:
        """Claim, and give back what was claimed when cancelled meanwhile."""

    @abstractmethod
    def _take(self, claim: Claim) -> None:
        """Start what a claim brought."""

    @abstractmethod
    async def _tick(self) -> None:
        """Housekeeping."""
