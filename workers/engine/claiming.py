"""How many jobs a worker claims, and the claim itself; what it brought although the worker stops goes back untouched."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from typing import Final

from workers.engine.doorbell import Doorbell
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
    _doorbell: Doorbell
    _asked: int = 0
    """Slots for which a claim is on its way."""
    _freed = _was_full = False
    _most: int = CLAIM_LIMIT
    """Jobs of one claim at most."""

    def _room(self) -> int:
        """How many jobs may be claimed now."""
        if not self.allow_pick_jobs:
            return 0
        taken = self.job_counter + self._asked + self._doorbell.reserved
        free = min(self.max_jobs - taken, self._most, self.queue_read_limit, CLAIM_LIMIT)
        if self.burst and self.max_burst_jobs >= 0:
            free = min(free, self.max_burst_jobs - self._jobs_started())
        return self._schedule.room(free=free, running=self.job_counter)

    async def _claim(self, room: int, *, alone: bool = False) -> Claim:
        claiming = self.loop.create_task(
            self._store.claim(want=room, alone=alone, aborts=self.allow_abort_jobs)
        )
        self._asked = room
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:
            # A claim on its way cannot be unsaid: without this its jobs would wait for their leases to run out.
            done, _ = await asyncio.wait([claiming], timeout=LAST_CLAIM)
            if done and claiming.exception() is None:
                self._return(claiming.result())
            claiming.cancel()
            raise
        finally:
            self._asked = 0
            self._doorbell.changed()

    def _return(self, claim: Claim) -> None:
        """Give back what a claim brought, untouched."""
        for candidate in claim.jobs:
            self._outbox.put(Settlement(candidate.job_id, claim.token, "again", outcome="given_back"))

    def _brought(self, claim: Claim) -> None:
        """Take what came with a ring, if it may still begin here."""
        schedule = self._schedule
        if self._stopping or self._doorbell.leaving or (schedule.suspects and not schedule.isolates):
            self._return(claim)
            return
        schedule.saw(claim, self.loop.time())
        self._take(claim)
        self._alarm.ring()

    def _look_again(self) -> None:
        self._schedule.wanted = True
        self._alarm.ring()

    def _slot_freed(self) -> None:
        if self.job_counter == self.max_jobs:
            self._was_full = True
        self.job_counter -= 1
        if not self._freed:
            # Jobs that end in the same turn of the loop are looked at together.
            self._freed = True
            self.loop.call_soon(self._slots_freed)

    def _slots_freed(self) -> None:
        was_full, self._was_full, self._freed = self._was_full, False, False
        if self.job_counter == 0:
            self._schedule.alone = False
        if self._schedule.held:
            self._schedule.wanted = True
        reason = self._schedule.wanted or self._schedule.suspects
        if reason or was_full or self.burst or self._stopping:
            self._alarm.ring()
        self._doorbell.changed()

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
