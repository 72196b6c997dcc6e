"""A run's job is found again here by what was written into its metadata, and its status becomes a state of ours."""

from __future__ import annotations

from infra.database import queries
from infra.trainer_replies import ENDED, Job
from schemas.states import RunState
from workers.train.runs import Run, Wing

_STATES = {
    "validating_files": RunState.VALIDATING,
    "queued": RunState.QUEUED,
    "running": RunState.RUNNING,
}
_ORDER = (RunState.VALIDATING, RunState.QUEUED, RunState.RUNNING)


def state_of(job_status: str, now: RunState) -> RunState:
    """The state that a job's status means; a run never goes back, and an unknown status changes nothing."""
    if job_status in ENDED:
        return RunState.RUNNING
    told = _STATES.get(job_status, now)
    return max(told, now, key=lambda state: _ORDER.index(state) if state in _ORDER else -1)


async def metadata_of(wing: Wing, run: Run) -> dict[str, str]:
    """What a run's job carries: which run, of which deployment."""
    async with wing.resources.database.connection() as connection:
        deployment = await connection.fetchval(queries("train").deployment)
    return {"penstock_run": str(run.run_id), "penstock_deployment": str(deployment)}


async def find_own_jobs(wing: Wing, run: Run) -> list[Job]:
    """The jobs of a run at the trainer, oldest first: one, or none, unless something went very wrong."""
    return await wing.trainer.find_jobs(await metadata_of(wing, run))
