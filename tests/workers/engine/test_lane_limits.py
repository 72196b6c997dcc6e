"""Limits: how many jobs of a type or a tenant the whole fleet runs at once."""

from __future__ import annotations

import asyncio
from typing import Any

from arq.worker import func

from tests.workers.engine.harness import QUEUE, MakeWorker
from tests.workers.engine.lanes import TENANTS, Queue, finish
from workers.engine.store import QueueStore


async def test_a_tenants_limit_holds_for_the_whole_fleet(queue: Queue) -> None:
    """The others go on; a job that ends makes room, one that waits for its retry too."""
    await queue.push("ada", 10)
    await queue.push("bob", 3)
    first, second = queue.store(tenant_ada=2), queue.store(tenant_ada=2)
    claim = await first.claim(want=4)
    assert {"ada": 2, "bob": 2} == queue.shares(claim)
    rest = await second.claim(want=4)
    assert ({"bob": 1}, True, False) == (queue.shares(rest), rest.held, rest.more)
    assert (True, []) == ((held := await second.claim(want=4)).held, list(held.jobs))
    await finish(first, claim, "again", 60_000)
    assert {"ada": 2} == queue.shares(await second.claim(want=4))


async def test_a_types_limit_counts_all_tenants(queue: Queue) -> None:
    """Three documents at once, whosever they are."""
    for tenant in TENANTS:
        await queue.push(tenant, 4)
    await queue.push("ada", 4, kind="document.deleted")
    bounds = {"type document.added": 3}
    store = QueueStore(queue.pool, QUEUE, lease_ms=30_000, memory_ms=60_000, limits=bounds)
    claim = await store.claim(want=20)
    assert (7, True) == (len(claim.jobs), claim.held)


async def test_what_a_dead_worker_held_does_not_count_against_a_limit(queue: Queue) -> None:
    """Its lease is over: the limit is free again, without anybody counting down."""
    await queue.push("ada", 2)
    await queue.store(lease_ms=0, tenant_each=1).claim(want=2)
    assert {"ada": 1} == queue.shares(await queue.store(tenant_each=1).claim(want=2))


async def test_a_worker_at_a_limit_goes_on_by_itself(queue: Queue, make_worker: MakeWorker) -> None:
    """One job of a tenant at once, ten in the queue: no slot runs two, and none waits for a poll."""
    running: set[str] = set()
    most: list[int] = []

    async def work(ctx: dict[str, Any], event_id: str) -> None:
        del ctx
        running.add(event_id)
        most.append(len(running))
        await asyncio.sleep(0.005)
        running.remove(event_id)

    ids = await queue.push("ada", 10)
    worker = make_worker(
        func(work, name="document.added", keep_result=0), limits={"tenant *": 1}, poll_delay=30.0
    )
    await worker.main()
    assert [1] * len(ids) == most
