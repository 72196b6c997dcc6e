"""The worker: claimed jobs enter here, run as arq functions or by a batch runner, and leave through the outbox.

It takes the arguments of `arq.Worker` and more, and keeps arq's face (`main`, `async_run`, `run_check`, `close`,
counters, signal handlers). Only what is between is different: see docs/decisions/0005-engine.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

from arq.constants import abort_job_max_age
from arq.typing import WorkerCoroutine
from arq.utils import timestamp_ms
from arq.worker import Function

from schemas.registry import EVENT_TYPES
from workers.engine.claiming import Claiming
from workers.engine.doorbell import Doorbell
from workers.engine.handover import Handover
from workers.engine.intake import sort
from workers.engine.isolation import Isolation
from workers.engine.leases import Leases
from workers.engine.narration import Narration
from workers.engine.outbox import Outbox
from workers.engine.plain import PlainJobs
from workers.engine.policy import Policy
from workers.engine.schedule import Schedule
from workers.engine.store import Claim, QueueStore
from workers.engine.tally import Tally
from workers.engine.types import BatchRunner, Bury, ClaimedJob, Done, GiveBack, Health, RetryAt, Verdict

SUSPECT: Final = 2


async def _nothing(ctx: dict[Any, Any]) -> None:
    """Satisfies arq, which wants at least one function."""


class Worker(Claiming):
    """arq's worker with leases, batches and a doorbell.

    Args:
        functions: as in arq; with a `batch_runner` these are the ones that need no ledger row, and may be empty.
        batch_runner: gets every claimed job whose function is not registered here.
        policy: decides what an exception of a registered function means; None as in arq, where it ends the job.
        lease: seconds; a killed worker's jobs run again after this long.
        lease_memory: seconds after its end for which a lease is still recognised as lost. None: 30 leases.
        suspects: whether a job whose worker died twice is claimed alone from then on. False where jobs cannot well be
            what killed it: they stay among the others until the fifth death, of which the runner decides.
        isolate: argv of a command that calls `solo.run_solo`. Jobs whose worker died twice then run in such a child
            process; without it they run here, alone.
        limits: how many jobs of a group the whole fleet runs at once: ``type T``, ``tenant T``, or ``tenant *`` for each
            tenant that is not named. They hold for work in lanes, which is what `infra.bus` pushes with a tenant.
        tally: count attempts and times by function in Redis, where `infra.queue_insight` reads them.
        narrate: log in arq's words, two lines per job with its arguments. Leaks payloads; for debugging.
        options: the other arguments of `arq.Worker`. `poll_delay` is the slow poll for producers that do not ring.
    """

    def __init__(
        self,
        functions: Sequence[Function | WorkerCoroutine] = (),
        *,
        batch_runner: BatchRunner | None = None,
        policy: Policy | None = None,
        lease: float = 30.0,
        lease_memory: float | None = None,
        suspects: bool = True,
        isolate: Sequence[str] | None = None,
        limits: Mapping[str, int] | None = None,
        tally: bool = False,
        narrate: bool = False,
        **options: Any,
    ) -> None:
        bare = batch_runner is not None and not functions and not options.get("cron_jobs")
        super().__init__([_nothing] if bare else functions, **options)
        if bare:
            self.functions.clear()
        self._runner = batch_runner
        self._policy = policy
        self._suspects = suspects
        self._isolate = isolate
        self._limits = limits
        self._tallies = tally
        if batch_runner is not None:
            # Two claims share the slots, so that one is with the ledger while the handlers of the other run.
            self._most = max(1, (self.max_jobs + 1) // 2)
        self._lease_ms = round(lease * 1000)
        self._memory_ms = round((lease * 30 if lease_memory is None else lease_memory) * 1000)
        self._narration = Narration(narrate=narrate, log_results=self.log_results)
        self._schedule = Schedule(self.poll_delay_s, isolates=isolate is not None)
        if self._pool is not None:
            self._assemble()

    @property
    def health(self) -> Health:
        """The worker's state, for probes."""
        claiming, running = self.allow_pick_jobs, self.job_counter
        if self._pool is None:
            return Health(redis=False, loop_lag=0.0, healthy=False, claiming=claiming, running=running)
        up, leases = self._link.up, self._leases
        healthy = up and leases.healthy
        return Health(redis=up, loop_lag=leases.lag, healthy=healthy, claiming=claiming, running=running)

    def _assemble(self) -> None:
        """Put the parts around the pool, once there is one."""
        store = QueueStore(
            self.pool,
            self.queue_name,
            lease_ms=self._lease_ms,
            memory_ms=self._memory_ms,
            limits=self._limits,
            suspects=self._suspects,
        )
        self._store = store
        self._tally = Tally(self.pool, self.queue_name, known=self._is_known) if self._tallies else None
        ended = None if self._tally is None else self._tally.ended
        self._leases = Leases(store, self._link, lost=self._lost, ended=ended)
        self._outbox = Outbox(store, self._link, settled=self._leases.settled)
        self._doorbell = Doorbell(
            store,
            self._link,
            room=self._room,
            rung=self._look_again,
            brought=self._brought,
            aborts=self.allow_abort_jobs,
        )
        self._plain = PlainJobs(
            self,
            self._outbox,
            policy=self._policy,
            narration=self._narration,
            stopping=lambda: self._stopping,
            ended=self._slot_freed,
        )
        self._handover = self._isolation = None
        if self._runner is not None:
            self._handover = Handover(
                self._runner,
                self._outbox,
                tasks=self.tasks,
                stopping=lambda: self._stopping,
                ended=self._reported,
            )
        if self._isolate is not None:
            self._isolation = Isolation(self._isolate, self._outbox, tasks=self.tasks, ended=self._reported)

    async def main(self) -> None:
        """Run until stopped, in burst mode until the queue is empty."""
        await self._open()
        self._schedule.restart()
        helpers = [self.loop.create_task(self._leases.beat())]
        if not self.burst:
            helpers.append(self.loop.create_task(self._doorbell.listen()))
        try:
            while not await self._turn():
                for helper in helpers:
                    if helper.done():
                        helper.result()  # it ends only by failing, and then so must we
        finally:
            await self._doorbell.leave()
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)

    async def _turn(self) -> bool:
        """Claim if there is room and reason, do the housekeeping when due, sleep until the next reason.

        Returns:
            Whether it was the last: a burst is over, or a shutdown has nothing left to wait for.
        """
        if self._closing or (self._stopping and not self.tasks):
            return True
        schedule, room = self._schedule, self._room()
        due = schedule.due(self.loop.time())
        if due and room <= 0 and self._doorbell.reserved:
            # The slots are with the claim that waits for a ring, so let it ring.
            schedule.delegated(self.loop.time())
            await self._link.persist(partial(self._store.ring, own=True))
        elif due and room > 0:
            claim = await self._link.persist(
                partial(self._claim, room, alone=not schedule.isolates and schedule.suspects)
            )
            schedule.saw(claim, self.loop.time())
            if self._stopping:
                self._return(claim)
            else:
                self._take(claim)
        if schedule.suspects and self._isolation and not self._isolation.busy and not self._stopping:
            claim = await self._link.persist(partial(self._claim, 1, alone=True))
            schedule.suspects = bool(claim.jobs)
            self._take(claim)
        if self.loop.time() >= schedule.tick_at:
            await self._link.persist(self._tick)
        if self.burst and await self._burst_over():
            return True
        room = self._room() + self._doorbell.reserved
        await self._alarm.sleep(schedule.rest(self.loop.time(), room=room))
        return False

    def _take(self, claim: Claim) -> None:
        """Start what a claim brought."""
        if self._tally is not None:
            self._tally.claimed(claim)
        jobs = sort(
            claim,
            queue=self.queue_name,
            functions=self.functions,
            deserializer=self.job_deserializer,
            with_runner=self._handover is not None,
        )
        self.job_counter += len(claim.jobs)
        self._leases.add(jobs.all)
        self._plain.start(jobs.plain)
        for job, error in jobs.refuse:
            self._plain.refuse(job, error)
        if self._handover is not None:
            if jobs.runner and self._isolation is not None and jobs.runner[0].losses >= SUSPECT:
                self._isolation.start(jobs.runner[0])  # a suspect is claimed alone
            elif jobs.runner:
                self._handover.start(jobs.runner)
            if jobs.judge:
                self._handover.judge(jobs.judge)

    async def _tick(self) -> None:
        """Aborts, cron and arq's health key."""
        self._schedule.ticked(self.loop.time())
        if self.allow_abort_jobs:
            await self._cancel_aborted_jobs()
        await self.heart_beat()
        if self._tally is not None:
            await self._tally.send()
        self._schedule.wanted = self._schedule.wanted or bool(self.cron_jobs)

    async def _burst_over(self) -> bool:
        if 0 <= self.max_burst_jobs <= self._jobs_started():
            await asyncio.gather(*self.tasks.values())
        elif self.job_counter > 0 or self.tasks:
            return False
        await self._outbox.join()
        return 0 <= self.max_burst_jobs <= self._jobs_started() or await self.pool.zcard(self.queue_name) == 0

    def _reported(self, verdict: Verdict | None) -> None:
        match verdict:
            case Done():
                self.jobs_complete += 1
            case RetryAt() | GiveBack():
                self.jobs_retried += 1
            case Bury():
                self.jobs_failed += 1
        self._slot_freed()

    async def _hand_back(self) -> None:
        await self._doorbell.leave()
        self._plain.give_back_rest()
        if self._handover is not None:
            self._handover.give_back_rest()
        if self._isolation is not None:
            self._isolation.give_back_rest()
        try:
            await self._outbox.join()
            if self._tally is not None:
                await self._tally.send()
            await self._link.persist(lambda: self.pool.delete(self.health_check_key))
        except asyncio.CancelledError:
            self._outbox.abandon()
            raise

    def _is_known(self, function: str) -> bool:
        return function in self.functions or (self._runner is not None and function in EVENT_TYPES)

    def _lost(self, job: ClaimedJob) -> None:
        self._plain.lost(job)
        if self._handover is not None:
            self._handover.lost(job)
        if self._isolation is not None:
            self._isolation.lost(job)

    async def _cancel_aborted_jobs(self) -> None:
        if self._plain.running:
            max_age_ms = abort_job_max_age * 1000
            self._plain.abort(await self._store.abort_requests(now_ms=timestamp_ms(), max_age_ms=max_age_ms))
