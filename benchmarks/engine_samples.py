"""One sample of throughput passes through here: a queue is filled, processes are let go together, and a rate comes out.

The rate of several processes is all their jobs over the time from the first job's body to the last one's.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.engine_stage import Place

ROOT = Path(__file__).resolve().parents[1]
LOAD = ROOT / "benchmarks" / "engine_load.py"
PATIENCE = 120.0


@dataclass(frozen=True, slots=True)
class Sample:
    """What one sample measured: jobs per second, round trips per job, CPU microseconds of a worker per job."""

    rate: float
    reads: float = math.nan
    cpu: float = math.nan


def plain(kind: str, place: Place, count: int, *, processes: int = 1) -> Sample:
    """No-op jobs through arq, or through our worker with the tenants' lanes in turn."""
    uvloop.run(place.flush())
    uvloop.run(place.fill(count, lanes=kind == "ours"))
    return _drain(kind, place, [-1] * processes)


def ledgered(kind: str, place: Place, count: int, *, processes: int = 1, first: int) -> Sample:
    """Events through our worker and the ledger; each process takes its share, whatever else waits."""
    uvloop.run(place.publish(count, first=first))
    return _drain(kind, place, [count // processes] * processes)


def _drain(kind: str, place: Place, counts: Sequence[int]) -> Sample:
    command = [sys.executable, str(LOAD), kind, "--redis", place.redis_url]
    environment = {**os.environ, "DATABASE_URL": place.database_url}
    children = [
        subprocess.Popen(
            [*command, "--count", str(count)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, env=environment,
        )
        for count in counts
    ]  # fmt: skip
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline().strip() == "ready"
    before = uvloop.run(_reads(place))
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    told = [json.loads(child.communicate(timeout=PATIENCE)[0]) for child in children]
    after = uvloop.run(_reads(place))
    jobs = sum(one["count"] for one in told)
    seconds = max(one["last"] for one in told) - min(one["first"] for one in told)
    cpu = sum(one["cpu"] for one in told) / jobs * 1e6
    return Sample((jobs - 1) / seconds, (after - before) / jobs, cpu)


async def _reads(place: Place) -> int:
    """How many times the server has read from a socket: every round trip is one."""
    async with place.redis() as client:
        return int((await client.info("stats"))["total_reads_processed"])


def peer(name: str, mode: str, place: Place, count: int) -> dict[str, float]:
    """What a peer's driver tells, run in the peer's venv; empty when the peer is not installed."""
    python = ROOT / ".peers" / name / "bin" / "python"
    if not python.exists():
        return {}
    uvloop.run(place.flush())
    driver = ROOT / "benchmarks" / "engine_peers" / f"run_{name}.py"
    command = [str(python), str(driver), "--url", place.redis_url, "--count", str(count), "--mode", mode]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    if done.returncode != 0:
        print(f"{name} {mode} failed: {done.stderr[-400:]}")
        return {}
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def peer_rate(name: str, mode: str, place: Place, count: int) -> float:
    """A peer's no-op jobs per second; nan when it is not installed."""
    told = peer(name, mode, place, count)
    return (told["count"] - 1) / (told["last"] - told["first"]) if told else math.nan
