"""A withdrawn question passes through here to the worker that answers it, whatever the worker is waiting for.

    penstock:v1:answer:{query}:cancel       somebody asked to stop

All questions of a process share one look at Redis, so that a stop costs nothing per question or token. Redis only
hastens the end: the withdrawn question's row keeps an answer from being written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import redis.asyncio
import structlog
from redis.exceptions import RedisError

from infra.queue_keys import PREFIX

TTL = 3600
"""Seconds for which a stop is remembered."""
EVERY = 0.25
"""Seconds between two looks, while anything is being answered."""
_log = structlog.get_logger("penstock.answer_stops")


def cancel_key(query_id: str) -> str:
    """Exists when somebody asked to stop. Expires after an hour."""
    return f"{PREFIX}answer:{query_id}:cancel"


async def ask_to_stop(client: redis.asyncio.Redis, query_id: str) -> None:
    """Tell the worker that writes an answer to stop."""
    await client.set(cancel_key(query_id), b"1", ex=TTL)


@dataclass(slots=True, eq=False)
class Watched:
    """A question under watch.

    Attributes:
        limit: the scope that ends when somebody asks to stop.
        stopped: whether somebody did.
    """

    query_id: str
    limit: asyncio.Timeout
    stopped: bool = False


@dataclass(slots=True)
class StopWatch:
    """Looks whether questions of this process were withdrawn, and ends their scopes."""

    client: redis.asyncio.Redis
    _watched: set[Watched] = field(default_factory=set)
    _looking: asyncio.Task[None] | None = None

    @contextmanager
    def over(self, query_id: str, limit: asyncio.Timeout) -> Iterator[Watched]:
        """Watch a question until the block ends; a stop makes `limit`, which is entered inside, expire."""
        watched = Watched(query_id, limit)
        self._watched.add(watched)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        try:
            yield watched
        finally:
            self._watched.discard(watched)

    async def aclose(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            asked = list(self._watched)
            if not asked:
                return
            try:
                found = await self.client.mget([cancel_key(one.query_id) for one in asked])
            except RedisError as error:
                _log.warning(
                    "answer_stops.redis_away",
                    error=type(error).__name__,
                    next_step="stops come at the commit",
                )
                continue
            now = asyncio.get_running_loop().time()
            for one, mark in zip(asked, found, strict=True):
                if mark is not None and one in self._watched and not one.limit.expired():
                    one.stopped = True
                    one.limit.reschedule(now)
