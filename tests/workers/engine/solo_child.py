"""The child process of the isolation tests: its runner does what the job's function name says."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence

from workers.engine.solo import run_solo
from workers.engine.types import ClaimedJob, Done, Report, RetryAt


class Child:
    """A runner for one job."""

    async def start(self, jobs: Sequence[ClaimedJob], report: Report) -> None:
        """Die, hang, retry or finish; the pid is left in a file named by the first argument."""
        (job,) = jobs
        if job.function == "hang":
            with open(job.args[0], "w") as file:  # noqa: ASYNC230, PTH123 - a test's marker.
                file.write(str(os.getpid()))
            await asyncio.Event().wait()
        if job.function == "poison":
            os.kill(os.getpid(), signal.SIGKILL)
        report(job, RetryAt(0.0) if job.function == "again" and job.attempt == 1 else Done())

    async def judge_lost(self, jobs: Sequence[ClaimedJob], report: Report) -> None:
        """Is the parent's business."""
        raise NotImplementedError

    def lost(self, job: ClaimedJob) -> None:
        """Is the parent's business."""
        raise NotImplementedError


if __name__ == "__main__":
    asyncio.run(run_solo(Child()))
    sys.exit(0)
