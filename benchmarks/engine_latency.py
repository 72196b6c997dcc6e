"""Single jobs for an idle worker pass through here: how long until they begin, how late deferred ones are, what rest costs.

Producer and worker share one event loop, as in the drivers of the peers. Run as a process of its own: prints JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import uvloop
from arq.connections import RedisSettings
from arq.worker import func

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.engine_stage import QUEUE, TENANTS, Place
from infra import wire
from infra.push import push
from schemas.work import Pushable
from workers.engine import Worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

REST = 5.0


@asynccontextmanager
async def idle_worker(url: str, functions: list[Any]) -> AsyncIterator[None]:
    """A worker that waits for work."""
    options: dict[str, Any] = {"job_serializer": wire.dumps, "job_deserializer": wire.loads}
    settings = RedisSettings.from_dsn(url)
    worker = Worker(functions, redis_settings=settings, queue_name=QUEUE, handle_signals=False, **options)
    serving = asyncio.create_task(worker.async_run())
    await asyncio.sleep(1.0)
    yield
    await worker.close()
    await asyncio.wait([serving])


async def pickup(place: Place, count: int) -> list[float]:
    """Milliseconds from before the push of one job to the begin of its body; the first does not count: it loads scripts."""
    waits: list[float] = []
    picked = asyncio.Event()
    sent = 0.0

    async def probe(ctx: dict[str, Any], event_id: str) -> None:
        del ctx, event_id
        waits.append((time.perf_counter() - sent) * 1000)
        picked.set()

    async with (
        place.redis() as client,
        idle_worker(place.redis_url, [func(probe, name="probe", keep_result=0)]),
    ):
        for number in range(count + 1):
            picked.clear()
            sent = time.perf_counter()
            await push(client, [Pushable(UUID(int=number), "probe", QUEUE, 0.0, TENANTS[0])])
            await picked.wait()
            await asyncio.sleep(0.004)
    return waits[1:]


async def lateness(place: Place, count: int) -> list[float]:
    """Milliseconds by which deferred jobs of arq's own `enqueue_job` begin after their time."""
    late: list[float] = []

    async def timed(ctx: dict[str, Any], due: float) -> None:
        del ctx
        late.append((time.time() - due) * 1000)

    async with place.pool() as pool, idle_worker(place.redis_url, [func(timed, name="timed", keep_result=0)]):
        now = time.time()
        for number in range(count):
            due = now + 1.0 + number * 0.011
            await pool.enqueue_job("timed", due, _defer_until=datetime.fromtimestamp(due, UTC))
        while len(late) < count:  # noqa: ASYNC110 - several jobs add to it.
            await asyncio.sleep(0.05)
    return late


async def rest(place: Place) -> float:
    """Redis commands per second of one idle worker."""

    async def nothing(ctx: dict[str, Any]) -> None:
        del ctx

    async with place.redis() as client, idle_worker(place.redis_url, [func(nothing, name="nothing")]):
        before = int((await client.info("stats"))["total_commands_processed"])
        await asyncio.sleep(REST)
        after = int((await client.info("stats"))["total_commands_processed"])
    return (after - before - 1) / REST


async def main() -> None:
    """Measure one of the three."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["pickup", "late", "rest"])
    parser.add_argument("--redis", required=True)
    parser.add_argument("--count", type=int, default=0)
    chosen = parser.parse_args()
    place = Place(chosen.redis, "")
    if chosen.what == "pickup":
        print(json.dumps(await pickup(place, chosen.count)))
    elif chosen.what == "late":
        print(json.dumps(await lateness(place, chosen.count)))
    else:
        print(json.dumps([await rest(place)]))


if __name__ == "__main__":
    uvloop.run(main())
