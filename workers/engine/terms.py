"""A function's own settings and the worker's defaults meet here: how long a job may take, how often, what is kept of it."""

from __future__ import annotations

from dataclasses import dataclass

import arq
from arq.constants import keep_cronjob_progress
from arq.cron import CronJob
from arq.utils import to_ms
from arq.worker import Function


@dataclass(frozen=True, slots=True)
class Terms:
    """What a function and the worker's defaults say together. `result_ms` None keeps no result, 0 keeps it for ever."""

    timeout: float | None
    max_tries: int
    result_ms: int | None
    keep_ms: int

    @classmethod
    def of(cls, function: Function | CronJob, worker: arq.Worker) -> Terms:
        """Combine them; the function's own settings win."""
        for_ever = function.keep_result_forever
        seconds = worker.keep_result_s if function.keep_result_s is None else function.keep_result_s
        if worker.keep_result_forever if for_ever is None else for_ever:
            result_ms: int | None = 0
        else:
            result_ms = to_ms(seconds) if seconds > 0 else None
        return cls(
            worker.job_timeout_s if function.timeout_s is None else function.timeout_s,
            worker.max_tries if function.max_tries is None else function.max_tries,
            result_ms,
            to_ms(keep_cronjob_progress) if isinstance(function, CronJob) else 0,
        )
