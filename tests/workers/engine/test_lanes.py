"""Lanes: whose turn it is when many tenants wait, and what keeps a lane true to the queue."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any
from uuid import UUID

import pytest
from arq.connections import ArqRedis
from arq.jobs import Job, JobStatus
from arq.worker import Worker as StockWorker
from arq.worker import func

from infra import queue_keys
from infra.push import push
from infra.queue_insight import insight
from schemas.work import Pushable
from tests.workers.engine.harness import QUEUE, MakeWorker
from tests.workers.engine.lanes import TENANTS, Queue, finish


async def test_a_flood_of_one_tenant_does_not_starve_another(queue: Queue) -> None:
    """Whoever comes last is served at the next claim, and all get equal shares of it."""
    await queue.push("ada", 300)
    await queue.push("bob", 2)
    await queue.push("cyd", 300)
    assert {"ada": 14, "bob": 2, "cyd": 14} == queue.shares(await queue.store().claim(want=30))


async def test_tenants_take_turns_when_slots_come_free_one_by_one(queue: Queue) -> None:
    """A share also holds for a worker that always claims a single job."""
    for tenant in TENANTS:
        await queue.push(tenant, 4)
    served: Counter[str] = Counter()
    for _ in range(9):
        served += queue.shares(await queue.store().claim(want=1))
    assert dict.fromkeys(TENANTS, 3) == served


@pytest.mark.parametrize("size", [1, 8])
async def test_urgent_work_comes_first_and_bulk_keeps_a_quarter(queue: Queue, size: int) -> None:
    """Deletions overtake a flood of documents; a flood of deletions does not stop the documents."""
    await queue.push("ada", 40)
    await queue.push("bob", 40, kind="document.deleted")
    served: Counter[str] = Counter()
    for _ in range(16 // size):
        served += queue.shares(await queue.store().claim(want=size))
    assert {"ada": 4, "bob": 12} == served


@pytest.mark.parametrize("size", [1, 10])
async def test_jobs_of_other_producers_take_a_turn_like_a_tenant(
    pool: ArqRedis, queue: Queue, size: int
) -> None:
    """What arq's own `enqueue_job` put there is in no lane; it neither waits for ever nor pushes in."""
    await queue.push("ada", 40)
    for number in range(40):
        await pool.enqueue_job("work", _job_id=f"arq-{number}")
    served: Counter[str] = Counter()
    for _ in range(20 // size):
        served += queue.shares(await queue.store().claim(want=size))
    assert {"ada": 10, "arq": 10} == served


async def test_work_in_a_lane_looks_to_arq_like_any_job(pool: ArqRedis, queue: Queue) -> None:
    """Queued, deferred, in progress; stock arq sees it in the order of time."""
    [waiting] = await queue.push("ada")
    [later] = await queue.push("ada", delay=60.0)
    assert JobStatus.queued == await Job(waiting, pool, QUEUE).status()
    assert JobStatus.deferred == await Job(later, pool, QUEUE).status()
    [job] = (await queue.store().claim(want=5)).jobs
    assert (waiting, JobStatus.in_progress) == (job.job_id, await Job(waiting, pool, QUEUE).status())
    assert 1_600_000_000_000 < job.score_ms < 10_000_000_000_000


async def test_work_that_comes_back_keeps_its_lane_and_goes_to_its_head(queue: Queue) -> None:
    """Given back, retried, or lost with its worker: it waited its turn already."""
    [first] = await queue.push("ada")
    store = queue.store()
    await finish(store, await store.claim(want=1), "again")
    await queue.push("ada", 100)
    await queue.push("bob", 100)
    claim = await store.claim(want=2)
    assert {"ada": 1, "bob": 1} == queue.shares(claim)
    assert first in {job.job_id for job in claim.jobs}
    lapsing = queue.store(lease_ms=0)
    await finish(store, claim, "again")
    lost = await lapsing.claim(want=2)
    found = await store.claim(want=2)
    assert {job.job_id for job in lost.jobs} == {job.job_id for job in found.jobs}
    assert [1, 1] == [job.losses for job in found.jobs]


async def test_a_flood_of_retries_that_come_due_together_is_shared_too(queue: Queue) -> None:
    """An outage ends, a thousand retries of one tenant are due before another's first one."""
    await queue.push("ada", 300)
    store = queue.store()
    await finish(store, await store.claim(want=300), "again")
    await queue.push("bob")
    await queue.push("cyd", 2)
    claim = await store.claim(want=1)
    served = queue.shares(claim) + queue.shares(await store.claim(want=2))
    assert dict.fromkeys(TENANTS, 1) == served


async def test_pushing_again_changes_nothing(pool: ArqRedis, queue: Queue) -> None:
    """The sweeper pushes what may be there already: a job waits in its lane once."""
    ids = await queue.push("ada", 3)
    jobs = [Pushable(UUID(one), "document.added", QUEUE, 0.0, "ada") for one in ids]
    assert 0 == await push(pool, jobs)
    await queue.store().claim(want=1)
    assert 0 == await push(pool, jobs)
    assert {"b/document.added/ada": ids[1:]} == await queue.lanes()


async def test_a_lane_entry_without_a_job_is_harmless(pool: ArqRedis, queue: Queue) -> None:
    """Somebody deleted the jobs: the claim drops the entries and takes the next ones."""
    ids = await queue.push("ada", 30)
    await pool.zrem(QUEUE, *ids[:25])
    assert ids[25:] == [job.job_id for job in (await queue.store().claim(want=10)).jobs]
    assert {} == await queue.lanes()


async def test_a_lane_that_vanished_is_found_again(pool: ArqRedis, queue: Queue) -> None:
    """Even when somebody deletes our keys no job waits for ever."""
    ids = await queue.push("ada", 5)
    await pool.delete(
        queue_keys.lane_prefix(QUEUE) + "b/document.added/ada", queue_keys.turns(QUEUE, urgent=False)
    )
    assert set(ids) == {job.job_id for job in (await queue.store().claim(want=10)).jobs}


async def test_stock_arq_runs_work_in_lanes_and_leaves_no_heap_behind(pool: ArqRedis, queue: Queue) -> None:
    """Where only stock workers serve a queue, the lanes that they do not know of stay short."""
    ran: list[str] = []

    async def work(ctx: dict[str, Any], event_id: str) -> None:
        del ctx
        ran.append(event_id)

    ids: list[str] = []
    for _ in range(4):
        ids += await queue.push("ada", 5)
        stock = StockWorker(
            [func(work, name="document.added", keep_result=0)],
            redis_pool=pool,
            queue_name=QUEUE,
            burst=True,
            handle_signals=False,
            poll_delay=0,
            job_deserializer=pool.job_deserializer,
        )
        await stock.main()
        assert 5 >= len((await queue.lanes())["b/document.added/ada"])
    assert sorted(ids) == sorted(ran)


async def test_stock_arq_beside_ours_does_not_run_a_job_twice(pool: ArqRedis, queue: Queue) -> None:
    """A job of a lane that stock arq runs now is put off, and found again if that worker dies."""
    [held, free] = await queue.push("ada", 2)
    await pool.set(f"arq:in-progress:{held}", b"1", px=60_000)
    store = queue.store()
    assert [free] == [job.job_id for job in (await store.claim(want=5)).jobs]
    await pool.delete(f"arq:in-progress:{held}")
    await pool.zadd(QUEUE, {held: 1})
    assert [held] == [job.job_id for job in (await store.claim(want=5)).jobs]


async def test_nothing_is_left_of_lanes_when_all_is_done(pool: ArqRedis, queue: Queue) -> None:
    """Lanes, turns and limited groups end with their work, or by themselves."""
    for tenant in TENANTS:
        await queue.push(tenant, 2, kind="document.deleted")
        await queue.push(tenant, 2)
    store = queue.store(tenant_each=10)
    claim = await store.claim(want=20)
    endless = {key.decode() async for key in pool.scan_iter() if await pool.pttl(key) < 0}
    assert 12 == len(claim.jobs)
    assert {
        QUEUE,
        queue_keys.running(QUEUE),
        queue_keys.held(QUEUE),
        *(f"arq:job:{job.job_id}" for job in claim.jobs),
    } == endless
    await finish(store, claim)
    assert set() == {key async for key in pool.scan_iter() if await pool.pttl(key) < 0}


async def test_insight_sees_through_lanes(pool: ArqRedis, queue: Queue) -> None:
    """Ready, deferred and the oldest age are those of the due times, not of the scores."""
    await queue.push("ada", 3)
    await queue.push("bob", 1)
    await queue.push("bob", 1, delay=60.0)
    seen = await insight(pool, QUEUE)
    assert (4, 1, 2) == (seen.ready, seen.deferred, seen.lanes)
    assert 0.0 <= seen.oldest_ready_seconds < 30.0


@pytest.mark.parametrize("seed", range(4))
async def test_lanes_stay_true_to_the_queue_whatever_happens(queue: Queue, seed: int) -> None:
    """Pushes, claims, endings, lapsed leases and foreign workers in any order: each job waits once, and each is run."""
    chance = random.Random(seed)
    pool, done = queue.pool, set[str]()
    for _ in range(60):
        store = queue.store(lease_ms=chance.choice([0, 30_000]))
        match chance.randrange(5):
            case 0 | 1:
                kind = chance.choice(["document.added", "document.deleted"])
                await queue.push(
                    chance.choice(TENANTS),
                    chance.randrange(1, 6),
                    kind=kind,
                    delay=chance.choice([0.0, 0.01]),
                )
            case 2:
                claim = await store.claim(want=chance.randrange(1, 8))
                await finish(store, claim, "again")
            case 3:
                claim = await store.claim(want=chance.randrange(1, 8))
                await finish(store, claim)
                done |= {job.job_id for job in claim.jobs}
            case _:
                for job_id in await pool.zrange(QUEUE, 0, 1):
                    await pool.zrem(QUEUE, job_id)  # as stock arq does when it has run a job
                    await pool.delete(b"arq:job:" + job_id, b"arq:in-progress:" + job_id)
                    done.add(job_id.decode())
        lanes = [one for ids in (await queue.lanes()).values() for one in ids]
        waiting = {one.decode() for one in await pool.zrangebyscore(QUEUE, "-inf", "(0")}
        assert set() == waiting - set(lanes)
    await pool.delete(queue_keys.lost(QUEUE))  # here leases lapse more often than a suspect may
    while await pool.zcard(QUEUE):
        store = queue.store()
        for job_id in await pool.zrangebyscore(QUEUE, "(0", "+inf"):
            await pool.delete(b"arq:in-progress:" + job_id)
            await pool.zadd(QUEUE, {job_id: 1})
        claim = await store.claim(want=50)
        await finish(store, claim)
        done |= {job.job_id for job in claim.jobs}
    assert set(queue.tenant) == done


async def test_a_late_tenant_overtakes_a_flood(queue: Queue, make_worker: MakeWorker) -> None:
    """Through a real worker: two hundred documents were there first, and still the one is among the first to run."""
    order: list[str] = []

    async def work(ctx: dict[str, Any], event_id: str) -> None:
        del ctx
        order.append(event_id)

    await queue.push("ada", 200)
    [one] = await queue.push("bob")
    await make_worker(func(work, name="document.added", keep_result=0), max_jobs=4).main()
    assert (201, True) == (len(order), order.index(one) < 8)
