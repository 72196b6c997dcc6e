"""Claimed jobs go from here to the batch runner, all of a claim together, and its verdicts go to the outbox.

The runner is trusted with the work but not with the slots: a job that it reports twice counts once, and one that it
never reports is given back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from workers.engine.deadletters import trace_of
from workers.engine.outbox import Outbox
from workers.engine.outcome import settle
from workers.engine.policy import code_of
from workers.engine.types import BatchRunner, ClaimedJob, GiveBack, Report, Verdict

FORGOTTEN_DELAY = 5.0

Begin = Callable[[Sequence[ClaimedJob], Report], Awaitable[None]]

log = structlog.get_logger()


class Handover:
    """Hands claimed jobs to a batch runner.

    Args:
        runner: who knows what the jobs mean.
        outbox: where settlements go.
        tasks: running tasks by name, cancelled on shutdown by the worker.
        stopping: whether the worker is shutting down.
        ended: called once per job when its slot is free again, with the verdict (None: lease lost).
    """

    def __init__(
        self,
        runner: BatchRunner,
        outbox: Outbox,
        *,
        tasks: dict[str, asyncio.Task[None]],
        stopping: Callable[[], bool],
        ended: Callable[[Verdict | None], None],
    ) -> None:
        self._runner = runner
        self._outbox = outbox
        self._tasks = tasks
        self._stopping = stopping
        self._ended = ended
        self._open: dict[tuple[str, int], ClaimedJob] = {}

    def start(self, jobs: Sequence[ClaimedJob]) -> None:
        """Hand over the jobs of one claim."""
        self._begin("run", jobs, self._runner.start)

    def judge(self, jobs: Sequence[ClaimedJob]) -> None:
        """Have the runner decide about jobs whose worker died too often."""
        self._begin("judge", jobs, self._runner.judge_lost)

    def lost(self, job: ClaimedJob) -> None:
        """Another worker has the job: tell the runner, and expect no verdict."""
        if self._open.pop((job.job_id, job.token), None) is not None:
            self._ended(None)
            self._runner.lost(job)

    def report(self, job: ClaimedJob, verdict: Verdict) -> None:
        """Take the verdict on a job and free its slot."""
        if self._open.pop((job.job_id, job.token), None) is None:
            log.debug("engine.report_ignored", job_id=job.job_id)
            return
        self._outbox.put(settle(job, verdict))
        self._ended(verdict)

    def _begin(self, what: str, jobs: Sequence[ClaimedJob], begin: Begin) -> None:
        for job in jobs:
            self._open[job.job_id, job.token] = job
        name = f"{what}:{jobs[0].token}:{jobs[0].job_id}"
        self._tasks[name] = asyncio.get_running_loop().create_task(self._run(name, jobs, begin))

    def give_back_rest(self) -> None:
        """Give back what was cancelled before its first step; called when all tasks have ended."""
        for job in list(self._open.values()):
            self.report(job, GiveBack())

    async def _run(self, name: str, jobs: Sequence[ClaimedJob], begin: Begin) -> None:
        delay = FORGOTTEN_DELAY
        try:
            await begin(jobs, self.report)
        except asyncio.CancelledError:
            if not self._stopping():
                raise
            delay = 0.0
        except Exception as error:  # noqa: BLE001 - the runner's failure is reported; its jobs are given back.
            log.warning("engine.runner_failed", jobs=len(jobs), error=code_of(error), trace=trace_of(error))
        finally:
            self._tasks.pop(name, None)
            for job in jobs:
                if (job.job_id, job.token) in self._open:
                    self.report(job, GiveBack(delay))
