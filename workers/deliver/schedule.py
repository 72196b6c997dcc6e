"""What an attempt came to goes in, and what follows from it comes out. Pure: no clock, no dice, no database.

Standard Webhooks 1.0: only 2xx is success, a redirect is a failure, 410 disables the endpoint, `Retry-After` is
honoured within bounds. The delays add up to about 75 hours, which spans a weekend.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeAlias

from schemas.errors import BlockedTarget, CallFailed, Misconfigured, PenstockError, Unavailable

MINUTE, HOUR = 60.0, 3600.0
DELAYS = (5.0, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 5 * HOUR, 10 * HOUR, 14 * HOUR, 20 * HOUR, 24 * HOUR)
"""Seconds after each failed attempt; when they are used up the delivery is dead."""
JITTER = 0.2
MAX_ATTEMPTS = len(DELAYS) + 1
MAX_RETRY_AFTER = 24 * HOUR
MAX_DELAY = 7 * 24 * HOUR
OUR_SHORTEST, OUR_LONGEST = 30.0, 15 * MINUTE
FAILING_TOO_LONG = 5 * 24 * HOUR
"""Seconds of nothing but failures after which an endpoint is disabled."""
OUR_PATIENCE = sum(DELAYS) * (1 + JITTER)
"""How old a message may get through faults of ours alone; after that they count like the receiver's."""


@dataclass(frozen=True, slots=True)
class Replied:
    """The receiver answered; ``retry_after`` in seconds, where it said so."""

    status: int
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """There was no answer, and that is not our fault; ``why`` is dns, connect, tls, timeout or protocol."""

    why: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class OurFault:
    """We could not even try; ``why`` is dns, network or the name of a setting."""

    why: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Impossible:
    """The message cannot be sent to this target, however often we try; ``why`` is an error code."""

    why: str
    message: str = ""


Result: TypeAlias = Replied | Failed | OurFault | Impossible


@dataclass(frozen=True, slots=True)
class Delivered:
    """The receiver has the message."""


@dataclass(frozen=True, slots=True)
class RetryAt:
    """Try again after ``delay`` seconds; an attempt is used up when ``charged``."""

    delay: float
    charged: bool = True


@dataclass(frozen=True, slots=True)
class Dead:
    """Give the message up, for this reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class Disable:
    """Give the message up, and send this endpoint nothing more, for this reason."""

    reason: str


Decision: TypeAlias = Delivered | RetryAt | Dead | Disable


def decide(
    result: Result,
    *,
    attempt: int,
    age: float,
    spread: float,
    failing_for: float = 0.0,
    delays: Sequence[float] = DELAYS,
) -> Decision:
    """What follows from one attempt.

    Args:
        result: what it came to.
        attempt: the attempt that just ended, 1 for the first; faults of ours do not count.
        age: seconds since the message was written, or replayed.
        spread: uniform in [-1, 1], drawn by the caller.
        failing_for: seconds since the endpoint's unbroken series of failures began.
        delays: seconds after each failed attempt.
    """
    match result:
        case Replied(status=status) if 200 <= status < 300:
            return Delivered()
        case Replied(status=410):
            return Disable("the receiver answered 410 Gone")
        case OurFault() if age < OUR_PATIENCE:
            # Grows with the age alone, so that it needs no counter of its own.
            return RetryAt(_jittered(min(max(age / 4, OUR_SHORTEST), OUR_LONGEST), spread), charged=False)
        case OurFault():
            pass  # waited for long enough: it counts, but not against the endpoint
        case _ if failing_for >= FAILING_TOO_LONG:
            return Disable(f"nothing but failures for five days; at last: {described(result)}")
        case Impossible():
            return Dead(described(result))
    if attempt > len(delays):
        return Dead(f"given up after {attempt} attempts; at last: {described(result)}")
    delay = _jittered(delays[max(attempt, 1) - 1], spread)
    if isinstance(result, Replied) and result.retry_after is not None:
        # Never sooner than asked; spread over a tenth, so that not all come back in the same second.
        delay = max(delay, min(result.retry_after, MAX_RETRY_AFTER) * (1 + abs(spread) / 10))
    return RetryAt(delay)


def parse_delays(text: str) -> tuple[float, ...]:
    """Read the setting `PENSTOCK_WEBHOOK_DELAYS`.

    Raises:
        Misconfigured: it is not a list of seconds.
    """
    try:
        delays = tuple(float(part) for part in text.split(","))
    except ValueError:
        delays = ()
    if not delays or not all(0 <= delay <= MAX_DELAY for delay in delays):
        name = "PENSTOCK_WEBHOOK_DELAYS"
        raise Misconfigured(
            f"{name} is not a list of seconds up to {MAX_DELAY:.0f}",
            field=name,
            fix="write it like 5,300,1800,7200",
        )
    return delays


def described(result: Result) -> str:
    """The result in one sentence, for the owner of the endpoint."""
    match result:
        case Replied(status=status) if 300 <= status < 400:
            return f"the receiver answered {status}, and redirects are not followed"
        case Replied(status=status):
            return f"the receiver answered {status}"
        case Failed(message=message) | OurFault(message=message) | Impossible(message=message):
            return message or result.why


def error_class(result: Result) -> str | None:
    """The result in one word, for the log of attempts; None for success."""
    match result:
        case Replied(status=status):
            return None if 200 <= status < 300 else "status"
        case OurFault(why=why):
            return f"ours:{why}"
        case Failed(why=why) | Impossible(why=why):
            return why


def result_of(error: PenstockError) -> Result:
    """What an error of the door means for the message."""
    if isinstance(error, CallFailed):
        return Failed(error.field or error.code, error.message)
    if isinstance(error, Unavailable):
        return OurFault(error.field or error.code, error.message)
    if isinstance(error, BlockedTarget):
        return Impossible(error.code, error.message)
    return Impossible(error.field or error.code, error.message)


def retry_after_seconds(text: str | None, now: datetime) -> float | None:
    """Read a Retry-After header: seconds, or a date (RFC 9110 §10.2.3); None when it is absent or nonsense."""
    if text is None or not text.isascii():
        return None
    if text.isdigit():
        return min(float(text[:12]), MAX_RETRY_AFTER)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return max(0.0, (at - now).total_seconds())


def _jittered(delay: float, spread: float) -> float:
    return delay * (1 + JITTER * spread)
