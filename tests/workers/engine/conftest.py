"""A Valkey of the engine's own: its tests empty it, restart it and kill what talks to it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from arq.connections import ArqRedis, RedisSettings, create_pool

from infra import wire
from infra.local import processes
from infra.local.binaries import valkey_server
from infra.local.valkey import ValkeyServer
from tests.workers.engine.harness import QUEUE, MakeWorker
from tests.workers.engine.lanes import Queue
from workers.engine import Worker


@pytest.fixture(scope="session")
def engine_valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """One server for the engine's tests, append-only file on."""
    root: Path = tmp_path_factory.mktemp("engine")
    token = f"penstock-engine-{os.getpid()}"
    server = ValkeyServer(
        valkey_server(), root / "valkey", root / "valkey.log", token, "secret", processes.free_port(0)
    )
    server.start()
    yield server
    server.stop()


@pytest.fixture
def redis_settings(engine_valkey: ValkeyServer) -> RedisSettings:
    """Where it is."""
    return RedisSettings(host=processes.LOOPBACK, port=engine_valkey.port, password=engine_valkey.password)


@pytest.fixture
async def pool(redis_settings: RedisSettings) -> AsyncIterator[ArqRedis]:
    """A producer's connections to an empty server."""
    client = await create_pool(
        redis_settings, job_serializer=wire.dumps, job_deserializer=wire.loads, default_queue_name=QUEUE
    )
    await client.flushall()
    yield client
    await client.aclose(close_connection_pool=True)


@pytest.fixture
def queue(pool: ArqRedis) -> Queue:
    """An empty queue with lanes."""
    return Queue(pool)


@pytest.fixture
async def make_worker(pool: ArqRedis, redis_settings: RedisSettings) -> AsyncIterator[MakeWorker]:
    """Builds workers and closes them; in burst mode unless told otherwise."""
    assert await pool.ping()
    made: list[Worker] = []

    def make(*functions: Any, **options: Any) -> Worker:
        defaults: dict[str, Any] = {
            "queue_name": QUEUE,
            "redis_settings": redis_settings,
            "burst": True,
            "handle_signals": False,
            "job_serializer": wire.dumps,
            "job_deserializer": wire.loads,
            "poll_delay": 0.1,
        }
        worker = Worker(functions, **{**defaults, **options})
        made.append(worker)
        return worker

    yield make
    for worker in made:
        await worker.close()
