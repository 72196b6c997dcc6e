"""What the engine's tests share: a queue's name, running a worker in the background, waiting for a condition."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from workers.engine import Worker

QUEUE = "penstock:test"
PATIENCE = 90.0

MakeWorker = Callable[..., Worker]


@asynccontextmanager
async def serving(worker: Worker) -> AsyncIterator[Worker]:
    """Run a worker's main loop in the background, and close it afterwards."""
    task = asyncio.create_task(worker.async_run())
    try:
        yield worker
    finally:
        await worker.close()
        await asyncio.wait([task])


async def wait_until(condition: Callable[[], Awaitable[object]]) -> None:
    """Wait until a condition holds.

    Raises:
        TimeoutError: it never did.
    """
    async with asyncio.timeout(PATIENCE):
        while not await condition():  # noqa: ASYNC110 - see below.
            await asyncio.sleep(0.01)  # what is waited for happens in another process: there is no event
