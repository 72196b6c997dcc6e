# ruff: noqa: ARG001 - arq gives every function its context.
"""Jobs of arq's own producers, run by the engine as arq would run them, and a little better."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
import structlog
from arq.connections import ArqRedis
from arq.cron import cron
from arq.jobs import JobStatus
from arq.worker import JobExecutionFailed, Retry, func

from infra import queue_keys
from infra.queue_insight import insight, pause, resume
from schemas.errors import BadInput, RateLimited, Unavailable
from tests.workers.engine.harness import QUEUE, MakeWorker, serving, wait_until
from workers.engine.deadletters import DeadLetters
from workers.engine.policy import Policy

Context = dict[str, Any]


async def add(ctx: Context, a: int, b: int = 0) -> int:
    """Add."""
    assert ctx["job_try"] >= 1
    return a + b


async def test_a_job_runs_and_its_result_comes_back(pool: ArqRedis, make_worker: MakeWorker) -> None:
    """Enqueue, status, info and result work as with arq's worker."""
    job = await pool.enqueue_job("add", 1, b=2)
    assert job is not None
    assert JobStatus.queued == await job.status()
    assert 1 == await make_worker(add).run_check()
    assert JobStatus.complete == await job.status()
    assert 3 == await job.result(timeout=1)


async def test_a_thousand_jobs_run_once_each(pool: ArqRedis, make_worker: MakeWorker) -> None:
    """Two workers at once share them without overlap, in few round trips."""
    runs: Counter[int] = Counter()

    async def count(ctx: Context, number: int) -> None:
        runs[number] += 1
        await asyncio.sleep(0)

    for number in range(1000):
        await pool.enqueue_job("count", number)
    function = func(count, name="count", keep_result=0)
    workers = [make_worker(function, max_jobs=50) for _ in range(2)]
    await asyncio.gather(*[worker.run_check() for worker in workers])
    assert Counter(dict.fromkeys(range(1000), 1)) == runs


async def test_an_idle_worker_is_woken_by_the_bell_and_by_the_clock(
    pool: ArqRedis, make_worker: MakeWorker
) -> None:
    """With a poll far away, a ring brings the new job, and a deferred one runs by the timer that the ring set."""
    ran: list[str] = []

    async def note(ctx: Context) -> None:
        ran.append(ctx["job_id"])

    async def both() -> bool:
        return ran == ["now", "later"]

    worker = make_worker(func(note, name="note"), burst=False, poll_delay=3600)
    async with serving(worker):
        await wait_until(lambda: _is(worker.health.redis))
        await pool.enqueue_job("note", _job_id="now")
        await pool.enqueue_job(
            "note", _job_id="later", _defer_until=datetime.now(UTC) + timedelta(seconds=0.3)
        )
        await cast("Awaitable[int]", pool.lpush(queue_keys.bell(QUEUE), "1"))
        await wait_until(both)


async def _is(value: object) -> object:
    return value


async def test_a_producer_that_does_not_ring_is_found_by_the_slow_poll(
    pool: ArqRedis, make_worker: MakeWorker
) -> None:
    """Arq's own `enqueue_job` knows nothing of bells."""
    async with serving(make_worker(add, burst=False)):
        job = await pool.enqueue_job("add", 1)
        assert job is not None
        assert 1 == await job.result(timeout=10, poll_delay=0.01)


@pytest.mark.parametrize(
    ("error", "attempts"),
    [(Unavailable(), [1, 2, 3]), (Retry(defer=0), [1, 2, 3]), (RateLimited(retry_after=0.0), [1, 1, 1])],
)
async def test_work_that_may_succeed_later_runs_again(
    pool: ArqRedis, make_worker: MakeWorker, error: Exception, attempts: list[int]
) -> None:
    """Failures are charged to the attempts, waiting for somebody else's limit is not."""
    seen: list[int] = []

    async def work(ctx: Context) -> None:
        seen.append(ctx["job_try"])
        if len(seen) < 3:
            raise error

    await pool.enqueue_job("work")
    worker = make_worker(func(work, name="work"), policy=Policy(base=0.01, floor=0.0))
    assert 1 == await worker.run_check()
    assert attempts == seen


async def test_hopeless_work_is_buried_with_its_payload_and_can_be_replayed(
    pool: ArqRedis, make_worker: MakeWorker
) -> None:
    """The dead letter says why, holds no text, and brings back the same job."""
    broken = [True]

    async def work(ctx: Context, secret: str) -> str:
        if broken:
            raise ValueError(secret)
        return secret

    await pool.enqueue_job("work", "canary", _job_id="doomed")
    worker = make_worker(func(work, name="work"))
    await worker.main()
    letters = DeadLetters(pool, QUEUE)
    (letter,) = await letters.listed()
    assert ("doomed", "work", "ValueError", "", 1) == (
        letter.job_id, letter.function, letter.error, letter.message, letter.attempts
    )  # fmt: skip
    assert "canary" not in repr(letter.trace)
    assert any("work" in frame for frame in letter.trace)
    broken.clear()
    assert ["doomed"] == await letters.replay()
    assert 0 == await letters.count()
    await worker.main()
    assert 1 == worker.jobs_complete


