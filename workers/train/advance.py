"""A `training.advance` takes its run one step further here; while the trainer works, it comes due again and again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import TypeAlias
from uuid import UUID

import structlog

from schemas.errors import CallFailed, Refused, Retryable, Unavailable
from schemas.internal import TrainingAdvance
from schemas.registry import read_data
from schemas.states import RunState
from schemas.work import Work
from workers.handling import Done, Handle, Later, Outcome
from workers.train.ending import CANCELLED, clean_up, ended_without_model, refused
from workers.train.evaluate import evaluate
from workers.train.monitor import watch
from workers.train.prepare import collect, prepare, upload
from workers.train.runs import Run, Wing, load_run
from workers.train.submit import submit

_log = structlog.get_logger("penstock.train")
Step: TypeAlias = Callable[[Wing, Run], Awaitable[Outcome]]

STEPS: Mapping[RunState, Step] = {
    RunState.COLLECTING: collect,
    RunState.PREPARING: prepare,
    RunState.UPLOADING: upload,
    RunState.SUBMITTED: submit,
    RunState.VALIDATING: watch,
    RunState.QUEUED: watch,
    RunState.RUNNING: watch,
}
BEFORE_JOB = frozenset({RunState.COLLECTING, RunState.PREPARING, RunState.UPLOADING, RunState.EVALUATING})
"""Where a cancellation needs nobody else; in the other states the job has to be looked for and stopped."""


def open_advance(wing: Wing) -> Handle:
    """The handler of `training.advance`."""

    async def handle(work: Work) -> Outcome:
        data = read_data(work.type, work.major, work.data)
        assert isinstance(data, TrainingAdvance)
        run = await load_run(wing, work, UUID(data.run_id))
        if run is None:
            return Done()
        try:
            return await _step(wing, run, work.attempt)
        except Refused as error:
            if run.ended_at is not None:
                raise  # the clean-up is a dead letter: its reason says that something may be left at the provider
            return refused(wing, run, error)
        except Retryable as error:
            return _patient(wing, run, error)

    return handle


async def _step(wing: Wing, run: Run, attempt: int) -> Outcome:
    if run.ended_at is not None:
        return Done() if run.cleaned_at is not None else await clean_up(wing, run)
    if run.cancel_asked_at is not None and run.state in BEFORE_JOB:
        return ended_without_model(wing, run, RunState.CANCELLED, CANCELLED)
    if run.pause_asked_at is not None and (run.state in BEFORE_JOB or _may_wait(run)):
        return Later(wing.resources.settings.train_poll, reason="paused")
    if run.state is RunState.EVALUATING:
        return await evaluate(wing, run, attempt)
    return await STEPS[run.state](wing, run)


def _may_wait(run: Run) -> bool:
    """Whether no job can exist yet: one in doubt is looked for, and held when it is found."""
    return run.state is RunState.SUBMITTED and run.called_at is None and run.cancel_asked_at is None


def _patient(wing: Wing, run: Run, error: Retryable) -> Outcome:
    """Wait through a provider's outage without charging attempts: a paid job is not given up for it.

    Raises:
        Retryable: somebody else waits better (budget, rate limit); a model under evaluation gives unusable answers,
            which `evaluate` counts; or a clean-up is to be given up.
    """
    unusable = isinstance(error, CallFailed) and run.state is not RunState.EVALUATING
    if not isinstance(error, Unavailable) and not unusable:
        raise error
    settings = wing.resources.settings
    silent = (datetime.now(UTC) - (run.ended_at or run.heard_at or run.started_at)).total_seconds()
    if silent <= settings.train_stall:
        _log.warning("train.provider_away", run_id=str(run.run_id), status=run.status, error=error.code)
        return Later(max(settings.train_poll, error.retry_after or 0.0))
    if run.ended_at is not None:
        raise CallFailed("the provider stays away; files or a job of the run may be left there")
    away = {"code": "provider_away", "message": f"the provider was away for {silent:.0f} seconds"}
    return ended_without_model(wing, run, RunState.FAILED, away)
