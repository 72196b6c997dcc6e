"""A process that runs pools: settings go in, resources are opened by one stack, and engine workers run until told to stop.

Several pools in one process (`penstock worker all`) share connections, the bus and the sweeper; each has its own queue,
its own engine worker and its own number of slots.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import structlog
from arq.connections import RedisSettings

from infra import wire
from infra.budget import Budget
from infra.bus import Bus, open_redis
from infra.concurrency import parse_limits
from infra.database import Database
from infra.governor import Governor
from infra.llm import ModelApi
from infra.migrate import check_schema
from infra.ops import OpsPort, Probe, ping_database, ping_redis
from infra.prices import load_prices
from infra.settings import Settings
from infra.sweeper import Sweeper
from workers.commit import Committer
from workers.engine.solo import run_solo
from workers.engine.worker import Worker
from workers.handling import Resources
from workers.pools import POOLS, Pool, open_pool
from workers.runtime import Runtime

_log = structlog.get_logger("penstock.host")


@dataclass(frozen=True, slots=True)
class Host:
    """Pools that are ready to run, for the ops port to ask."""

    resources: Resources
    system: Database
    workers: dict[str, Worker]

    def ops(self) -> OpsPort:
        """What the ops port of this process tells."""
        probes: dict[str, Probe] = {
            "postgres": ping_database(self.resources.database),
            "redis": ping_redis(self.resources.redis),
        }
        for name, worker in self.workers.items():
            probes[f"pool {name}"] = _pool_probe(worker)
        return OpsPort(probes, self.resources.redis, self.system)


def _pool_probe(worker: Worker) -> Probe:
    async def probe() -> str | None:
        health = worker.health
        if health.healthy:
            return None
        return (
            "Redis is away" if not health.redis else f"the event loop was blocked for {health.loop_lag:.1f} s"
        )

    return probe


Isolate = Callable[[str], Sequence[str]]


async def run_one(settings: Settings, name: str) -> None:
    """In a child of a worker: run the one job that the parent sends, and report its verdict."""
    pool = POOLS[name]
    async with AsyncExitStack() as held:
        resources = await open_resources(settings, [pool], held)
        committer = Committer(resources.database, resources.bus)
        held.push_async_callback(committer.aclose)
        await run_solo(Runtime(resources.database, committer, await open_pool(pool, resources, held)))


def worker_id() -> str:
    """Names this process in logs and leases."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"


async def open_resources(settings: Settings, pools: Sequence[Pool], held: AsyncExitStack) -> Resources:
    """Open what these pools need; `held` closes it.

    Raises:
        Misconfigured: a setting is missing, or the schema is not one that this code knows.
        Unavailable: PostgreSQL cannot be reached.
    """
    name = "-".join(pool.name for pool in pools)
    database = await held.enter_async_context(
        Database.open(
            settings.need("DATABASE_URL"),
            role="penstock_worker",
            size=settings.database_pool,
            application=f"penstock worker {name}",
        )
    )
    async with database.connection() as connection:
        await check_schema(connection)
    client = open_redis(settings.need("REDIS_URL"))
    held.push_async_callback(client.aclose, close_connection_pool=True)
    bus = Bus(database, client)
    held.push_async_callback(bus.aclose)
    budget = await held.enter_async_context(
        Budget(database, load_prices(settings.prices), settings.budget_day, settings.budget_month)
    )
    models = None
    if any(pool.calls_models for pool in pools):
        models = await held.enter_async_context(
            ModelApi.open(
                settings.openai_base_url,
                settings.need("OPENAI_API_KEY"),
                timeout=settings.model_timeout,
                governor=Governor.of(client, settings),
            )
        )
    return Resources(settings, database, client, bus, budget, models, worker_id())


@asynccontextmanager
async def open_host(
    settings: Settings, names: Sequence[str], *, burst: bool = False, isolate: Isolate | None = None
) -> AsyncIterator[Host]:
    """Open pools without running them.

    Args:
        settings: where the servers are and how much to run at once.
        names: of `workers.pools.POOLS`.
        burst: stop when the queues are empty.
        isolate: a pool's name → the command that runs one suspected killer alone (`run_one`).
    """
    pools = [POOLS[name] for name in names]
    async with AsyncExitStack() as held:
        resources = await open_resources(settings, pools, held)
        system = await held.enter_async_context(
            Database.open(
                settings.need("DATABASE_URL"), role="penstock_system", size=2, application="penstock sweeper"
            )
        )
        committer = Committer(resources.database, resources.bus)
        held.push_async_callback(committer.aclose)
        workers: dict[str, Worker] = {}
        for pool in pools:
            handlers = await open_pool(pool, resources, held)
            workers[pool.name] = Worker(
                batch_runner=Runtime(resources.database, committer, handlers),
                queue_name=pool.queue,
                redis_settings=RedisSettings.from_dsn(settings.need("REDIS_URL")),
                job_serializer=wire.dumps,
                job_deserializer=wire.loads,
                max_jobs=settings.concurrency * pool.width,
                lease=settings.lease,
                limits=parse_limits(settings.limits),
                tally=True,
                job_completion_wait=round(settings.grace),
                handle_signals=False,
                burst=burst,
                suspects=pool.isolates,
                isolate=isolate(pool.name) if isolate is not None and pool.isolates else None,
            )
        yield Host(resources, system, workers)


async def run_host(host: Host) -> None:
    """Run the workers and the sweeper until a signal has been obeyed or, in burst mode, the queues are empty."""
    stop = _Stop(host)
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop, signum)
    sweeping = asyncio.create_task(
        Sweeper(host.system, host.resources.redis, name=host.resources.worker_id).run()
    )
    running = {
        name: asyncio.create_task(worker.async_run(), name=f"pool {name}")
        for name, worker in host.workers.items()
    }
    _log.info("host.started", pools=sorted(running), worker=host.resources.worker_id)
    try:
        # A stopped worker ends by cancellation; one that failed takes the process with it, and its jobs come back.
        await asyncio.wait(running.values(), return_when=asyncio.FIRST_EXCEPTION)
        if stop.asked:
            await asyncio.wait(running.values())
    finally:
        sweeping.cancel()
        for worker in host.workers.values():
            await worker.close()
        await asyncio.gather(sweeping, *running.values(), return_exceptions=True)
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(signum)
    for task in running.values():
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error
    _log.info("host.stopped", pools=sorted(running))


class _Stop:
    """What a signal does: the first lets running jobs finish within the grace time, the second gives them back at once."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.asked = False

    def __call__(self, signum: signal.Signals) -> None:
        _log.info("host.stopping", signal=signum.name, at_once=self.asked)
        for worker in self._host.workers.values():
            act: Callable[[signal.Signals], None] = (
                worker.handle_sig if self.asked else worker.handle_sig_wait_for_completion
            )
            act(signum)
        self.asked = True
