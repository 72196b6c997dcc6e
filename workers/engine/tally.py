"""Every attempt that ends is counted here, by event type, and the sums go to Redis now and then for `infra.queue_insight`.

Times are told by the claim: its token is Redis's clock, so a wait is the same whoever measures it; what a job took is
measured on this process's clock, set by the claims.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable

import structlog
from arq.connections import ArqRedis
from redis.exceptions import RedisError

from infra import queue_keys
from workers.engine.store import Claim, Settlement
from workers.engine.types import ClaimedJob

OTHER = "other"
KEPT_MS = 30 * 86_400_000

log = structlog.get_logger()


class Tally:
    """Counts and times of one queue, not yet sent.

    Args:
        redis: where the sums are.
        queue: arq's queue name.
        known: whether a function's name may be shown; Redis is not trusted with names, and each is a label.
    """

    def __init__(self, redis: ArqRedis, queue: str, *, known: Callable[[str], bool]) -> None:
        self._redis = redis
        self._key = queue_keys.tally(queue)
        self._known = known
        self._sums: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._ahead_ms = 0

    def claimed(self, claim: Claim) -> None:
        """Set the clock: how far this process's is ahead of Redis's."""
        self._ahead_ms = _now_ms() - claim.now_ms

    def ended(self, attempts: Iterable[tuple[ClaimedJob, Settlement]]) -> None:
        """Count attempts, how long each job had been due, and how long it took."""
        sums, now_ms = self._sums, _now_ms() - self._ahead_ms
        for job, settlement in attempts:
            kind = job.function if self._known(job.function) else OTHER
            claimed_ms = job.token // 1000
            sums[kind, settlement.outcome] += 1
            if claimed_ms > job.score_ms:
                sums[kind, "wait_ms"] += claimed_ms - job.score_ms
            if now_ms > claimed_ms:
                sums[kind, "run_ms"] += now_ms - claimed_ms

    async def send(self) -> None:
        """Add the sums to those of the fleet; while Redis is away they wait here."""
        if not self._sums:
            return
        sums, self._sums = self._sums, defaultdict(int)
        try:
            async with self._redis.pipeline(transaction=True) as pipe:
                for (kind, what), number in sums.items():
                    pipe.hincrby(self._key, f"{kind} {what}", number)
                pipe.pexpire(self._key, KEPT_MS)
                await pipe.execute()
        except (RedisError, OSError) as error:
            log.debug("engine.tally_waits", error=type(error).__name__)
            for field, number in sums.items():
                self._sums[field] += number


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
