"""Models pass through here while they serve: a tuned one that fails goes back by itself, any that ends is announced.

Every train process looks, because each look changes nothing that was done already: rolling back is done under the
alias's turn, a warning is noted with the model. No event of the ledger stands for it: there is nothing to lose.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Mapping, Sequence
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
"""Seconds between two looks at when models end."""
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
        self._announced_at = -math.inf
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
        """Look at every tuned model that serves, and once a day at when the serving ones end.

        Raises:
            PenstockError: the database is away.
        """
        async with self._resources.database.connection() as connection:
            served = await connection.fetch(queries("train").served_models)
        for row in served:
            await self._roll_back_if_failing(row)
        now = asyncio.get_running_loop().time()
        if now - self._announced_at >= DAY and await self.announce():
            self._announced_at = now

    async def announce(self) -> bool:
        """Tell the owners of all serving models, tuned or not, when they end; a tuned one is left on that day.

        Returns:
            Whether the end of each could be read.

        Raises:
            PenstockError: the database is away.
        """
        default = self._resources.settings.chat_model
        async with self._resources.database.connection() as connection:
            serving = await connection.fetch(queries("train").serving_models, default)
        # Many tenants share few models: each is asked about once.
        names = {name for row in serving for name in (row["model"], row["base_model"]) if name is not None}
        ends, complete = await self._read_ends(sorted({default, *names}))
        days = warning_due(ends.get(default), datetime.now(UTC).date(), None)
        if days is not None:
            # For the operator: who has no alias and no dataset is told nothing.
            _log.warning(
                "train.default_model_ends", model=default, ends_on=str(ends[default]), within_days=days
            )
        for row in serving:
            if row["model"] in ends and (row["base_model"] is None or row["base_model"] in ends):
                await self._warn_if_ending(row, ends)
        return complete

    async def _read_ends(self, names: Sequence[str]) -> tuple[dict[str, date | None], bool]:
        """The last days of models as far as they can be read, and whether all could."""
        ends: dict[str, date | None] = {}
        for name in names:
            try:
                info = await self._models.model(name)
            except PenstockError as error:
                _log.info(
                    "train.shutdown_date_unknown",
                    model=name,
                    error=error.code,
                    next_step="read in a minute",
                )
                continue
            ends[name] = None if info is None else info.shutdown_date
        return ends, len(ends) == len(names)

    async def _roll_back_if_failing(self, row: Any) -> None:
        tenant, alias, model = row["tenant_id"], row["alias"], row["model"]
        async with self._resources.database.transaction(tenant, readonly=True) as connection:
            service = await connection.fetchrow(
                queries("train").service, tenant, alias, model, row["base_model"], row["changed_at"]
            )
        assert service is not None
        if is_failing(service["tried"], service["failed"]):
            reason = f"{service['failed']} of {service['tried']} calls failed within ten minutes"
            await self._roll_back(tenant, alias, model, reason)

    async def _roll_back(self, tenant: str, alias: str, model: str, reason: str) -> None:
        try:
            async with self._resources.database.transaction(tenant) as connection:
                _, publication = await roll_back_on(
                    connection, tenant, alias, reason=reason, actor=ACTOR, only_from=model
                )
                jobs = await outbox.write(connection, [Said(tenant, publication)])
        except (Conflict, NotFound):
            return  # somebody was first, or there is nothing to go back to
        await self._resources.bus.push(jobs)
        _log.warning("train.rolled_back", tenant=tenant, alias=alias, model=model, reason=reason)

    async def _warn_if_ending(self, row: Any, known: Mapping[str, date | None]) -> None:
        tenant, alias, model, base = row["tenant_id"], row["alias"], row["model"], row["base_model"]
        # A tuned model ends with its base.
        dates = [day for name in (model, base) if name is not None and (day := known[name]) is not None]
        ends, today = min(dates, default=None), datetime.now(UTC).date()
        # An end that was put off is announced anew.
        told = row["warned_days"] if row["ends_on"] == ends else None
        days = warning_due(ends, today, told)
        if days is not None:
            await self._say(tenant, alias, model, ends, days)
        if base is None:
            return
        async with self._resources.database.transaction(tenant) as connection:
            await connection.execute(queries("train").set_shutdown, tenant, model, ends)
        if ends is not None and ends <= today:
            await self._roll_back(tenant, alias, model, f"the model ended on {ends}")

    async def _say(self, tenant: str, alias: str, model: str, ends: date | None, days: int) -> None:
        async with self._resources.database.transaction(tenant) as connection:
            if await connection.fetchval(queries("train").warn, tenant, alias, model, ends, days) is None:
                return
            data = {"alias": alias, "model": model, "ends_on": str(ends), "days": days}
            jobs = await outbox.write(
                connection, [Said(tenant, Publication("model.ending", data, subject=alias))]
            )
        await self._resources.bus.push(jobs)
        _log.warning("train.model_ends", tenant=tenant, alias=alias, model=model, days=days)
