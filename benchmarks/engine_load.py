"""Jobs of one throughput sample pass through here: a worker process that waits for a go, drains the queue, and tells.

Kinds: `arq` (stock), `ours` (no-op arq functions), `ledger` (events loaded, a handler that does nothing, status
committed), `waiting` (the same, the handler waits on I/O). A process of its own, so that no sample inherits memory or
caches of another.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import uvloop
from arq.connections import RedisSettings
from arq.worker import Worker as StockWorker
from arq.worker import func

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.engine_peers.tally import Tally
from benchmarks.engine_stage import QUEUE
from infra import log, wire
from infra.bus import Bus, open_redis
from infra.database import Database
from schemas.registry import INGEST
from schemas.work import Work
from workers import heap
from workers.commit import Committer
from workers.engine import Worker
from workers.handling import Done, HandlerSpec, Outcome
from workers.runtime import Runtime

WAIT = 0.1


def functions(tally: Tally) -> list[Any]:
    """The no-op, as an arq function."""

    async def noop(ctx: dict[str, Any], event_id: str) -> None:
        del ctx, event_id
        tally.add()

    return [func(noop, name="noop", keep_result=0)]


def handlers(tally: Tally, wait: float) -> dict[str, HandlerSpec]:
    """The no-op, as a handler."""

    async def handle(work: Work) -> Outcome:
        del work
        if wait:
            await asyncio.sleep(wait)
        tally.add()
        return Done()

    return {"document.added": HandlerSpec(handle)}


async def make_worker(chosen: argparse.Namespace, tally: Tally, held: AsyncExitStack) -> Any:
    """The worker of a kind, 100 jobs at a time."""
    options: dict[str, Any] = {
        "redis_settings": RedisSettings.from_dsn(chosen.redis),
        "burst": True,
        "max_jobs": 100,
        "handle_signals": False,
        "job_serializer": wire.dumps,
        "job_deserializer": wire.loads,
    }
    if chosen.kind == "arq":
        return StockWorker(functions(tally), queue_name=QUEUE, poll_delay=0.005, **options)
    if chosen.kind == "ours":
        return Worker(functions(tally), queue_name=QUEUE, tally=True, **options)
    client = open_redis(chosen.redis)
    held.push_async_callback(client.aclose, close_connection_pool=True)
    database = await held.enter_async_context(
        Database.open(os.environ["DATABASE_URL"], role="penstock_worker", size=8)
    )
    committer = Committer(database, Bus(database, client))
    held.push_async_callback(committer.aclose)
    runtime = Runtime(database, committer, handlers(tally, WAIT if chosen.kind == "waiting" else 0.0))
    return Worker(batch_runner=runtime, queue_name=INGEST, max_burst_jobs=chosen.count, tally=True, **options)


async def main() -> None:
    """Say ready, wait for the go, drain, tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=["arq", "ours", "ledger", "waiting"])
    parser.add_argument("--redis", required=True)
    parser.add_argument("--count", type=int, default=-1, help="jobs at most; else until the queue is empty")
    chosen = parser.parse_args()
    # As in production: one line per attempt of an event, as JSON, to standard error.
    log.configure()
    tally = Tally(chosen.count)
    async with AsyncExitStack() as held:
        worker = await make_worker(chosen, tally, held)
        heap.settle()  # for all kinds alike
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        cpu, began = time.process_time(), time.time()
        await worker.main()
        tally.tell(cpu=time.process_time() - cpu, began=began, ended=time.time())
        await worker.close()


if __name__ == "__main__":
    uvloop.run(main())
