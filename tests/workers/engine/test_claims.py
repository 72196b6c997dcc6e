"""Leases: who may run a job, for how long, and what happens when that ends."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from arq.connections import ArqRedis
from arq.jobs import Job, JobStatus

from infra import queue_keys
from infra.queue_insight import pause, resume
from tests.workers.engine.harness import QUEUE, wait_until
from workers.engine.store import QueueStore, Settlement

MakeStore = Callable[..., QueueStore]


@pytest.fixture
def make_store(pool: ArqRedis) -> MakeStore:
    """Stores as different workers would have them; a lease of 0 ends at once."""

    def make(*, lease_ms: int = 30_000) -> QueueStore:
        return QueueStore(pool, QUEUE, lease_ms=lease_ms, memory_ms=60_000)

    return make


async def enqueue(pool: ArqRedis, count: int) -> list[str]:
    """Put jobs into the queue as any arq producer does."""
    ids = [f"job-{number}" for number in range(count)]
    for job_id in ids:
        await pool.enqueue_job("work", job_id, _job_id=job_id)
    return ids


async def test_a_claim_takes_many_jobs_and_nobody_else_gets_them(
    pool: ArqRedis, make_store: MakeStore
) -> None:
    """Two workers share a queue without overlap, and say what remains."""
    ids = await enqueue(pool, 5)
    first = await make_store().claim(want=3)
    second = await make_store().claim(want=3)
    assert (3, True) == (len(first.jobs), first.more)
    assert (2, False) == (len(second.jobs), second.more)
    assert sorted(ids) == sorted(job.job_id for job in (*first.jobs, *second.jobs))
    assert JobStatus.in_progress == await Job("job-0", pool, QUEUE).status()


async def test_tokens_grow_also_over_an_emptied_redis(pool: ArqRedis, make_store: MakeStore) -> None:
    """A later claim always fences an earlier one, even when Redis has forgotten everything."""
    tokens = []
    for _ in range(3):
        await enqueue(pool, 1)
        tokens.append((await make_store().claim(want=1)).token)
        await pool.flushall()
    assert tokens == sorted(set(tokens))
    assert tokens[-1] < 2**53


async def test_a_finished_job_leaves_no_key(pool: ArqRedis, make_store: MakeStore) -> None:
    """Payload, lease, counters and the fencing clock are gone with the last job."""
    await enqueue(pool, 2)
    store = make_store()
    claim = await store.claim(want=10)
    assert [] == await store.finish([Settlement(job.job_id, claim.token) for job in claim.jobs])
    assert [] == await pool.keys("*")


async def test_a_lease_that_ran_out_goes_to_the_next_worker(pool: ArqRedis, make_store: MakeStore) -> None:
    """The job is ready again, the loss is charged, and the slow worker's verdict is refused."""
    await enqueue(pool, 1)
    slow = make_store(lease_ms=0)
    lost = await slow.claim(want=1)
    found = await make_store().claim(want=1)
    assert (["job-0"], [1]) == ([job.job_id for job in found.jobs], [job.losses for job in found.jobs])
    assert ["job-0"] == await slow.finish([Settlement("job-0", lost.token)])
    assert ["job-0"] == await slow.renew([("job-0", lost.token)])
    assert [] == await make_store().renew([("job-0", found.token)])
    assert await pool.exists("arq:job:job-0")


async def test_a_renewed_lease_holds(pool: ArqRedis, make_store: MakeStore) -> None:
    """Renewal moves the end of the lease, so the job is not ready although its first lease is over."""
    await enqueue(pool, 1)
    first = await make_store(lease_ms=50).claim(want=1)
    keeper = make_store()
    assert [] == await keeper.renew([("job-0", first.token)])
    score = await pool.zscore(QUEUE, "job-0")
    assert score is not None
    assert score > (await keeper.claim(want=1)).now_ms + 20_000


async def test_an_abort_request_does_not_make_a_running_job_run_twice(
    pool: ArqRedis, make_store: MakeStore
) -> None:
    """`Job.abort()` resets the score of a job whose score is in the future, which a leased one's is."""
    await enqueue(pool, 1)
    await make_store().claim(want=1)
    await pool.zadd(QUEUE, {"job-0": 1})
    assert [] == list((await make_store().claim(want=1)).jobs)
    score = await pool.zscore(QUEUE, "job-0")
    assert score is not None
    assert score > 1


async def test_a_job_that_stock_arq_runs_is_left_alone(pool: ArqRedis, make_store: MakeStore) -> None:
    """Both kinds of worker may share a queue: arq's in-progress key is respected."""
    await enqueue(pool, 2)
    await pool.set("arq:in-progress:job-0", b"1", px=60_000)
    assert ["job-1"] == [job.job_id for job in (await make_store().claim(want=5)).jobs]


