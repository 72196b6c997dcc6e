"""Messages to an endpoint that has a rate limit pass here one by one, at its pace, counted across all worker processes.

The count is in Redis; while Redis is away each process counts for itself, so that the limit holds per process.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import cast
from uuid import UUID

import redis.asyncio
from redis.exceptions import RedisError

import infra
from infra import queue_keys

LONGEST = 1.0
"""Seconds that a message may hold its place to wait for its turn."""
_ALONE = 10_000


class Rates:
    """When the next message of each endpoint is due."""

    def __init__(self, client: redis.asyncio.Redis, clock: Callable[[], float] = time.monotonic) -> None:
        """Use any Redis client."""
        script = Path(infra.__file__).parent / "scripts" / "rate.lua"
        self._script = client.register_script(script.read_text(encoding="utf-8"))
        self._clock = clock
        self._due: dict[UUID, float] = {}

    async def wait(self, endpoint_id: UUID, per_second: float) -> float:
        """The seconds that the next message has to wait; above `LONGEST` it was not counted and must come again."""
        interval = 1000 / per_second
        # A tenth of a second's worth may come at once: a receiver that counts per second is never surprised.
        burst = max(1, math.floor(per_second / 10))
        try:
            arguments = [interval, burst, LONGEST * 1000]
            call = self._script(keys=[queue_keys.rate(str(endpoint_id))], args=arguments)
            return await cast("Awaitable[int]", call) / 1000
        except (RedisError, OSError):
            return self._alone(endpoint_id, interval / 1000, burst)

    def _alone(self, endpoint_id: UUID, interval: float, burst: int) -> float:
        """The same as the script, in this process."""
        now = self._clock()
        if len(self._due) > _ALONE:
            self._due = {one: due for one, due in self._due.items() if due > now}
        due = max(self._due.get(endpoint_id, 0.0), now)
        wait = max(0.0, due - now - interval * (burst - 1))
        if wait <= LONGEST:
            self._due[endpoint_id] = due + interval
        return wait
