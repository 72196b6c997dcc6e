"""Whoever waits for an event's end waits here: all waiters of a process share one look at the ledger at a time.

The ledger is asked and not Redis, which may be emptied at any moment; a look costs one index probe per waiter.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from uuid import UUID

import structlog

from infra.database import Database, queries
from schemas.errors import PenstockError

EVERY = 0.02
"""Seconds between two looks, while anybody waits."""
_log = structlog.get_logger("penstock.gateway")


class EndWatch:
    """Tells waiters when their events have ended."""

    def __init__(self, database: Database) -> None:
        """Use a database that acts as the gateway; nothing runs while nobody waits."""
        self._database = database
        self._waiting: dict[tuple[str, UUID], list[asyncio.Future[None]]] = defaultdict(list)
        self._task: asyncio.Task[None] | None = None

    async def wait(self, tenant_id: str, event_id: UUID, seconds: float) -> bool:
        """Wait until the event is done or dead; whether it ended in time."""
        key = tenant_id, event_id
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[key].append(future)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look())
        try:
            async with asyncio.timeout(seconds):
                await future
        except TimeoutError:
            return False
        finally:
            self._waiting[key].remove(future)
            if not self._waiting[key]:
                del self._waiting[key]
        return True

    async def aclose(self) -> None:
        """Stop looking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _look(self) -> None:
        while self._waiting:
            try:
                await self._round(sorted(self._waiting))
            except PenstockError as error:
                _log.warning("gateway.wait_interrupted", reason=error.message, waiting=len(self._waiting))
                await asyncio.sleep(1.0)
            await asyncio.sleep(EVERY)

    async def _round(self, keys: list[tuple[str, UUID]]) -> None:
        tenants = sorted({tenant for tenant, _ in keys})
        async with self._database.transaction(*tenants, readonly=True) as connection:
            rows = await connection.fetch(
                queries("gateway_queries").finished, [tenant for tenant, _ in keys], [one for _, one in keys]
            )
        ended = {row["event_id"] for row in rows}
        for key in keys:
            if key[1] in ended:
                for future in self._waiting.get(key, ()):
                    if not future.done():
                        future.set_result(None)
