"""The gateway's process: the API on its port, health and metrics on theirs, until a signal has been obeyed."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog
import uvicorn

from infra.database import Database
from infra.migrate import check_schema
from infra.ops import OpsPort, ping_database, ping_redis, serve_ops
from infra.settings import Settings
from producers.gateway.app import create_app
from producers.gateway.problem_protocol import ProblemProtocol
from producers.gateway.resources import Gateway, open_gateway
from schemas.errors import Misconfigured

_log = structlog.get_logger("penstock.gateway")


@dataclass(frozen=True, slots=True)
class Serving:
    """A gateway that answers now."""

    host: str
    port: int
    ops_port: int

    @property
    def url(self) -> str:
        """Where the API is."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; requests under way are finished within the grace time.

    Raises:
        Misconfigured: a setting is missing, the port is taken, or the schema is not one that this code knows.
        Unavailable: PostgreSQL cannot be reached.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)
    for signum in signals:
        loop.add_signal_handler(signum, stop.set)
    try:
        async with open_server(settings):
            collect_rarely()
            await stop.wait()
            _log.info("gateway.stopping", grace=settings.grace)
    finally:
        for signum in signals:
            loop.remove_signal_handler(signum)


def collect_rarely() -> None:
    """Look for reference cycles less often, and never again among what was made before requests came.

    A batch makes thousands of containers without a single cycle; looking through all of the application for each costs a
    tenth of the time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


@asynccontextmanager
async def open_server(settings: Settings) -> AsyncIterator[Serving]:
    """Serve until the block ends."""
    listener = listen(settings.gateway_host, settings.gateway_port)
    try:
        async with open_gateway(settings) as gateway:
            await _check(gateway.database)
            async with (
                serve_ops(settings.ops_host, settings.ops_port, _ops(gateway)) as ops_port,
                _running(settings, gateway, listener),
            ):
                serving = Serving(settings.gateway_host, int(listener.getsockname()[1]), ops_port)
                _log.info("gateway.listening", url=serving.url)
                yield serving
    finally:
        listener.close()


@asynccontextmanager
async def _running(settings: Settings, gateway: Gateway, listener: socket.socket) -> AsyncIterator[None]:
    config = uvicorn.Config(
        create_app(settings, gateway),
        http=ProblemProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=max(1, round(settings.grace)),
    )
    server = uvicorn.Server(config)
    # serve() would take over the process's signals; there are two servers in this process.
    task = asyncio.create_task(server._serve(sockets=[listener]))  # noqa: SLF001
    try:
        yield
    finally:
        gateway.stopping.set()
        server.should_exit = True
        await task


async def _check(database: Database) -> None:
    async with database.connection() as connection:
        await check_schema(connection)


def _ops(gateway: Gateway) -> OpsPort:
    probes = {"postgres": ping_database(gateway.database), "redis": ping_redis(gateway.redis)}
    return OpsPort(probes, gateway.redis, gateway.database, gateway.metrics.registry)


def listen(host: str, port: int) -> socket.socket:
    """Open the API's port.

    Raises:
        Misconfigured: it is taken, or the address is not one of this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise Misconfigured(
            f"the gateway cannot listen on {host}:{port}: {error.strerror}",
            field="PENSTOCK_GATEWAY_PORT",
            fix="set another PENSTOCK_GATEWAY_PORT, or stop what listens there",
        ) from None
    listener.setblocking(False)
    return listener
