"""What a call to the model API is worth and what its reply says of limits: the governor's decisions, pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum

from schemas.errors import ModelAway, PenstockError, PoolPaused, RateLimited, Unavailable

WIDEST = 128
"""Calls under way at once, for all processes together, as long as the provider takes them."""


class Priority(IntEnum):
    """Who goes first."""

    QUESTION = 0
    """Somebody waits for the answer."""
    INGEST = 1
    """Documents on their way to being searchable."""
    BACKGROUND = 2
    """What nobody waits for: evaluations, another embedding model for what is stored."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How a priority is treated.

    Attributes:
        burst: seconds of allowance that may be used at once.
        horizon: how many seconds ahead a call may take its place in line.
        share: percent of the window of calls under way that it may fill.
        patience: seconds that a call waits here; a longer wait goes back to the queue.
    """

    burst: float
    horizon: float
    share: int
    patience: float


TERMS: Mapping[Priority, Terms] = {
    Priority.QUESTION: Terms(burst=6.0, horizon=10.0, share=100, patience=10.0),
    Priority.INGEST: Terms(burst=1.0, horizon=1.0, share=80, patience=5.0),
    Priority.BACKGROUND: Terms(burst=0.0, horizon=0.0, share=50, patience=2.0),
}


class End(Enum):
    """How a call ended, for the pace of the next ones."""

    OK = "ok"
    LIMITED = "limited"
    AWAY = "away"
    PAUSED = "paused"
    DROPPED = "dropped"
    """Its caller went away: it says nothing about the provider."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a provider says of one limit: how many per minute, and how many are left; -1 where it says nothing."""

    per_minute: float = -1
    left: float = -1


@dataclass(frozen=True, slots=True)
class Limits:
    """What a reply's headers say of requests and of tokens."""

    requests: Allowance = Allowance()
    tokens: Allowance = Allowance()


def end_of(error: BaseException | None) -> End:
    """What an outcome says of the provider. A refusal of the input is an answer like any other."""
    match error:
        case None:
            return End.OK
        case PoolPaused():
            return End.PAUSED
        case RateLimited():
            return End.LIMITED
        case ModelAway() | Unavailable():
            return End.AWAY
        case PenstockError():
            return End.OK
        case _:
            return End.DROPPED


def read_limits(headers: Mapping[str, str]) -> Limits:
    """The `x-ratelimit-*` headers of a reply, as OpenAI and those who imitate it send them."""
    return Limits(_allowance(headers, "requests"), _allowance(headers, "tokens"))


def _allowance(headers: Mapping[str, str], what: str) -> Allowance:
    return Allowance(
        _number(headers.get(f"x-ratelimit-limit-{what}")),
        _number(headers.get(f"x-ratelimit-remaining-{what}")),
    )


def _number(text: str | None) -> float:
    return float(text) if text is not None and text.isascii() and text.isdigit() else -1
