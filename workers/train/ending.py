"""A run ends here: its examples are used or free again, the next one may fire, and nothing stays at the provider."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import structlog

from infra.database import Connection, queries
from infra.training_trigger import fire_if_due, lock_dataset
from schemas.errors import PenstockError, Refused
from schemas.states import RunState, sources
from schemas.work import Publication, Work
from workers.handling import Done, Later, OnDead, Outcome
from workers.train.own_jobs import find_own_jobs
from workers.train.runs import Run, Wing, note, read_run

WITH_MODEL = frozenset({RunState.PROMOTED, RunState.REJECTED})
FIRST_PAUSE = timedelta(minutes=10)
LONGEST_PAUSE = timedelta(days=1)
_log = structlog.get_logger("penstock.train")


@dataclass(frozen=True, slots=True)
class Consequence:
    """What a run's end means for the dataset: failures in a row, and when something may start by itself again."""

    failures: int
    not_before: datetime | None


def consequence(state: RunState, failures: int, cooldown: float, now: datetime) -> Consequence:
    """Decide what follows: cool-down after a model, a growing pause after a failure, a day after "no" or "stop".

    Without the pause, the examples that a failed run gives back would start the next run at once.
    """
    calm = timedelta(seconds=cooldown)
    if state in WITH_MODEL:
        return Consequence(0, now + calm if cooldown > 0 else None)
    if state is RunState.FAILED:
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(failures, 10))
        return Consequence(failures + 1, now + max(calm, pause))
    failed = failures + 1 if state is RunState.UNAVAILABLE else failures
    return Consequence(failed, now + max(calm, LONGEST_PAUSE))


CANCELLED = {"code": "cancelled", "message": "the run was cancelled"}


async def end_run(
    connection: Connection, wing: Wing, run: Run, state: RunState, error: Mapping[str, Any] | None = None
) -> Sequence[Publication] | None:
    """The effect of an end, under the dataset's lock; it may start the next run.

    Args:
        connection: acts for the run's tenant.
        wing: for the budget, whose promise is given back where nothing was trained.
        run: as the step saw it.
        state: the final state.
        error: why, for the states that need a reason.

    Returns:
        What to say besides; None when the run had ended before, so that its end is said once.
    """
    sql = queries("train")
    dataset = await lock_dataset(connection, run.tenant_id, run.dataset)
    ended = await connection.fetchval(
        sql.end_run, run.tenant_id, run.run_id, str(state), error, sources(state)
    )
    if ended is None:
        return None
    await connection.execute(sql.use if state in WITH_MODEL else sql.give_back, run.tenant_id, run.run_id)
    if state not in WITH_MODEL:
        await wing.resources.budget.release_on(connection, run.reservation())
    next_one = consequence(state, dataset.failures, dataset.cooldown_seconds, datetime.now(UTC))
    await connection.execute(
        sql.set_outcome, run.tenant_id, run.dataset, next_one.failures, next_one.not_before
    )
    await note(connection, run, str(state), **({"error": dict(error)} if error else {}))
    _log.info("train.run_ended", run_id=str(run.run_id), dataset=run.dataset, status=str(state))
    dataset = await lock_dataset(connection, run.tenant_id, run.dataset)
    return await fire_if_due(connection, dataset)


def ended_without_model(
    wing: Wing, run: Run, state: RunState, error: Mapping[str, Any], **numbers: int
) -> Outcome:
    """End a run as failed, cancelled or unavailable, say so, and clean up next."""
    kind = "training.unavailable" if state is RunState.UNAVAILABLE else "training.failed"
    data = {"run_id": str(run.run_id), "dataset": run.dataset, "error": dict(error), **numbers}

    async def effect(connection: Connection) -> Sequence[Publication]:
        following = await end_run(connection, wing, run, state, error)
        return [] if following is None else [Publication(kind, data, subject=run.dataset), *following]

    return Later(0.0, effect)


def refused(wing: Wing, run: Run, error: Refused) -> Outcome:
    """The provider said no for good: 403 means that it does not train for us, anything else that this run is wrong."""
    state = RunState.UNAVAILABLE if error.provider_status == 403 else RunState.FAILED
    return ended_without_model(wing, run, state, error.as_dict())


async def clean_up(wing: Wing, run: Run) -> Outcome:
    """After the end: no job goes on, also none that a worker created which was stopped within the call; no file stays.

    Raises:
        PenstockError: the provider is away; it is tried again.
    """
    trainer = wing.trainer
    if run.called_at is not None:
        for job in await find_own_jobs(wing, run):
            if not job.has_ended:
                await trainer.cancel_job(job.job_id)
            if job.job_id != run.job_id:
                _log.error("train.second_job", run_id=str(run.run_id), job_id=job.job_id, status=job.status)
    kept = 0
    for file in await trainer.files(run.file_prefix):
        try:
            await trainer.delete_file(file.file_id)
        except Refused:
            kept += 1

    async def effect(connection: Connection) -> Sequence[Publication]:
        await connection.execute(queries("train").cleaned, run.tenant_id, run.run_id)
        await note(connection, run, "cleaned", files_kept=kept)
        return []

    return Done(effect)


def open_dead(wing: Wing) -> OnDead:
    """What happens to the run of a `training.advance` that is given up."""

    async def on_dead(connection: Connection, work: Work, error: PenstockError) -> Sequence[Publication]:
        row = await connection.fetchrow(queries("train").run, work.tenant_id, UUID(str(work.data["run_id"])))
        if row is None or row["ended_at"] is not None:
            return []
        run = read_run(row)
        data = {"run_id": str(run.run_id), "dataset": run.dataset, "error": error.as_dict()}
        following = await end_run(connection, wing, run, RunState.FAILED, error.as_dict())
        if following is None:
            return []
        return [
            Publication("training.failed", data, subject=run.dataset),
            # The next one cleans up: a job may still be running.
            Publication("training.advance", {"run_id": str(run.run_id)}, subject=str(run.run_id)),
            *following,
        ]

    return on_dead
