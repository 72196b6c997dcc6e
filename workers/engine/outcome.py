"""A verdict on a claimed job becomes the settlement that the outbox sends to Redis."""

from __future__ import annotations

from workers.engine.deadletters import letter_for
from workers.engine.store import Outcome, Settlement, Verb
from workers.engine.types import Bury, ClaimedJob, Done, GiveBack, Gone, RetryAt, Verdict


def settle(
    job: ClaimedJob,
    verdict: Verdict,
    *,
    cause: BaseException | None = None,
    result: bytes | None = None,
    result_ttl_ms: int = 0,
    keep_ms: int = 0,
) -> Settlement:
    """Translate a verdict.

    Args:
        job: the claim that it ends.
        verdict: what becomes of the job.
        cause: the error behind a `Bury`, for the dead letter's trace.
        result: arq's serialised result, where one is kept.
        result_ttl_ms: how long it is kept; 0 for ever.
        keep_ms: how long the in-progress key outlives the job.
    """
    outcome: Outcome
    if isinstance(verdict, Done) and result is None:
        return Settlement(job.job_id, job.token, attempt=job.attempt, keep_ms=keep_ms)
    match verdict:
        case Done():
            letter, outcome = None, "done"
        case Gone():
            letter, outcome = None, "gone"
        case RetryAt(delay, charged):
            attempt = job.attempt if charged else None
            return Settlement(
                job.job_id, job.token, "again", delay_ms=_ms(delay), attempt=attempt, outcome="retried"
            )
        case GiveBack(delay, forgiven):
            verb: Verb = "forgiven" if forgiven else "again"
            return Settlement(job.job_id, job.token, verb, delay_ms=_ms(delay), outcome="given_back")
        case Bury(reason, message, ledgered):
            letter = None if ledgered else letter_for(job, error=reason, message=message, cause=cause)
            outcome = "dead"
    return Settlement(
        job.job_id,
        job.token,
        "done" if letter is None else "dead",
        result=result,
        result_ttl_ms=result_ttl_ms,
        keep_ms=keep_ms,
        letter=letter or b"",
        outcome=outcome,
    )


def _ms(seconds: float) -> int:
    return max(0, round(seconds * 1000))
