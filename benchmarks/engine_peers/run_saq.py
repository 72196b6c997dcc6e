"""No-op jobs pass through SAQ here: uvloop, 100 at a time, hiredis, job records dropped at once (the fastest it offers)."""

# pyright: reportMissingImports=false

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path
from typing import Any

import uvloop
from saq import Queue, Worker

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.engine_peers.tally import Tally, arguments


async def main() -> None:
    """Enqueue, run, tell."""
    chosen = arguments()
    logging.getLogger("saq").setLevel(logging.ERROR)
    tally, done = Tally(chosen.count), asyncio.Event()

    async def noop(ctx: dict[str, Any]) -> None:
        del ctx
        tally.add()
        if tally.complete:
            done.set()

    queue = Queue.from_url(chosen.url, name="bench", max_concurrent_ops=200)
    await queue.connect()
    for start in range(0, chosen.count, 500):
        size = min(500, chosen.count - start)
        await asyncio.gather(*(queue.enqueue("noop", ttl=-1) for _ in range(size)))
    worker = Worker(queue, functions=[("noop", noop)], concurrency=100)
    running = asyncio.create_task(worker.start())
    await done.wait()
    tally.tell()
    worker.event.set()
    await running
    await queue.disconnect()


if __name__ == "__main__":
    uvloop.run(main())
