"""Tuned models pass through here while they serve: one that fails goes back by itself, one that ends is announced.

Every train process looks, because each look changes nothing that was done already: rolling back is done under the
alias's turn, a warning is noted with the model. No event of the ledger stands for it: there is nothing to lose.
"""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, date, datetime
from typing import Any

import structlog

from infra import outbox
from infra.database import queries
from infra.llm import ModelApi
from infra.model_aliases import roll_back_on
from infra.outbox import Said
from schemas.errors import Conflict, NotFound, PenstockError
from schemas.work import Publication
from workers.handling import Resources

EVERY = 60.0
"""Seconds between two looks at the answers."""
DAY = 86_400.0
WARNINGS = (30, 14, 7, 3, 1, 0)
"""Days before a model's end on which its owner is told."""
LEAST_FAILURES = 5
MOST_FAILING = 0.2
ACTOR = "penstock"
_log = structlog.get_logger("penstock.train")


def is_failing(tried: int, failed: int) -> bool:
    """Whether a serving model failed so often that the one before it serves better."""
    return failed >= LEAST_FAILURES and failed > MOST_FAILING * tried


def warning_due(ends: date | None, today: date, warned: int | None) -> int | None:
    """Of how many days before its end somebody has to be told now, or None.

    Args:
        ends: the model's last day, if it was announced.
        today: in UTC.
        warned: the smallest number that somebody was told of.
    """
    if ends is None:
        return None
    left = max(0, (ends - today).days)
    reached = [days for days in WARNINGS if left <= days]
    if not reached or (warned is not None and warned <= min(reached)):
        return None
    return min(reached)


class Keeper:
    """Looks after the models that serve, until it is closed."""

    def __init__(self, resources: Resources, models: ModelApi) -> None:
        """Use what the pool opened; nothing runs before `start`."""
        self._resources = resources
        self._models = models
        self._read_at: dict[tuple[str, str], float] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look every minute from now on."""
        self._task = asyncio.create_task(self._run(), name="train.keeper")

    async def aclose(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(EVERY * random.uniform(0.8, 1.2))  # noqa: S311 - spreads the looks of processes
            try:
                await self.look()
            except PenstockError as error:
                _log.warning(
                    "train.keeper_delayed", error=error.code, next_step="looked at again in a minute"
                )

    async def look(self) -> None:
        """Look at every tuned model that serves, once.

        Raises:
            PenstockError: the database is away.
        """
        async with self._resources.database.connection() as connection:
            served = await connection.fetch(queries("train").served_models)
        for row in served:
            if not await self._roll_back_if_failing(row):
                await self._warn_if_ending(row)

    async def _roll_back_if_failing(self, row: Any) -> bool:
        tenant, alias, model = row["tenant_id"], row["alias"], row["model"]
        async with self._resources.database.transaction(tenant, readonly=True) as connection:
            service = await connection.fetchrow(
                queries("train").service, tenant, alias, model, row["base_model"], row["changed_at"]
            )
        assert service is not None
        if not is_failing(service["tried"], service["failed"]):
            return False
        reason = f"{service['failed']} of {service['tried']} calls failed within ten minutes"
        return await self._roll_back(tenant, alias, model, reason)

    async def _roll_back(self, tenant: str, alias: str, model: str, reason: str) -> bool:
        try:
            async with self._resources.database.transaction(tenant) as connection:
                _, publication = await roll_back_on(
                    connection, tenant, alias, reason=reason, actor=ACTOR, only_from=model
                )
                jobs = await outbox.write(connection, [Said(tenant, publication)])
        except (Conflict, NotFound):
            return False  # somebody was first, or there is nothing to go back to
        await self._resources.bus.push(jobs)
        _log.warning("train.rolled_back", tenant=tenant, alias=alias, model=model, reason=reason)
        return True

    async def _warn_if_ending(self, row: Any) -> None:
        tenant, model = row["tenant_id"], row["model"]
        now = asyncio.get_running_loop().time()
        if now - self._read_at.get((tenant, model), -DAY) < DAY:
            return
        try:
            infos = [await self._models.model(name) for name in (model, row["base_model"])]
        except PenstockError as error:
            _log.info(
                "train.shutdown_date_unknown", model=model, error=error.code, next_step="read in a minute"
            )
            return
        self._read_at[tenant, model] = now
        dates = [one.shutdown_date for one in infos if one is not None and one.shutdown_date is not None]
        ends, today = min(dates, default=None), datetime.now(UTC).date()
        days = warning_due(ends, today, row["warned_days"])
        await self._say(tenant, row["alias"], model, ends, days)
        if ends is not None and ends <= today:
            await self._roll_back(tenant, row["alias"], model, f"the model ended on {ends}")

    async def _say(self, tenant: str, alias: str, model: str, ends: date | None, days: int | None) -> None:
        sql = queries("train")
        async with self._resources.database.transaction(tenant) as connection:
            if days is None:
                await connection.execute(sql.set_shutdown, tenant, model, ends)
                return
            if await connection.fetchval(sql.warn, tenant, model, ends, days) is None:
                return
            data = {"alias": alias, "model": model, "ends_on": str(ends), "days": days}
            jobs = await outbox.write(
                connection, [Said(tenant, Publication("model.ending", data, subject=alias))]
            )
        await self._resources.bus.push(jobs)
        _log.warning("train.model_ends", tenant=tenant, alias=alias, model=model, days=days)
