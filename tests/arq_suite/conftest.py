"""arq's own fixtures on an embedded Valkey, with Penstock's worker in the place of arq's.

`run.py` puts this file where arq's conftest was. It is imported before the tests, so that `from arq.worker import
Worker` gives them ours.
"""

import asyncio
import functools
import inspect
import os
import sys
from pathlib import Path

import arq
import arq.worker
import msgpack
import pytest
import redis.exceptions
from arq.connections import ArqRedis, RedisSettings, create_pool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

sys.path.insert(0, os.environ["PENSTOCK_SOURCE"])
StockWorker = arq.worker.Worker

if os.environ.get("ARQ_SUITE_WORKER") != "stock":
    from workers.engine import Worker as EngineWorker

    class Worker(EngineWorker):
        """Penstock's worker, speaking arq's words, because arq's tests read its log."""

        def __init__(self, *args, **kwargs):
            super().__init__(*args, narrate=True, **kwargs)

    # arq.worker.create_worker passes on the settings that it finds in the signature.
    Worker.__signature__ = inspect.signature(StockWorker)
    arq.Worker = arq.worker.Worker = Worker
else:
    Worker = StockWorker


def pytest_configure(config):
    """Let arq 0.28 call redis-py's deprecated close()."""
    config.addinivalue_line("filterwarnings", "ignore:Call to deprecated close:DeprecationWarning")


def pytest_collection_modifyitems(items):
    """Leave out the tests that cannot apply, each named in excluded.txt with its reason."""
    reasons = {}
    for line in (Path(__file__).parent / "excluded.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, _, reason = line.partition(" ")
            reasons[name] = reason.strip()
    seen = set()
    for item in items:
        name = item.nodeid.split("/")[-1]
        for key in (name, name.partition("[")[0]):
            if key in reasons:
                seen.add(key)
                item.add_marker(pytest.mark.skip(reason=reasons[key]))
    unknown = set(reasons) - seen
    if unknown and len(items) > 150:
        raise pytest.UsageError(f"excluded.txt names tests that do not exist: {sorted(unknown)}")


@pytest.fixture(name="loop")
def _loop(event_loop):
    return event_loop


@pytest.fixture(scope="session")
def test_redis_host():
    return "127.0.0.1"


@pytest.fixture(scope="session")
def test_redis_port():
    return int(os.environ["ARQ_SUITE_PORT"])


@pytest.fixture(scope="session")
def test_redis_settings(test_redis_host, test_redis_port):
    return RedisSettings(host=test_redis_host, port=test_redis_port)


async def _opened(**options):
    client = ArqRedis(encoding="utf-8", **options)
    await client.flushall()
    return client


@pytest.fixture
async def arq_redis(test_redis_host, test_redis_port):
    client = await _opened(host=test_redis_host, port=test_redis_port)
    yield client
    await client.aclose(close_connection_pool=True)


@pytest.fixture
async def arq_redis_msgpack(test_redis_host, test_redis_port):
    client = await _opened(
        host=test_redis_host,
        port=test_redis_port,
        job_serializer=msgpack.packb,
        job_deserializer=functools.partial(msgpack.unpackb, raw=False),
    )
    yield client
    await client.aclose(close_connection_pool=True)


@pytest.fixture
async def arq_redis_retry(test_redis_host, test_redis_port):
    client = await _opened(
        host=test_redis_host,
        port=test_redis_port,
        retry=Retry(backoff=NoBackoff(), retries=3),
        retry_on_timeout=True,
        retry_on_error=[redis.exceptions.ConnectionError],
    )
    yield client
    await client.aclose(close_connection_pool=True)


def _factory(default_redis):
    made = []

    def create(functions=(), burst=True, poll_delay=0, max_jobs=10, arq_redis=default_redis, **kwargs):
        worker = arq.worker.Worker(
            functions=functions, redis_pool=arq_redis, burst=burst, poll_delay=poll_delay, max_jobs=max_jobs, **kwargs
        )
        made[:] = [worker]
        return worker

    return create, made


@pytest.fixture
async def worker(arq_redis):
    create, made = _factory(arq_redis)
    yield create
    for one in made:
        await one.close()


@pytest.fixture
async def worker_retry(arq_redis_retry):
    create, made = _factory(arq_redis_retry)
    yield create
    for one in made:
        await one.close()


@pytest.fixture(name="create_pool")
async def _create_pool(loop):
    pools = []

    async def create(settings, *args, **kwargs):
        pool = await create_pool(settings, *args, **kwargs)
        pools.append(pool)
        return pool

    yield create
    await asyncio.gather(*[pool.aclose(close_connection_pool=True) for pool in pools])


@pytest.fixture(name="cancel_remaining_task")
def _cancel_remaining_task(loop):
    async def cancel():
        others = asyncio.all_tasks(loop) - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    yield
    loop.run_until_complete(cancel())


class SetEnv:
    """Sets variables and takes them back; arq's tests import it by this name."""

    def __init__(self):
        self.names = set()

    def set(self, name, value):
        self.names.add(name)
        os.environ[name] = value

    def clear(self):
        for name in self.names:
            os.environ.pop(name)


@pytest.fixture
def env():
    environment = SetEnv()
    yield environment
    environment.clear()
