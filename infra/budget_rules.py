"""Limits and what was spent become a decision here: a call fits, or is over budget until a moment."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from schemas.errors import BudgetExceeded

RESERVED_WAIT = 15.0
"""Seconds to wait where only promises stand in the way: calls under way usually cost less than was promised."""


@dataclass(frozen=True, slots=True)
class Limits:
    """US dollars per UTC day and month; None is unlimited."""

    day: float | None
    month: float | None

    @property
    def unlimited(self) -> bool:
        """Whether nothing has to be asked before a call."""
        return self.day is None and self.month is None


@dataclass(frozen=True, slots=True)
class Spent:
    """Micro-dollars spent this UTC day and month, and promised to calls under way."""

    day: int
    month: int
    reserved: int


def find_excess(limits: Limits, spent: Spent, cost: int, now: datetime) -> BudgetExceeded | None:
    """Why a call does not fit into the limits, or None where it fits. The month is looked at first: it lasts longer.

    Args:
        limits: the tenant's, in US dollars.
        spent: the tenant's, in micro-dollars.
        cost: micro-dollars that the call may cost.
        now: a moment in UTC.
    """
    periods = (
        ("month", limits.month, spent.month, seconds_to_next_month(now)),
        ("day", limits.day, spent.day, seconds_to_next_day(now)),
    )
    for name, limit, used, wait in periods:
        if limit is None or used + spent.reserved + cost <= limit * 1e6:
            continue
        only_promises = used + cost <= limit * 1e6
        return BudgetExceeded(
            f"the call may cost {cost / 1e6:.6f} USD; {used / 1e6:.6f} of {limit:.6f} USD for this {name} are "
            f"spent and {spent.reserved / 1e6:.6f} reserved",
            field=f"budget_{name}",
            fix=f"raise the limit, or wait for the next {name}",
            retry_after=min(RESERVED_WAIT, wait) if only_promises else wait,
        )
    return None


def seconds_to_next_day(now: datetime) -> float:
    """Seconds until UTC midnight."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    return (midnight - now).total_seconds()


def seconds_to_next_month(now: datetime) -> float:
    """Seconds until the first day of the next month, UTC."""
    first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return ((first + timedelta(days=32)).replace(day=1) - now).total_seconds()
