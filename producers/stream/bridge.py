"""A stream's entries pass through here in batches: read, entered in the ledger in one group, acknowledged, deleted.

The promise (P1) begins when the ledger has committed; until then the entry is Redis's. An entry is acknowledged after
the commit, so a bridge that dies leaves it pending, and another one takes it over; what it had entered already is a
duplicate then. What cannot be an event goes to the dead letters and holds up nothing (P7). While too much is waiting
nothing is read: the backlog stays in the stream.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis.asyncio
import structlog
from redis.exceptions import RedisError, ResponseError

from infra import letters
from infra.bus import Bus
from infra.database import Database
from infra.ledger import Accepted
from infra.letters import Letter
from infra.limits import Limit, TenantLimits, refusal
from producers.pressure import Pressure
from producers.stream.gate import Entry, letter_of, sift
from producers.stream.metrics import BridgeMetrics
from producers.tenant import check_tenant
from schemas.envelope import Event
from schemas.errors import Forbidden, LimitReached, Misconfigured, PenstockError, Permanent, Retryable

BLOCK_MS = 1000
FIRST_WAIT, LONGEST_WAIT = 0.1, 5.0
TENANT_EVERY = 5.0
GONE_MS = 3_600_000
"""A consumer that holds nothing and was silent for so long is forgotten."""
_log = structlog.get_logger("penstock.bridge")


@dataclass(frozen=True, slots=True)
class Source:
    """What a bridge reads.

    Attributes:
        stream: the stream's key.
        tenant: whose events they become; nothing in an entry can change that.
        group: the consumer group; bridges of one group share the stream.
        consumer: this bridge's name in the group.
        batch: entries per read, and per transaction.
        idle: seconds after which another bridge's entries are taken over.
        keep: leave entered entries in the stream; its publisher trims it.
    """

    stream: str
    tenant: str
    group: str
    consumer: str
    batch: int = 200
    idle: float = 30.0
    keep: bool = False


class Bridge:
    """Reads one stream for one tenant."""

    def __init__(
        self,
        source: Source,
        bus: Bus,
        database: Database,
        client: redis.asyncio.Redis,
        *,
        metrics: BridgeMetrics,
        pressure: Pressure,
    ) -> None:
        """Use a database that acts as the gateway, and the Redis that holds the stream."""
        self._source = source
        self._bus = bus
        self._database = database
        self._redis = client
        self._metrics = metrics
        self._pressure = pressure
        self._limits = TenantLimits(database)
        self._allowed: Mapping[str, Any] = {}
        self._held: Sequence[Entry] = []
        self._claimed_at = -source.idle
        self._checked_at = -TENANT_EVERY
        self.trouble: str | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Move entries until `stop` is set; outages of either server are waited out.

        Raises:
            NotFound: there is no such tenant any more.
            Misconfigured: the key holds no stream.
        """
        wait = FIRST_WAIT
        while not stop.is_set():
            asked: float | None = None
            try:
                await self.round()
            except ResponseError as error:
                trouble = await self._answer(error)
            except (Retryable, Forbidden, LimitReached, RedisError, OSError) as error:
                trouble = error.code if isinstance(error, PenstockError) else type(error).__name__
                asked = getattr(error, "retry_after", None)
            else:
                trouble = None
            self._say(trouble)
            if trouble is None:
                wait = FIRST_WAIT
                continue
            await _pause(stop, (asked or wait) * random.uniform(0.8, 1.2))  # noqa: S311 - not cryptography
            wait = min(wait * 2, LONGEST_WAIT)
        await self._leave()

    async def round(self) -> int:
        """Move one batch: what an outage held up, else what a dead bridge left, else what is new.

        Returns:
            How many entries were entered or refused.

        Raises:
            Overloaded: too much is waiting; the batch is held.
            LimitReached: questions are held until answers make room for them; the rest of the batch was moved.
        """
        await self._check_tenant()
        self._held = self._held or await self._abandoned() or await self._new()
        if not self._held:
            return 0
        waiting = await self._enter(self._held)
        moved = [entry_id for entry_id, _ in self._held if entry_id not in waiting]
        if moved:
            await self._acknowledge(moved)
        self._held = [entry for entry in self._held if entry[0] in waiting]
        if self._held:
            raise refusal(Limit.QUERIES, int(self._allowed[Limit.QUERIES]))
        return len(moved)

    async def _check_tenant(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._checked_at >= TENANT_EVERY:
            self._allowed = await check_tenant(self._database, self._source.tenant)
            self._checked_at = now

    async def _abandoned(self) -> Sequence[Entry]:
        """Entries that another bridge has held for too long."""
        now = asyncio.get_running_loop().time()
        if now - self._claimed_at < self._source.idle / 2:
            return []
        one = self._source
        _, entries, *_ = await self._redis.xautoclaim(
            one.stream, one.group, one.consumer, min_idle_time=round(one.idle * 1000), count=one.batch
        )
        if entries:
            self._metrics.claimed(len(entries))
            _log.info("bridge.claimed", entries=len(entries))
        else:  # the next round looks again at once as long as something was left
            self._claimed_at = now
            await self._forget_the_dead()
        return list(entries)

    async def _forget_the_dead(self) -> None:
        one = self._source
        for consumer in await self._redis.xinfo_consumers(one.stream, one.group):
            gone = consumer["pending"] == 0 and consumer["idle"] > GONE_MS
            if gone and consumer["name"] != one.consumer.encode():
                await self._redis.xgroup_delconsumer(one.stream, one.group, consumer["name"])

    async def _new(self) -> Sequence[Entry]:
        one = self._source
        found = await self._redis.xreadgroup(
            one.group, one.consumer, {one.stream: ">"}, count=one.batch, block=BLOCK_MS
        )
        return list(found[0][1]) if found else []

    async def _enter(self, entries: Sequence[Entry]) -> Collection[bytes]:
        """Put a batch into the ledger: events in one group, and what is none to the dead letters.

        Returns:
            The entries that have to wait.
        """
        one = self._source
        sifted = await sift(entries, one.stream, one.tenant, self._limits, self._allowed)
        results = await self._publish([event for _, event in sifted.good])
        for (entry, _), result in zip(sifted.good, results, strict=True):
            if result.error is not None:
                sifted.refused.append(letter_of(entry, result.error))
            else:
                self._metrics.entry(result.status)
        if sifted.refused:
            await self._refuse(sifted.refused)
        return {entry_id for entry_id, _ in sifted.waiting}

    async def _publish(self, events: Sequence[Event]) -> Sequence[Accepted]:
        try:
            return await self._pressure.publish(self._bus, self._source.tenant, events)
        except Retryable:
            # They come again, and must not be counted twice: what passes a limit would be a dead letter.
            self._limits.forget(self._source.tenant)
            raise
        except Permanent as error:
            if len(events) != 1:
                raise
            # A group is taken apart by the bus; a single event that only the database refuses comes back like this.
            return [Accepted(0, None, events[0].source, events[0].id, "rejected", error)]

    async def _refuse(self, refused: Sequence[Letter]) -> None:
        one = self._source
        async with self._database.transaction(one.tenant) as connection:
            pushables = await letters.refuse(connection, one.tenant, one.stream, refused)
        await self._bus.push(pushables)
        for letter in refused:
            self._metrics.entry("refused")
            _log.warning("bridge.refused", entry=letter.entry_id, code=letter.error.code)

    async def _acknowledge(self, entry_ids: Sequence[bytes]) -> None:
        one = self._source
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.xack(one.stream, one.group, *entry_ids)
            if not one.keep:
                pipe.xdel(one.stream, *entry_ids)
            pipe.xlen(one.stream)
            self._metrics.length(int((await pipe.execute())[-1]))

    async def _answer(self, error: ResponseError) -> str | None:
        """What to do about Redis's objection: a group that is gone is made again, from the stream's beginning."""
        text = str(error)
        if text.startswith("WRONGTYPE"):
            raise Misconfigured(
                "the key holds something else than a stream", field="--stream", fix="name another key"
            ) from None
        if not text.startswith("NOGROUP"):
            return text.partition(" ")[0][:40]
        try:
            await self._redis.xgroup_create(self._source.stream, self._source.group, id="0", mkstream=True)
        except ResponseError as busy:
            if not str(busy).startswith("BUSYGROUP"):
                return str(busy).partition(" ")[0][:40]
        except (RedisError, OSError) as away:
            return type(away).__name__
        _log.info("bridge.group_made")
        return None

    def _say(self, trouble: str | None) -> None:
        """One line when it begins, one when it is over."""
        if trouble is not None and self.trouble is None:
            _log.warning("bridge.waiting", error=trouble, next_step="tried again until it works")
        elif trouble is None and self.trouble is not None:
            _log.info("bridge.back")
        self.trouble = trouble

    async def _leave(self) -> None:
        """Take this bridge's name out of the group, unless entries hang on it: those another bridge takes over."""
        if self._held:
            return
        try:
            await self._redis.xgroup_delconsumer(
                self._source.stream, self._source.group, self._source.consumer
            )
        except (RedisError, OSError) as error:
            _log.info("bridge.left_without_goodbye", error=type(error).__name__)


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return


def probe_of(bridge: Bridge) -> Any:
    """Whether the bridge moves entries; for `/readyz`."""

    async def probe() -> str | None:
        return None if bridge.trouble is None else f"waiting ({bridge.trouble})"

    return probe
