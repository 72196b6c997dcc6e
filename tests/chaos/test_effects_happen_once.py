"""P1 and P2 under fire: workers are killed, Redis and PostgreSQL restarted, Redis emptied; each effect is there once."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from infra.local.stack import LocalStack
from infra.migrate import migrate
from tests.chaos.fleet import Fleet

BATCH = 100
Blow = Callable[[Fleet], Awaitable[object]]


@pytest.fixture(scope="module")
async def breakable(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalStack]:
    """Servers of this file's own, because it breaks them."""
    async with LocalStack.start(
        tmp_path_factory.mktemp("breakable"), what="the chaos tests", wipe_at_end=True
    ) as local:
        await migrate(local.servers.database_owner_url, serving_url=local.servers.database_url)
        yield local


@pytest.fixture
async def fleet(breakable: LocalStack, tmp_path: Path) -> AsyncIterator[Fleet]:
    """Empty servers and no worker yet."""
    async with Fleet.open(breakable, tmp_path) as opened:
        yield opened


async def kill(fleet: Fleet) -> None:
    """Kill -9 of a worker drawn by lot."""
    lot = random.Random(fleet.started)
    await fleet.replace(lot.choice(fleet.workers), signal.SIGKILL)


async def publish(fleet: Fleet, jobs: int) -> None:
    """Publish all, a batch at a time, while everything breaks."""
    for start in range(0, jobs, BATCH):
        await fleet.publish(range(start, start + BATCH))


async def assert_each_effect_once(fleet: Fleet, jobs: int) -> None:
    """Every event is done, by one charged attempt, and its effect is there once."""
    assert [{"status": "done", "attempts": 1, "n": jobs}] == await fleet.rows(
        "SELECT status, attempts, count(*) AS n FROM events GROUP BY 1, 2"
    )
    effects = await fleet.rows(
        "SELECT e.id FROM audit_log a JOIN events e ON e.event_id = a.target::uuid WHERE a.actor = 'chaos'"
    )
    assert [f"{number}" for number in range(1, jobs, 2)] == sorted((row["id"] for row in effects), key=int)


@pytest.mark.parametrize(
    ("jobs", "kills", "restarts", "within"),
    [
        pytest.param(1200, 2, 1, 90.0, id="short"),
        pytest.param(20_000, 25, 4, 900.0, id="long", marks=[pytest.mark.chaos, pytest.mark.timeout(1200)]),
    ],
)
async def test_every_effect_happens_once(
    fleet: Fleet, jobs: int, kills: int, restarts: int, within: float
) -> None:
    """Each blow falls when so much is done; none of it loses, doubles or buries an event, or charges an attempt."""
    blows: list[Blow] = [kill] * kills
    blows += [Fleet.restart_redis, Fleet.restart_postgres] * restarts
    blows += [Fleet.empty_redis]
    random.Random(jobs).shuffle(blows)
    for _ in range(3):
        await fleet.start()
    publishing = asyncio.create_task(publish(fleet, jobs))
    for number, blow in enumerate(blows):
        enough = jobs * (number + 1) // (len(blows) + 2)
        await fleet.until_done(enough, within=within)
        await blow(fleet)
    await publishing
    await fleet.until_done(jobs, within=within)
    await assert_each_effect_once(fleet, jobs)


@pytest.mark.parametrize(
    ("jobs", "turns", "within"),
    [
        pytest.param(600, 1, 60.0, id="short"),
        pytest.param(10_000, 12, 600.0, id="long", marks=[pytest.mark.chaos, pytest.mark.timeout(900)]),
    ],
)
async def test_a_rolling_restart_charges_nothing(fleet: Fleet, jobs: int, turns: int, within: float) -> None:
    """All workers are replaced by SIGTERM under load: each ends with 0, no event is lost and no loss is counted."""
    for _ in range(2):
        await fleet.start()
    publishing = asyncio.create_task(publish(fleet, jobs))
    codes: list[int] = []
    for number in range(turns * 2):
        enough = jobs * (number + 1) // (turns * 2 + 2)
        await fleet.until_done(enough, within=within)
        await fleet.until_ready(fleet.workers[0])
        codes.append(await fleet.replace(fleet.workers[0], signal.SIGTERM))
    await publishing
    await fleet.until_done(jobs, within=within)
    assert [0] * (turns * 2) == codes
    assert [{"losses": 0, "n": jobs}] == await fleet.rows(
        "SELECT losses, count(*) AS n FROM events GROUP BY 1"
    )
    await assert_each_effect_once(fleet, jobs)
