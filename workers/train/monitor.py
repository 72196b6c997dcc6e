"""A job that the trainer works on is looked at here, once per step: what is new is kept and said, and its end goes on."""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Sequence
from datetime import UTC, datetime

from infra.database import Connection, queries
from infra.trainer_replies import SUCCEEDED, Checkpoint, Job, JobEvent
from schemas.errors import Refused
from schemas.states import RunState
from schemas.work import Publication
from workers.handling import Later, Outcome
from workers.train.ending import CANCELLED, end_run, ended_without_model
from workers.train.own_jobs import state_of
from workers.train.runs import Run, Wing, note

QUICKEST = 1.0
JITTER = 0.2
HELD = frozenset({"paused", "pausing"})


async def watch(wing: Wing, run: Run) -> Outcome:
    """One look in the states ``validating``, ``queued`` and ``running``."""
    assert run.job_id is not None
    job = await wing.trainer.job(run.job_id)
    if run.cancel_asked_at is not None:
        if not job.has_ended:
            await wing.trainer.cancel_job(job.job_id)
        return ended_without_model(wing, run, RunState.CANCELLED, CANCELLED)
    known = await _known_events(wing, run)
    events = await wing.trainer.events(run.job_id, known.__contains__)
    if job.status == SUCCEEDED and job.model is not None:
        return _trained(wing, run, job, job.model, events, await _better_checkpoints(wing, job))
    if job.status == "failed":
        return _ended_badly(wing, run, RunState.FAILED, job_error(job), events)
    if job.status == "cancelled":
        error = {"code": "cancelled", "message": "the job was cancelled at the trainer"}
        return _ended_badly(wing, run, RunState.CANCELLED, error, events)
    await _hold_or_go_on(wing, run, job)
    now = datetime.now(UTC)
    news = bool(events) or job.status != run.job_status or run.pause_asked_at is not None
    silent = (now - (run.heard_at or run.started_at)).total_seconds()
    if not news and silent > wing.resources.settings.train_stall:
        await wing.trainer.cancel_job(job.job_id)
        error = {"code": "stalled", "message": f"the job has said nothing new for {silent:.0f} seconds"}
        return ended_without_model(wing, run, RunState.FAILED, error)
    return _goes_on(wing, run, job, events, news=news)


async def _hold_or_go_on(wing: Wing, run: Run, job: Job) -> None:
    """Tell the trainer what somebody asked for; a trainer that cannot hold a job is not asked again."""
    sql = queries("train")
    if run.pause_asked_at is not None and job.status not in HELD:
        try:
            await wing.trainer.pause_job(job.job_id)
        except Refused:
            await _remember(wing, run, sql.not_paused, "pause_refused")
    elif run.pause_asked_at is None and run.resume_asked_at is not None:
        if job.status in HELD:
            with contextlib.suppress(Refused):  # it went on by itself meanwhile
                await wing.trainer.resume_job(job.job_id)
        await _remember(wing, run, sql.resumed, "resumed")


async def _remember(wing: Wing, run: Run, statement: str, what: str) -> None:
    async with wing.resources.database.transaction(run.tenant_id) as connection:
        await connection.execute(statement, run.tenant_id, run.run_id)
        await note(connection, run, what)


async def _better_checkpoints(wing: Wing, job: Job) -> list[str]:
    """A checkpoint that may be better than the end; a trainer without checkpoints has none."""
    try:
        return better_checkpoints(await wing.trainer.checkpoints(job.job_id))
    except Refused:
        return []


def better_checkpoints(checkpoints: Sequence[Checkpoint]) -> list[str]:
    """The checkpoint with the lowest validation loss, where that is lower than at the end: what was learned too well.

    One only: each costs as much to compare as the tuned model, and makes the bound stricter for all.
    """
    measured = [one for one in checkpoints if one.valid_loss is not None]
    if not measured:
        return []
    best = min(measured, key=lambda one: (one.valid_loss, -one.step))
    last = max(measured, key=lambda one: one.step)
    return [best.model] if best.step != last.step and best.valid_loss != last.valid_loss else []


def next_look(poll: float, estimated_finish: datetime | None, now: datetime, jitter: float) -> float:
    """Seconds until the next look: a tenth of what is left, between a second and `poll`; jitter is from -1 to 1."""
    wait = poll
    if estimated_finish is not None:
        left = (estimated_finish - now).total_seconds()
        wait = min(poll, max(min(QUICKEST, poll), left / 10))
    return wait * (1 + JITTER * jitter)


