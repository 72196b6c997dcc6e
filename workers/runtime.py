"""Claimed jobs pass through here: ids become events, events go to their handlers, and what they did is committed.

For each claim the engine hands over, one ledger call loads the events; each handler runs by itself; outcomes that are
ready at the same time share a transaction (`workers.commit`). Only then does the engine hear the verdict.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TypeAlias
from uuid import UUID

import structlog

from infra import attempts, ledger, log
from infra.attempts import Finish, NotYet
from infra.coalesce import Coalescer
from infra.database import Database
from schemas.errors import LeaseLost, NewerThanWorker, PenstockError, Permanent, Unavailable
from schemas.states import EventState
from schemas.work import Work
from workers.commit import Committer, Ending
from workers.engine import policy
from workers.engine.types import Bury, ClaimedJob, Done, GiveBack, Gone, Report, Verdict
from workers.handling import HandlerSpec, Later, Outcome

_log = structlog.get_logger("penstock.runtime")
NOT_IN_LEDGER = "not_in_ledger"
RELEASE = 3.0
LOST_MARK = 1.0
"""Seconds that a stopping worker waits for the ledger to take its events back."""

_Claimed: TypeAlias = Sequence[tuple[UUID, int]]
_Handle: TypeAlias = Callable[[ClaimedJob, Work], Awaitable[Outcome]]


class WorkerLost(Permanent):
    """The worker died each time it held this event."""

    code = "worker_lost"


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
        self._claim: Coalescer[_Claimed, Mapping[UUID, Work | NotYet]] = Coalescer(
            self._claim_group, limit=64, weight=len, weight_limit=1000, parallel=2
        )

    async def start(self, jobs: Sequence[ClaimedJob], report: Report) -> None:
        """Run the jobs of one claim; each is reported once, when its outcome is committed."""
        await self._each(jobs, report, self._handle)

    async def judge_lost(self, jobs: Sequence[ClaimedJob], report: Report) -> None:
        """Bury events whose worker died with them too often, unless their handler knows better."""
        await self._each(jobs, report, self._judge)

    async def _each(self, jobs: Sequence[ClaimedJob], report: Report, handle: _Handle) -> None:
        create_task = asyncio.get_running_loop().create_task
        tasks: dict[asyncio.Task[None], tuple[ClaimedJob, Work]] = {}
        for job, work in await self._load(jobs, report):
            task = create_task(self._one(job, work, report, handle))
            self._running[job.job_id, job.token] = task
            tasks[task] = job, work
        if not tasks:
            return
        try:
            await asyncio.wait(tasks)
        except asyncio.CancelledError:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await self._release([work for task, (_, work) in tasks.items() if task.cancelled()])
            raise
        finally:
            for job, _ in tasks.values():
                self._running.pop((job.job_id, job.token), None)
        for task in tasks:
            if not task.cancelled() and (error := task.exception()) is not None:
                _log.error(
                    "runtime.broken",
                    exc_info=error,
                    next_step="a bug in the runtime; the engine gives the job back",
                )

    def lost(self, job: ClaimedJob) -> None:
        """Another worker may have this job: stop it. Its commit would be refused by the fencing token anyway."""
        task = self._running.get((job.job_id, job.token))
        if task is not None:
            task.cancel()

    async def _handle(self, job: ClaimedJob, work: Work) -> Outcome:
        del job
        spec = self._handlers.get(work.type)
        if spec is None:
            raise NewerThanWorker(f"this pool has no handler for {work.type}", fix="upgrade the workers")
        return await spec.handle(work)

    async def _judge(self, job: ClaimedJob, work: Work) -> Outcome:
        spec = self._handlers.get(work.type)
        error = WorkerLost(
            f"the worker died {job.losses} times while it held this event", fix="look at the worker's log"
        )
        if spec is None or spec.on_lost is None:
            raise error
        outcome = await spec.on_lost(work, error)
        return replace(outcome, forgiven=True) if isinstance(outcome, Later) else outcome

    async def _one(self, job: ClaimedJob, work: Work, report: Report, handle: _Handle) -> None:
        """Handle one event, in a task of its own: what is bound to its log lines ends with the task."""
        spec = self._handlers.get(work.type)
        started = time.monotonic()
        outcome: Outcome | None = None
        error: BaseException | None = None
        log.bind(event_id=job.job_id, tenant=work.tenant_id, type=work.type, attempt=work.attempt)
        try:
            outcome = await handle(job, work)
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

    async def _load(self, jobs: Sequence[ClaimedJob], report: Report) -> list[tuple[ClaimedJob, Work]]:
        """The events of these jobs; jobs without one are reported here: gone, not due, or not in the ledger."""
        wanted: dict[UUID, ClaimedJob] = {}
        for job in jobs:
            try:
                wanted[ledger.event_uuid(job.job_id)] = job
            except ValueError:
                report(job, Bury(NOT_IN_LEDGER, "the job id is not an event id; publish through Penstock"))
        if not wanted:
            return []
        loaded: list[tuple[ClaimedJob, Work]] = []
        missing: list[UUID] = []
        try:
            found = await self._claim([(event_id, job.token) for event_id, job in wanted.items()])
            for event_id, job in wanted.items():
                match found.get(event_id):
                    case Work() as work:
                        loaded.append((job, work))
                    case NotYet(delay):
                        report(job, GiveBack(delay))
                    case None:
                        missing.append(event_id)
        except PenstockError as error:
            _log.warning("runtime.ledger_away", error=error.code, next_step="the jobs are given back")
            for job in wanted.values():
                report(job, GiveBack(1.0))
            return []
        if missing:
            await self._report_missing([wanted[event_id] for event_id in missing], report)
        return loaded

    async def _report_missing(self, jobs: Sequence[ClaimedJob], report: Report) -> None:
        """Jobs that the ledger did not give: finished already, or never entered."""
        try:
            known = await attempts.known(self._database, [ledger.event_uuid(job.job_id) for job in jobs])
        except PenstockError as error:
            _log.warning("runtime.ledger_away", error=error.code, next_step="the jobs are given back")
            for job in jobs:
                report(job, GiveBack(1.0))
            return
        for job in jobs:
            if ledger.event_uuid(job.job_id) in known:
                report(job, Gone())
            else:
                report(job, Bury(NOT_IN_LEDGER, "no event has this id; publish through Penstock"))

    async def _release(self, works: Sequence[Work]) -> None:
        """Mark events of a worker that stops as accepted again: a running row that is claimed anew counts as a loss."""
        if not works:
            return
        try:
            async with asyncio.timeout(RELEASE):
                await attempts.finish_bare(
                    self._database,
                    [Finish(work, EventState.ACCEPTED, work.attempt - 1, delay=0.0) for work in works],
                )
        except (PenstockError, TimeoutError) as error:
            _log.warning(
                "runtime.release_failed",
                events=len(works),
                error=type(error).__name__,
                next_step="the next claim counts a loss for each",
            )

    def _decide(
        self, work: Work, spec: HandlerSpec | None, outcome: Outcome | None, error: BaseException | None
    ) -> Verdict:
        if error is None:
            return GiveBack(outcome.delay, outcome.forgiven) if isinstance(outcome, Later) else Done()
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
            # Who took the event over holds its lease in Redis, and there this is refused. If nobody has, the mark of our
            # claim went with a database that crashed: then nobody else would ever run it.
            report(job, GiveBack(LOST_MARK))
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

    async def _claim_group(self, claims: Sequence[_Claimed]) -> Sequence[Mapping[UUID, Work | NotYet]]:
        """Claims of the engine that came at the same time share a call; each looks up its own in what it brought."""
        found = await attempts.claim(self._database, [pair for claim in claims for pair in claim])
        return [found] * len(claims)
