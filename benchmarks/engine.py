"""No-op jobs run through stock arq and through our worker, in turns, on one Valkey; the ratios are the result.

`--quick` makes it smaller (every bar, under five minutes), `--json` prints one JSON object last. Each throughput
sample is a process of its own, so that no run inherits another's memory or caches.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import uvloop
from arq.connections import ArqRedis, RedisSettings, create_pool
from arq.jobs import serialize_job
from arq.worker import Worker as StockWorker
from arq.worker import func

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.bars import Bar, arguments, report
from infra import bus, push, wire
from infra.local import processes
from infra.local.binaries import valkey_server
from schemas.work import Pushable
from workers.engine import Worker
from workers.engine.store import QueueStore

QUEUE = "bench"


def settings(port: int) -> RedisSettings:
    """Where the server is."""
    return RedisSettings(host=processes.LOOPBACK, port=port)


async def connect(port: int) -> ArqRedis:
    """A producer's pool."""
    options: dict[str, Any] = {"job_serializer": wire.dumps, "job_deserializer": wire.loads}
    return await create_pool(settings(port), default_queue_name=QUEUE, **options)


async def fill(pool: ArqRedis, count: int) -> None:
    """Put `count` no-op jobs into an empty queue, as fast as Redis takes them."""
    await pool.flushall()
    now = time.time_ns() // 1_000_000
    payload = serialize_job("noop", (), {}, None, now, serializer=wire.dumps)
    for start in range(0, count, 1000):
        ids = [str(UUID(int=number)) for number in range(start, min(count, start + 1000))]
        async with pool.pipeline(transaction=False) as pipe:
            pipe.mset({f"arq:job:{job_id}": payload for job_id in ids})
            pipe.zadd(QUEUE, dict.fromkeys(ids, now))
            await pipe.execute()


async def noop(ctx: dict[str, Any]) -> None:
    """Do nothing."""
    del ctx


async def drain(kind: str, port: int, count: int) -> dict[str, float]:
    """Run a full queue empty; returns jobs per second and Redis reads (round trips) per job."""
    pool = await connect(port)
    await fill(pool, count)
    options: dict[str, Any] = {
        "queue_name": QUEUE,
        "redis_settings": settings(port),
        "burst": True,
        "max_jobs": 100,
        "handle_signals": False,
        "job_serializer": wire.dumps,
        "job_deserializer": wire.loads,
    }
    functions = [func(noop, name="noop", keep_result=0)]
    worker = (
        StockWorker(functions, poll_delay=0.005, **options) if kind == "arq" else Worker(functions, **options)
    )
    before = int((await pool.info("stats"))["total_reads_processed"])
    began = time.perf_counter()
    await worker.main()
    seconds = time.perf_counter() - began
    after = int((await pool.info("stats"))["total_reads_processed"])
    assert worker.jobs_complete == count
    await worker.close()
    await pool.aclose(close_connection_pool=True)
    return {"rate": count / seconds, "reads": (after - before) / count}


