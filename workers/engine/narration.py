"""What a job did passes through here to the log: our own events, or arq's two lines per job for those who want them.

arq's lines carry the arguments of jobs, which is where documents and secrets leak, and they halve a fast worker.
They are off unless the worker is built with `narrate=True`. Ours name failures only, without any text.
"""

from __future__ import annotations

import logging
from typing import Any

import structlog
from arq.utils import args_to_string, timestamp_ms, truncate

from workers.engine.policy import code_of
from workers.engine.types import ClaimedJob

LATE_MS = 1200

log = structlog.get_logger()
arq_log = logging.getLogger("arq.worker")


class Narration:
    """Tells what becomes of jobs.

    Args:
        narrate: tell it in arq's words, arguments included.
        log_results: as in arq; results appear only in arq's words.
    """

    def __init__(self, *, narrate: bool, log_results: bool) -> None:
        self.narrate = narrate
        self._log_results = log_results

    def started(self, job: ClaimedJob, ref: str, start_ms: int) -> None:
        """A job starts."""
        if not self.narrate:
            return
        extra = f" try={job.attempt}" if job.attempt > 1 else ""
        if start_ms - job.score_ms > LATE_MS:
            extra += f" delayed={(start_ms - job.score_ms) / 1000:0.2f}s"
        waited = (start_ms - job.enqueue_time_ms) / 1000
        arguments = args_to_string(job.args, dict(job.kwargs))
        arq_log.info("%6.2fs → %s(%s)%s", waited, ref, arguments, extra)

    def succeeded(self, ref: str, start_ms: int, result: object) -> None:
        """A job returned."""
        if self.narrate:
            shown = "" if result is None or not self._log_results else truncate(repr(result))
            arq_log.info("%6.2fs ← %s ● %s", _since(start_ms), ref, shown)

    def retrying(self, ref: str, start_ms: int, delay: float) -> None:
        """A job asked to run again."""
        if self.narrate:
            arq_log.info("%6.2fs ↻ %s retrying job in %0.2fs", _since(start_ms), ref, delay)

    def cancelled(self, ref: str, start_ms: int) -> None:
        """A job was cancelled and runs again."""
        if self.narrate:
            arq_log.info("%6.2fs ↻ %s cancelled, will be run again", _since(start_ms), ref)

    def aborted(self, ref: str, start_ms: int) -> None:
        """A job was aborted by `Job.abort()`."""
        if self.narrate:
            arq_log.info("%6.2fs ⊘ %s aborted", _since(start_ms), ref)

    def failed(self, job: ClaimedJob, ref: str, start_ms: int, error: BaseException) -> None:
        """A job raised and does not run again, or its policy decides when."""
        if not self.narrate:
            log.warning(
                "engine.job_failed",
                job_id=job.job_id,
                function=job.function,
                attempt=job.attempt,
                error=code_of(error),
            )
            return
        arq_log.error(
            "%6.2fs ! %s failed, %s: %s",
            _since(start_ms),
            ref,
            type(error).__name__,
            error,
            exc_info=error,
            extra={"extra": _extra(error)},
        )

    def refused(self, job: ClaimedJob, error: BaseException, *, max_tries: int) -> None:
        """A job cannot be started: expired, unreadable, unknown, aborted or out of tries."""
        reason = str(error)
        if not self.narrate:
            log.warning("engine.job_refused", job_id=job.job_id, function=job.function, error=code_of(error))
        elif reason == "job expired":
            arq_log.warning("job %s expired", job.job_id)
        elif reason.startswith("function "):
            arq_log.warning("job %s, function %r not found", job.job_id, job.function)
        elif reason.endswith("retries exceeded"):
            ref = f"{job.job_id}:{job.function}"
            arq_log.warning(
                "%6.2fs ! %s max retries %d exceeded", _since(job.enqueue_time_ms), ref, max_tries
            )
        elif isinstance(error, Exception):
            arq_log.error("deserializing job %s failed", job.job_id, exc_info=error)
        else:
            ref = f"{job.job_id}:{job.function}"
            arq_log.info("%6.2fs ⊘ %s aborted before start", _since(job.enqueue_time_ms), ref)


def _extra(error: BaseException) -> Any:
    """Arq's hook for more fields: an attribute or method `extra` of the exception."""
    extra = getattr(error, "extra", None)
    try:
        return extra() if callable(extra) else extra
    except Exception as failed:  # noqa: BLE001 - telling about an error must not become one.
        return f"extra() raised {type(failed).__name__}"


def _since(start_ms: int) -> float:
    return (timestamp_ms() - start_ms) / 1000
