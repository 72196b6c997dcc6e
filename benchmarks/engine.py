"""Jobs run through our worker and through those of stock arq, SAQ, streaQ, taskiq and dramatiq, in turns, on one Valkey.

Every competitor at its best settings, 100 jobs at a time, a process per sample; the ratios are the result. Further
bars: two processes, the ledger, round trips, bulk enqueue, latency at rest, and growth. `make bench-engine` makes the
peers' venvs first.
"""

from __future__ import annotations

import asyncio
import json
import math
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import engine_growth
from benchmarks.bars import Bar, arguments, report
from benchmarks.engine_samples import ROOT, Sample, ledgered, peer, peer_rate, plain
from benchmarks.engine_stage import QUEUE, TENANTS, Place, Stage, open_stage
from infra import log
from infra.push import push
from schemas.work import Pushable

# Peer, mode, jobs per sample: about a second each on a quiet machine.
PEERS = [
    ("saq", "", 1500),
    ("streaq", "", 600),
    ("taskiq", "list", 2500),
    ("taskiq", "list-results", 1000),
    ("taskiq", "stream", 2500),
    ("taskiq", "stream-results", 1000),
    ("dramatiq", "16", 2500),
    ("dramatiq", "32", 2500),
]


def throughput(stage: Stage, *, quick: bool) -> list[Bar]:
    """Rates of all, interleaved."""
    rounds, scale = (3, 1) if quick else (7, 3)
    place = stage.place
    ours: dict[str, list[Sample]] = defaultdict(list)
    peers: dict[str, list[float]] = defaultdict(list)
    for number in range(rounds):
        ours["ours"].append(plain("ours", place, 20_000 * scale))
        ours["arq"].append(plain("arq", place, 2000 * scale))
        for name, mode, count in PEERS:
            peers[f"{name} {mode}".strip()].append(peer_rate(name, mode, place, count * scale))
        ours["two"].append(plain("ours", place, 20_000 * scale, processes=2))
        uvloop.run(place.flush())
        ours["ledger"].append(ledgered("ledger", place, 5000 * scale, first=number * 100_000))
        ours["waiting"].append(ledgered("waiting", place, 2000, first=number * 100_000 + 50_000))
        ours["waiting two"].append(
            ledgered("waiting", place, 4000, processes=2, first=number * 100_000 + 60_000)
        )
    rates = {name: statistics.median(one.rate for one in samples) for name, samples in ours.items()}
    theirs = {name: statistics.median(each) for name, each in peers.items()}
    for name, rate in {**rates, **theirs}.items():
        print(f"{name}: {rate:,.0f} jobs/s")
    for name in ("ours", "ledger"):
        print(f"{name}: {statistics.median(one.cpu for one in ours[name]):.0f} µs of worker CPU per job")
    # A peer that is missing is nan, and nan is not beaten.
    best = max(theirs.values()) if not any(map(math.isnan, theirs.values())) else math.nan
    return [
        Bar("no-op jobs, times stock arq (5 ms poll, uvloop)", rates["ours"] / rates["arq"], 15),
        Bar("no-op jobs, times the best peer", rates["ours"] / best, 5),
        Bar("two processes, times one", rates["two"] / rates["ours"], 1.3),
        Bar("with the ledger, times stock arq's bare no-op", rates["ledger"] / rates["arq"], 4),
        Bar("two processes that wait on I/O, times one", rates["waiting two"] / rates["waiting"], 1.8),
        Bar("Redis round trips per job at load", ours["ours"][0].reads, 0.1, below=True),
    ]


def latency(place: Place, *, quick: bool) -> list[Bar]:
    """An idle worker, ours and taskiq's in turns."""
    slices, count = (3, 150) if quick else (5, 400)
    waits: list[float] = []
    theirs: dict[str, list[float]] = {"p50": [], "p99": []}
    for _ in range(slices):
        waits += alone("pickup", place, count)
        told = peer("taskiq", "pickup", place, count)
        for name, each in theirs.items():
            each.append(told.get(name, math.nan))
    median, late = statistics.median(waits), statistics.quantiles(waits, n=100)[98]
    medians = theirs["p50"]
    print(f"idle pickup p50: ours {median:.2f} ms, taskiq {statistics.median(medians):.2f} ms")
    print(f"idle pickup p99: ours {late:.2f} ms, taskiq {statistics.median(theirs['p99']):.2f} ms")
    return [
        Bar("idle pickup p50 ms", median, 2, below=True),
        Bar("idle pickup p99 ms", late, 5, below=True),
        Bar("idle pickup, times taskiq's", median / statistics.median(medians), 1.25, below=True),
        Bar("deferred jobs, latest ms", max(alone("late", place, 50 if quick else 250)), 50, below=True),
        Bar("idle worker, Redis commands/s", alone("rest", place, 0)[0], 10, below=True),
    ]


def alone(what: str, place: Place, count: int) -> list[float]:
    """One measurement of latency in a process of its own."""
    uvloop.run(place.flush())
    script = str(ROOT / "benchmarks" / "engine_latency.py")
    command = [sys.executable, script, what, "--redis", place.redis_url, "--count", str(count)]
    found: list[float] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return found


async def enqueue(place: Place, count: int) -> float:
    """How many times as many jobs per second our bulk push takes in as arq's `enqueue_job`; medians of five, in turns."""
    single: list[float] = []
    bulk: list[float] = []
    await place.flush()
    async with place.pool() as pool, place.redis() as client:
        for number in range(5):
            began = time.perf_counter()
            for _ in range(count // 40):
                await pool.enqueue_job("noop")
            single.append(count / 40 / (time.perf_counter() - began))
            jobs = [
                Pushable(UUID(int=number * count + at), "noop", QUEUE, 0.0, TENANTS[at % len(TENANTS)])
                for at in range(count)
            ]
            began = time.perf_counter()
            await push(client, jobs)
            bulk.append(count / (time.perf_counter() - began))
    await place.flush()
    return statistics.median(bulk) / statistics.median(single)


PARTS = ("rate", "enqueue", "latency", "growth")


def measure(stage: Stage, parts: Sequence[str], *, quick: bool) -> list[Bar]:
    """The bars of these parts."""
    bars: list[Bar] = []
    for part in parts:
        match part:
            case "rate":
                bars += throughput(stage, quick=quick)
            case "enqueue":
                bars.append(
                    Bar("bulk enqueue, times enqueue_job", uvloop.run(enqueue(stage.place, 20_000)), 20)
                )
            case "latency":
                bars += latency(stage.place, quick=quick)
            case _:
                bars += engine_growth.measure(stage, quick=quick)
    return bars


async def main() -> int:
    """Start the servers, measure, say which bars are kept."""
    parser = arguments(__doc__)
    parser.add_argument("--only", choices=PARTS, help="one part of the bars")
    chosen = parser.parse_args()
    log.configure(level="warning")
    async with open_stage() as stage:
        # In a thread: samples run event loops of their own.
        parts = [chosen.only] if chosen.only else PARTS
        bars = await asyncio.to_thread(measure, stage, parts, quick=chosen.quick)
    return report("engine", bars, as_json=chosen.json)


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
