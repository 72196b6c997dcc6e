"""A small and a large backlog pass through here side by side: what a claim, an event and a waiting job cost in each.

Both live in the same servers (two Redis databases, two PostgreSQL databases) and are measured in turns.
"""

from __future__ import annotations

import statistics
import time

import uvloop
from arq.connections import ArqRedis

from benchmarks.bars import Bar
from benchmarks.engine_samples import ledgered
from benchmarks.engine_stage import Place, Stage
from schemas.registry import INGEST
from workers.engine.store import QueueStore

CLAIMS = 25
CLAIMED = 20


async def used_memory(place: Place) -> int:
    """Bytes that the server uses."""
    async with place.redis() as client:
        return int((await client.info("memory"))["used_memory"])


async def fill(stage: Stage, many: int) -> float:
    """Let 1,000 events wait in one place and `many` in the other; returns Redis bytes per waiting job."""
    await stage.place.flush()
    await stage.place.backlog(1000)
    before = await used_memory(stage.grown)
    await stage.grown.backlog(many)
    return (await used_memory(stage.grown) - before) / many


async def claims(stage: Stage) -> float:
    """Time of a claim with the large backlog over that with 1,000; medians, in turns."""
    times: dict[str, list[float]] = {"place": [], "grown": []}
    async with stage.place.pool() as small, stage.grown.pool() as large:
        stores = {"place": _store(small), "grown": _store(large)}
        for _ in range(CLAIMS):
            for name, store in stores.items():
                began = time.perf_counter()
                claim = await store.claim(want=CLAIMED)
                times[name].append(time.perf_counter() - began)
                assert len(claim.jobs) == CLAIMED
    return statistics.median(times["grown"]) / statistics.median(times["place"])


def _store(pool: ArqRedis) -> QueueStore:
    return QueueStore(pool, INGEST, lease_ms=600_000, memory_ms=0)


def events(stage: Stage, *, rounds: int, count: int) -> float:
    """Cost of an event, published and worked off, with the large backlog over that with 1,000."""
    costs: dict[str, list[float]] = {"place": [], "grown": []}
    for number in range(rounds):
        for name, place in (("place", stage.place), ("grown", stage.grown)):
            first = 10_000_000 + number * count
            began = time.perf_counter()
            uvloop.run(place.publish(count // 2, first=first))
            published = (time.perf_counter() - began) / (count // 2)
            rate = ledgered("ledger", place, count - count // 2, first=first + count // 2).rate
            costs[name].append(published + 1 / rate)
    return statistics.median(costs["grown"]) / statistics.median(costs["place"])


def measure(stage: Stage, *, quick: bool) -> list[Bar]:
    """The bars about growth."""
    many = 200_000 if quick else 1_000_000
    size = uvloop.run(fill(stage, many))
    return [
        Bar(
            f"claim time with {many:,} waiting, times that with 1,000",
            uvloop.run(claims(stage)),
            1.2,
            below=True,
        ),
        Bar("Redis bytes per waiting job", size, 480, below=True),
        Bar(
            f"cost of one event with {many:,} waiting, times that with 1,000",
            events(stage, rounds=3 if quick else 7, count=1000 if quick else 3000),
            1.2,
            below=True,
        ),
    ]
