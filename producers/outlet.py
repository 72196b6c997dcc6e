"""Events of one tenant leave a Python program here, in groups, and are tried again until the ledger has them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import stamina

from infra.bus import Bus, open_redis
from infra.database import Connection, Database
from infra.ledger import Accepted
from infra.settings import Settings, load_settings
from producers.naming import event_name, raw_event
from producers.outbox import Outbox
from producers.tenant import check_tenant
from schemas.envelope import Event, parse_event
from schemas.errors import PenstockError, Unavailable

SOURCE = "penstock:sdk"
ROLE = "penstock_gateway"
MAX_GROUP = 500
ATTEMPTS = 5
TIMEOUT = 30.0


class Outlet:
    """Publishes the events of one tenant; an async context manager that keeps connections open.

    Whoever uses it holds the database's password and is trusted: a tenant's limits and back-pressure are the gateway's and
    the bridge's (docs/decisions/0014-limits-at-the-front-door.md).
    """

    def __init__(
        self,
        *,
        tenant: str,
        settings: Settings | None = None,
        database_url: str | None = None,
        redis_url: str | None = None,
        source: str = SOURCE,
        linger: float = 0.0,
    ) -> None:
        """Prepare; nothing is opened before `async with`.

        Args:
            tenant: whose events they are.
            settings: where the servers are; read from the environment unless given.
            database_url: in place of `DATABASE_URL`.
            redis_url: in place of `REDIS_URL`.
            source: the CloudEvents ``source`` of what is published, unless a call gives its own.
            linger: seconds for which a single event waits for company. Calls that are made at the same time share a
                transaction anyway; lingering makes larger groups of calls that come one after the other.
        """
        self.tenant = tenant
        self.source = source
        self._settings = settings
        self._urls = {"database_url": database_url, "redis_url": redis_url}
        self._linger = linger
        self._held = AsyncExitStack()
        self._bus: Bus | None = None

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            Misconfigured: names the setting that is missing or wrong.
            Unavailable: PostgreSQL cannot be reached.
            NotFound: there is no such tenant.
        """
        given = {name: url for name, url in self._urls.items() if url is not None}
        settings = self._settings or load_settings(**given)
        database_url = self._urls["database_url"] or settings.need("DATABASE_URL")
        redis_url = self._urls["redis_url"] or settings.need("REDIS_URL")
        async with AsyncExitStack() as held:
            database = await held.enter_async_context(
                Database.open(
                    database_url, role=ROLE, size=settings.database_pool, application="penstock producer"
                )
            )
            await check_tenant(database, self.tenant)
            client = open_redis(redis_url)
            held.push_async_callback(client.aclose, close_connection_pool=True)
            self._bus = Bus(database, client, linger=self._linger)
            held.push_async_callback(self._bus.aclose)
            self._held = held.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait until everything that was handed over is in the ledger, and disconnect."""
        self._bus = None
        await self._held.aclose()

    async def publish(self, events: Sequence[Event | Mapping[str, Any]]) -> list[Accepted]:
        """Publish many events, in groups.

        Args:
            events: events, or CloudEvents as mappings; ``specversion``, ``source`` and ``id`` may be left out.

        Returns:
            One result per event, in order: accepted, duplicate, or rejected with its error.

        Raises:
            Unavailable: the database stayed away; nothing of the last group was promised. Publishing the same again
                is safe where the events have ids of their own.
        """
        results: list[Accepted | None] = [None] * len(events)
        entering: asyncio.Task[None] | None = None
        try:
            for start in range(0, len(events), MAX_GROUP):
                # The next group is read while the database writes the last one.
                good = self._read(events[start : start + MAX_GROUP], start, results)
                if entering is not None:
                    await entering
                entering = asyncio.create_task(self._enter_group(good, results))
                await asyncio.sleep(0)
        finally:
            if entering is not None:
                await entering
        return [one for one in results if one is not None]

    def _read(
        self, given: Sequence[Event | Mapping[str, Any]], start: int, results: list[Accepted | None]
    ) -> list[tuple[int, Event]]:
        """The events of a group with their places; those that are none have their result already."""
        good: list[tuple[int, Event]] = []
        for index, one in enumerate(given, start):
            try:
                good.append((index, one if isinstance(one, Event) else self._event(one)))
            except PenstockError as error:
                assert not isinstance(one, Event)
                name, source = str(one.get("id", "")), str(one.get("source", self.source))
                results[index] = Accepted(index, None, source, name, "rejected", error)
        return good

    async def _enter_group(self, good: Sequence[tuple[int, Event]], results: list[Accepted | None]) -> None:
        for (index, _), one in zip(good, await self._enter([event for _, event in good]), strict=True):
            results[index] = one if one.index == index else replace(one, index=index)

    @asynccontextmanager
    async def transaction(self, connection: Connection) -> AsyncIterator[Outbox]:
        """Publish inside the caller's own transaction: its change and the events are committed together, or neither is.

        The connection's login must be a member of ``penstock_gateway``, on the database that holds the ledger. Events
        go onto their queues after the commit. Within an outer transaction this is a savepoint, and the commit is not
        seen here: then the sweeper finds the events, about ten seconds after it. So it does when this process dies.

        Args:
            connection: an asyncpg connection of the caller's; its role, search path and codecs stay as they are.

        Yields:
            What publishes on it.
        """
        bus = self._open_bus()
        outbox = Outbox(self.tenant, connection, self._event)
        async with connection.transaction():
            yield outbox
        if not connection.is_in_transaction():
            await bus.push(outbox.committed)

    def _open_bus(self) -> Bus:
        if self._bus is None:
            raise RuntimeError("use the producer inside `async with`")
        return self._bus

    async def _enter(self, events: Sequence[Event]) -> list[Accepted]:
        bus = self._open_bus()
        async for attempt in stamina.retry_context(on=Unavailable, attempts=ATTEMPTS, timeout=TIMEOUT):
            with attempt:
                return await bus.publish(self.tenant, events)
        raise AssertionError("stamina raises when it gives up")

    def _event(self, given: Mapping[str, Any]) -> Event:
        raw: dict[str, Any] = {"specversion": "1.0", "source": self.source, **given}
        if raw.get("id") is None and isinstance(raw.get("data"), dict):
            sequence = raw.get("sequence")
            raw["id"] = event_name(
                str(raw.get("type")), raw["data"], sequence if isinstance(sequence, int) else None
            )
        return parse_event(raw)

    async def publish_one(
        self, kind: str, data: dict[str, Any], attributes: Mapping[str, Any], subject: str | None = None
    ) -> Accepted:
        """Publish one event or raise why not; values that are None are left out."""
        [result] = await self._enter([self._event(raw_event(kind, data, attributes, subject))])
        if result.error is not None:
            raise result.error
        return result
