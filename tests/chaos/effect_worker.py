"""A worker process for the chaos tests: the real engine, runtime and ledger, and a handler whose effect can be counted."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any

import uvloop
from arq.connections import RedisSettings

from infra import log, wire
from infra.bus import Bus, open_redis
from infra.database import Connection, Database
from schemas.registry import INGEST
from schemas.work import Publication, Work
from workers.commit import Committer
from workers.engine import Worker
from workers.handling import Done, HandlerSpec, Outcome
from workers.runtime import Runtime

READY = "ready for signals"


async def handle(work: Work) -> Outcome:
    """Take a moment, as a call to a model does, and leave one line for each time that the effect is committed."""
    await asyncio.sleep(random.random() * 0.04)

    async def effect(connection: Connection) -> Sequence[Publication]:
        await connection.execute(
            "INSERT INTO audit_log (tenant_id, actor, action, target) VALUES ($1, 'chaos', 'effect', $2)",
            work.tenant_id,
            str(work.event_id),
        )
        return ()

    # Half of the work has an effect of its own; the other half ends by the short way.
    return Done(effect if int(work.id) % 2 else None)


async def ready(ctx: dict[str, Any]) -> None:
    """Say that signals are listened to."""
    del ctx
    print(READY, flush=True)  # noqa: T201 - the fleet reads it


async def main() -> None:
    """Serve until a signal."""
    log.configure(level="info")
    lease = float(sys.argv[1])
    redis_url, database_url = os.environ["REDIS_URL"], os.environ["DATABASE_URL"]
    async with AsyncExitStack() as held:
        database = await held.enter_async_context(Database.open(database_url, role="penstock_worker", size=4))
        client = open_redis(redis_url)
        held.push_async_callback(client.aclose, close_connection_pool=True)
        committer = Committer(database, Bus(database, client))
        held.push_async_callback(committer.aclose)
        worker = Worker(
            batch_runner=Runtime(database, committer, {"document.added": HandlerSpec(handle)}),
            redis_settings=RedisSettings.from_dsn(redis_url),
            queue_name=INGEST,
            on_startup=ready,
            lease=lease,
            max_jobs=32,
            poll_delay=0.2,
            job_completion_wait=10,
            job_serializer=wire.dumps,
            job_deserializer=wire.loads,
        )
        try:
            with suppress(asyncio.CancelledError):  # how arq's worker ends after a signal
                await worker.async_run()
        finally:
            await worker.close()


if __name__ == "__main__":
    uvloop.run(main())
