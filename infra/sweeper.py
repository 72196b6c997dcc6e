"""What a crash or an emptied Redis left behind passes through here back onto its queue.

One leader, three triggers (DESIGN §4):

- every event is looked at once, about ten seconds after its transaction ended: windows between two snapshots of the
  transaction counter, so the cost follows the rate of events and not the backlog;
- our epoch key is missing: Redis was emptied, and everything unfinished is pushed by keyset;
- Redis's run id changed: it was restarted and may have lost its last second; everything unfinished is looked at.

Pushing is idempotent, so two leaders at once would only do the work twice.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import redis.asyncio
import structlog
from redis.exceptions import RedisError

from infra import queue_keys
from infra.database import Database, queries
from infra.push import push
from schemas.errors import PenstockError
from schemas.work import Pushable

LEADER = f"{queue_keys.PREFIX}sweeper:leader"
"""Who sweeps; expires unless renewed."""
EPOCH = f"{queue_keys.PREFIX}epoch"
"""Set once Redis knows all unfinished events, to Redis's run id; owned by the sweeper. Its absence says: emptied."""
CURSOR = f"{queue_keys.PREFIX}sweeper:cursor"
"""The transaction number below which every event was looked at; owned by the sweeper."""
LEADER_TTL_MS = 15_000
PAGE = 2000
LOWEST = UUID(int=0)
_log = structlog.get_logger("penstock.sweeper")


@dataclass(frozen=True, slots=True)
class _Mark:
    """A snapshot's horizon and when it was read: events below it are all visible."""

    xmin: int
    at: float


class Sweeper:
    """Looks after the gap between the ledger and Redis."""

    def __init__(
        self,
        database: Database,
        client: redis.asyncio.Redis,
        *,
        name: str,
        lag: float = 10.0,
        every: float = 2.0,
    ) -> None:
        """Prepare.

        Args:
            database: acts as the role ``penstock_system``: ids, types and times, no payload.
            client: Redis.
            name: who leads, in Redis.
            lag: seconds after which an accepted event is looked at.
            every: seconds between rounds.
        """
        self._database = database
        self._redis = client
        self._name = name
        self._lag = lag
        self._every = every
        self._marks: deque[_Mark] = deque()

    async def run(self) -> None:
        """Sweep until cancelled; outages are waited out."""
        away = False
        while True:
            try:
                if await self._lead():
                    await self.round()
                if away:
                    away = False
                    _log.info("sweeper.back")
            except (PenstockError, RedisError, OSError) as error:
                if not away:
                    away = True
                    _log.warning(
                        "sweeper.waiting",
                        error=type(error).__name__,
                        next_step="waits for PostgreSQL and Redis",
                    )
            await asyncio.sleep(self._every)

    async def round(self) -> int:
        """One round: whatever trigger applies. Returns how many events had been missing in Redis."""
        run_id = str((await self._redis.info("server"))["run_id"])
        epoch = await self._redis.get(EPOCH)
        if epoch is None or epoch.decode() != run_id:
            return await self._everything(run_id, emptied=epoch is None)
        return await self._window()

    async def _lead(self) -> bool:
        if await self._redis.set(LEADER, self._name, nx=True, px=LEADER_TTL_MS):
            return True
        holder = await self._redis.get(LEADER)
        if holder is None or holder.decode() != self._name:
            return False
        await self._redis.pexpire(LEADER, LEADER_TTL_MS)
        return True

    async def _everything(self, run_id: str, *, emptied: bool) -> int:
        """Push all unfinished events by keyset; jobs that Redis still has keep their place."""
        horizon = await self._horizon()
        after, pushed, seen = LOWEST, 0, 0
        while True:
            async with self._database.connection() as connection:
                rows = await connection.fetch(queries("sweeper").unfinished, after, PAGE)
            if not rows:
                break
            pushed += await push(self._redis, _pushables(rows))
            seen += len(rows)
            after = rows[-1]["event_id"]
            await self._redis.set(LEADER, self._name, px=LEADER_TTL_MS)
        await self._redis.set(CURSOR, horizon)
        await self._redis.set(EPOCH, run_id)
        self._marks.clear()
        _log.info("sweeper.refilled", emptied=emptied, unfinished=seen, pushed=pushed)
        return pushed

    async def _window(self) -> int:
        """Look once at the events whose transactions ended at least `lag` ago."""
        now = asyncio.get_running_loop().time()
        self._marks.append(_Mark(await self._horizon(), now))
        high: int | None = None
        while self._marks and now - self._marks[0].at >= self._lag:
            high = self._marks.popleft().xmin
        cursor = await self._redis.get(CURSOR)
        if cursor is None:
            await self._redis.set(CURSOR, self._marks[0].xmin if self._marks else await self._horizon())
            return 0
        if high is None or high <= int(cursor):
            return 0
        pushed = await self._push_missing(int(cursor), high)
        await self._redis.set(CURSOR, high)
        return pushed

    async def _push_missing(self, low: int, high: int) -> int:
        after, pushed = LOWEST, 0
        while True:
            async with self._database.connection() as connection:
                rows = await connection.fetch(queries("sweeper").written, str(low), str(high), after, PAGE)
            if not rows:
                break
            missing = await self._missing(_pushables(rows))
            if missing:
                pushed += await push(self._redis, missing)
            after = rows[-1]["event_id"]
        if pushed:
            _log.info("sweeper.pushed", events=pushed)
        return pushed

    async def _missing(self, jobs: Sequence[Pushable]) -> list[Pushable]:
        """Those that their queue does not hold: one ZMSCORE per queue."""
        missing: list[Pushable] = []
        for queue in sorted({job.queue for job in jobs}):
            mine = [job for job in jobs if job.queue == queue]
            scores: list[Any] = await self._redis.zmscore(queue, [str(job.event_id) for job in mine])
            missing += [job for job, score in zip(mine, scores, strict=True) if score is None]
        return missing

    async def _horizon(self) -> int:
        async with self._database.connection() as connection:
            return int(await connection.fetchval(queries("sweeper").horizon))


def _pushables(rows: Sequence[Any]) -> list[Pushable]:
    now = datetime.now(UTC)
    return [
        Pushable(
            row["event_id"],
            row["type"],
            row["queue"],
            0.0 if row["due_at"] is None else max(0.0, (row["due_at"] - now).total_seconds()),
            row["tenant_id"],
        )
        for row in rows
    ]
