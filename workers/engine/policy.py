"""An error goes in, a verdict comes out: whether and when the work runs again. Pure; the engine acts on it.

Back-off is exponential with full jitter (AWS architecture blog, Brooker 2015): uniform between zero and
`base * 2 ** (attempt - 1)`, capped. A server that says how long to wait is believed, within bounds.
"""

from __future__ import annotations

from dataclasses import dataclass

from schemas.errors import PenstockError, Permanent, Retryable, Uncharged
from workers.engine.types import Bury, Done, GiveBack, RetryAt, Verdict


@dataclass(frozen=True, slots=True)
class Policy:
    """How patient the engine is.

    Args:
        max_attempts: charged attempts before the work is buried.
        base: seconds; the first retry waits at most this long.
        cap: seconds; no retry waits longer than this, unless the other side asked for it.
        floor: seconds; no retry comes sooner, so that jitter cannot make a hot loop.
        wait: seconds to give uncharged work back for, when nobody said how long.
        max_wait: seconds; a longer `retry_after` is cut to this.
        max_age: seconds since acceptance after which a failing job is not retried; None = no limit.
    """

    max_attempts: int = 8
    base: float = 1.0
    cap: float = 600.0
    floor: float = 0.1
    wait: float = 5.0
    max_wait: float = 3600.0
    max_age: float | None = None


DEFAULT = Policy()


def decide(
    error: BaseException | None,
    attempt: int,
    age: float,
    *,
    jitter: float,
    policy: Policy = DEFAULT,
) -> Verdict:
    """Decide what happens to work that ended with `error`.

    Args:
        error: what the handler raised; None when it returned.
        attempt: the attempt that just ended, 1 for the first.
        age: seconds since the work was accepted.
        jitter: uniform in [0, 1), drawn by the caller.
        policy: the bounds.

    Returns:
        `Done`; `GiveBack` for whatever was not the work's fault; `RetryAt` for what may pass (unknown exceptions
        included: most are somebody's outage); `Bury` for what cannot.
    """
    if error is None:
        return Done()
    if isinstance(error, Uncharged):
        return GiveBack(min(policy.wait if error.retry_after is None else error.retry_after, policy.max_wait))
    if isinstance(error, Permanent):
        return Bury(error.code, error.message)
    if attempt >= policy.max_attempts or (policy.max_age is not None and age >= policy.max_age):
        return Bury(code_of(error), message_of(error))
    delay = max(policy.floor, jitter * min(policy.cap, policy.base * 2.0 ** min(attempt - 1, 60)))
    if isinstance(error, Retryable) and error.retry_after is not None:
        delay = max(delay, min(error.retry_after, policy.max_wait))
    return RetryAt(delay, charged=True)


def code_of(error: BaseException) -> str:
    """The error's code; for a foreign exception its class name."""
    return error.code if isinstance(error, PenstockError) else type(error).__name__


def message_of(error: BaseException) -> str:
    """A message without text of documents: our own errors' messages keep that promise, others may not (P8)."""
    return error.message if isinstance(error, PenstockError) else ""
