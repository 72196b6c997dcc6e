"""Jobs whose function is registered with the worker run here, as in arq; their outcomes go to the outbox.

Each job is one task. It is cancelled by its timeout, by `Job.abort()`, by a lost lease or by the worker's shutdown;
only what the job did itself costs an attempt.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

import arq
import structlog
from arq.cron import CronJob
from arq.jobs import serialize_result
from arq.typing import StartupShutdown
from arq.utils import ms_to_datetime, timestamp_ms, to_ms
from arq.worker import Function, JobExecutionFailed, Retry, RetryJob

from workers.engine.deadletters import trace_of
from workers.engine.deadlines import Deadlines
from workers.engine.narration import Narration
from workers.engine.outbox import Outbox
from workers.engine.outcome import settle
from workers.engine.policy import Policy, code_of, decide, message_of
from workers.engine.store import Settlement
from workers.engine.terms import Terms
from workers.engine.types import Bury, ClaimedJob, Done, GiveBack, RetryAt, Verdict

Cause = Literal["timeout", "abort", "lost"]
DONE: Final = Done()

log = structlog.get_logger()


@dataclass(slots=True, eq=False)
class Run:
    """One running job, and why it was cancelled if it was."""

    job: ClaimedJob
    function: Function | CronJob
    terms: Terms
    start_ms: int
    task: asyncio.Task[None] | None = None
    cause: Cause | None = None
    started: bool = False

    @property
    def ref(self) -> str:
        """The job's name in arq's words."""
        name = self.job.function
        return name if isinstance(self.function, CronJob) else f"{self.job.job_id}:{name}"

    def cancel(self, cause: Cause) -> None:
        """Cancel the job; the first cause stands."""
        if self.cause is None:
            self.cause = cause
            # A task cancelled before its first step would never reach its own end.
            if self.started and self.task is not None:
                self.task.cancel()


def _time_out(run: Run) -> None:
    run.cancel("timeout")


class PlainJobs:
    """Runs arq functions.

    Args:
        worker: its functions, hooks, context, limits and counters are used and kept up to date.
        outbox: where settlements go.
        policy: decides on errors; None as in arq: an exception ends the job.
        narration: tells the log.
        stopping: whether a cancellation is the worker's own shutdown.
        ended: called once per job when its slot is free again.
    """

    def __init__(
        self,
        worker: arq.Worker,
        outbox: Outbox,
        *,
        policy: Policy | None,
        narration: Narration,
        stopping: Callable[[], bool],
        ended: Callable[[], None],
    ) -> None:
        self.running: dict[str, Run] = {}
        self._worker = worker
        self._outbox = outbox
        self._policy = policy
        self._narration = narration
        self._stopping = stopping
        self._ended = ended
        self._terms: dict[str, Terms] = {}
        self._deadlines = Deadlines(_time_out)
        self._last_ms, self._last_moment = 0, ms_to_datetime(0)

    def start(self, jobs: Iterable[tuple[ClaimedJob, Function | CronJob]]) -> None:
        """Run jobs in a task each, or bury those whose tries are used up."""
        tasks, running, start_ms = self._worker.tasks, self.running, timestamp_ms()
        create_task = self._worker.loop.create_task
        timed: defaultdict[float, list[Run]] = defaultdict(list)
        for job, function in jobs:
            terms = self._terms.get(job.function)
            if terms is None:
                terms = self._terms[job.function] = Terms.of(function, self._worker)
            if job.attempt > terms.max_tries:
                error = JobExecutionFailed(f"max {terms.max_tries} retries exceeded")
                self.refuse(job, error, max_tries=terms.max_tries)
                continue
            run = running[job.job_id] = Run(job, function, terms, start_ms)
            run.task = tasks[job.job_id] = create_task(self._run(run))
            if terms.timeout is not None:
                timed[terms.timeout].append(run)
        for seconds, runs in timed.items():
            self._deadlines.add(runs, seconds)

    def refuse(self, job: ClaimedJob, error: BaseException, *, max_tries: int = 0) -> None:
        """End a job that cannot be started; its payload goes to the dead letters, an aborted one's nowhere."""
        worker = self._worker
        worker.jobs_failed += 1
        self._narration.refused(job, error, max_tries=max_tries)
        verdict = Done() if isinstance(error, asyncio.CancelledError) else Bury(code_of(error), str(error))
        now = timestamp_ms()
        ref = f"{job.job_id}:{job.function or '<unknown>'}"
        keep = worker.keep_result_forever or worker.keep_result_s > 0
        result = self._serialise(job, ref, success=False, result=error, start_ms=now) if keep else None
        ttl = 0 if worker.keep_result_forever else to_ms(worker.keep_result_s)
        self._outbox.put(settle(job, verdict, cause=error, result=result, result_ttl_ms=ttl))
        self._ended()

    def abort(self, job_ids: Sequence[str]) -> None:
        """Cancel those of these jobs that run here, as `Job.abort()` asks."""
        for run in filter(None, map(self.running.get, job_ids)):
            self._worker.aborting_tasks.add(run.job.job_id)
            run.cancel("abort")

    def lost(self, job: ClaimedJob) -> None:
        """Another worker has the job: cancel it and settle nothing."""
        run = self.running.get(job.job_id)
        if run is not None and run.job is job:
            run.cancel("lost")

    def give_back_rest(self) -> None:
        """Give back what was cancelled before its first step; called when all tasks have ended."""
        for run in list(self.running.values()):
            self._end(run, settle(run.job, GiveBack()))
            self._forget(run)

    async def _run(self, run: Run) -> None:  # noqa: PLR0912 - every job passes here; in pieces it costs more.
        worker, job, terms, narrates = self._worker, run.job, run.terms, self._narration.narrate
        run.started = True
        context = {
            **worker.ctx,
            "job_id": job.job_id,
            "job_try": job.attempt,
            "enqueue_time": self._moment(job.enqueue_time_ms),
            "score": job.score_ms,
        }
        try:
            if run.cause is not None:
                raise asyncio.CancelledError  # noqa: TRY301 - as if it had been thrown in.
            if worker.on_job_start:
                await worker.on_job_start(context)
            if narrates:
                self._narration.started(job, run.ref, run.start_ms)
            result = await run.function.coroutine(context, *job.args, **job.kwargs)
            if narrates:
                self._narration.succeeded(run.ref, run.start_ms, result)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - `_failed` decides by class.
            if run.task is not None:
                run.task.uncancel()
            settlement = self._failed(run, error)
        else:
            worker.jobs_complete += 1
            if terms.result_ms is None and not terms.keep_ms:
                settlement = Settlement(job.job_id, job.token, attempt=job.attempt)
            else:
                settlement = self._final(run, DONE, success=True, result=result)
        finally:
            if terms.timeout is not None:
                self._deadlines.drop(run, terms.timeout)
        if worker.on_job_end:
            await self._hook(run, worker.on_job_end, context)
        self._end(run, settlement)
        if worker.after_job_end:
            await self._outbox.join()
            await self._hook(run, worker.after_job_end, context)
        self._forget(run)

    def _moment(self, ms: int) -> datetime:
        """A time of enqueueing; jobs of one push share it."""
        if ms != self._last_ms:
            self._last_ms, self._last_moment = ms, ms_to_datetime(ms)
        return self._last_moment

    async def _hook(self, run: Run, hook: StartupShutdown, context: dict[Any, Any]) -> None:
        """Call a hook; its failure must not take the worker down, as it does in arq."""
        try:
            await hook(context)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - see above; it is told.
            job_id = run.job.job_id
            log.warning("engine.hook_failed", job_id=job_id, error=code_of(error), trace=trace_of(error))

    def _end(self, run: Run, settlement: Settlement | None) -> None:
        """Free the slot."""
        if self.running.get(run.job.job_id) is run:
            del self.running[run.job.job_id]
        if settlement is not None:
            self._outbox.put(settlement)
        self._ended()

    def _forget(self, run: Run) -> None:
        tasks = self._worker.tasks
        if tasks.get(run.job.job_id) is run.task:
            del tasks[run.job.job_id]

    def _failed(self, run: Run, error: BaseException) -> Settlement | None:
        """What becomes of a job that raised; None when it is not ours any more."""
        worker, job = self._worker, run.job
        cancelled = isinstance(error, asyncio.CancelledError)
        if run.cause == "lost":
            return None
        if cancelled and run.cause == "timeout":
            error, cancelled = TimeoutError(), False
        if cancelled and run.cause == "abort":
            worker.aborting_tasks.discard(job.job_id)
            worker.jobs_failed += 1
            self._narration.aborted(run.ref, run.start_ms)
            return self._final(run, DONE, success=False, result=error)
        verdict: Verdict
        if worker.retry_jobs and isinstance(error, Retry):
            verdict = RetryAt((error.defer_score or 0) / 1000)
            self._narration.retrying(run.ref, run.start_ms, verdict.delay)
        elif worker.retry_jobs and (cancelled or isinstance(error, RetryJob)):
            verdict = GiveBack() if cancelled and self._stopping() else RetryAt(0.0)
            self._narration.cancelled(run.ref, run.start_ms)
        else:
            self._narration.failed(job, run.ref, run.start_ms, error)
            verdict = self._decide(job, error)
        if isinstance(verdict, RetryAt | GiveBack):
            worker.jobs_retried += 1
            return settle(job, verdict)
        worker.jobs_failed += 1
        return self._final(run, verdict, success=False, result=error)

    def _decide(self, job: ClaimedJob, error: BaseException) -> Verdict:
        if self._policy is None:
            return Bury(code_of(error), message_of(error))
        age = (timestamp_ms() - job.enqueue_time_ms) / 1000
        jitter = random.random()  # noqa: S311 - spreads retries; not a secret.
        return decide(error, job.attempt, age, jitter=jitter, policy=self._policy)

    def _final(self, run: Run, verdict: Verdict, *, success: bool, result: Any) -> Settlement:
        job, terms = run.job, run.terms
        data = None
        if terms.result_ms is not None:
            data = self._serialise(job, run.ref, success=success, result=result, start_ms=run.start_ms)
        cause = None if success else result
        ttl = terms.result_ms or 0
        return settle(job, verdict, cause=cause, result=data, result_ttl_ms=ttl, keep_ms=terms.keep_ms)

    def _serialise(
        self, job: ClaimedJob, ref: str, *, success: bool, result: Any, start_ms: int
    ) -> bytes | None:
        return serialize_result(
            job.function or "<unknown>",
            tuple(job.args),
            dict(job.kwargs),
            job.attempt,
            job.enqueue_time_ms,
            success,
            result,
            start_ms,
            timestamp_ms(),
            ref,
            self._worker.queue_name,
            job.job_id,
            serializer=self._worker.job_serializer,
        )
