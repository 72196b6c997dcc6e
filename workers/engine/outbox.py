"""Settlements of finished jobs collect here and go to Redis many at a time, in the order in which they came.

While one call is under way the next batch gathers, so batches grow with the load and an idle worker's single
job is settled at once. Nothing runs while the box is empty.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import structlog
from redis.exceptions import RedisError

from workers.engine.link import RedisLink
from workers.engine.store import QueueStore, Settlement

BATCH: Final = 500

log = structlog.get_logger()


class Outbox:
    """Settlements on their way to Redis.

    Args:
        store: where they go.
        link: waits while Redis is away; a settlement is never dropped.
        settled: called with each batch that has arrived (or can never arrive: then its leases run out).
    """

    def __init__(
        self, store: QueueStore, link: RedisLink, *, settled: Callable[[Sequence[Settlement]], None]
    ) -> None:
        self._store = store
        self._link = link
        self._settled = settled
        self._waiting: list[Settlement] = []
        self._drain: asyncio.Task[None] | None = None
        self.refused = 0

    def put(self, settlement: Settlement) -> None:
        """Take a settlement; returns at once."""
        self._waiting.append(settlement)
        if self._drain is None:
            self._drain = asyncio.get_running_loop().create_task(self._run())

    async def join(self) -> None:
        """Wait until all that was put before is in Redis."""
        if self._drain is not None:
            await asyncio.shield(self._drain)

    def abandon(self) -> None:
        """Stop sending. Leases of jobs whose settlement did not arrive run out."""
        if self._drain is not None:
            self._drain.cancel()

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
                await self._send(batch)
                self._settled(batch)
        finally:
            self._drain = None

    async def _send(self, batch: Sequence[Settlement]) -> None:
        try:
            refused = await self._link.persist(lambda: self._store.finish(batch))
        except RedisError as error:
            # Waiting does not help (a key of the wrong type, say). The jobs run again when their leases end.
            log.warning("engine.settlement_failed", jobs=len(batch), error=type(error).__name__)
            return
        if refused:
            self.refused += len(refused)
            log.warning("engine.settlement_refused", jobs=len(refused), first=refused[0])
