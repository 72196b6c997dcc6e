"""Batched hand-over: jobs of one type that a claim brings go to their handler together, with a result for each."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from arq.connections import ArqRedis
from arq.jobs import Job

from infra import wire
from schemas.errors import BadInput, RateLimited
from tests.workers.engine.harness import QUEUE, MakeWorker
from workers.engine.deadletters import DeadLetters
from workers.engine.together import Call, batch, together


async def test_jobs_of_a_type_come_together_with_a_result_for_each(
    pool: ArqRedis, make_worker: MakeWorker
) -> None:
    """Twenty jobs in two calls of ten; each job has its own result, as if it had run alone."""
    sizes: list[int] = []

    async def double(calls: Sequence[Call]) -> list[int]:
        sizes.append(len(calls))
        return [2 * call.args[0] for call in calls]

    for number in range(20):
        await pool.enqueue_job("double", number, _job_id=f"job-{number}")
    await make_worker(batch(double, name="double", most=10), max_jobs=20).main()
    assert [10, 10] == sizes
    assert [0, 14, 38] == [
        await Job(f"job-{n}", pool, QUEUE, _deserializer=wire.loads).result(timeout=1) for n in (0, 7, 19)
    ]


async def test_one_of_a_batch_may_fail(pool: ArqRedis, make_worker: MakeWorker) -> None:
    """An exception among the results is that job's own: it alone is dead."""

    async def halve(calls: Sequence[Call]) -> list[int | BaseException]:
        return [BadInput("odd") if call.args[0] % 2 else call.args[0] // 2 for call in calls]

    for number in range(4):
        await pool.enqueue_job("halve", number, _job_id=f"job-{number}")
    worker = make_worker(batch(halve, name="halve", most=10))
    await worker.main()
    assert (2, 2) == (worker.jobs_complete, worker.jobs_failed)
    dead = {letter.job_id for letter in await DeadLetters(pool, QUEUE).listed()}
    assert {"job-1", "job-3"} == dead


@pytest.mark.parametrize(
    ("error", "calls"), [(ValueError("poison"), [3, 1, 1, 1]), (RateLimited(retry_after=1.0), [3])]
)
async def test_what_shares_a_call_with_poison_succeeds(error: Exception, calls: list[int]) -> None:
    """When the whole call fails each item is tried alone, unless the error says that it is nobody's fault."""
    sizes: list[int] = []

    async def handle(items: Sequence[str]) -> list[str]:
        sizes.append(len(items))
        if "poison" in items:
            raise error
        return [item.upper() for item in items]

    one = together(handle, most=10)
    results = await asyncio.gather(*map(one, ["a", "poison", "b"]), return_exceptions=True)
    assert calls == sizes
    assert results == (["A", error, "B"] if len(calls) > 1 else [error] * 3)
