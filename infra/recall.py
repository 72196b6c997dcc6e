"""A sample of live queries passes through here: what the vector index found is held against an exact search.

The result is kept in the database and shown as a metric, so that an index which loses its quality is noticed. The check
runs beside the query and costs its caller nothing.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence

import structlog

from infra.database import Database, queries
from schemas.errors import PenstockError

SHARE = 0.01
"""Of the queries; an exact search of a large collection reads all its vectors."""
PAUSE = 30.0
"""Seconds between two checks of a process: one over 100,000 vectors takes 30 to 40 ms of a core, from everybody's."""
_log = structlog.get_logger("penstock.recall")


class RecallCheck:
    """Checks some of the queries that a process answers, one at a time."""

    def __init__(self, database: Database) -> None:
        """Use a database that acts as ``penstock_worker`` or ``penstock_gateway``."""
        self._database = database
        self._running: asyncio.Task[None] | None = None
        self._due = 0.0

    def sample(self, tenant_id: str, collections: Sequence[str], space_id: int, vector: bytes) -> bool:
        """Check this query, perhaps; returns at once, and whether it is checked."""
        now = time.monotonic()
        busy = self._running is not None and not self._running.done()
        if busy or now < self._due or random.random() >= SHARE:  # noqa: S311 - a sample
            return False
        self._due = now + PAUSE
        self._running = asyncio.create_task(self._check(tenant_id, collections, space_id, vector))
        return True

    async def _check(self, tenant_id: str, collections: Sequence[str], space_id: int, vector: bytes) -> None:
        try:
            async with self._database.transaction(tenant_id) as connection:
                await connection.fetchval(queries("retrieval").recall, list(collections), space_id, vector)
        except PenstockError as error:
            _log.info("recall.not_checked", error=error.code)
