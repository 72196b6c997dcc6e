"""No-op jobs pass through taskiq here: list or stream broker, with or without results, 100 at a time, orjson, uvloop.

Mode `pickup` measures instead how long an idle worker takes to begin a job.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import asyncio
import json
import logging
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import uvloop
from taskiq.api import run_receiver_task
from taskiq.serializers import ORJSONSerializer
from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend, RedisStreamBroker

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.engine_peers.tally import Tally, arguments


def broker_of(url: str, mode: str) -> Any:
    """The broker of a mode, such as `list` or `stream-results`."""
    broker = (ListQueueBroker if "list" in mode else RedisStreamBroker)(url, queue_name="bench")
    if "results" in mode:
        backend = RedisAsyncResultBackend(url, result_ex_time=60, serializer=ORJSONSerializer())
        broker = broker.with_result_backend(backend)
    return broker.with_serializer(ORJSONSerializer())


async def throughput(url: str, mode: str, count: int) -> None:
    """Enqueue, run, tell."""
    tally, done = Tally(count), asyncio.Event()
    broker = broker_of(url, mode)

    async def noop() -> None:
        tally.add()
        if tally.complete:
            done.set()

    task = broker.register_task(noop, task_name="noop")
    await broker.startup()
    for start in range(0, count, 500):
        await asyncio.gather(*(task.kiq() for _ in range(min(500, count - start))))
    receiver = asyncio.create_task(
        run_receiver_task(broker, max_async_tasks=100, max_prefetch=200, validate_params=False)
    )
    await done.wait()
    tally.tell()
    leave(receiver)


async def pickup(url: str, count: int) -> None:
    """Send jobs one by one to an idle worker; prints the waits' median and 99th percentile in milliseconds.

    The first does not count, as with ours.
    """
    broker = broker_of(url, "list")
    waits: list[float] = []
    picked = asyncio.Event()

    async def probe(sent: float) -> None:
        waits.append((time.perf_counter() - sent) * 1000)
        picked.set()

    task = broker.register_task(probe, task_name="probe")
    await broker.startup()
    receiver = asyncio.create_task(run_receiver_task(broker, max_async_tasks=100, validate_params=False))
    await asyncio.sleep(1.0)
    for _ in range(count + 1):
        picked.clear()
        await task.kiq(time.perf_counter())
        await picked.wait()
        await asyncio.sleep(0.004)
    print(
        json.dumps({"p50": statistics.median(waits[1:]), "p99": statistics.quantiles(waits[1:], n=100)[98]}),
        flush=True,
    )
    leave(receiver)


def leave(receiver: asyncio.Task[None]) -> NoReturn:
    """End the process: with the stream broker a receiver that is cancelled does not always end."""
    del receiver
    os._exit(0)


async def main() -> None:
    """Do what is asked."""
    chosen = arguments()
    logging.getLogger("taskiq").setLevel(logging.ERROR)
    if chosen.mode == "pickup":
        await pickup(chosen.url, chosen.count)
    else:
        await throughput(chosen.url, chosen.mode, chosen.count)


if __name__ == "__main__":
    uvloop.run(main())