async def pickup(port: int, count: int) -> tuple[list[float], list[float], float]:
    """Latencies of an idle worker in milliseconds, lateness of deferred jobs, and its commands per second at rest."""
    pool = await connect(port)
    await pool.flushall()
    waits: list[float] = []
    late: list[float] = []
    picked = asyncio.Event()

    async def probe(ctx: dict[str, Any], sent: float) -> None:
        del ctx
        waits.append((time.perf_counter() - sent) * 1000)
        picked.set()

    async def timed(ctx: dict[str, Any], due: float) -> None:
        del ctx
        late.append((time.time() - due) * 1000)

    functions = [func(probe, name="probe", keep_result=0), func(timed, name="timed", keep_result=0)]
    options: dict[str, Any] = {"job_serializer": wire.dumps, "job_deserializer": wire.loads}
    worker = Worker(
        functions, redis_settings=settings(port), queue_name=QUEUE, handle_signals=False, **options
    )
    serving = asyncio.create_task(worker.async_run())
    await asyncio.sleep(1.5)
    before = int((await pool.info("stats"))["total_commands_processed"])
    await asyncio.sleep(5)
    after = int((await pool.info("stats"))["total_commands_processed"])
    for number in range(count):
        picked.clear()
        payload = serialize_job("probe", (time.perf_counter(),), {}, None, 0, serializer=wire.dumps)
        await push.enqueue(pool, QUEUE, [push.QueuedJob(f"job-{number}", 0, "", payload)])
        await picked.wait()
        await asyncio.sleep(0.004)
    now = time.time()
    for number in range(count // 4):
        due = now + 1.0 + number * 0.011
        await pool.enqueue_job("timed", due, _defer_until=datetime.fromtimestamp(due, UTC))
    while len(late) < count // 4:  # noqa: ASYNC110 - several jobs add to it.
        await asyncio.sleep(0.05)
    await worker.close()
    await asyncio.wait([serving])
    await pool.aclose(close_connection_pool=True)
    return waits, late, (after - before - 1) / 5


async def growth(port: int, many: int) -> tuple[float, float]:
    """Claim time with `many` waiting over that with 1,000, and bytes of Redis memory per waiting job."""
    pool = await connect(port)
    medians: list[float] = []
    size = 0.0
    for waiting in (1000, many):
        await pool.flushall()
        empty = int((await pool.info("memory"))["used_memory"])
        await fill(pool, waiting)
        size = (int((await pool.info("memory"))["used_memory"]) - empty) / waiting
        store = QueueStore(pool, QUEUE, lease_ms=60_000, memory_ms=0)
        times: list[float] = []
        for _ in range(9 * 5):
            began = time.perf_counter()
            claim = await store.claim(want=20)
            times.append(time.perf_counter() - began)
            assert len(claim.jobs) == 20
        medians.append(statistics.median(times))
    await pool.flushall()
    await pool.aclose(close_connection_pool=True)
    return medians[1] / medians[0], size


async def enqueue(port: int, count: int) -> float:
    """How many times as many jobs per second our bulk push takes in as arq's `enqueue_job`."""
    pool = await connect(port)
    await pool.flushall()
    began = time.perf_counter()
    for _ in range(count // 20):
        await pool.enqueue_job("noop")
    one_by_one = count / 20 / (time.perf_counter() - began)
    client = bus.open_redis(f"redis://{processes.LOOPBACK}:{port}/0")
    jobs = [Pushable(UUID(int=number), "noop", QUEUE, 0.0) for number in range(count)]
    began = time.perf_counter()
    await push.push(client, jobs)
    bulk = count / (time.perf_counter() - began)
    await client.aclose()
    await pool.aclose(close_connection_pool=True)
    return bulk / one_by_one


def sample(kind: str, port: int, count: int) -> dict[str, float]:
    """One throughput sample in a process of its own."""
    command = [sys.executable, __file__, "--sample", kind, "--port", str(port), "--count", str(count)]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return found


def measure(port: int, *, quick: bool) -> list[Bar]:
    """Every bar, the competitors in turns."""
    rounds, ours, arqs = (3, 10_000, 1500) if quick else (7, 40_000, 6000)
    pairs = [(sample("ours", port, ours), sample("arq", port, arqs)) for _ in range(rounds)]
    mine = statistics.median(pair[0]["rate"] for pair in pairs)
    theirs = statistics.median(pair[1]["rate"] for pair in pairs)
    print(f"no-op jobs/s: ours {mine:,.0f}, arq {theirs:,.0f} (5 ms poll, uvloop)")
    waits, late, idle = uvloop.run(pickup(port, 200 if quick else 1000))
    cuts = statistics.quantiles(waits, n=100)
    slower, size = uvloop.run(growth(port, 200_000 if quick else 1_000_000))
    return [
        Bar("no-op jobs, times stock arq", mine / theirs, 15),
        Bar("Redis round trips per job at load", pairs[0][0]["reads"], 0.1, below=True),
        Bar("bulk enqueue, times enqueue_job", uvloop.run(enqueue(port, 20_000)), 20),
        Bar("idle pickup p50 ms", statistics.median(waits), 2, below=True),
        Bar("idle pickup p99 ms", cuts[98], 5, below=True),
        Bar("deferred jobs, latest ms", max(late), 50, below=True),
        Bar("idle worker, Redis commands/s", idle, 10, below=True),
        Bar("claim time with many waiting, times that with 1,000", slower, 1.2, below=True),
        Bar("Redis bytes per waiting job", size, 480, below=True),
    ]


def main() -> int:
    """Start a server, measure, say which bars are kept."""
    parser = arguments(__doc__)
    parser.add_argument("--sample", choices=["ours", "arq"], help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, default=0, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.sample:
        print(json.dumps(uvloop.run(drain(chosen.sample, chosen.port, chosen.count))))
        return 0
    port = processes.free_port(0)
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        command = [
            str(valkey_server()),
            "--port",
            str(port),
            "--bind",
            processes.LOOPBACK,
            "--save",
            "",
            "--dir",
            "./",
        ]
        server = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
        try:
            bars = measure(port, quick=chosen.quick)
        finally:
            server.terminate()
            server.wait()
    return report("engine", bars, as_json=chosen.json)


if __name__ == "__main__":
    raise SystemExit(main())
