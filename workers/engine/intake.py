"""Candidates of a claim are decoded here and sorted by who runs them: a registered function, the runner, or nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from arq.cron import CronJob
from arq.jobs import Deserializer, SerializationError, deserialize_job_raw
from arq.worker import Function, JobExecutionFailed

from workers.engine.store import Claim
from workers.engine.types import ClaimedJob

MAX_LOSSES = 5


class WorkerLost(JobExecutionFailed):
    """The job's worker died too often while it ran."""


@dataclass(slots=True)
class Sorted:
    """The jobs of one claim by what happens to them next."""

    all: list[ClaimedJob] = field(default_factory=list)
    plain: list[tuple[ClaimedJob, Function | CronJob]] = field(default_factory=list)
    runner: list[ClaimedJob] = field(default_factory=list)
    judge: list[ClaimedJob] = field(default_factory=list)
    refuse: list[tuple[ClaimedJob, BaseException]] = field(default_factory=list)


def sort(
    claim: Claim,
    *,
    queue: str,
    functions: Mapping[str, Function | CronJob],
    deserializer: Deserializer | None,
    with_runner: bool,
) -> Sorted:
    """Decode the candidates of a claim.

    With a runner, whatever is not a registered function goes to it, even when the payload is missing or unreadable:
    the ledger knows what the id means, Redis need not. Without one, such jobs are refused.
    """
    out = Sorted()
    for job_id, score_ms, payload, charged, losses, aborted in claim.jobs:
        name, enqueue_try, enqueued_ms = "", 0, 0
        args: Sequence[Any] = ()
        kwargs: Mapping[str, Any] = {}
        error: BaseException | None = None
        if payload is None:
            error = JobExecutionFailed("job expired")
        else:
            try:
                name, args, kwargs, enqueue_try, enqueued_ms = deserialize_job_raw(
                    payload, deserializer=deserializer
                )
            except SerializationError as failed:
                error = failed
        job = ClaimedJob(
            job_id,
            name,
            args,
            kwargs,
            max(charged + 1, enqueue_try or 0),
            losses,
            claim.token,
            enqueued_ms or score_ms,
            score_ms,
            queue,
        )
        out.all.append(job)
        function = functions.get(name)
        if function is None and with_runner:
            (out.judge if losses >= MAX_LOSSES else out.runner).append(job)
        elif error is not None:
            out.refuse.append((job, error))
        elif aborted:
            out.refuse.append((job, asyncio.CancelledError()))
        elif function is None:
            out.refuse.append((job, JobExecutionFailed(f"function {name!r} not found")))
        elif losses >= MAX_LOSSES:
            out.refuse.append((job, WorkerLost(f"its worker died {losses} times")))
        else:
            out.plain.append((job, function))
    return out
