"""A `training.advance` takes its run one step further here; while the trainer works, it comes due again and again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import TypeAlias
from uuid import UUID

import structlog

from schemas.errors import Refused, Retryable, Unavailable, Uncharged
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
            return refused(wing, run, error)
        except Retryable as error:
            return _patience(wing, run, error)

    return handle


async def _step(wing: Wing, run: Run, attempt: int) -> Outcome:
    if run.ended_at is not None:
        return Done() if run.cleaned_at is not None else await clean_up(wing, run)
    if run.cancel_asked_at is not None and run.state in BEFORE_JOB:
        return ended_without_model(wing, run, RunState.CANCELLED, CANCELLED)
    if run.state is RunState.EVALUATING:
        return await evaluate(wing, run, attempt)
    return await STEPS[run.state](wing, run)


def _patience(wing: Wing, run: Run, error: Retryable) -> Later:
    """Wait through a provider's outage without charging attempts: a paid job is not given up for it.

    Raises:
        Retryable: somebody else waits better (budget, rate limit), the outage outlasts the stall time, or a model
            under evaluation gives unusable answers, which `evaluate` counts.
    """
    settings = wing.resources.settings
    evaluating = run.state is RunState.EVALUATING and not isinstance(error, Unavailable)
    since = run.ended_at or run.heard_at or run.started_at
    silent = (datetime.now(UTC) - since).total_seconds()
    if isinstance(error, Uncharged) or evaluating or silent > settings.train_stall:
        raise error
    _log.warning("train.provider_away", run_id=str(run.run_id), status=run.status, error=error.code)
    return Later(max(settings.train_poll, error.retry_after or 0.0))
