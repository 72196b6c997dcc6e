"""What only the owner may do passes through here, on a timer: partitions ahead of time, retention, idle leftovers.

A service of its own (`penstock maintain`), because nobody who serves owns anything.
"""

from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

from infra import spaces
from infra.collections import clear_dropped
from infra.database import Connection, Database, queries
from infra.index_policy import Action
from infra.reseal import reseal_endpoints
from infra.secretbox import SecretBox
from schemas.errors import PenstockError
from schemas.ids import uuid7_floor

PARTITIONED = ("events", "delivery_attempts")
LOOK = 60.0
"""Seconds between two looks at dropped collections and at the vector indexes."""
LOCK = 0x6D61696E7461696E  # "maintain"
_log = structlog.get_logger("penstock.maintain")


@dataclass(frozen=True, slots=True)
class Retention:
    """How many days things are kept after they ended."""

    events: int = 30
    delivery_attempts: int = 30
    deliveries: int = 30
    answers: int = 90
    answer_cache: int = 7
    embedding_cache: int = 30
    recall_samples: int = 7
    event_keys: int = 400
    replies: int = 2


class Maintainer:
    """Does what is due, again and again."""

    def __init__(
        self,
        owner_url: str,
        *,
        every: float = 3600.0,
        retention: Retention | None = None,
        box: SecretBox | None = None,
    ) -> None:
        """Log in as the owner; `every` in seconds; secrets are sealed again where there is a box to do it with."""
        self._url = owner_url
        self._box = box
        self._every = every
        self._retention = retention or Retention()

    async def run(self, *, once: bool = False) -> None:
        """Work until SIGTERM or SIGINT; an outage is waited out."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, stop.set)
        due = loop.time()
        while not stop.is_set():
            try:
                async with Database.open(
                    self._url, role=None, size=1, application="penstock maintain"
                ) as database:
                    if loop.time() >= due:
                        await self.round(database)
                        due = loop.time() + self._every
                    await self.tend(database)
                wait = min(self._every, LOOK)
            except PenstockError as error:
                if once:
                    raise
                _log.warning(
                    "maintain.failed",
                    error=error.code,
                    message=error.message,
                    next_step="tried again in a minute",
                )
                wait = 60.0
            if once:
                return
            try:
                async with asyncio.timeout(wait):
                    await stop.wait()
            except TimeoutError:
                continue

    async def round(self, database: Database) -> dict[str, int]:
        """Do what is due now. Returns what was done; nothing when another maintainer is at work."""
        done: dict[str, int] = {}
        async with database.connection() as connection:
            sql = queries("maintain")
            if not await connection.fetchval(sql.try_lock, LOCK):
                return done
            try:
                for table in PARTITIONED:
                    done[f"{table}_partitions"] = await connection.fetchval(sql.make_partitions, table)
                    done[f"{table}_dropped"] = await self._drop_old(connection, table)
                for name, statement, days in self._prunes():
                    done[name] = _count(await connection.execute(statement, days))
                done["reservations"] = _count(await connection.execute(sql.prune_reservations))
                done["resealed"] = await self._reseal(connection)
            finally:
                await connection.execute(sql.unlock, LOCK)
        _log.info("maintain.round", **done)
        return done

    @staticmethod
    async def tend(database: Database) -> dict[int, Action]:
        """Clear dropped collections, count words, build and drop vector indexes; nothing when another maintainer is at work."""
        async with database.connection() as connection:
            sql = queries("maintain")
            if not await connection.fetchval(sql.try_lock, LOCK):
                return {}
            try:
                await clear_dropped(connection)
                words: int | None = await connection.fetchval(sql.refresh_words)
                if words is not None:
                    _log.info("maintain.words_counted", words=words)
                return await spaces.tend(connection)
            finally:
                await connection.execute(sql.unlock, LOCK)

    async def _reseal(self, connection: Connection) -> int:
        """Have the first key seal what another one did, or nobody."""
        if self._box is not None:
            return await reseal_endpoints(connection, self._box)
        if await connection.fetchval(queries("maintain").headers_in_the_clear):
            _log.warning(
                "maintain.headers_in_the_clear",
                next_step="give `penstock maintain` PENSTOCK_SECRET_KEYS, as the gateway has them",
            )
        return 0

    def _prunes(self) -> list[tuple[str, str, int]]:
        """What is deleted row by row, the statement, and after how many days."""
        sql, kept = queries("maintain"), self._retention
        return [
            ("event_keys", sql.prune_keys, kept.event_keys),
            ("answers", sql.prune_answers, kept.answers),
            ("collections", sql.prune_dropped, kept.events),
            ("answer_cache", sql.prune_answer_cache, kept.answer_cache),
            ("deliveries", sql.prune_deliveries, kept.deliveries),
            ("embedding_cache", sql.prune_embedding_cache, kept.embedding_cache),
            ("recall_samples", sql.prune_recall, kept.recall_samples),
            ("replies", sql.prune_replies, kept.replies),
            ("webhook_replays", sql.prune_replays, kept.event_keys),
        ]

    async def _drop_old(self, connection: Connection, table: str) -> int:
        """Drop partitions that are past their retention; what is unfinished in them moves to the default partition."""
        days: int = getattr(self._retention, table)
        floor = uuid7_floor(datetime.now(UTC) - timedelta(days=days))
        dropped = 0
        rows: list[Any] = await connection.fetch(queries("maintain").old_partitions, table, floor)
        for row in rows:
            async with connection.transaction():
                await connection.execute("SET LOCAL lock_timeout = '5s'")
                moved = await connection.fetchval(queries("maintain").retire_partition, table, row["child"])
            _log.info("maintain.partition_dropped", partition=row["child"], moved=moved)
            dropped += 1
        return dropped


def _count(status: str) -> int:
    return int(status.rsplit(" ", 1)[-1])
