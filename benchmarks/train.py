"""The training loop: paid jobs whatever crashes, a threshold that many count at once, and who is promoted.

Crashes are real: a worker in a process of its own kills itself with SIGKILL at each point around each call, transaction
and commit of a run, which the first run enumerates. There is no peer to compare with: none reconciles after a crash.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.bars import Bar, arguments, report
from benchmarks.train_child import Life, live, quiet, record_share
from benchmarks.train_town import Town
from tests.workers.train.crashes import crash_points
from tests.workers.train.lessons import example, lessons, scrambled
from workers.train.verdict import bootstrap

SMALL: dict[str, Any] = {"threshold": 24, "minimum": 10, "holdout_minimum": 4}
FAULTS = ("none", "drop_reply", "500", "429", "hang", "malformed")
"""What becomes of the call that creates the job."""
PRELOADED = tuple(
    f"openai.resources.{name}" for name in ("chat", "embeddings", "files", "fine_tuning", "models")
)
"""What a worker imports late, and a forked one has already."""
PARTS = ("crashes", "race", "promotions", "simulations")
ENDINGS = {"promoted", "rejected"}
PROCESSES = 20
RACED = tuple(f"race-{number}" for number in range(5))
MARGIN = 0.01
AT_ONCE = 4
"""Runs side by side: most of a run is waiting."""


async def main() -> int:
    """Measure, print, and say whether every bar is kept."""
    parser = arguments(__doc__)
    parser.add_argument("--only", choices=PARTS, help="the bars of one part")
    parser.add_argument("--fault", choices=FAULTS, action="append", help="crashes with this fault only")
    options = parser.parse_args()
    quiet()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.train_child", *PRELOADED])
    bars: list[Bar] = []
    async with Town.open() as town:
        if options.only in {None, "crashes"}:
            bars += await crashes(town, context, options.fault or FAULTS, quick=options.quick)
        if options.only in {None, "race"}:
            bars += await race(town, context, 2_000 if options.quick else 10_000)
        if options.only in {None, "promotions"}:
            bars += await promotions(town, 20)
    if options.only in {None, "simulations"}:
        bars += simulations(2_000)
    return report("train", bars, as_json=options.json)


@dataclass(frozen=True, slots=True)
class Death:
    """A run that died once and was taken up again: whether it died where it should, its jobs, its end."""

    died: bool
    jobs: int
    ended: bool


async def crashes(town: Town, context: ForkServerContext, faults: Sequence[str], *, quick: bool) -> list[Bar]:
    """Die at every point: without a fault at each, with each fault around the paid call, or at all of them."""
    began = time.monotonic()
    gate = asyncio.Semaphore(AT_ONCE)

    async def die(fault: str, at: str) -> Death:
        async with gate:
            tenant = await ready(town, fault)
            killed = await in_process(context, live, Life(town.settings, tenant, at)) == -signal.SIGKILL
            await in_process(context, live, Life(town.settings, tenant))
            [run] = await town.runs(tenant)
            return Death(killed, run["jobs"], run["status"] in ENDINGS)

    enumerated = {fault: await points_of(town, context, fault) for fault in faults}
    planned = [
        (fault, at) for fault, points in enumerated.items() for at in _chosen(fault, points, quick=quick)
    ]
    deaths = await asyncio.gather(*(die(*one) for one in planned))
    for fault in faults:
        own = [death for (which, _), death in zip(planned, deaths, strict=True) if which == fault]
        print(
            f"     {fault}: {len(own)} of {len(enumerated[fault])} points, {sum(one.died for one in own)} killed"
        )
    await town.faults.clear()
    print(f"     {len(planned)} runs, {time.monotonic() - began:.0f} s")
    return [
        Bar("crash points of a run, enumerated", min(map(len, enumerated.values())), 30),
        Bar("crash points times faults, workers killed", sum(one.died for one in deaths), len(planned)),
        Bar("runs with exactly one job, of those", sum(one.jobs == 1 for one in deaths), len(planned)),
        Bar("runs that ended promoted or rejected, of those", sum(one.ended for one in deaths), len(planned)),
    ]


def _chosen(fault: str, points: list[str], *, quick: bool) -> list[str]:
    """All points, or with a fault and `--quick` those around the paid call."""
    if fault == "none" or not quick:
        return points
    paid = next(place for place, point in enumerate(points) if point.endswith("before create_job"))
    return points[paid - 1 : paid + 4]


async def points_of(town: Town, context: ForkServerContext, fault: str) -> list[str]:
    """The points of a run in which nobody dies."""
    tenant = await ready(town, fault)
    seen = town.folder / f"{tenant}.json"
    await in_process(context, live, Life(town.settings, tenant, None, str(seen)))
    found: list[str] = json.loads(seen.read_text(encoding="utf-8"))
    return crash_points(found)


async def ready(town: Town, fault: str) -> str:
    """A tenant with forty examples, whose trigger waits; what becomes of its run's call that creates the job."""
    tenant = await town.tenant(**SMALL)
    ids = await town.publish(tenant, lessons(40))
    await town.drive.run([(one, "example.recorded", "penstock:train") for one in ids])
    if fault != "none":
        # The run will be named after the event that triggers it.
        [trigger] = await town.drive.rows(
            "SELECT event_id FROM events WHERE tenant_id = $1 AND type = 'training.batch_ready'", tenant
        )
        await town.faults.add("jobs.create", fault, times=1, match=str(trigger["event_id"]))
    return tenant


