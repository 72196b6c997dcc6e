"""The bell: a worker that waits for it gets its jobs with the ring, and holds nothing when it leaves."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from arq.connections import ArqRedis
from arq.worker import func

from tests.workers.engine.harness import MakeWorker, serving, wait_until
from tests.workers.engine.lanes import Queue


async def test_jobs_come_with_the_ring(queue: Queue) -> None:
    """A claim sent behind the waiting runs when the bell rings; a script that Redis forgot claims nothing."""
    store = queue.store()
    await queue.pool.script_flush()
    assert None is await store.listen_and_claim(timeout=0.01, want=2, aborts=False)
    await store.claim(want=1)
    listening = asyncio.create_task(store.listen_and_claim(timeout=30.0, want=2, aborts=False))
    ids = await queue.push("ada", 3)
    claim = await listening
    assert claim is not None
    assert (ids[:2], True) == ([job.job_id for job in claim.jobs], claim.more)


async def test_a_worker_that_stops_while_it_listens_holds_nothing(
    queue: Queue, make_worker: MakeWorker
) -> None:
    """What rings after it has gone is for others, at once and uncharged."""
    ran: list[str] = []

    async def work(ctx: dict[str, Any], event_id: str) -> None:
        del ctx
        ran.append(event_id)

    worker = make_worker(func(work, name="document.added", keep_result=0), burst=False)

    async def ran_both() -> bool:
        return len(ran) == 2

    async def listens() -> bool:
        return worker._pool is not None and worker._doorbell.reserved > 0

    async with serving(worker):
        await wait_until(listens)
        ids = await queue.push("ada", 1)
        ids += await queue.push("bob", 1)
        await wait_until(ran_both)
        await wait_until(listens)
    assert sorted(ids) == sorted(ran)
    [late] = await queue.push("ada", 1)
    [job] = (await queue.store().claim(want=5)).jobs
    assert (late, 0, 0) == (job.job_id, job.charged, job.losses)


async def test_slots_that_listen_are_there_for_what_no_bell_announces(
    pool: ArqRedis, make_worker: MakeWorker
) -> None:
    """While long jobs run and the other slots wait for the bell, a deferred job still begins, with the poll far away."""
    began: list[str] = []
    end = asyncio.Event()

    async def hold(ctx: dict[str, Any]) -> None:
        began.append(ctx["job_id"])
        await end.wait()

    async def all_began() -> bool:
        return len(began) == 3

    for number in range(3):
        when = datetime.now(UTC) + timedelta(seconds=0.1 * (number + 1))
        await pool.enqueue_job("hold", _job_id=f"hold-{number}", _defer_until=when)
    function = func(hold, name="hold", keep_result=0)
    async with serving(make_worker(function, burst=False, poll_delay=3600, max_jobs=3)):
        await wait_until(all_began)
        end.set()
