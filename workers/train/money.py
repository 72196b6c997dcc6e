"""A run's money is promised here, on the transaction that begins it or prepares it, within its dataset's own budget."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from infra.budget import Budget
from infra.budget_rules import seconds_to_next_month
from infra.database import Connection, queries
from infra.training_trigger import Dataset
from schemas.errors import BudgetExceeded
from workers.train.runs import Run

RESERVED_FOR = 14 * 24 * 3600.0
"""Seconds that a training's money stays promised: longer than any job may run."""


async def promise(
    connection: Connection, budget: Budget, dataset: Dataset, run: Run, file_tokens: int
) -> None:
    """Promise tokens times epochs times price, once: asking again under the run's id changes nothing.

    Args:
        connection: acts for the tenant and holds the dataset's lock.
        budget: the tenant's.
        dataset: with a budget of its own, or none.
        run: who asks.
        file_tokens: of the training file, one epoch.

    Raises:
        BudgetExceeded: with the sums; nothing was written.
    """
    tokens = run.paid_tokens(file_tokens)
    cost = math.ceil(budget.prices.micros("train", run.base_model, tokens))
    spent = await connection.fetchval(queries("train").dataset_spent, run.tenant_id, run.dataset, run.run_id)
    excess = find_excess(dataset.budget_month, spent, cost, datetime.now(UTC))
    if excess is not None:
        raise excess
    await budget.reserve_on(
        connection, run.tenant_id, "train", run.base_model, tokens, key=run.run_id, lifetime=RESERVED_FOR
    )
    await connection.execute(queries("train").set_cost, run.tenant_id, run.run_id, cost)


def find_excess(limit: float | None, spent: int, cost: int, now: datetime) -> BudgetExceeded | None:
    """Why a run does not fit into its dataset's budget, or None where it does.

    Args:
        limit: US dollars for a UTC month.
        spent: micro-dollars of the month's other runs.
        cost: micro-dollars of this one.
        now: a moment in UTC.
    """
    if limit is None or spent + cost <= limit * 1e6:
        return None
    return BudgetExceeded(
        f"the run may cost {cost / 1e6:.6f} USD; {spent / 1e6:.6f} of {limit:.6f} USD for this dataset's month are spent",
        field="budget_month",
        fix="raise the dataset's budget, or wait for the next month",
        retry_after=seconds_to_next_month(now),
    )
