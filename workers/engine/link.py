"""Every call to Redis that must not be lost passes through here: it waits while Redis is away and says so once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import structlog
from redis import exceptions as redis_errors

T = TypeVar("T")

AWAY: Final = (
    redis_errors.ConnectionError,
    redis_errors.TimeoutError,
    redis_errors.ReadOnlyError,
    redis_errors.OutOfMemoryError,
    OSError,
)
FIRST_DELAY: Final = 0.05
LONGEST_DELAY: Final = 2.0
# Answers of a server that is there but cannot serve: full, a replica, cut off from its replicas or its disk.
UNABLE: Final = ("OOM", "READONLY", "MISCONF", "MASTERDOWN", "NOREPLICAS", "LOADING", "CLUSTERDOWN")

log = structlog.get_logger()


class RedisLink:
    """Whether Redis answers, as this worker sees it.

    Args:
        queue: named in the log, because one process may serve several.
    """

    def __init__(self, queue: str) -> None:
        self.up = True
        self._queue = queue

    async def persist(self, call: Callable[[], Awaitable[T]]) -> T:
        """Make an idempotent call until it goes through; waits between tries, with back-off and jitter.

        Raises:
            redis.exceptions.RedisError: an answer that waiting does not change.
        """
        delay = FIRST_DELAY
        while True:
            try:
                result = await call()
            except (*AWAY, redis_errors.ResponseError) as error:
                if not isinstance(error, AWAY) and not str(error).startswith(UNABLE):
                    raise
                self.failed(error)
                await asyncio.sleep(delay * (0.5 + random.random() / 2))  # noqa: S311 - jitter, not a secret.
                delay = min(delay * 2, LONGEST_DELAY)
            else:
                self.succeeded()
                return result

    def failed(self, error: BaseException) -> None:
        """Note that Redis is away; logged on the change only."""
        if self.up:
            self.up = False
            log.warning("engine.redis_away", queue=self._queue, error=type(error).__name__)

    def succeeded(self) -> None:
        """Note that Redis answers; logged on the change only."""
        if not self.up:
            self.up = True
            log.info("engine.redis_back", queue=self._queue)
