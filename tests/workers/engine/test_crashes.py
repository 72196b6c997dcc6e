"""Worker processes that are killed, stopped and cut off from Redis; no job is lost by it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import cast

import pytest
from arq.connections import ArqRedis
from arq.jobs import serialize_job
from arq.utils import timestamp_ms
from arq.worker import func

from infra import queue_keys, wire
from infra.local.valkey import ValkeyServer
from tests.workers.engine.harness import QUEUE, MakeWorker, serving, wait_until
from workers.engine.deadletters import DeadLetters
from workers.engine.supervisor import Supervisor

SCRIPT = Path(__file__).parent / "crash_worker.py"
ROOT = Path(__file__).parents[3]
LEASE = "1.0"

Process = asyncio.subprocess.Process
Start = Callable[[], Awaitable[Process]]


@pytest.fixture
def command(engine_valkey: ValkeyServer) -> list[str]:
    """The argv of a worker process."""
    return [sys.executable, str(SCRIPT), str(engine_valkey.port), QUEUE, LEASE]


@pytest.fixture
def environment(engine_valkey: ValkeyServer) -> dict[str, str]:
    """Its environment."""
    path = os.environ.get("PATH", os.defpath)
    return {"PATH": path, "PYTHONPATH": str(ROOT), "CRASH_PASSWORD": engine_valkey.password}


@pytest.fixture
async def start(command: list[str], environment: dict[str, str]) -> AsyncIterator[Start]:
    """Starts worker processes, and leaves none behind."""
    started: list[Process] = []

    async def begin() -> Process:
        process = await asyncio.create_subprocess_exec(*command, env=environment, start_new_session=True)
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def mapping(pool: ArqRedis, key: str) -> dict[bytes, bytes]:
    """A hash; redis-py types both of its clients in one."""
    return await cast("Awaitable[dict[bytes, bytes]]", pool.hgetall(key))


async def all_done(pool: ArqRedis) -> bool:
    """Whether the queue is empty."""
    return not await pool.exists(QUEUE)


async def busy(pool: ArqRedis) -> bool:
    """Whether something runs."""
    return bool(await pool.exists(queue_keys.running(QUEUE)))


async def enqueue_many(pool: ArqRedis, count: int, *, first: int = 0, seconds: float = 0.0) -> None:
    """Put many jobs into the queue at once."""
    payload = serialize_job("work", (seconds,), {}, None, 1_700_000_000_000, serializer=wire.dumps)
    ids = [f"job-{number}" for number in range(first, first + count)]
    await pool.mset({f"arq:job:{job_id}": payload for job_id in ids})
    await pool.zadd(QUEUE, dict.fromkeys(ids, timestamp_ms()))


async def test_a_killed_workers_jobs_run_again(pool: ArqRedis, start: Start) -> None:
    """Kill -9 with twenty jobs running: the next worker runs each of them, and charges no attempt."""
    for number in range(40):
        await pool.enqueue_job("work", 0.2, _job_id=f"job-{number}")
    first = await start()
    await wait_until(lambda: busy(pool))
    first.kill()
    await first.wait()
    await start()
    await wait_until(lambda: all_done(pool))
    effects = await mapping(pool, "effects")
    assert {f"job-{number}".encode() for number in range(40)} == set(effects)
    assert [] == await pool.keys("arq:retry:*")
    assert 0 == await DeadLetters(pool, QUEUE).count()


async def test_a_job_that_kills_its_process_is_found(
    pool: ArqRedis, command: list[str], environment: dict[str, str]
) -> None:
    """Among a thousand it alone is dead, after five deaths; the supervisor keeps the worker alive meanwhile."""
    await enqueue_many(pool, 500)
    await pool.enqueue_job("poison", _job_id="killer")
    await enqueue_many(pool, 500, first=500)
    supervisor = Supervisor(command, processes=1, environment=environment)
    running = asyncio.create_task(supervisor.run())
    await wait_until(lambda: all_done(pool))
    os.kill(os.getpid(), signal.SIGTERM)
    assert 0 == await running
    assert 1000 == len(await mapping(pool, "effects"))
    assert {b"killer": b"5"} == await mapping(pool, "deaths")
    assert [("killer", "WorkerLost", 5)] == [
        (letter.job_id, letter.error, letter.losses) for letter in await DeadLetters(pool, QUEUE).listed()
    ]


async def test_a_signal_ends_a_worker_in_order(pool: ArqRedis, start: Start) -> None:
    """What can finish within the grace does, the rest is given back uncharged, and the exit is 0."""
    await pool.enqueue_job("work", 0.5, _job_id="short")
    await pool.enqueue_job("work", 600, _job_id="long")
    process = await start()
    await wait_until(lambda: _both_run(pool))
    process.send_signal(signal.SIGTERM)
    await wait_until(lambda: mapping(pool, "effects"))
    process.send_signal(signal.SIGTERM)
    assert 0 == await process.wait()
    assert [b"long"] == await pool.zrange(QUEUE, 0, -1)
    assert [] == await pool.keys("arq:in-progress:*")
    assert [] == await pool.keys("arq:retry:*")


async def test_a_rolling_restart_under_load_loses_and_charges_nothing(pool: ArqRedis, start: Start) -> None:
    """Workers are replaced one by one while jobs run: each job has its effect once, and no attempt is charged."""
    await enqueue_many(pool, 600, seconds=0.05)
    running = [await start(), await start()]
    await wait_until(lambda: busy(pool))
    for _ in range(2):
        done = len(await mapping(pool, "effects"))
        old = running.pop(0)
        running.append(await start())
        await wait_until(partial(_ready, pool, old))
        old.send_signal(signal.SIGTERM)
        assert 0 == await old.wait()
        await wait_until(partial(_more_than, pool, done))
    await wait_until(lambda: all_done(pool))
    effects = await mapping(pool, "effects")
    assert (600, {b"1"}) == (len(effects), set(effects.values()))
    assert effects == await mapping(pool, "starts")
    assert [] == await pool.keys("arq:retry:*")
    assert not await pool.exists(queue_keys.lost(QUEUE))


async def _ready(pool: ArqRedis, process: Process) -> bool:
    return bool(await cast("Awaitable[int]", pool.sismember("ready", str(process.pid))))


async def _more_than(pool: ArqRedis, done: int) -> bool:
    return len(await mapping(pool, "effects")) > done or await all_done(pool)


async def _both_run(pool: ArqRedis) -> bool:
    return 2 == len(await mapping(pool, "starts"))


async def test_a_worker_outlives_a_restart_of_redis(
    pool: ArqRedis, make_worker: MakeWorker, engine_valkey: ValkeyServer
) -> None:
    """It says so once, waits, and goes on; what ran meanwhile is settled when Redis is back."""
    finish = asyncio.Event()

    async def work(ctx: dict[str, str]) -> str:
        await finish.wait()
        return ctx["job_id"]

    before = await pool.enqueue_job("work", _job_id="before")
    assert before is not None
    worker = make_worker(func(work, name="work"), burst=False)
    async with serving(worker):
        await wait_until(lambda: busy(pool))
        await asyncio.to_thread(engine_valkey.stop)
        finish.set()
        await wait_until(lambda: _redis(worker.health.redis, up=False))
        await asyncio.to_thread(engine_valkey.start)
        assert "before" == await before.result(timeout=30, poll_delay=0.02)
        after = await pool.enqueue_job("work", _job_id="after")
        assert after is not None
        assert "after" == await after.result(timeout=30, poll_delay=0.02)
        assert worker.health.redis


async def test_a_worker_can_be_closed_while_redis_is_away(
    pool: ArqRedis, make_worker: MakeWorker, engine_valkey: ValkeyServer
) -> None:
    """It does not wait for ever; its leases run out instead, and nothing is left running in this process."""
    finish = asyncio.Event()

    async def work(ctx: dict[str, str]) -> None:  # noqa: ARG001 - arq's signature.
        await finish.wait()

    await pool.enqueue_job("work", _job_id="x")
    others = asyncio.all_tasks()
    worker = make_worker(func(work, name="work"), burst=False)
    async with serving(worker):
        await wait_until(lambda: busy(pool))
        await asyncio.to_thread(engine_valkey.stop)
        finish.set()
        await wait_until(lambda: _redis(worker.health.redis, up=False))
    await asyncio.to_thread(engine_valkey.start)
    await wait_until(lambda: _quiet(others))
    assert [b"x"] == await pool.zrange(QUEUE, 0, -1)


async def _quiet(before: set[asyncio.Task[object]]) -> bool:
    return not {task for task in asyncio.all_tasks() - before if task is not asyncio.current_task()}


async def _redis(answer: bool, *, up: bool) -> bool:
    return answer is up


async def test_a_supervisor_replaces_what_dies_and_ends_with_its_children(
    pool: ArqRedis, command: list[str], environment: dict[str, str]
) -> None:
    """A killed child is started again; SIGTERM reaches all, and the exit code is theirs."""
    supervisor = Supervisor(command, processes=2, environment=environment)
    running = asyncio.create_task(supervisor.run())

    async def two_up() -> bool:
        return len(list(await pool.client_list())) >= 5

    await wait_until(two_up)
    first = supervisor._children[0]
    first.kill()
    await wait_until(lambda: _replaced(supervisor, first))
    await wait_until(two_up)
    os.kill(os.getpid(), signal.SIGTERM)
    assert 0 == await running
    assert [0, 0] == [child.returncode for child in supervisor._children.values()]


async def _replaced(supervisor: Supervisor, old: Process) -> bool:
    return supervisor._children[0] is not old
