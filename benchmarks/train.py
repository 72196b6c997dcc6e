"""The training loop: paid jobs whatever crashes, a threshold that many count at once, and who is promoted.

Crashes are real: a worker in a process of its own kills itself with SIGKILL at each point around each call, transaction
and commit of a run, which the first run enumerates. There is no peer to compare with: none reconciles after a crash.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import sys
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.bars import Bar, arguments, report
from benchmarks.train_child import Life, live, quiet, record_share
from benchmarks.train_town import Town
from tests.workers.train.crashes import without_repeated_looks
from tests.workers.train.lessons import example, lessons, scrambled
from workers.train.verdict import bootstrap

SMALL: dict[str, Any] = {"threshold": 24, "minimum": 10, "holdout_minimum": 4}
FAULTS = ("drop_reply", "500", "429", "hang", "malformed")
ENDINGS = {"promoted", "rejected"}
PROCESSES = 20
MARGIN = 0.01
AT_ONCE = 2


async def main() -> int:
    """Measure, print, and say whether every bar is kept."""
    options = arguments(__doc__).parse_args()
    quiet()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.train_child"])
    async with Town.open() as town:
        bars = [
            *await crashes(town, context, quick=options.quick),
            *await race(town, context, 2_000 if options.quick else 10_000),
            *await promotions(town, 20),
            *simulations(2_000),
        ]
    return report("train", bars, as_json=options.json)


async def crashes(town: Town, context: ForkServerContext, *, quick: bool) -> list[Bar]:
    """Die at every point: without a fault at each, with each fault around the paid call, or at all of them."""
    began = time.monotonic()
    died, jobs, ended = 0, [], []
    points: list[str] = []
    gate = asyncio.Semaphore(AT_ONCE)

    async def die(fault: str | None, at: int) -> None:
        nonlocal died
        async with gate:
            tenant = await town.tenant(**SMALL)
            await record(town, tenant)
            await with_fault(town, fault)
            died += await in_process(context, live, Life(town.settings, tenant, at)) == -9
            await in_process(context, live, Life(town.settings, tenant))
            [run] = await town.runs(tenant)
            jobs.append(run["jobs"])
            ended.append(run["status"] in ENDINGS)

    for fault in (None, *FAULTS):
        seen = await points_of(town, context, fault)
        places = without_repeated_looks(seen)
        if fault is not None and quick:
            paid = seen.index("before create_job")
            places = [at for at in places if paid - 1 <= at <= paid + 3]
        points += [f"{fault}:{at}" for at in places]
        # A fault hits the next call of anybody, so those with one go one by one.
        if fault is None:
            await asyncio.gather(*(die(fault, at) for at in places))
        else:
            for at in places:
                await die(fault, at)
            await town.faults.clear()
    plain = sum(point.startswith("None:") for point in points)
    print(f"     {died} of {len(points)} workers killed, {time.monotonic() - began:.0f} s")
    return [
        Bar("crash points of a run, enumerated", plain, 30),
        Bar("crash points times faults, workers killed", died, len(points)),
        Bar("runs with exactly one job, of those", sum(one == 1 for one in jobs), len(points)),
        Bar("runs that ended promoted or rejected, of those", sum(ended), len(points)),
    ]


async def points_of(town: Town, context: ForkServerContext, fault: str | None) -> list[str]:
    """The points of a run in which nobody dies."""
    tenant = await town.tenant(**SMALL)
    await record(town, tenant)
    await with_fault(town, fault)
    seen = town.folder / f"{tenant}.json"
    await in_process(context, live, Life(town.settings, tenant, None, str(seen)))
    await town.faults.clear()
    found: list[str] = json.loads(seen.read_text(encoding="utf-8"))
    return found


async def record(town: Town, tenant: str) -> None:
    """Forty examples, taken in; the trigger waits."""
    ids = await town.publish(tenant, lessons(40))
    await town.drive.run([(one, "example.recorded", "penstock:train") for one in ids])


async def with_fault(town: Town, fault: str | None) -> None:
    """What becomes of the next call that creates a job."""
    if fault is not None:
        await town.faults.clear()
        await town.faults.add("jobs.create", fault, times=1)


async def in_process(context: ForkServerContext, target: Callable[..., None], *given: object) -> int:
    """Run something in a process of its own; its exit code, negative for a signal."""
    process = context.Process(target=target, args=given)
    await asyncio.to_thread(process.start)
    await asyncio.to_thread(process.join)
    assert process.exitcode is not None
    return process.exitcode


async def race(town: Town, context: ForkServerContext, count: int) -> list[Bar]:
    """Twenty processes record distinct examples past a threshold of 100, and make and carry out the runs on the way."""
    tenant = await town.tenant(threshold=100, minimum=10, holdout_minimum=25)
    ids: list[str] = []
    for start in range(0, count, 1000):
        made = [
            example(f"Question number {n}?", f"Answer number {n}.")
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
    states = await town.drive.rows(
        "SELECT status, count(*) AS n FROM examples WHERE tenant_id = $1 GROUP BY status", tenant
    )
    kept = {row["status"]: row["n"] for row in states}
    owned = await town.drive.rows(
        "SELECT count(*) AS n FROM examples WHERE tenant_id = $1 AND run_id IS NOT NULL", tenant
    )
    print(f"     {count} examples by {PROCESSES} processes in {took:.1f} s, {len(runs)} batches, {kept}")
    return [
        Bar("examples recorded at once by 20 processes", sum(kept.values()), count),
        Bar("smallest batch, threshold 100", min(run["examples"] for run in runs), 100),
        Bar("examples in two batches", sum(run["examples"] for run in runs) - owned[0]["n"], 0, below=True),
        Bar("examples left that could have fired", kept.get("free", 0) // 100, 0, below=True),
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
    worse, better = 0, 0
    for number in range(count):
        worse += await outcome(town, scrambled(), number) == "rejected"
    for number in range(5):
        better += await outcome(town, lessons(), number) == "promoted"
    return [
        Bar(f"scrambled models rejected, of {count}", worse, count),
        Bar("right models promoted, of 5", better, 5),
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
