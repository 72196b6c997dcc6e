"""The runtime without the engine's processes, for tests of what becomes of an event."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import redis.asyncio

from infra.budget import Budget
from infra.bus import Bus
from infra.database import Database
from infra.prices import load_prices
from infra.settings import load_settings
from tests.drive import Drive
from workers.handling import Resources


@pytest.fixture
async def bare(
    worker_database: Database, owner_database: Database, redis_client: redis.asyncio.Redis
) -> AsyncIterator[Drive]:
    """The runtime with handlers of the test's own; no model API and no wings."""
    bus = Bus(worker_database, redis_client)
    settings = load_settings(_env_file=None)
    async with Budget(worker_database, load_prices(None), None, None) as budget:
        resources = Resources(settings, worker_database, redis_client, bus, budget, None, "test")
        async with AsyncExitStack() as held:
            yield Drive(resources, owner_database, held)
