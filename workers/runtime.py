"""Claimed jobs pass through here: ids become events, events go to their handlers, and what they did is committed.

For each claim the engine hands over, one ledger call loads the events; each handler runs by itself; outcomes that are
ready at the same time share a transaction (`workers.commit`). Only then does the engine hear the verdict.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

import structlog

from infra import ledger
from infra.coalesce import Coalescer
from infra.database import Database
from infra.ledger import NotYet
from schemas.errors import LeaseLost, NewerThanWorker, PenstockError, Unavailable
from schemas.work import Work
from workers.commit import Committer, Ending
from workers.engine import policy
from workers.engine.types import Bury, ClaimedJob, Done, GiveBack, Gone, Report, Verdict
from workers.handling import HandlerSpec, Later, Outcome

_log = structlog.get_logger("penstock.runtime")
WORKER_LOST = "worker_lost"


class WorkerLost(PenstockError):
    """The worker died each time it held this event."""

    code = WORKER_LOST


class Runtime:
    """The engine's batch runner for ledgered work."""

    def __init__(self, database: Database, committer: Committer, handlers: Mapping[str, HandlerSpec]) -> None:
        """Run events of these types.

        Args:
            database: acts as the role ``penstock_worker``.
            committer: writes outcomes in groups.
            handlers: event type → how it is handled.
        """
        self._database = database
        self._committer = committer
        self._handlers = handlers
        self._running: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._claim: Coalescer[tuple[UUID, int], Work | NotYet | None] = Coalescer(
            self._claim_group, limit=1000, parallel=2
        )

    async def start(self, jobs: Sequence[ClaimedJob], report: Report) -> None:
        """Run the jobs of one claim; each is reported once, when its outcome is committed."""
        tasks: list[asyncio.Task[None]] = []
        for job in jobs:
            task = asyncio.create_task(self._one(job, report), name=f"{job.function}:{job.job_id}")
            self._running[job.job_id, job.token] = task
            task.add_done_callback(partial(self._forget, (job.job_id, job.token)))
            tasks.append(task)
        try:
            for ended in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(ended, Exception):
                    _log.error(
                        "runtime.broken",
                        exc_info=ended,
                        next_step="a bug in the runtime; the engine gives the job back",
                    )
        except asyncio.CancelledError:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise

    def _forget(self, key: tuple[str, int], task: asyncio.Task[None]) -> None:
        del task
        self._running.pop(key, None)

    def lost(self, job: ClaimedJob) -> None:
        """Another worker may have this job: stop it. Its commit would be refused by the fencing token anyway."""
        task = self._running.get((job.job_id, job.token))
        if task is not None:
            task.cancel()

    async def bury_lost(self, jobs: Sequence[ClaimedJob], report: Report) -> None:
        """Bury events whose worker died with them too often."""
        for job in jobs:
            work = await self._load(job, report)
            if work is None:
                continue
            error = WorkerLost(
                f"the worker died {job.losses} times while it held this event", fix="look at the worker's log"
            )
            await self._end(
                job, report, Ending(work, None, Bury(error.code, error.message), error, self._spec(work))
            )

    async def _one(self, job: ClaimedJob, report: Report) -> None:
        work = await self._load(job, report)
        if work is None:
            return
        spec = self._handlers.get(work.type)
        started = time.monotonic()
        outcome: Outcome | None = None
        error: BaseException | None = None
        with structlog.contextvars.bound_contextvars(
            event_id=str(work.event_id), tenant=work.tenant_id, type=work.type, attempt=work.attempt
        ):
            try:
                outcome = await (_no_handler if spec is None else spec.handle)(work)
            except asyncio.CancelledError:
                # Shutdown or a lost lease: the engine gives the job back or somebody else has it.
                raise
            except Exception as raised:  # noqa: BLE001 - the boundary where every error gets its verdict
                error = raised
                if not isinstance(raised, PenstockError):
                    _log.exception(
                        "runtime.handler_crashed", next_step="a bug in the handler; the event is tried again"
                    )
            verdict = self._decide(work, spec, outcome, error)
            await self._end(job, report, Ending(work, outcome, verdict, error, spec))
            _log.info(
                "runtime.attempt",
                verdict=type(verdict).__name__,
                error=None if error is None else policy.code_of(error),
                ms=round((time.monotonic() - started) * 1000, 1),
            )

    async def _load(self, job: ClaimedJob, report: Report) -> Work | None:
        """The event of a job, or None when the job is already reported: gone, not due, or not in the ledger."""
        try:
            event_id = UUID(job.job_id)
        except ValueError:
            report(job, Bury("not_in_ledger", "the job id is not an event id; publish through Penstock"))
            return None
        try:
            found = await self._claim((event_id, job.token))
            if isinstance(found, Work):
                return found
            if isinstance(found, NotYet):
                report(job, GiveBack(found.delay))
            elif event_id in await ledger.known(self._database, [event_id]):
                report(job, Gone())
            else:
                report(job, Bury("not_in_ledger", "no event has this id; publish through Penstock"))
        except PenstockError as error:
            _log.warning("runtime.ledger_away", error=error.code, next_step="the job is given back")
            report(job, GiveBack(1.0))
        return None

    def _decide(
        self, work: Work, spec: HandlerSpec | None, outcome: Outcome | None, error: BaseException | None
    ) -> Verdict:
        if error is None:
            return GiveBack(outcome.delay) if isinstance(outcome, Later) else Done()
        bounds = policy.Policy(
            max_attempts=spec.max_attempts if spec is not None else policy.DEFAULT.max_attempts
        )
        age = (datetime.now(UTC) - work.accepted_at).total_seconds()
        return policy.decide(error, work.attempt, age, jitter=random.random(), policy=bounds)  # noqa: S311 - jitter

    async def _end(self, job: ClaimedJob, report: Report, ending: Ending) -> None:
        """Commit, then report; an effect that fails gets a verdict of its own."""
        try:
            await self._committer.commit(ending)
        except LeaseLost:
            report(job, Gone())
            return
        except Unavailable as error:
            # Nobody knows whether the commit arrived; the lease of the row tells the next claim.
            _log.warning(
                "runtime.commit_failed", error=error.code, next_step="the job is given back and claimed again"
            )
            report(job, GiveBack(1.0))
            return
        except Exception as error:  # noqa: BLE001 - the effect failed: decide about that error
            if ending.outcome is None:
                _log.exception("runtime.burial_failed", next_step="the job is given back")
                report(job, GiveBack(5.0))
                return
            if not isinstance(error, PenstockError):
                _log.exception(
                    "runtime.effect_crashed", next_step="a bug in the effect; the event is tried again"
                )
            verdict = self._decide(ending.work, ending.spec, None, error)
            await self._end(job, report, Ending(ending.work, None, verdict, error, ending.spec))
            return
        report(job, self._told(ending))

    @staticmethod
    def _told(ending: Ending) -> Verdict:
        """The verdict as the engine must carry it out in Redis: burials are ledgered already."""
        if isinstance(ending.verdict, Bury):
            return Bury(ending.verdict.reason, ending.verdict.message, ledgered=True)
        return ending.verdict

    def _spec(self, work: Work) -> HandlerSpec | None:
        return self._handlers.get(work.type)

    async def _claim_group(self, wanted: Sequence[tuple[UUID, int]]) -> Sequence[Work | NotYet | None]:
        found = await ledger.claim(self._database, wanted)
        return [found.get(event_id) for event_id, _ in wanted]


async def _no_handler(work: Work) -> Outcome:
    raise NewerThanWorker(f"this pool has no handler for {work.type}", fix="upgrade the workers")
