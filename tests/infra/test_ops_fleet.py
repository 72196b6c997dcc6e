"""The one ops port of several processes: it asks each, and speaks for those that cannot."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx2
import pytest
import redis.asyncio

from infra.database import Database
from infra.ops import OpsPort, Probe, ping_redis, serve_ops_on_socket
from infra.ops_fleet import fleet_app, socket_of


def says(problem: str | None) -> Probe:
    """A probe that always says the same."""

    async def probe() -> str | None:
        return problem

    return probe


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose name is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="penstock-") as name:
        yield Path(name)


class Fleet:
    """Processes that serve on their sockets, and the supervisor's port in front of them."""

    def __init__(self, folder: Path, database: Database, client: redis.asyncio.Redis) -> None:
        self.folder = folder
        self.database = database
        self.client = client
        self.held = AsyncExitStack()

    async def start(self, index: int, **probes: Probe) -> None:
        """Start a process."""
        ops = OpsPort(probes, self.client, self.database)
        await self.held.enter_async_context(serve_ops_on_socket(socket_of(self.folder, index), ops))

    async def get(self, path: str, *, processes: int, patience: float = 10.0) -> httpx2.Response:
        """Ask the supervisor's port."""
        app = fleet_app(self.folder, processes, patience=patience)
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://ops") as client:
            return await client.get(path)


@pytest.fixture
async def fleet(
    folder: Path, gateway_database: Database, redis_client: redis.asyncio.Redis
) -> AsyncIterator[Fleet]:
    """No process yet."""
    fleet = Fleet(folder, gateway_database, redis_client)
    async with fleet.held:
        yield fleet


async def test_all_processes_are_ready_when_each_is(fleet: Fleet) -> None:
    """The checks of each are told apart."""
    for index in range(2):
        await fleet.start(index, redis=ping_redis(fleet.client), pool=says(None))
    ready = await fleet.get("/readyz", processes=2)
    wanted = {f"process {index}: {name}": "ok" for index in range(2) for name in ("redis", "pool")}
    assert (200, wanted) == (ready.status_code, ready.json()["checks"])


async def test_one_that_is_unwell_or_missing_is_named(fleet: Fleet) -> None:
    """Its own words, or ours when it says nothing."""
    await fleet.start(0, pool=says("the event loop was blocked for 12.0 s"))
    ready = await fleet.get("/readyz", processes=2)
    assert (503, "the event loop was blocked for 12.0 s") == (
        ready.status_code,
        ready.json()["checks"]["process 0: pool"],
    )
    assert "no answer" in ready.json()["checks"]["process 1: process"]
    assert 200 == (await fleet.get("/livez", processes=2)).status_code


async def test_a_process_whose_loop_is_blocked_is_reported(fleet: Fleet) -> None:
    """It accepts a connection, as the kernel does for it, and never answers."""
    silent = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    silent.bind(str(socket_of(fleet.folder, 0)))
    silent.listen(1)
    ready = await fleet.get("/readyz", processes=1, patience=0.2)
    silent.close()
    assert (503, True) == (ready.status_code, "blocked" in ready.json()["checks"]["process 0: process"])


async def test_figures_come_from_whoever_answers(fleet: Fleet) -> None:
    """Queue figures are the fleet's: one process that lives is enough, and a wrong queue is its answer too."""
    await fleet.start(1)
    assert 0 == (await fleet.get("/v1/scaling/ingest", processes=2)).json()["ready"]
    assert (
        'penstock_queue_ready{queue="penstock:ingest"} 0' in (await fleet.get("/metrics", processes=2)).text
    )
    assert 404 == (await fleet.get("/v1/scaling/lunch", processes=2)).status_code
    assert 503 == (await fleet.get("/metrics", processes=1)).status_code


async def test_a_socket_that_a_killed_process_left_is_replaced(fleet: Fleet) -> None:
    """A process that is started again serves at the same place."""
    socket_of(fleet.folder, 0).touch()
    await fleet.start(0, pool=says(None))
    assert 200 == (await fleet.get("/readyz", processes=1)).status_code
