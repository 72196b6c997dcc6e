"""Jobs whose function is registered with the worker run here, as in arq; their outcomes go to the outbox.

Each job is one task. It is cancelled by its timeout, by `Job.abort()`, by a lost lease or by the worker's shutdown;
only what the job did itself costs an attempt.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import arq
import structlog
from arq.constants import keep_cronjob_progress
from arq.cron import CronJob
from arq.jobs import serialize_result
from arq.utils import ms_to_datetime, timestamp_ms, to_ms
from arq.worker import Function, JobExecutionFailed, Retry, RetryJob

from workers.engine.deadletters import trace_of
from workers.engine.narration import Narration
from workers.engine.outbox import Outbox
from workers.engine.outcome import settle
from workers.engine.policy import Policy, code_of, decide, message_of
from workers.engine.store import Settlement
from workers.engine.types import Bury, ClaimedJob, Done, GiveBack, RetryAt, Verdict

Cause = Literal["timeout", "abort", "lost"]

log = structlog.get_logger()


@dataclass(slots=True)
class Run:
    """One running job, and why it was cancelled if it was."""

    job: ClaimedJob
    function: Function | CronJob
    ref: str
    start_ms: int
    task: asyncio.Task[None] | None = None
    cause: Cause | None = None

    def cancel(self, cause: Cause) -> None:
        """Cancel the job; the first cause stands."""
        if self.cause is None and self.task is not None:
            self.cause = cause
            self.task.cancel()


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

    def start(self, job: ClaimedJob, function: Function | CronJob) -> None:
        """Run a job in a task of its own, or bury it when its tries are used up."""
        worker = self._worker
        max_tries = worker.max_tries if function.max_tries is None else function.max_tries
        if job.attempt > max_tries:
            self.refuse(job, JobExecutionFailed(f"max {max_tries} retries exceeded"), max_tries=max_tries)
            return
        ref = job.function if isinstance(function, CronJob) else f"{job.job_id}:{job.function}"
        run = Run(job, function, ref, timestamp_ms())
        run.task = worker.tasks[job.job_id] = worker.loop.create_task(self._run(run))
        self.running[job.job_id] = run

    def refuse(self, job: ClaimedJob, error: BaseException, *, max_tries: int = 0) -> None:
        """End a job that cannot be started; its payload goes to the dead letters, an aborted one nowhere."""
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

    async def _run(self, run: Run) -> None:
        worker, job = self._worker, run.job
        context = {
            **worker.ctx,
            "job_id": job.job_id,
            "job_try": job.attempt,
            "enqueue_time": ms_to_datetime(job.enqueue_time_ms),
            "score": job.score_ms,
        }
        settlement: Settlement | None = None
        try:
            settlement = await self._execute(run, context)
            if worker.on_job_end:
                await worker.on_job_end(context)
        except Exception as error:  # noqa: BLE001 - a hook's failure must not take the worker down, as in arq.
            log.warning("engine.hook_failed", job_id=job.job_id, error=code_of(error), trace=trace_of(error))
        finally:
            if self.running.get(job.job_id) is run:
                del self.running[job.job_id]
            if settlement is not None:
                self._outbox.put(settlement)
            self._ended()
            if worker.after_job_end is None:
                self._forget(run)
        if worker.after_job_end is not None:
            await self._after(run, context)

    async def _after(self, run: Run, context: dict[Any, Any]) -> None:
        try:
            await self._outbox.join()
            if self._worker.after_job_end is not None:
                await self._worker.after_job_end(context)
        except Exception as error:  # noqa: BLE001 - as above.
            log.warning(
                "engine.hook_failed", job_id=run.job.job_id, error=code_of(error), trace=trace_of(error)
            )
        finally:
            self._forget(run)

    def _forget(self, run: Run) -> None:
        tasks = self._worker.tasks
        if tasks.get(run.job.job_id) is run.task:
            del tasks[run.job.job_id]

    async def _execute(self, run: Run, context: dict[Any, Any]) -> Settlement | None:
        worker, job, function = self._worker, run.job, run.function
        seconds = worker.job_timeout_s if function.timeout_s is None else function.timeout_s
        timer = None if seconds is None else worker.loop.call_later(seconds, run.cancel, "timeout")
        try:
            if worker.on_job_start:
                await worker.on_job_start(context)
            self._narration.started(job, run.ref, run.start_ms)
            result = await function.coroutine(context, *job.args, **job.kwargs)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - `_failed` decides by class.
            if run.task is not None:
                run.task.uncancel()
            return self._failed(run, error)
        finally:
            if timer is not None:
                timer.cancel()
        worker.jobs_complete += 1
        self._narration.succeeded(run.ref, run.start_ms, result)
        return self._final(run, Done(), success=True, result=result)

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
            return self._final(run, Done(), success=False, result=error)
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
        worker, function = self._worker, run.function
        for_ever = (
            worker.keep_result_forever
            if function.keep_result_forever is None
            else function.keep_result_forever
        )
        seconds = worker.keep_result_s if function.keep_result_s is None else function.keep_result_s
        data = None
        if for_ever or seconds > 0:
            data = self._serialise(run.job, run.ref, success=success, result=result, start_ms=run.start_ms)
        keep = to_ms(keep_cronjob_progress) if isinstance(function, CronJob) else 0
        cause = None if success else result
        ttl = 0 if for_ever else to_ms(seconds)
        return settle(run.job, verdict, cause=cause, result=data, result_ttl_ms=ttl, keep_ms=keep)

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
