import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date
from typing import Any
from uuid import uuid4

import pytest

from infra.budget import Budget, Reservation
from infra.database import Connection, Database
from infra.prices import ModelPrice, Prices
from schemas.errors import BudgetExceeded, Unavailable
from tests.conftest import NewTenant

DOLLAR = Prices(date(2026, 11, 23), {"m": ModelPrice.model_validate({"in": 1.0, "out": 2.0, "train": 4.0})})
"""One micro-dollar for a token sent, two for one received, four for a trained one."""


class Counting:
    """A database that counts its transactions."""

    def __init__(self, inner: Database) -> None:
        self.inner = inner
        self.transactions = 0

    @asynccontextmanager
    async def transaction(self, *tenants: str, readonly: bool = False) -> AsyncIterator[Connection]:
        """Pass on, counted."""
        self.transactions += 1
        async with self.inner.transaction(*tenants, readonly=readonly) as connection:
            yield connection


async def set_limits(owner: Database, tenant: str, limits: dict[str, Any]) -> None:
    """What an operator's `penstock tenants limits` writes."""
    async with owner.connection() as connection:
        await connection.execute("UPDATE tenants SET limits = $2 WHERE tenant_id = $1", tenant, limits)


async def usage(owner: Database, tenant: str) -> list[dict[str, Any]]:
    """The booked rows of a tenant."""
    async with owner.connection() as connection:
        rows = await connection.fetch("SELECT * FROM usage WHERE tenant_id = $1 ORDER BY purpose", tenant)
    return [dict(row) for row in rows]


async def reserved(owner: Database, tenant: str) -> int:
    """How many promises stand."""
    async with owner.connection() as connection:
        found: int = await connection.fetchval(
            "SELECT count(*) FROM budget_reservations WHERE tenant_id = $1", tenant
        )
    return found


@pytest.fixture
async def budget(worker_database: Database) -> AsyncIterator[Budget]:
    """A budget without default limits."""
    async with Budget(worker_database, DOLLAR, None, None, linger=0.01) as opened:
        yield opened


async def test_without_a_limit_nothing_is_written_before_the_call_and_much_is_booked_together(
    worker_database: Database, owner_database: Database, tenant: str
) -> None:
    """A thousand calls of an unlimited tenant cost one look at its limits and one booking."""
    counting = Counting(worker_database)
    budget = Budget(counting, DOLLAR, None, None)  # type: ignore[arg-type]
    for _ in range(1000):
        reservation = await budget.reserve(tenant, "chat", "m", 10, 5)
        await budget.settle(reservation, 10, 5)
    await budget.aclose()
    assert counting.transactions == 2
    [row] = await usage(owner_database, tenant)
    assert (1000, 10_000, 5_000, 20_000, 0) == (
        row["calls"],
        row["tokens_in"],
        row["tokens_out"],
        row["cost_micros"],
        row["wasted_micros"],
    )


async def test_a_tenants_own_limit_binds(budget: Budget, owner_database: Database, tenant: str) -> None:
    """Calls up to the limit are let through, the next one is told how long to wait, and nothing is written for it."""
    await set_limits(owner_database, tenant, {"budget_day": 0.000100})
    first = await budget.reserve(tenant, "embed", "m", 60)
    with pytest.raises(BudgetExceeded):
        await budget.reserve(tenant, "embed", "m", 60)
    await budget.settle(first, 40)
    await budget.flush()
    second = await budget.reserve(tenant, "embed", "m", 60)
    await budget.settle(second, 60)
    await budget.flush()
    with pytest.raises(BudgetExceeded) as caught:
        await budget.reserve(tenant, "embed", "m", 1)
    assert caught.value.field == "budget_day"
    assert caught.value.retry_after is not None
    assert 0 < caught.value.retry_after <= 86_400
    assert await reserved(owner_database, tenant) == 0


async def test_a_tenants_null_lifts_the_default_limit(
    worker_database: Database, owner_database: Database, new_tenant: NewTenant
) -> None:
    """`null` in a tenant's limits means unlimited; a missing key means the default."""
    free, bound = await new_tenant(), await new_tenant()
    await set_limits(owner_database, free, {"budget_day": None})
    async with Budget(worker_database, DOLLAR, 0.00001, None) as budget:
        await budget.reserve(free, "chat", "m", 1_000_000)
        with pytest.raises(BudgetExceeded):
            await budget.reserve(bound, "chat", "m", 1_000_000)


