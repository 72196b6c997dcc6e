"""Events pass through here on their way in: into the ledger first, then, as bare ids, onto the arq queue of their type.

The promise (P1) is made when the ledger has committed. Redis is told afterwards; when it is away the event is accepted
all the same, and the sweeper pushes it later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import orjson
import redis.asyncio
import structlog
from redis.exceptions import RedisError

from infra.coalesce import Coalescer
from infra.database import Database
from infra.ledger import Accepted, Offered, enter, offer
from infra.push import push
from infra.redis_client import Client
from schemas.envelope import Event
from schemas.errors import Permanent
from schemas.registry import EVENT_TYPES
from schemas.work import Pushable

GROUP = 500
GROUP_BYTES = 4 * 1024 * 1024
_log = structlog.get_logger("penstock.bus")


def open_redis(url: str) -> redis.asyncio.Redis:
    """A client for one Redis or Valkey; connects when it is first used. Close with `aclose`."""
    client: redis.asyncio.Redis = Client.from_url(
        url, socket_connect_timeout=5, socket_timeout=30, health_check_interval=30, retry_on_timeout=False
    )
    return client


class Bus:
    """Accepts events in groups and tells Redis."""

    def __init__(self, database: Database, client: redis.asyncio.Redis, *, linger: float = 0.0) -> None:
        """Use a database that acts as a role that may insert events, and any Redis client.

        Args:
            database: its role may insert events.
            client: any Redis client.
            linger: seconds for which a single event waits for company.
        """
        self._database = database
        self._redis = client
        self._redis_is_away = False
        self._accept: Coalescer[Offered, Accepted] = Coalescer(
            self._accept_group,
            limit=GROUP,
            weight=_weight,
            weight_limit=GROUP_BYTES,
            linger=linger,
            parallel=2,
        )

    async def publish(self, tenant_id: str, events: Sequence[Event]) -> list[Accepted]:
        """Enter events of one tenant; when this returns, those accepted are never lost.

        Concurrent calls share transactions. Redis is told afterwards, and its absence is no error.

        Returns:
            One result per event, in order: accepted, duplicate or rejected.

        Raises:
            Unavailable: the database could not commit; nothing of this call was promised, and publishing the same
                events again is safe.
        """
        if not events:
            return []
        offered = offer(tenant_id, events)
        if len(offered) > 1:
            return await self._accept_group(offered)
        # Its place in the group that it shared says nothing to its caller.
        one = await self._accept(offered[0])
        return [Accepted(0, one.event_id, one.source, one.id, one.status, one.error)]

    async def push(self, jobs: Sequence[Pushable]) -> None:
        """Tell Redis of events that were committed; its absence is logged once and left to the sweeper."""
        if not jobs:
            return
        try:
            await push(self._redis, jobs)
        except (RedisError, OSError) as error:
            if not self._redis_is_away:
                self._redis_is_away = True
                _log.warning(
                    "bus.redis_away",
                    error=type(error).__name__,
                    next_step="accepted events wait; the sweeper pushes them",
                )
            return
        if self._redis_is_away:
            self._redis_is_away = False
            _log.info("bus.redis_back")

    async def _accept_group(self, offered: Sequence[Offered]) -> list[Accepted]:
        try:
            results = await self._enter(offered)
        except Permanent:
            if len(offered) == 1:
                raise
            # Something that only the database refuses: find it, so that the others are accepted (P7).
            results = [await self._enter_alone(index, one) for index, one in enumerate(offered)]
        await self.push(
            [
                Pushable(one.event_id, one.event.type, queue, tenant=one.tenant_id)
                for one, result in zip(offered, results, strict=True)
                if result.status == "accepted" and (queue := EVENT_TYPES[one.event.type].queue) is not None
            ]
        )
        return results

    async def _enter(self, offered: Sequence[Offered]) -> list[Accepted]:
        return await enter(self._database, offered)

    async def _enter_alone(self, index: int, one: Offered) -> Accepted:
        try:
            [result] = await self._enter([one])
        except Permanent as error:
            return Accepted(index, None, one.event.source, one.event.id, "rejected", error)
        return replace(result, index=index)

    async def aclose(self) -> None:
        """Wait until everything that was handed over is in the ledger."""
        await self._accept.aclose()


def _weight(one: Offered) -> int:
    content = one.event.data.get("content")
    return 500 + (len(content) if isinstance(content, str) else len(orjson.dumps(one.event.data)))