async def test_a_lease_that_redis_forgot_still_counts(pool: ArqRedis, make_store: MakeStore) -> None:
    """When the key is gone but nobody took the job, its worker may finish or keep it."""
    await enqueue(pool, 2)
    store = make_store()
    claim = await store.claim(want=2)
    await pool.delete("arq:in-progress:job-0", "arq:in-progress:job-1")
    assert [] == await store.finish([Settlement("job-0", claim.token)])
    assert [] == await store.renew([("job-1", claim.token)])
    assert await pool.exists("arq:in-progress:job-1")


async def test_given_back_work_is_not_charged_and_retried_work_is(
    pool: ArqRedis, make_store: MakeStore
) -> None:
    """The attempt counter moves only when told to."""
    await enqueue(pool, 2)
    store = make_store()
    first = await store.claim(want=2)
    await store.finish(
        [
            Settlement("job-0", first.token, "again"),
            Settlement("job-1", first.token, "again", attempt=1),
        ]
    )
    again = await store.claim(want=2)
    assert {"job-0": 0, "job-1": 1} == {job.job_id: job.charged for job in again.jobs}


async def test_sending_a_settlement_twice_changes_nothing(pool: ArqRedis, make_store: MakeStore) -> None:
    """A cut connection makes the worker send again; the second copy is harmless."""
    await enqueue(pool, 2)
    store = make_store()
    claim = await store.claim(want=2)
    batch = [Settlement("job-0", claim.token), Settlement("job-1", claim.token, "again", 60_000, 1)]
    await store.finish(batch)
    await store.finish(batch)
    assert [b"job-1"] == await pool.zrange(QUEUE, 0, -1)
    assert b"1" == await pool.get("arq:retry:job-1")


async def test_a_paused_queue_gives_nothing(pool: ArqRedis, make_store: MakeStore) -> None:
    """Until it is resumed, which rings the bell."""
    await enqueue(pool, 1)
    await pause(pool, QUEUE)
    claim = await make_store().claim(want=1)
    assert (True, []) == (claim.paused, list(claim.jobs))
    await resume(pool, QUEUE)
    assert await make_store().listen(timeout=1.0)
    assert 1 == len((await make_store().claim(want=1)).jobs)


async def test_a_suspect_is_passed_over_until_it_is_claimed_alone(
    pool: ArqRedis, make_store: MakeStore
) -> None:
    """From the second loss on, other jobs come without it, and it comes without others."""
    await enqueue(pool, 2)
    await pool.execute_command("HSET", queue_keys.lost(QUEUE), "job-0", "2")  # type: ignore[no-untyped-call]
    many = await make_store().claim(want=5)
    assert (["job-1"], 1) == ([job.job_id for job in many.jobs], many.suspects)
    alone = await make_store().claim(want=1, alone=True)
    assert [("job-0", 2)] == [(job.job_id, job.losses) for job in alone.jobs]


async def test_a_restarted_redis_gets_its_scripts_again(pool: ArqRedis, make_store: MakeStore) -> None:
    """A server that forgot the scripts is told them again within the call."""
    await enqueue(pool, 1)
    store = make_store()
    await store.renew([("nobody", 1)])
    await pool.script_flush()
    assert 1 == len((await store.claim(want=1)).jobs)


async def test_deferred_work_is_announced_with_its_time(pool: ArqRedis, make_store: MakeStore) -> None:
    """An empty claim says when the next job is due, so that the worker can set a timer."""
    await pool.enqueue_job("work", _job_id="later", _defer_by=60)
    claim = await make_store().claim(want=1)
    assert claim.next_due_ms == await pool.zscore(QUEUE, "later")


async def test_every_key_has_an_owner_or_ends_by_itself(pool: ArqRedis, make_store: MakeStore) -> None:
    """While jobs run, only the queue, the running set and payloads live without a time to live."""
    await enqueue(pool, 3)
    await make_store(lease_ms=0).claim(want=2)
    await make_store().claim(want=2)
    endless = {key.decode() async for key in pool.scan_iter() if await pool.pttl(key) < 0}
    assert {QUEUE, queue_keys.running(QUEUE), queue_keys.held(QUEUE)} == endless


async def test_waiting_for_the_bell_ends_when_it_rings(pool: ArqRedis, make_store: MakeStore) -> None:
    """One ring wakes one listener."""
    store = make_store()
    await store.ring()

    async def heard() -> bool:
        return await store.listen(timeout=5.0)

    await wait_until(heard)
    assert 0 == await pool.exists(queue_keys.bell(QUEUE))
