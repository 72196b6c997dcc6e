"""A compatibility face for stock arq: `arq workers.main.Ingest`, and likewise Answer, Train and Deliver.

The same handlers run through the same runtime and ledger, so that an effect happens once. What our engine adds (batches,
leases, the doorbell) is missing: use `penstock worker` unless you have to run stock arq. Each settings class is built
when it is asked for; nothing is read at import.
"""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

from arq import Retry
from arq.connections import RedisSettings
from arq.worker import func

from infra import wire
from infra.settings import load_settings
from schemas.registry import EVENT_TYPES
from workers.commit import Committer
from workers.engine.types import ClaimedJob, GiveBack, RetryAt, Verdict
from workers.host import open_resources
from workers.pools import POOLS, Pool, open_pool
from workers.runtime import Runtime

MANY_TRIES = 1_000_000
"""arq counts every run as a try; the ledger knows which of them were charged."""
LONGEST_JOB = 3600


def __getattr__(name: str) -> Any:
    """The settings class of a pool, for arq's command line."""
    pool = POOLS.get(name.lower())
    if pool is None or name != name.capitalize():
        raise AttributeError(
            f"workers.main has no pool {name}; use {', '.join(sorted(one.capitalize() for one in POOLS))}"
        )
    return worker_settings(pool)


def worker_settings(pool: Pool) -> type:
    """A class whose attributes are arguments of `arq.Worker`."""
    settings = load_settings()

    async def startup(ctx: dict[Any, Any]) -> None:
        held = AsyncExitStack()
        resources = await open_resources(settings, [pool], held)
        committer = Committer(resources.database, resources.bus)
        held.push_async_callback(committer.aclose)
        ctx["held"] = held
        ctx["runtime"] = Runtime(resources.database, committer, await open_pool(pool, resources, held))

    async def shutdown(ctx: dict[Any, Any]) -> None:
        await ctx["held"].aclose()

    types = [one.name for one in EVENT_TYPES.values() if one.queue == pool.queue]
    return type(
        pool.name.capitalize(),
        (),
        {
            "functions": [
                func(_run, name=name, max_tries=MANY_TRIES, timeout=LONGEST_JOB, keep_result=0)
                for name in types
            ],
            "queue_name": pool.queue,
            "redis_settings": RedisSettings.from_dsn(settings.need("REDIS_URL")),
            "job_serializer": wire.dumps,
            "job_deserializer": wire.loads,
            "on_startup": startup,
            "on_shutdown": shutdown,
            "max_jobs": settings.concurrency * pool.width,
            "max_tries": MANY_TRIES,
            "keep_result": 0,
        },
    )


async def _run(ctx: dict[Any, Any], event_id: str) -> None:
    """One event through the runtime; what has to wait goes back to arq with its delay."""
    now = time.time_ns() // 1000
    job = ClaimedJob(
        event_id, "event", (event_id,), {}, ctx["job_try"], 0, now, now // 1000, now // 1000, "arq"
    )
    verdicts: list[Verdict] = []
    await ctx["runtime"].start([job], lambda _, verdict: verdicts.append(verdict))
    match verdicts:
        case [RetryAt(delay=delay) | GiveBack(delay=delay)]:
            raise Retry(defer=timedelta(seconds=delay))
        case []:
            raise Retry(defer=timedelta(seconds=1))
        case _:
            return
