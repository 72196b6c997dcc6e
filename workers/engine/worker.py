"""The worker: claimed jobs enter here, run as arq functions or by a batch runner, and leave through the outbox.

It takes the arguments of `arq.Worker` and more, and keeps arq's face (`main`, `async_run`, `run_check`, `close`,
counters, signal handlers). Only what is between is different: see docs/decisions/0005-engine.md.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import arq
from arq.connections import create_pool, log_redis_info
from arq.constants import abort_job_max_age
from arq.typing import WorkerCoroutine
from arq.utils import timestamp_ms
from arq.worker import Function, logger

from workers.engine.alarm import Alarm
from workers.engine.doorbell import Doorbell
from workers.engine.handover import Handover, counts
from workers.engine.intake import sort
from workers.engine.leases import Leases
from workers.engine.link import RedisLink
from workers.engine.narration import Narration
from workers.engine.outbox import Outbox
from workers.engine.plain import PlainJobs
from workers.engine.policy import Policy
from workers.engine.store import Claim, QueueStore
from workers.engine.types import BatchRunner, ClaimedJob, Verdict

CLAIM_LIMIT: Final = 1000
SHORTEST_POLL: Final = 0.005
CLOSING: Final = 5.0


@dataclass(frozen=True, slots=True)
class Health:
    """What `/readyz` says about a worker. `loop_lag` is in seconds."""

    redis: bool
    loop_lag: float
    healthy: bool
    claiming: bool
    running: int


async def _nothing(ctx: dict[Any, Any]) -> None:
    """Satisfies arq, which wants at least one function; never registered."""


class Worker(arq.Worker):
    """arq's worker with leases, batches and a doorbell.

    Args:
        functions: as in arq; with a `batch_runner` these are the ones that need no ledger row, and may be empty.
        batch_runner: gets every claimed job whose function is not registered here.
        policy: decides what an exception of a registered function means; None as in arq, where it ends the job.
        lease: seconds; a killed worker's jobs run again after this long.
        lease_memory: seconds after its end for which a lease is still recognised as lost. None: 30 leases.
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
        narrate: bool = False,
        **options: Any,
    ) -> None:
        bare = batch_runner is not None and not functions and not options.get("cron_jobs")
        super().__init__([_nothing] if bare else functions, **options)
        if bare:
            self.functions.clear()
        self._runner = batch_runner
        self._policy = policy
        self._lease_ms = round(lease * 1000)
        self._memory_ms = round((lease * 30 if lease_memory is None else lease_memory) * 1000)
        self._narration = Narration(narrate=narrate, log_results=self.log_results)
        self._link = RedisLink(self.queue_name)
        self._alarm = Alarm()
        self._stopping = False
        self._closing = False
        self._grace: asyncio.Task[Any] | None = None
        self._wanted = True
        self._suspects = False
        self._alone = False
        self._claim_at = 0.0
        self._tick_at = 0.0
        if self._pool is not None:
            self._assemble()

    @property
    def health(self) -> Health:
        """The worker's state, for probes."""
        assembled = self._pool is not None
        return Health(
            redis=self._link.up and assembled,
            loop_lag=self._leases.lag if assembled else 0.0,
            healthy=self._link.up and assembled and self._leases.healthy,
            claiming=self.allow_pick_jobs,
            running=self.job_counter,
        )

    def _assemble(self) -> None:
        """Put the parts around the pool, once there is one."""
        store = QueueStore(self.pool, self.queue_name, lease_ms=self._lease_ms, memory_ms=self._memory_ms)
        self._store = store
        self._leases = Leases(store, self._link, lost=self._lost)
        self._outbox = Outbox(store, self._link, settled=self._leases.settled)
        self._doorbell = Doorbell(store, self._link, hungry=lambda: self._room() > 0, rung=self._look_again)
        self._plain = PlainJobs(
            self,
            self._outbox,
            policy=self._policy,
            narration=self._narration,
            stopping=lambda: self._stopping,
            ended=self._slot_freed,
        )
        self._handover = (
            None
            if self._runner is None
            else Handover(
                self._runner,
                self._outbox,
                tasks=self.tasks,
                stopping=lambda: self._stopping,
                ended=self._reported,
            )
        )

    async def main(self) -> None:
        """Run until stopped, in burst mode until the queue is empty."""
        await self._open()
        self._wanted = True
        self._claim_at = self._tick_at = 0.0
        helpers = [self.loop.create_task(self._leases.beat())]
        if not self.burst:
            helpers.append(self.loop.create_task(self._doorbell.listen()))
        try:
            while not await self._turn():
                pass
        finally:
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)

    async def _open(self) -> None:
        if self._pool is None:
            settings = self.redis_settings or arq.connections.RedisSettings()
            patient = settings if self.burst else replace(settings, conn_retries=0)

            async def connect() -> arq.ArqRedis:
                return await create_pool(
                    patient,
                    job_deserializer=self.job_deserializer,
                    job_serializer=self.job_serializer,
                    default_queue_name=self.queue_name,
                    expires_extra_ms=self.expires_extra_ms,
                )

            self._pool = await (connect() if self.burst else self._link.persist(connect))
            self._assemble()
        logger.info("Starting worker for %d functions: %s", len(self.functions), ", ".join(self.functions))
        await log_redis_info(self.pool, logger.info)
        self.ctx["redis"] = self.pool
        if self.on_startup:
            await self.on_startup(self.ctx)

    async def _turn(self) -> bool:
        """Claim if there is room and reason, do the housekeeping when due, sleep until the next reason.

        Returns:
            Whether it was the last: a burst is over, or a shutdown has nothing left to wait for.
        """
        if self._closing or (self._stopping and not self.tasks):
            return True
        now = self.loop.time()
        room = self._room()
        if room > 0 and (self._wanted or now >= self._claim_at):
            self._wanted = False
            claim = await self._link.persist(lambda: self._claim(room))
            self._take(claim)
            self._plan(claim)
        if now >= self._tick_at:
            await self._link.persist(self._tick)
        if self.burst and await self._burst_over():
            return True
        if self._wanted and self._room() > 0:
            return False
        until = min(self._claim_at if self._room() > 0 else self._tick_at, self._tick_at)
        await self._alarm.sleep(max(0.0, until - self.loop.time()))
        return False

    def _room(self) -> int:
        """How many jobs may be claimed now."""
        if not self.allow_pick_jobs or self._alone:
            return 0
        if self._suspects:
            # A suspect runs alone: let the others finish first.
            return 1 if self.job_counter == 0 else 0
        room = min(self.max_jobs - self.job_counter, self.queue_read_limit, CLAIM_LIMIT)
        if self.burst and self.max_burst_jobs >= 0:
            room = min(room, self.max_burst_jobs - self._jobs_started())
        return max(0, room)

    async def _claim(self, room: int) -> Claim:
        return await self._store.claim(want=room, alone=self._suspects, aborts=self.allow_abort_jobs)

    def _take(self, claim: Claim) -> None:
        """Start what a claim brought."""
        self._alone = self._suspects and bool(claim.jobs)
        jobs = sort(
            claim,
            queue=self.queue_name,
            functions=self.functions,
            deserializer=self.job_deserializer,
            with_runner=self._handover is not None,
        )
        self.job_counter += len(claim.jobs)
        for job, function in jobs.plain:
            self._leases.add(job)
            self._plain.start(job, function)
        for job, error in jobs.refuse:
            self._leases.add(job)
            self._plain.refuse(job, error)
        if self._handover is not None:
            for job in (*jobs.runner, *jobs.bury):
                self._leases.add(job)
            if jobs.runner:
                self._handover.start(jobs.runner)
            if jobs.bury:
                self._handover.bury(jobs.bury)

    def _plan(self, claim: Claim) -> None:
        """Decide from what a claim saw when the next one is worth while."""
        if self._suspects:
            # The claim was for a suspect. If there was none left, go back to claiming many.
            self._suspects = bool(claim.jobs)
            self._wanted = True
            return
        self._suspects = claim.suspects > 0
        self._wanted = claim.more or self._suspects
        wait = max(self.poll_delay_s, SHORTEST_POLL)
        if claim.next_due_ms is not None:
            # One millisecond more, because Redis's clock was cut to whole ones.
            wait = min(wait, max(0.0, (claim.next_due_ms - claim.now_ms + 1) / 1000))
        self._claim_at = self.loop.time() + wait

    async def _tick(self) -> None:
        """Aborts, cron and arq's health key."""
        self._tick_at = self.loop.time() + max(self.poll_delay_s, SHORTEST_POLL)
        if self.allow_abort_jobs:
            await self._cancel_aborted_jobs()
        await self.heart_beat()
        self._wanted = self._wanted or bool(self.cron_jobs)

    async def _burst_over(self) -> bool:
        if 0 <= self.max_burst_jobs <= self._jobs_started():
            await asyncio.gather(*self.tasks.values())
        elif self.job_counter > 0 or self.tasks:
            return False
        await self._outbox.join()
        return 0 <= self.max_burst_jobs <= self._jobs_started() or await self.pool.zcard(self.queue_name) == 0

    def _jobs_started(self) -> int:
        return self.jobs_complete + self.jobs_retried + self.jobs_failed + self.job_counter

    def _look_again(self) -> None:
        self._wanted = True
        self._alarm.ring()

    def _slot_freed(self) -> None:
        self.job_counter -= 1
        if self.job_counter == 0:
            self._alone = False
        if self._wanted or self.burst:
            self._alarm.ring()
        self._doorbell.room()

    def _reported(self, verdict: Verdict | None) -> None:
        complete, retried, failed = counts(verdict)
        self.jobs_complete += complete
        self.jobs_retried += retried
        self.jobs_failed += failed
        self._slot_freed()

    def _lost(self, job: ClaimedJob) -> None:
        run = self._plain.running.get(job.job_id)
        if run is not None and run.job is job:
            run.cancel("lost")
        elif self._handover is not None:
            self._handover.lost(job)

    async def _cancel_aborted_jobs(self) -> None:
        if not self._plain.running:
            return
        wanted = await self._store.abort_requests(now_ms=timestamp_ms(), max_age_ms=abort_job_max_age * 1000)
        for job_id in wanted:
            run = self._plain.running.get(job_id)
            if run is not None:
                self.aborting_tasks.add(job_id)
                run.cancel("abort")

    async def start_jobs(self, job_ids: list[bytes]) -> None:
        """Claim and start these jobs, as arq's method of this name does; the main loop does not use it."""
        self._take(await self._store.claim(want=max(1, self._room()), ids=job_ids))

    async def _poll_iteration(self) -> None:
        """One claim and one round of housekeeping, as arq's method of this name; the main loop does not use it."""
        room = self._room()
        if room > 0:
            self._take(await self._claim(room))
        await self._tick()

    def handle_sig(self, signum: signal.Signals) -> None:
        """Stop at once: running jobs are cancelled and given back uncharged."""
        self._stopping = True
        self.allow_pick_jobs = False
        super().handle_sig(signum)

    def handle_sig_wait_for_completion(self, signum: signal.Signals) -> None:
        """Stop claiming and give running jobs `job_completion_wait` seconds; a second signal stops at once."""
        if self._stopping:
            self.handle_sig(signum)
            return
        self._stopping = True
        super().handle_sig_wait_for_completion(signum)
        self._alarm.ring()

    async def _wait_for_tasks_to_complete(self, signum: signal.Signals) -> None:
        self._grace = asyncio.current_task()
        await super()._wait_for_tasks_to_complete(signum)

    async def close(self) -> None:
        """Give back what runs, send what is settled, close the connections.

        If Redis stays away, the leases of what could not be given back run out instead.
        """
        if not self._handle_signals:
            self.handle_sig(signal.SIGUSR1)
        if self._pool is None:
            return
        self._closing = True
        self._alarm.ring()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)
        if self._grace is not None:
            await self._grace
        try:
            async with asyncio.timeout(CLOSING):
                await self._outbox.join()
                await self._link.persist(lambda: self.pool.delete(self.health_check_key))
        except TimeoutError:
            logger.warning("redis is away: %d leases are left to run out", len(self._leases.held))
        if self.on_shutdown:
            await self.on_shutdown(self.ctx)
        await self.pool.aclose(close_connection_pool=True)
        self._pool = None
