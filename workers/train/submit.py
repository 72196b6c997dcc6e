"""A run whose files are uploaded gets its paid job here: one, whatever crashes and whenever (promise P4).

Before the call the right to make it is taken in a transaction of its own (`called_at`). Whoever finds it taken does not
know whether the job exists: it looks for it by metadata at once, again after every call of ours must have ended, and
once more after that; it adopts what it finds, and only after all three looks were in vain it takes the right again.
A refusal (4xx) is the one certain no; it gives the right back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import structlog

from infra.database import Connection, queries
from infra.trainer import is_certain
from infra.trainer_replies import Job
from schemas.errors import PenstockError
from schemas.states import RunState
from schemas.work import Publication
from workers.handling import Later, Outcome
from workers.train.ending import CANCELLED, ended_without_model
from workers.train.own_jobs import find_own_jobs, metadata_of, state_of
from workers.train.runs import Run, Wing, note

SETTLE = 5.0
"""Seconds that a server may need, after the end of a call, to show the job in its list."""
LOOKS = 3
_log = structlog.get_logger("penstock.train")


async def submit(wing: Wing, run: Run) -> Outcome:
    """One step in the state ``submitted``."""
    if run.called_at is not None:
        return await _look(wing, run)
    if run.cancel_asked_at is not None:
        return ended_without_model(wing, run, RunState.CANCELLED, CANCELLED)
    return await _create(wing, run)


async def _create(wing: Wing, run: Run) -> Outcome:
    called_at = await _take_right(wing, run)
    if called_at is None:
        return Later(1.0, reason="somebody else holds the right to create the job")
    assert run.train_file is not None
    metadata = await metadata_of(wing, run)
    try:
        # The whole call ends within the time that `_look` waits, however slowly a server drips its reply.
        async with asyncio.timeout(wing.resources.settings.model_timeout):
            job = await wing.trainer.create_job(
                model=run.base_model,
                training_file=run.train_file,
                validation_file=run.validation_file,
                suffix=f"ps-{run.run_id.hex}",
                metadata=metadata,
                epochs=run.epochs,
                seed=wing.resources.settings.train_seed,
            )
    except PenstockError as error:
        if is_certain(error):
            await _give_right_back(wing, run, called_at)
            raise
        return _in_doubt(run, error.code)
    except TimeoutError:
        return _in_doubt(run, "timeout")
    return _adopted(run, job, "created")


def _in_doubt(run: Run, code: str) -> Later:
    _log.warning("train.create_in_doubt", run_id=str(run.run_id), error=code)
    return _waiting(run, 0, "create_in_doubt", 0.0)


async def _look(wing: Wing, run: Run) -> Outcome:
    jobs = await find_own_jobs(wing, run)
    if jobs:
        # The first that did not fail; a second one can only come from a process that was stopped within the call.
        jobs.sort(key=lambda job: job.status in {"failed", "cancelled"})
        for extra in jobs[1:]:
            if not extra.has_ended:
                await wing.trainer.cancel_job(extra.job_id)
        return _adopted(run, jobs[0], "adopted")
    looks = run.empty_lists + 1
    if looks < LOOKS:
        # The first wait outlasts every call that may still be under way; the second one a list that lags behind.
        wait = wing.resources.settings.model_timeout + SETTLE if looks == 1 else SETTLE
        return _waiting(run, looks, "job_not_found", wait)
    if run.cancel_asked_at is not None:
        return ended_without_model(wing, run, RunState.CANCELLED, CANCELLED)
    silent = (datetime.now(UTC) - (run.heard_at or run.started_at)).total_seconds()
    if silent > wing.resources.settings.train_stall:
        error = {"code": "stalled", "message": "the trainer does not create the job"}
        return ended_without_model(wing, run, RunState.FAILED, error)
    return await _create(wing, run)


async def _take_right(wing: Wing, run: Run) -> datetime | None:
    async with wing.resources.database.transaction(run.tenant_id) as connection:
        taken: datetime | None = await connection.fetchval(
            queries("train").may_call, run.tenant_id, run.run_id, run.called_at
        )
    return taken


async def _give_right_back(wing: Wing, run: Run, called_at: datetime) -> None:
    async with wing.resources.database.transaction(run.tenant_id) as connection:
        await connection.execute(queries("train").not_called, run.tenant_id, run.run_id, called_at)


def _waiting(run: Run, looks: int, what: str, wait: float) -> Later:
    async def effect(connection: Connection) -> Sequence[Publication]:
        await connection.execute(queries("train").looked, run.tenant_id, run.run_id, looks)
        await note(connection, run, what, looks=looks)
        return []

    return Later(wait, effect, reason=what.replace("_", " "))


def _adopted(run: Run, job: Job, how: str) -> Later:
    state = state_of(job.status, RunState.VALIDATING)

    async def effect(connection: Connection) -> Sequence[Publication]:
        await connection.execute(
            queries("train").set_job, run.tenant_id, run.run_id, str(state), job.job_id, job.status
        )
        await note(connection, run, f"job_{how}", job_id=job.job_id)
        return []

    return Later(0.0, effect)
