"""Events pass here on their way to the bus, at the gateway and from a stream: not while the ledger or a queue is full.

A look costs one ZCARD per queue and one bounded count, is shared by all requests of a process, and is taken while
requests come and a second or more has passed: nothing runs when nobody publishes, and an overload that has ended is
noticed by the next one who asks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import redis.asyncio
import structlog
from redis.exceptions import RedisError

from infra.bus import Bus
from infra.database import Database, queries
from infra.ledger import Accepted
from schemas.envelope import Event
from schemas.errors import PenstockError, Unavailable
from schemas.registry import EVENT_TYPES, QUEUES

EVERY = 1.0
"""Seconds between two looks; longer when a look takes long, so that counting stays cheap."""
COST_SHARE = 20
REDIS_TIMEOUT = 2.0
MAX_HELD = 20_000
"""Events that one process holds in memory on their way into the ledger."""
_log = structlog.get_logger("penstock.pressure")


class Overloaded(Unavailable):
    """More events are waiting than can be kept well."""

    code = "overloaded"


@dataclass(frozen=True, slots=True)
class Load:
    """What was seen: events that have not ended, and jobs by queue."""

    waiting: int = 0
    queued: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Bounds:
    """At which load nothing more is accepted."""

    waiting: int
    queued: int
    held: int = MAX_HELD


def find_excess(load: Load, bounds: Bounds, queues: Collection[str]) -> str | None:
    """Why events for these queues cannot be taken now; None when they can."""
    if load.waiting >= bounds.waiting:
        return f"the ledger holds {bounds.waiting} unfinished events or more"
    for queue in sorted(queues):
        if load.queued.get(queue, 0) >= bounds.queued:
            return f"the queue {queue} holds {bounds.queued} jobs or more"
    return None


class Pressure:
    """Says no while too much is waiting; one for all that a process publishes."""

    def __init__(self, database: Database, client: redis.asyncio.Redis, bounds: Bounds) -> None:
        """Use a database that acts as the gateway."""
        self._database = database
        self._redis = client
        self._bounds = bounds
        self._load = Load()
        self._until = 0.0
        self._look: asyncio.Task[None] | None = None
        self._held = 0
        self._refusing = False

    async def publish(self, bus: Bus, tenant_id: str, events: Sequence[Event]) -> list[Accepted]:
        """Hand events to the bus, unless too much is waiting.

        Raises:
            Overloaded: says how long to wait; nothing was entered.
            Unavailable: the database could not commit; nothing was promised.
        """
        if not events:
            return []
        queues = {queue for event in events if (queue := EVENT_TYPES[event.type].queue) is not None}
        await self.enter(queues, len(events))
        try:
            return await bus.publish(tenant_id, events)
        finally:
            self.leave(len(events))

    async def enter(self, queues: Collection[str], events: int) -> None:
        """Ask to publish so many events for these queues; call `leave` with the same number afterwards.

        Raises:
            Overloaded: says how long to wait.
        """
        if time.monotonic() >= self._until:
            await self._refresh()
        reason = find_excess(self._load, self._bounds, queues)
        if reason is None and self._held and self._held + events > self._bounds.held:
            reason = f"{self._held} events are being entered already"
        self._tell(reason)
        if reason is not None:
            wait = max(EVERY, self._until - time.monotonic())
            raise Overloaded(reason, fix="send the same events again later", retry_after=wait)
        self._held += events

    def _tell(self, reason: str | None) -> None:
        if reason is not None and not self._refusing:
            _log.warning("pressure.overloaded", reason=reason)
        if reason is None and self._refusing:
            _log.info("pressure.recovered")
        self._refusing = reason is not None

    def leave(self, events: int) -> None:
        """These events are in the ledger, or were refused."""
        self._held -= events

    async def aclose(self) -> None:
        """Stop looking."""
        if self._look is not None:
            self._look.cancel()
            await asyncio.gather(self._look, return_exceptions=True)

    async def _refresh(self) -> None:
        """Look again; while there is no overload nobody waits for it."""
        if self._look is None or self._look.done():
            self._look = asyncio.create_task(self._count())
        if self._refusing or self._until == 0.0:
            await asyncio.shield(self._look)

    async def _count(self) -> None:
        began = time.monotonic()
        waiting: int | None = None
        queued: dict[str, int] | None = None
        try:
            async with self._database.connection() as connection:
                waiting = await connection.fetchval(queries("ops").waiting, self._bounds.waiting)
        except PenstockError as error:
            # The ledger says so itself to whoever publishes.
            _log.debug("pressure.load_unknown", reason=error.message)
        try:
            async with asyncio.timeout(REDIS_TIMEOUT), self._redis.pipeline(transaction=False) as pipe:
                for queue in QUEUES:
                    pipe.zcard(queue)
                queued = dict(zip(QUEUES, await pipe.execute(), strict=True))
        except (RedisError, OSError) as error:
            # Events are accepted without Redis; the ledger's own bound holds.
            _log.debug("pressure.load_unknown", error=type(error).__name__)
        now = time.monotonic()
        self._load = Load(self._load.waiting if waiting is None else waiting, queued or {})
        self._until = now + max(EVERY, COST_SHARE * (now - began))