async def test_no_number_of_processes_can_promise_more_than_the_limit(
    worker_database: Database, owner_database: Database, tenant: str
) -> None:
    """Four budgets, two hundred calls at once, room for exactly one hundred."""
    await set_limits(owner_database, tenant, {"budget_month": 0.001})
    budgets = [Budget(worker_database, DOLLAR, None, None) for _ in range(4)]
    results = await asyncio.gather(
        *(budgets[i % 4].reserve(tenant, "chat", "m", 10) for i in range(200)), return_exceptions=True
    )
    granted = [one for one in results if isinstance(one, Reservation)]
    refused = [one for one in results if isinstance(one, BudgetExceeded)]
    assert (100, 100) == (len(granted), len(refused))
    for budget in budgets:
        await budget.aclose()


async def test_a_promise_that_a_crash_left_behind_expires_into_waste(
    worker_database: Database, owner_database: Database, tenant: str
) -> None:
    """Nobody settles it, so the money counts as spent for nothing, and its place is free again only next period."""
    await set_limits(owner_database, tenant, {"budget_day": 0.000100})
    dead = Budget(worker_database, DOLLAR, None, None)
    await dead.reserve(tenant, "chat", "m", 80, lifetime=0.0)
    async with Budget(worker_database, DOLLAR, None, None) as budget:
        await budget.reserve(tenant, "chat", "m", 20)
        with pytest.raises(BudgetExceeded):
            await budget.reserve(tenant, "chat", "m", 1)
    [row] = await usage(owner_database, tenant)
    assert (1, 80, 80) == (row["calls"], row["cost_micros"], row["wasted_micros"])


async def test_waste_and_release_differ(budget: Budget, owner_database: Database, tenant: str) -> None:
    """A lost result costs what was promised; a refused call costs nothing. Both give the promise back."""
    await set_limits(owner_database, tenant, {"budget_day": 1})
    await budget.waste(await budget.reserve(tenant, "chat", "m", 10, 10))
    await budget.release(await budget.reserve(tenant, "chat", "m", 99, 99))
    await budget.flush()
    [row] = await usage(owner_database, tenant)
    assert (1, 30, 30) == (row["calls"], row["cost_micros"], row["wasted_micros"])
    assert await reserved(owner_database, tenant) == 0


async def test_a_named_promise_is_made_once(budget: Budget, owner_database: Database, tenant: str) -> None:
    """Asking again after a crash under the same key does not promise twice, and settling in an effect books once."""
    await set_limits(owner_database, tenant, {"budget_day": 0.001})
    key = uuid4()
    asked = [await budget.reserve(tenant, "train", "m", 200, key=key, lifetime=3600) for _ in range(3)]
    assert await reserved(owner_database, tenant) == 1
    async with budget._database.transaction(tenant) as connection:
        await budget.settle_on(connection, asked[-1], 150)
    [row] = await usage(owner_database, tenant)
    assert ("train", 1, 150, 600) == (row["purpose"], row["calls"], row["tokens_in"], row["cost_micros"])
    assert await reserved(owner_database, tenant) == 0


async def test_what_could_not_be_booked_is_kept(
    worker_database: Database, owner_database: Database, tenant: str
) -> None:
    """A booking that fails loses no sum: the next one writes it."""

    class Broken(Counting):
        @asynccontextmanager
        async def transaction(self, *tenants: str, readonly: bool = False) -> AsyncIterator[Connection]:
            async with super().transaction(*tenants, readonly=readonly) as connection:
                yield connection
                if self.transactions == 2:
                    raise ConnectionResetError

    budget = Budget(Broken(worker_database), DOLLAR, None, None, linger=3600)  # type: ignore[arg-type]
    await budget.settle(await budget.reserve(tenant, "chat", "m", 7), 7)
    with pytest.raises(Unavailable):
        await budget.flush()
    assert await usage(owner_database, tenant) == []
    await budget.settle(await budget.reserve(tenant, "chat", "m", 3), 3)
    await budget.aclose()
    [row] = await usage(owner_database, tenant)
    assert (2, 10) == (row["calls"], row["cost_micros"])


async def test_one_booking_serves_several_tenants_and_leaves_out_one_that_is_gone(
    budget: Budget, owner_database: Database, new_tenant: NewTenant
) -> None:
    """An erased tenant does not keep the others from being booked."""
    one, two, gone = await new_tenant(), await new_tenant(), await new_tenant()
    for tenant in (one, two, gone):
        await budget.settle(await budget.reserve(tenant, "chat", "m", 5), 5)
    async with owner_database.connection() as connection:
        await connection.execute("DELETE FROM tenants WHERE tenant_id = $1", gone)
    await budget.flush()
    assert [5, 5] == [(await usage(owner_database, tenant))[0]["cost_micros"] for tenant in (one, two)]