@pytest.mark.parametrize(
    ("enqueue", "error"),
    [
        ("unknown", "JobExecutionFailed"),
        ("unreadable", "DeserializationError"),
        ("expired", "JobExecutionFailed"),
    ],
)
async def test_what_cannot_be_started_is_buried(
    pool: ArqRedis, make_worker: MakeWorker, enqueue: str, error: str
) -> None:
    """Unknown functions, broken payloads and expired ones end in the dead letters; the worker goes on."""
    await pool.enqueue_job(enqueue, _job_id="bad")
    if enqueue == "unreadable":
        await pool.set("arq:job:bad", b"\x80garbage")
    elif enqueue == "expired":
        await pool.delete("arq:job:bad")
    await pool.enqueue_job("add", 1)
    worker = make_worker(add)
    await worker.main()
    assert (1, 1) == (worker.jobs_complete, worker.jobs_failed)
    assert [error] == [letter.error for letter in await DeadLetters(pool, QUEUE).listed()]


async def test_permanent_errors_keep_their_code_and_message(pool: ArqRedis, make_worker: MakeWorker) -> None:
    """Our own errors' messages are safe to show."""

    async def work(ctx: Context) -> None:
        raise BadInput("the title is missing")

    await pool.enqueue_job("work")
    await make_worker(func(work, name="work"), policy=Policy()).main()
    (letter,) = await DeadLetters(pool, QUEUE).listed()
    assert ("bad_input", "the title is missing") == (letter.error, letter.message)


async def test_a_running_job_can_be_aborted(pool: ArqRedis, make_worker: MakeWorker) -> None:
    """`Job.abort()` cancels it, over the JSON wire too, and no request is left behind."""
    started = asyncio.Event()

    async def sleep(ctx: Context) -> None:
        started.set()
        await asyncio.Event().wait()

    job = await pool.enqueue_job("sleep")
    assert job is not None
    worker = make_worker(func(sleep, name="sleep"), burst=False, allow_abort_jobs=True)
    async with serving(worker):
        await started.wait()
        assert await job.abort(timeout=10, poll_delay=0.02)
    assert 0 == await pool.zcard("arq:abort")


async def test_a_timeout_ends_one_job_and_no_other(pool: ArqRedis, make_worker: MakeWorker) -> None:
    """Each function's own timeout counts."""

    async def hang(ctx: Context) -> None:
        await asyncio.Event().wait()

    slow = await pool.enqueue_job("hang")
    quick = await pool.enqueue_job("add", 1)
    assert slow is not None
    assert quick is not None
    worker = make_worker(func(hang, name="hang", timeout=0.1), add)
    await worker.main()
    assert (1, 1) == (worker.jobs_complete, worker.jobs_failed)
    with pytest.raises(TimeoutError):
        await slow.result(timeout=1)


async def test_a_failing_hook_does_not_take_the_worker_down(pool: ArqRedis, make_worker: MakeWorker) -> None:
    """The job counts all the same, and the log says what happened."""

    async def broken(ctx: Context) -> None:
        raise RuntimeError("hook")

    await pool.enqueue_job("add", 1)
    worker = make_worker(add, on_job_end=broken, after_job_end=broken)
    with structlog.testing.capture_logs() as logs:
        assert 1 == await worker.run_check()
    assert ["engine.hook_failed"] * 2 == [entry["event"] for entry in logs]


async def test_cron_jobs_run_once(make_worker: MakeWorker) -> None:
    """Two workers of one schedule start the job once between them."""
    runs: list[str] = []

    async def tick(ctx: Context) -> None:
        runs.append(ctx["job_id"])

    workers = [
        make_worker(cron_jobs=[cron(tick, hour=1, run_at_startup=True, job_id="daily")]) for _ in range(2)
    ]
    await asyncio.gather(*[worker.main() for worker in workers])
    assert ["daily"] == runs


async def test_a_paused_queue_waits(pool: ArqRedis, make_worker: MakeWorker) -> None:
    """Jobs stay where they are until the queue is resumed."""
    await pause(pool, QUEUE)
    job = await pool.enqueue_job("add", 1)
    assert job is not None
    async with serving(make_worker(add, burst=False)):
        await wait_until(lambda: _is_paused(pool))
        assert JobStatus.queued == await job.status()
        await resume(pool, QUEUE)
        assert 1 == await job.result(timeout=10, poll_delay=0.01)


async def _is_paused(pool: ArqRedis) -> bool:
    seen = await insight(pool, QUEUE)
    return seen.paused and seen.ready == 1


async def test_arguments_are_not_logged(
    pool: ArqRedis, make_worker: MakeWorker, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither in success nor in failure does a payload reach a log (promise P8)."""

    async def work(ctx: Context, text: str, *, fail: bool) -> str:
        if fail:
            raise JobExecutionFailed(text)
        return text

    await pool.enqueue_job("work", "canary", fail=False)
    await pool.enqueue_job("work", "canary", fail=True)
    with caplog.at_level(0), structlog.testing.capture_logs() as logs:
        await make_worker(func(work, name="work")).main()
    assert "canary" not in caplog.text
    assert "canary" not in repr(logs)
