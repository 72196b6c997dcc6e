"""A job whose worker died at least twice runs in a child process here, one at a time, while the others go on.

The child is a command that opens what the pool's runner needs and calls `solo.run_solo`. If it ends without a
verdict, the loss is charged at once, without waiting for a lease to run out.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress

import structlog

from workers.engine.outbox import Outbox
from workers.engine.outcome import settle
from workers.engine.solo import FD_VARIABLE, LINE, pack_job, unpack_verdict
from workers.engine.store import Settlement
from workers.engine.types import ClaimedJob, GiveBack, Verdict

log = structlog.get_logger()


class Isolation:
    """Runs suspects in a child process.

    Args:
        command: argv of the child; it inherits the environment.
        outbox: where settlements go.
        tasks: running tasks by name, cancelled on shutdown by the worker.
        ended: called once per job when it is settled, with the verdict (None: its process died, or the lease is lost).
    """

    def __init__(
        self,
        command: Sequence[str],
        outbox: Outbox,
        *,
        tasks: dict[str, asyncio.Task[None]],
        ended: Callable[[Verdict | None], None],
    ) -> None:
        self._command = command
        self._outbox = outbox
        self._tasks = tasks
        self._ended = ended
        self._job: ClaimedJob | None = None
        self._lost = False

    @property
    def busy(self) -> bool:
        """Whether a suspect runs."""
        return self._job is not None

    def start(self, job: ClaimedJob) -> None:
        """Run a suspect."""
        self._job, self._lost = job, False
        name = f"alone:{job.token}:{job.job_id}"
        self._tasks[name] = asyncio.get_running_loop().create_task(self._run(name, job))

    def lost(self, job: ClaimedJob) -> None:
        """Another worker has the job: end its process and settle nothing."""
        if self._job is job:
            self._lost = True
            self._tasks[f"alone:{job.token}:{job.job_id}"].cancel()

    def give_back_rest(self) -> None:
        """Give back what was cancelled before its first step; called when all tasks have ended."""
        if self._job is not None:
            self._settle(settle(self._job, GiveBack()), GiveBack())

    async def _run(self, name: str, job: ClaimedJob) -> None:
        verdict: Verdict | None = GiveBack()
        try:
            verdict = await self._in_child(job)
        finally:
            self._tasks.pop(name, None)
            if verdict is not None:
                self._settle(settle(job, verdict), verdict)
            else:
                log.warning("engine.suspect_died", job_id=job.job_id, losses=job.losses + 1)
                self._settle(Settlement(job.job_id, job.token, "lost", outcome="lost"), None)

    def _settle(self, settlement: Settlement, verdict: Verdict | None) -> None:
        self._job = None
        if not self._lost:
            self._outbox.put(settlement)
        self._ended(None if self._lost else verdict)

    async def _in_child(self, job: ClaimedJob) -> Verdict | None:
        """The verdict, or None when the child ended without one."""
        ours, theirs = socket.socketpair()
        try:
            child = await asyncio.create_subprocess_exec(
                *self._command,
                env={**os.environ, FD_VARIABLE: str(theirs.fileno())},
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        log.info("engine.suspect_started", job_id=job.job_id, losses=job.losses, pid=child.pid)
        reader, writer = await asyncio.open_connection(sock=ours, limit=LINE)
        try:
            with suppress(ConnectionError, ValueError):  # it died while it was told, or while it answered
                writer.write(pack_job(job))
                await writer.drain()
                line = await reader.readline()
                return unpack_verdict(line) if line else None
            return None
        finally:
            writer.close()
            if child.returncode is None:
                child.kill()
            await child.wait()
