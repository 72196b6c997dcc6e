"""Webhooks go through a deliver worker to a receiver of another process, beside the bare HTTP client alone.

The peer is httpx2's `AsyncClient`, which sends the same bytes with the same headers to the same receiver and does
nothing else: no queue, no ledger, no signature, no record. It runs at the best of several concurrencies.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args
from uuid import UUID

import httpx2
import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.bars import Bar, arguments, report
from benchmarks.deliver_town import Town, content
from infra.outbox import body_of
from infra.signing_secrets import new_secret, parse_secret
from schemas.ids import new_event_id
from workers.deliver.sign import signed_headers

Beside = Literal["none", "ok", "hang"]
HEALTHY = [f"/ok/{number}" for number in range(40)]
OTHERS = 10


async def bare(town: Town, count: int, concurrency: int) -> float:
    """Messages per second of httpx2 alone."""
    event_id = new_event_id()
    now = int(time.time())
    body = body_of("document.purged", event_id, 1, content("/ok/0"), datetime.now(UTC))
    headers = {
        "content-type": "application/json",
        "user-agent": "bare",
        **signed_headers([parse_secret(new_secret())], "msg", now, body),
    }
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=concurrency)
    async with httpx2.AsyncClient(trust_env=False, limits=limits, timeout=15) as client:
        left = iter(range(count))

        async def send() -> None:
            for _ in left:
                reply = await client.post(town.url + "/ok/bare", content=body, headers=headers)
                assert reply.status_code == 204

        began = time.perf_counter()
        used = time.process_time()
        await asyncio.gather(*(send() for _ in range(concurrency)))
        print(f"httpx2: {(time.process_time() - used) / count * 1000:.2f} ms of CPU per message")
        return count / (time.perf_counter() - began)


async def ours(town: Town, count: int, *, profile: str | None = None) -> float:
    """Messages per second of one worker, from the hundredth that came to the last."""
    await town.endpoints(["/ok/0"])
    await town.fill(["/ok/0"] * count)
    async with town.worker(profile) as worker:
        await town.until(100)
        before = sum(worker.cpu_times()[:2])
        times = await town.until(count)
        print(
            f"worker: {(sum(worker.cpu_times()[:2]) - before) / (count - 100) * 1000:.2f} ms of CPU per message"
        )
    return (count - 100) / (times[-1] - times[99])


async def latency(town: Town, seconds: float, rate: int) -> list[float]:
    """Milliseconds from when a result was committed to when its message was received, at a steady rate."""
    paths = [f"/ok/{number}" for number in range(10)]
    await town.endpoints(paths)
    said: dict[UUID, float] = {}
    async with town.worker():
        await town.fill(paths * 20)
        await town.until(len(paths) * 20)
        began = time.perf_counter()
        tasks = []
        for number in range(int(seconds * rate)):
            await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
            tasks.append(asyncio.create_task(town.say(paths[number % len(paths)])))
        for task in tasks:
            event_id, at = await task
            said[event_id] = at
        await town.until(len(paths) * 20 + len(said))
    seen, messages = await town.seen(), await town.messages(list(said))
    return sorted((seen[messages[event_id]][0] - at) * 1000 for event_id, at in said.items())


async def isolation(town: Town, each: int, beside: Beside) -> float:
    """Messages per second of the 40 healthy endpoints alone, or beside ten others with as many messages each."""
    others = [] if beside == "none" else [f"/{beside}/other-{number}" for number in range(OTHERS)]
    every = [*HEALTHY, *others]
    await town.endpoints(every)
    await town.fill(every * each)
    async with town.worker():
        wanted = each * len(HEALTHY)
        times = await town.until(wanted)
    return (wanted - 100) / (times[-1] - times[99])


async def measure(*, quick: bool) -> list[Bar]:
    """Every bar; what is compared runs in turns."""
    rounds, count, seconds, each = (3, 3000, 8.0, 60) if quick else (7, 10_000, 30.0, 200)
    async with Town.open() as town:
        best = max((8, 16, 32), key={n: await bare(town, 1000, n) for n in (8, 16, 32)}.__getitem__)
        alone, mine = [], []
        for _ in range(rounds):
            alone.append(await bare(town, count, best))
            mine.append(await ours(town, count))
        print(
            f"messages/s: httpx2 alone {statistics.median(alone):,.0f} ({best} at once), ours {statistics.median(mine):,.0f}"
        )
        waits = await latency(town, seconds, 200)
        p50, p95 = statistics.median(waits), statistics.quantiles(waits, n=100)[94]
        print(f"publish to received at 200/s: p50 {p50:.1f} ms, p95 {p95:.1f} ms")
        healthy: dict[Beside, list[float]] = {beside: [] for beside in get_args(Beside)}
        for _ in range(rounds):
            for beside, rates in healthy.items():
                rates.append(await isolation(town, each, beside))
        alone_40, beside_10, kept_40 = (statistics.median(rates) for rates in healthy.values())
        print(
            f"40 healthy endpoints, messages/s: alone {alone_40:,.0f}, beside ten more {beside_10:,.0f},"
            f" beside ten that hang {kept_40:,.0f}"
        )
    return [
        Bar(
            "delivered per second, one process, times httpx2 alone",
            statistics.median(mine) / statistics.median(alone),
            0.6,
        ),
        Bar("publish to received at 200/s, p95 ms", p95, 150, below=True),
        Bar(
            "50 endpoints: 40 healthy ones beside ten that hang, times beside ten that work",
            kept_40 / beside_10,
            0.9,
        ),
        Bar("the same, times the 40 alone", kept_40 / alone_40, 0.9),
    ]


async def only(what: str, count: int) -> None:
    """One measurement, for looking into it."""
    async with Town.open() as town:
        match what:
            case "bare":
                for concurrency in (8, 16, 32):
                    print(concurrency, await bare(town, count, concurrency))
            case "ours":
                print(await ours(town, count, profile=os.environ.get("PROFILE")))
            case "pair":
                for _ in range(3):
                    print("bare", await bare(town, count, 8), "ours", await ours(town, count))
            case "latency":
                waits = await latency(town, count / 200, 200)
                print(statistics.median(waits), statistics.quantiles(waits, n=100)[94])
            case _:
                for _ in range(3):
                    for beside in get_args(Beside):
                        print(beside, await isolation(town, count, beside))


def main() -> int:
    """Measure, and say which bars are kept."""
    parser = arguments(__doc__)
    parser.add_argument(
        "--only", choices=["bare", "ours", "pair", "latency", "isolation"], help=argparse.SUPPRESS
    )
    parser.add_argument("--count", type=int, default=3000, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.only:
        uvloop.run(only(chosen.only, chosen.count))
        return 0
    return report("deliver", uvloop.run(measure(quick=chosen.quick)), as_json=chosen.json)


if __name__ == "__main__":
    raise SystemExit(main())
