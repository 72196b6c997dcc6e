"""A worker process for the crash tests: its jobs count their runs in Redis, sleep, or kill the process they run in."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

import uvloop
from arq.connections import RedisSettings
from arq.worker import func

from infra import wire
from workers.engine import Worker
from workers.engine.supervisor import follow_supervisor


async def ready(ctx: dict[str, Any]) -> None:
    """Say that signals are listened to."""
    await ctx["redis"].sadd("ready", os.getpid())


async def work(ctx: dict[str, Any], seconds: float) -> None:
    """Run for a while, then count."""
    await ctx["redis"].hincrby("starts", ctx["job_id"], 1)
    await asyncio.sleep(seconds)
    await ctx["redis"].hincrby("effects", ctx["job_id"], 1)


async def poison(ctx: dict[str, Any]) -> None:
    """Kill the process."""
    await ctx["redis"].hincrby("deaths", ctx["job_id"], 1)
    os.kill(os.getpid(), signal.SIGKILL)


async def main() -> None:
    """Serve until a signal."""
    port, queue, lease = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])
    follow_supervisor()
    worker = Worker(
        [func(work, name="work"), func(poison, name="poison")],
        redis_settings=RedisSettings(host="127.0.0.1", port=port, password=os.environ["CRASH_PASSWORD"]),
        queue_name=queue,
        on_startup=ready,
        lease=lease,
        max_jobs=20,
        keep_result=0,
        poll_delay=0.1,
        job_completion_wait=float(os.environ.get("CRASH_GRACE", "5")),
        job_serializer=wire.dumps,
        job_deserializer=wire.loads,
    )
    try:
        await worker.async_run()
    except asyncio.CancelledError:
        pass  # a second signal, or the end of the grace
    finally:
        await worker.close()


if __name__ == "__main__":
    uvloop.run(main())
