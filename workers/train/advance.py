"""A `training.advance` takes its run one step further here; while the trainer works, it comes due again and again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias
from uuid import UUID

from schemas.errors import Refused
from schemas.internal import TrainingAdvance
from schemas.registry import read_data
from schemas.states import RunState
from schemas.work import Work
from workers.handling import Done, Handle, Outcome
from workers.train.ending import CANCELLED, clean_up, ended_without_model, refused
from workers.train.evaluate import evaluate
from workers.train.monitor import watch
from workers.train.prepare import collect, prepare, upload
from workers.train.runs import Run, Wing, load_run
from workers.train.submit import submit

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
        if run.ended_at is not None:
            return Done() if run.cleaned_at is not None else await clean_up(wing, run)
        if run.cancel_asked_at is not None and run.state in BEFORE_JOB:
            return ended_without_model(wing, run, RunState.CANCELLED, CANCELLED)
        try:
            if run.state is RunState.EVALUATING:
                return await evaluate(wing, run, work.attempt)
            return await STEPS[run.state](wing, run)
        except Refused as error:
            return refused(wing, run, error)

    return handle
