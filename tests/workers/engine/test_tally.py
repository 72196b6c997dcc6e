"""The tally: what became of attempts, by type, as `penstock status` and `/metrics` tell it."""

from __future__ import annotations

import asyncio
from typing import Any

from arq.connections import ArqRedis
from arq.worker import func

from infra.queue_insight import insight
from schemas.errors import BadInput, RateLimited, Unavailable
from tests.workers.engine.harness import QUEUE, MakeWorker
from workers.engine.policy import Policy


async def test_attempts_are_counted_by_type_with_their_waits_and_times(
    pool: ArqRedis, make_worker: MakeWorker
) -> None:
    """Done, retried, given back and dead; names that nobody registered share one label."""
    tries: list[str] = []

    async def work(ctx: dict[str, Any], plan: str) -> None:
        tries.append(plan)
        if plan == "dead":
            raise BadInput("bad")
        if plan == "retried" and ctx["job_try"] == 1:
            raise Unavailable("away")
        if plan == "given_back" and tries.count(plan) == 1:
            raise RateLimited(retry_after=0.0)
        await asyncio.sleep(0.02)

    for plan in ("done", "dead", "retried", "given_back"):
        await pool.enqueue_job("work", plan)
    await pool.enqueue_job("made-up\n{}", "done")
    await asyncio.sleep(0.02)
    policy = Policy(base=0.01, floor=0.0)
    for _ in range(2):  # the sums of several workers add up
        worker = make_worker(func(work, name="work"), policy=policy, tally=True)
        await worker.main()
        await worker.close()
        await pool.enqueue_job("work", "done")
    types = (await insight(pool, QUEUE)).types
    assert {"work", "other"} == set(types)
    sums = types["work"]
    assert (4, 1, 1, 1, 7) == (sums.done, sums.retried, sums.given_back, sums.dead, sums.attempts)
    assert sums.wait_seconds > 0.05
    assert 0.05 < sums.run_seconds < 30.0
    assert 1 == types["other"].dead


async def test_sums_wait_while_redis_is_away(pool: ArqRedis, make_worker: MakeWorker) -> None:
    """A tally that could not be sent is sent later, and none is counted twice."""

    async def work(ctx: dict[str, Any]) -> None:
        del ctx

    await pool.enqueue_job("work")
    worker = make_worker(func(work, name="work"), tally=True)
    await pool.set("penstock:v1:" + QUEUE + ":tally", "a key of the wrong type")
    await worker.main()
    await worker.close()
    await pool.delete("penstock:v1:" + QUEUE + ":tally")
    assert {} == (await insight(pool, QUEUE)).types
    assert worker._tally is not None
    worker._tally._redis = pool
    await worker._tally.send()
    await worker._tally.send()
    assert 1 == (await insight(pool, QUEUE)).types["work"].done
