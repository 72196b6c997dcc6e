"""What the gateway stands on is opened here, once, and passed to the routes as one value."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass

import redis.asyncio
from starlette.requests import Request

from infra.budget import Budget
from infra.bus import Bus, open_redis
from infra.database import Database
from infra.egress.policy import EgressPolicy
from infra.governor import Governor
from infra.limits import TenantLimits
from infra.llm import ModelApi
from infra.prices import load_prices
from infra.replies import Replies
from infra.retrieval import Retriever
from infra.secretbox import SecretBox
from infra.settings import Settings
from producers.gateway.keyring import KeyRing
from producers.gateway.metrics import GatewayMetrics
from producers.gateway.rates import Rates
from producers.gateway.waiting import EndWatch
from producers.pressure import Bounds, Pressure
from schemas.errors import Unavailable

ROLE = "penstock_gateway"


@dataclass(frozen=True, slots=True)
class Gateway:
    """The gateway's resources.

    Attributes:
        database: acts as ``penstock_gateway``.
        redis: for queues and answer streams; never a record.
        rates: how often each key may call.
        limits: what each tenant may have.
        pressure: whether more events can be taken now.
        replies: what was answered to requests with an Idempotency-Key.
        retriever: finds passages; None when no model key is set, because a question must be embedded.
        ends: tells waiters when their events have ended.
        egress: which of a tenant's URLs may be registered.
        box: seals webhook secrets; None when no key is set.
        stopping: set when the process is to end, so that streams end in time.
    """

    settings: Settings
    database: Database
    redis: redis.asyncio.Redis
    bus: Bus
    keys: KeyRing
    rates: Rates
    limits: TenantLimits
    pressure: Pressure
    replies: Replies
    metrics: GatewayMetrics
    retriever: Retriever | None
    ends: EndWatch
    egress: EgressPolicy
    box: SecretBox | None
    stopping: asyncio.Event

    def need_retriever(self) -> Retriever:
        """What finds passages.

        Raises:
            Unavailable: the operator has set no model key.
        """
        if self.retriever is None:
            raise Unavailable(
                "nothing can be searched: the gateway has no OPENAI_API_KEY", fix="tell the operator"
            )
        return self.retriever

    def need_box(self) -> SecretBox:
        """What seals webhook secrets.

        Raises:
            Unavailable: the operator has set no key, so no secret can be kept.
        """
        if self.box is None:
            raise Unavailable(
                "webhook secrets cannot be kept: the gateway has no PENSTOCK_SECRET_KEYS",
                fix="tell the operator",
            )
        return self.box


@asynccontextmanager
async def open_gateway(settings: Settings) -> AsyncIterator[Gateway]:
    """Open everything and close it in reverse order.

    Raises:
        Misconfigured: names the setting that is missing or wrong.
        Unavailable: PostgreSQL cannot be reached. Redis may be away: events are accepted without it.
    """
    async with AsyncExitStack() as held:
        database = await held.enter_async_context(
            Database.open(
                settings.need("DATABASE_URL"),
                role=ROLE,
                size=settings.database_pool,
                application="penstock gateway",
            )
        )
        client = open_redis(settings.need("REDIS_URL"))
        held.push_async_callback(client.aclose, close_connection_pool=True)
        bus = Bus(database, client)
        held.push_async_callback(bus.aclose)
        keys = KeyRing(database)
        held.push_async_callback(keys.flush_used)
        noting = asyncio.create_task(keys.note_used())
        held.push_async_callback(_end, noting)
        retriever = await _open_retriever(settings, database, client, held)
        egress = EgressPolicy.parse(
            settings.egress_allow, https_only=settings.egress_https_only, proxy=settings.proxy_url
        )
        box = None
        if settings.secret_keys is not None:
            box = SecretBox.from_keys(settings.secret_keys.get_secret_value())
        pressure = Pressure(database, client, Bounds(settings.max_waiting, settings.max_queued))
        held.push_async_callback(pressure.aclose)
        ends = EndWatch(database)
        held.push_async_callback(ends.aclose)
        yield Gateway(
            settings=settings,
            database=database,
            redis=client,
            bus=bus,
            keys=keys,
            rates=Rates(),
            limits=TenantLimits(database),
            pressure=pressure,
            replies=Replies(database, box),
            metrics=GatewayMetrics(),
            retriever=retriever,
            ends=ends,
            egress=egress,
            box=box,
            stopping=asyncio.Event(),
        )


async def _open_retriever(
    settings: Settings, database: Database, client: redis.asyncio.Redis, held: AsyncExitStack
) -> Retriever | None:
    if settings.openai_api_key is None:
        return None
    models = await held.enter_async_context(
        ModelApi.open(
            settings.openai_base_url,
            settings.openai_api_key.get_secret_value(),
            timeout=settings.model_timeout,
            governor=Governor.of(client, settings),
        )
    )
    budget = await held.enter_async_context(
        Budget(database, load_prices(settings.prices), settings.budget_day, settings.budget_month)
    )
    return Retriever(database, models, budget)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def gateway_of(request: Request) -> Gateway:
    """The resources behind a request."""
    gateway: Gateway = request.app.state.gateway
    return gateway
