"""A bridge's process: what it stands on, its ops port, and the signals that end it."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
from contextlib import AsyncExitStack

import structlog

from infra.bus import Bus, open_redis
from infra.database import Database
from infra.migrate import check_schema
from infra.ops import OpsPort, ping_database, ping_redis, serve_ops
from infra.settings import Settings
from producers.pressure import Bounds, Pressure
from producers.stream.bridge import Bridge, Source, probe_of
from producers.stream.metrics import BridgeMetrics
from producers.tenant import check_tenant

ROLE = "penstock_gateway"
_log = structlog.get_logger("penstock.bridge")


def consumer_name() -> str:
    """Names this process in its consumer group."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"


async def serve_bridge(settings: Settings, source: Source) -> None:
    """Move entries until SIGTERM or SIGINT; the batch under way is finished.

    Raises:
        Misconfigured: a setting is missing, the key holds no stream, or the schema is not one that this code knows.
        Unavailable: PostgreSQL cannot be reached at the start. Later, and for Redis always, an outage is waited out.
        NotFound, Forbidden: there is no such tenant, or it is suspended.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)
    async with AsyncExitStack() as held:
        database = await held.enter_async_context(
            Database.open(settings.need("DATABASE_URL"), role=ROLE, size=2, application="penstock bridge")
        )
        async with database.connection() as connection:
            await check_schema(connection)
        await check_tenant(database, source.tenant)
        client = open_redis(settings.need("REDIS_URL"))
        held.push_async_callback(client.aclose, close_connection_pool=True)
        bus = Bus(database, client)
        held.push_async_callback(bus.aclose)
        metrics = BridgeMetrics()
        pressure = Pressure(database, client, Bounds(settings.max_waiting, settings.max_queued))
        held.push_async_callback(pressure.aclose)
        bridge = Bridge(source, bus, database, client, metrics=metrics, pressure=pressure)
        probes = {
            "postgres": ping_database(database),
            "redis": ping_redis(client),
            "bridge": probe_of(bridge),
        }
        ops = OpsPort(probes, client, database, metrics.registry)
        await held.enter_async_context(serve_ops(settings.ops_host, settings.ops_port, ops))
        for signum in signals:
            loop.add_signal_handler(signum, stop.set)
        try:
            _log.info("bridge.started", consumer=source.consumer, batch=source.batch, keep=source.keep)
            await bridge.run(stop)
            _log.info("bridge.stopped", consumer=source.consumer)
        finally:
            for signum in signals:
                loop.remove_signal_handler(signum)
