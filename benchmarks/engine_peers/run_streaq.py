"""No-op jobs pass through streaQ here: uvloop, 100 at a time, results dropped, its logging silent."""

# pyright: reportMissingImports=false

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path

import uvloop
from streaq import Worker

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.engine_peers.tally import Tally, arguments


async def main() -> None:
    """Enqueue, run, tell."""
    chosen = arguments()
    logging.getLogger("streaq").setLevel(logging.ERROR)
    tally, done = Tally(chosen.count), asyncio.Event()

    async def noop() -> None:
        tally.add()
        if tally.complete:
            done.set()

    worker = Worker(redis_url=chosen.url, concurrency=100, handle_signals=False)
    task = worker.task(silent=True, ttl=0)(noop)
    async with worker:
        for start in range(0, chosen.count, 500):
            size = min(500, chosen.count - start)
            await worker.enqueue_many([task.enqueue() for _ in range(size)])
    running = asyncio.create_task(worker.run_async())
    await done.wait()
    tally.tell()
    running.cancel()
    await asyncio.wait([running])


if __name__ == "__main__":
    uvloop.run(main())
