"""Many workers on one queue, and one that is not well."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Any

from arq.connections import ArqRedis
from arq.worker import func

from tests.workers.engine.harness import MakeWorker, serving, wait_until
from workers.engine import Worker

LONG = 150


async def test_jobs_in_progress_do_not_hide_those_that_wait(pool: ArqRedis, make_worker: MakeWorker) -> None:
    """Where stock arq starves (its window is full of running jobs) every free slot of the fleet is busy."""
    finish = asyncio.Event()

    async def work(ctx: dict[str, Any]) -> None:
        del ctx
        await finish.wait()

    async def full(worker: Worker, slots: int) -> bool:
        return worker.health.running == slots

    function = func(work, name="work", keep_result=0)
    for number in range(LONG + 30):
        await pool.enqueue_job("work", _job_id=f"job-{number}")
    first = make_worker(function, burst=False, max_jobs=LONG)
    others = [make_worker(function, burst=False, max_jobs=10) for _ in range(3)]
    async with serving(first):
        await wait_until(lambda: full(first, LONG))
        async with serving(others[0]), serving(others[1]), serving(others[2]):
            for worker in others:
                await wait_until(partial(full, worker, 10))
            finish.set()
            await wait_until(lambda: _empty(pool, first.queue_name))
    assert LONG + 30 == sum(worker.jobs_complete for worker in (first, *others))


async def _empty(pool: ArqRedis, queue: str) -> bool:
    return not await pool.exists(queue)


async def test_a_worker_whose_loop_is_blocked_says_so_until_it_is_well(
    pool: ArqRedis, make_worker: MakeWorker
) -> None:
    """A handler that computes for longer than a third of the lease makes its worker unhealthy, for a beat."""

    async def block(ctx: dict[str, Any]) -> None:
        del ctx
        time.sleep(1.1)  # noqa: ASYNC251 - that is the fault.

    await pool.enqueue_job("block")
    worker = make_worker(func(block, name="block", keep_result=0), burst=False, lease=1.5)

    async def unwell() -> bool:
        return worker.health.redis and not worker.health.healthy

    async def well() -> bool:
        return worker.health.healthy

    async with serving(worker):
        await wait_until(unwell)
        assert worker.health.loop_lag > 0.0
        await wait_until(well)
