"""A train worker that lives in a process of its own, forked from one that has everything imported; it may kill itself."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import structlog

from infra.budget import Budget
from infra.bus import Bus, open_redis
from infra.database import Database
from infra.llm import ModelApi
from infra.prices import load_prices
from infra.settings import Settings, load_settings
from tests.drive import Drive
from tests.workers.train.crashes import Crasher, crashing
from workers.handling import Resources
from workers.train.pool import open_handlers

__all__ = ["Life", "drive_of", "live", "open_handlers", "record_share"]
STEPS = 600


@dataclass(frozen=True, slots=True)
class Life:
    """What a worker is to do.

    Attributes:
        settings: by their names, as JSON has them.
        tenant: whose events it works on.
        at: the name of the point at which it kills itself with SIGKILL; None lets it live.
        seen: where it writes the points that it passed, at its end.
    """

    settings: str
    tenant: str
    at: str | None = None
    seen: str | None = None


@asynccontextmanager
async def drive_of(settings: Settings, *, size: int = 4) -> AsyncIterator[Drive]:
    """The train wing on connections of its own."""
    async with AsyncExitStack() as held:
        database = await held.enter_async_context(
            Database.open(settings.need("DATABASE_URL"), role="penstock_worker", size=size)
        )
        owner = await held.enter_async_context(
            Database.open(settings.need("PENSTOCK_DATABASE_OWNER_URL"), role=None, size=1)
        )
        client = open_redis(settings.need("REDIS_URL"))
        held.push_async_callback(client.aclose, close_connection_pool=True)
        models = await held.enter_async_context(
            ModelApi.open(
                settings.openai_base_url, settings.need("OPENAI_API_KEY"), timeout=settings.model_timeout
            )
        )
        bus = Bus(database, client)
        held.push_async_callback(bus.aclose)
        budget = Budget(database, load_prices(settings.prices), None, None)
        held.push_async_callback(budget.aclose)
        resources = Resources(settings, database, client, bus, budget, models, "bench-worker")
        drive = await held.enter_async_context(Drive.open(resources, owner))
        await drive.use("train")
        yield drive


def live(life: Life) -> None:
    """Work on a tenant's events until all are finished, or until the point of death."""
    quiet()
    seen = asyncio.run(_live(life))
    if life.seen is not None:
        Path(life.seen).write_text(json.dumps(seen), encoding="utf-8")


def record_share(settings: str, jobs: list[str]) -> None:
    """Record examples whose events are these, with all that follows from them."""
    quiet()
    asyncio.run(_record(settings, [UUID(job) for job in jobs]))


def quiet() -> None:
    """No log lines between the figures."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))


async def _live(life: Life) -> list[str]:
    crasher = Crasher(lambda _: os.kill(os.getpid(), signal.SIGKILL))
    async with drive_of(read(life.settings)) as drive, crashing(drive, crasher):
        crasher.begin(life.at)
        for _ in range(STEPS):
            if not await drive.step(life.tenant):
                break
        return crasher.seen


async def _record(settings: str, jobs: list[UUID]) -> None:
    async with drive_of(read(settings), size=2) as drive:
        for start in range(0, len(jobs), 50):
            await drive.run([(job, "example.recorded", "penstock:train") for job in jobs[start : start + 50]])


def read(settings: str) -> Settings:
    """Settings as a parent wrote them."""
    return load_settings(_env_file=None, **json.loads(settings))
