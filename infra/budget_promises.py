"""Asks for money pass through here under the tenants' locks: one after the other they fit their limits, or are refused."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from uuid import UUID

from infra.budget_rules import Limits, Spent, find_excess
from infra.database import Connection, queries
from infra.prices import Purpose


@dataclass(frozen=True, slots=True)
class Reservation:
    """Money promised to one call (or to one training run).

    Attributes:
        cost: micro-dollars expected.
        reservation_id: its row in the database; None where no limit applies.
    """

    tenant_id: str
    purpose: Purpose
    model: str
    tokens_in: int
    tokens_out: int
    cost: float
    reservation_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """What is asked for: a promise under a key, within limits, for so many seconds at most."""

    reservation: Reservation
    reservation_id: UUID
    limits: Limits
    lifetime: float


async def promise_on(connection: Connection, asks: Sequence[Ask]) -> list[Reservation | BaseException]:
    """Promise under the tenants' locks, on a transaction that acts for all of them."""
    tenants = sorted({ask.reservation.tenant_id for ask in asks})
    sql = queries("budget")
    await connection.execute(sql.lock_tenants, tenants)
    await connection.execute(sql.expire, tenants)
    ids = [ask.reservation_id for ask in asks]
    standing = {row[0] for row in await connection.fetch(sql.standing, tenants, ids)}
    spent = {
        row["tenant_id"]: Spent(row["day"], row["month"], row["reserved"])
        for row in await connection.fetch(sql.spent, tenants)
    }
    granted, results = _grant(asks, spent, standing)
    await connection.execute(sql.promise, *granted)
    return results


def _grant(
    asks: Sequence[Ask], spent: dict[str, Spent], standing: set[UUID]
) -> tuple[list[list[object]], list[Reservation | BaseException]]:
    """Decide one ask after the other: the columns of the promises to write, and each ask's result."""
    now = datetime.now(UTC)
    rows: list[tuple[object, ...]] = []
    results: list[Reservation | BaseException] = []
    for ask in asks:
        wanted = ask.reservation
        cost = math.ceil(wanted.cost)
        before = spent[wanted.tenant_id]
        if ask.reservation_id not in standing:
            excess = find_excess(ask.limits, before, cost, now)
            if excess is not None:
                results.append(excess)
                continue
            standing.add(ask.reservation_id)
            spent[wanted.tenant_id] = Spent(before.day, before.month, before.reserved + cost)
            rows.append(
                (wanted.tenant_id, ask.reservation_id, wanted.purpose, wanted.model, cost, ask.lifetime)
            )
        results.append(replace(wanted, reservation_id=ask.reservation_id))
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(6)], results