async def in_process(context: ForkServerContext, target: Callable[..., None], *given: object) -> int:
    """Run something in a process of its own; its exit code, negative for a signal."""
    process = context.Process(target=target, args=given)
    await asyncio.to_thread(process.start)
    await asyncio.to_thread(process.join)
    assert process.exitcode is not None
    return process.exitcode


async def race(town: Town, context: ForkServerContext, count: int) -> list[Bar]:
    """Twenty processes record distinct examples past thresholds of 100; runs are made and carried out on the way.

    All write to all datasets. There are several, because a dataset has one run at a time, and a run takes long enough
    for much to gather meanwhile.
    """
    tenant = await town.tenant(*RACED, threshold=100, minimum=10, holdout_minimum=25)
    ids: list[str] = []
    for start in range(0, count, 1000):
        made = [
            {**example(f"Question number {n}?", f"Answer number {n}."), "dataset": RACED[n % len(RACED)]}
            for n in range(start, min(count, start + 1000))
        ]
        ids += [str(one) for one in await town.publish(tenant, made)]
    began = time.monotonic()
    helper = asyncio.create_task(settle(town, tenant))
    await asyncio.gather(
        *(
            in_process(context, record_share, town.settings, ids[place::PROCESSES])
            for place in range(PROCESSES)
        )
    )
    took = time.monotonic() - began
    helper.cancel()
    await asyncio.gather(helper, return_exceptions=True)
    while await town.drive.step(tenant):
        pass
    runs = await town.runs(tenant)
    kept = await town.drive.rows(
        "SELECT dataset, count(*) AS n, count(run_id) AS owned, count(*) FILTER (WHERE status = 'free') AS free"
        " FROM examples WHERE tenant_id = $1 GROUP BY dataset",
        tenant,
    )
    sizes = sorted(run["examples"] for run in runs)
    print(f"     {count} examples by {PROCESSES} processes in {took:.1f} s, batches {sizes}")
    return [
        Bar("examples recorded at once by 20 processes", sum(row["n"] for row in kept), count),
        Bar("smallest batch, threshold 100", sizes[0], 100),
        Bar("examples in two batches", sum(sizes) - sum(row["owned"] for row in kept), 0, below=True),
        Bar(
            "datasets that could have fired and have not",
            sum(row["free"] >= 100 for row in kept),
            0,
            below=True,
        ),
        Bar("paid jobs per run, at most", max(run["jobs"] for run in runs), 1, below=True),
    ]


async def settle(town: Town, tenant: str) -> None:
    """Carry out what the threshold starts, while others record."""
    while True:
        rows = await town.drive.rows(
            "UPDATE events SET due_at = NULL WHERE tenant_id = $1 AND finished_at IS NULL AND type <> 'example.recorded'"
            " AND queue = 'penstock:train' RETURNING event_id, type, queue",
            tenant,
        )
        await town.drive.run([(row["event_id"], row["type"], row["queue"]) for row in rows])
        await asyncio.sleep(0.05)


async def promotions(town: Town, count: int) -> list[Bar]:
    """Models trained on scrambled answers, and models trained on right ones, against the same truth."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(examples: list[dict[str, Any]], number: int) -> str:
        async with gate:
            return await outcome(town, examples, number)

    worse = await asyncio.gather(*(one(scrambled(), number) for number in range(count)))
    better = await asyncio.gather(*(one(lessons(), number) for number in range(5)))
    return [
        Bar(f"scrambled models rejected, of {count}", worse.count("rejected"), count),
        Bar("right models promoted, of 5", better.count("promoted"), 5),
    ]


async def outcome(town: Town, examples: list[dict[str, Any]], number: int) -> str:
    """How a run on these examples ends, judged by the right answers; each has other words in other splits."""
    tenant = await town.tenant(threshold=1000, minimum=10, holdout_minimum=10)
    opened = [
        {
            "messages": [
                {"role": "user", "content": f"{one['messages'][0]['content']} ({number})"},
                one["messages"][1],
            ]
        }
        for one in examples
    ]
    truth = {f"{one['messages'][0]['content']} ({number})": one["messages"][1] for one in lessons()}
    ids = await town.publish(tenant, opened)
    await town.drive.run([(one, "example.recorded", "penstock:train") for one in ids])
    async with town.drive.owner.connection() as connection:
        rows = await connection.fetch(
            "SELECT example_id, messages FROM examples WHERE tenant_id = $1 AND split = 'holdout'", tenant
        )
        for row in rows:
            right = [row["messages"][0], truth[row["messages"][0]["content"]]]
            await connection.execute(
                "UPDATE examples SET messages = $2 WHERE example_id = $1", row["example_id"], right
            )
    await town.drive.publish(tenant, "training.batch_ready", {"dataset": "faq"})
    while await town.drive.step(tenant):
        pass
    [run] = await town.runs(tenant)
    return str(run["status"])


def simulations(count: int) -> list[Bar]:
    """Paired differences of a known mean go through the bootstrap that decides."""
    random = np.random.default_rng(2026)
    sizes = random.integers(25, 201, count)
    chance = sum(
        bootstrap(random.normal(0.0, 0.3, size).tolist(), seed).low > MARGIN
        for seed, size in enumerate(sizes.tolist())
    )
    gain = sum(bootstrap(random.normal(0.1, 0.3, 100).tolist(), seed).low > MARGIN for seed in range(count))
    return [
        Bar(
            "promoted by chance, % of 2,000 (mean 0, sd 0.3, n 25 to 200)",
            100 * chance / count,
            4,
            below=True,
        ),
        Bar("promoted at +0.1, % of 2,000 (sd 0.3, n 100)", 100 * gain / count, 80),
    ]


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