def job_error(job: Job) -> dict[str, str]:
    """Why a job failed, as its owner sees it."""
    message = job.error_message or "the trainer gives no reason"
    return {"code": job.error_code or "job_failed", "message": f"the trainer says: {message}"}


def _goes_on(wing: Wing, run: Run, job: Job, events: Sequence[JobEvent], *, news: bool) -> Later:
    state = state_of(job.status, run.state)
    progress = _progress(run, job, state, events) if news else []

    async def effect(connection: Connection) -> Sequence[Publication]:
        await _keep(connection, run, events)
        await connection.execute(
            queries("train").set_watched,
            run.tenant_id,
            run.run_id,
            str(state),
            job.status,
            job.estimated_finish,
            news,
            run.status,
        )
        return progress

    jitter = random.uniform(-1, 1)  # noqa: S311 - spreads the looks of many runs
    delay = next_look(wing.resources.settings.train_poll, job.estimated_finish, datetime.now(UTC), jitter)
    return Later(delay, effect)


def _progress(run: Run, job: Job, state: RunState, events: Sequence[JobEvent]) -> list[Publication]:
    """One `training.progressed` a look: the newest step with its losses."""
    measured = [event for event in events if event.step is not None and event.train_loss is not None]
    last = measured[-1] if measured else None
    if last is None and state is run.state:
        return []
    finish = job.estimated_finish
    data = {
        "run_id": str(run.run_id),
        "dataset": run.dataset,
        "state": str(state),
        "step": last.step if last else None,
        "total_steps": last.total_steps if last else None,
        "train_loss": last.train_loss if last else None,
        "valid_loss": last.valid_loss if last else None,
        "estimated_finish": finish.isoformat() if finish else None,
    }
    return [Publication("training.progressed", data, subject=run.dataset)]


def _trained(  # noqa: PLR0917 - what the trainer said, piece by piece
    wing: Wing, run: Run, job: Job, model: str, events: Sequence[JobEvent], checkpoints: Sequence[str]
) -> Later:
    async def effect(connection: Connection) -> Sequence[Publication]:
        sql = queries("train")
        await _keep(connection, run, events)
        moved = await connection.fetchval(
            sql.set_trained,
            run.tenant_id,
            run.run_id,
            job.status,
            model,
            job.trained_tokens,
            run.status,
            list(checkpoints),
        )
        if moved is None:
            return []  # somebody else's step was first: nothing is booked twice
        await connection.execute(
            sql.add_model, run.tenant_id, model, run.base_model, run.dataset, run.run_id, None
        )
        promised = run.reservation()
        # A trainer that does not count is booked by our own estimate.
        tokens = promised.tokens_in if job.trained_tokens is None else job.trained_tokens
        budget = wing.resources.budget
        await budget.settle_on(connection, promised, tokens)
        cost = math.ceil(budget.prices.micros("train", run.base_model, tokens))
        await connection.execute(sql.set_cost, run.tenant_id, run.run_id, cost)
        data = {
            "run_id": str(run.run_id),
            "dataset": run.dataset,
            "model": model,
            "trained_tokens": job.trained_tokens,
        }
        return [
            *_progress(run, job, RunState.RUNNING, events),
            Publication("training.succeeded", data, subject=run.dataset),
        ]

    return Later(0.0, effect)


def _ended_badly(
    wing: Wing, run: Run, state: RunState, error: dict[str, str], events: Sequence[JobEvent]
) -> Later:
    data = {"run_id": str(run.run_id), "dataset": run.dataset, "error": error}

    async def effect(connection: Connection) -> Sequence[Publication]:
        await _keep(connection, run, events)
        following = await end_run(connection, wing, run, state, error)
        if following is None:
            return []
        return [Publication("training.failed", data, subject=run.dataset), *following]

    return Later(0.0, effect)


async def _known_events(wing: Wing, run: Run) -> set[str]:
    async with wing.resources.database.transaction(run.tenant_id, readonly=True) as connection:
        rows = await connection.fetch(queries("train").known_events, run.tenant_id, run.run_id)
    return {row["provider_id"] for row in rows}


async def _keep(connection: Connection, run: Run, events: Sequence[JobEvent]) -> None:
    for event in events:
        details = {"level": event.level, "message": event.message, "total_steps": event.total_steps}
        await connection.execute(
            queries("train").add_provider_event,
            run.tenant_id,
            run.run_id,
            event.at,
            event.provider_id,
            event.step,
            event.train_loss,
            event.valid_loss,
            details,
        )
