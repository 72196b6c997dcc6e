"""Claimed jobs handed to a batch runner, and what its verdicts do."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog
from arq.connections import ArqRedis

from infra import queue_keys
from tests.workers.engine.harness import QUEUE, MakeWorker, serving, wait_until
from workers.engine.deadletters import DeadLetters
from workers.engine.types import Bury, ClaimedJob, Done, GiveBack, Gone, Report, RetryAt, Verdict


class Recorder:
    """A runner that answers from a plan and remembers what it was given."""

    def __init__(self, *plan: Verdict, forgives: bool = False) -> None:
        self.plan = list(plan)
        self.forgives = forgives
        self.batches: list[list[ClaimedJob]] = []
        self.judged: list[str] = []
        self.given_up: list[str] = []

    async def start(self, jobs: Sequence[ClaimedJob], report: Report) -> None:
        """Report the next verdict for each job, `Done` when the plan is used up."""
        self.batches.append(list(jobs))
        for job in jobs:
            report(job, self.plan.pop(0) if self.plan else Done())

    async def judge_lost(self, jobs: Sequence[ClaimedJob], report: Report) -> None:
        """Remember, and bury unless forgiving."""
        for job in jobs:
            self.judged.append(job.job_id)
            report(job, GiveBack(forgiven=True) if self.forgives else Bury("worker_lost", ledgered=True))

    def lost(self, job: ClaimedJob) -> None:
        """Remember."""
        self.given_up.append(job.job_id)


class Hanging(Recorder):
    """A runner whose work never ends."""

    def __init__(self) -> None:
        super().__init__()
        self.started = asyncio.Event()

    async def start(self, jobs: Sequence[ClaimedJob], report: Report) -> None:
        """Never come to the report."""
        self.batches.append(list(jobs))
        self.started.set()
        await asyncio.Event().wait()
        report(jobs[0], Done())


async def test_the_jobs_of_a_claim_come_together(pool: ArqRedis, make_worker: MakeWorker) -> None:
    """One call with one token for all, arguments decoded."""
    for number in range(5):
        await pool.enqueue_job("document.added", f"event-{number}", _job_id=f"event-{number}")
    runner = Recorder()
    worker = make_worker(batch_runner=runner)
    await worker.main()
    (batch,) = runner.batches
    assert [f"event-{number}" for number in range(5)] == [job.job_id for job in batch]
    assert {("document.added", 1, 0, QUEUE)} == {(j.function, j.attempt, j.losses, j.queue) for j in batch}
    assert [["event-0"], 1] == [list(batch[0].args), len({job.token for job in batch})]
    assert 5 == worker.jobs_complete
    assert [b"penstock:test:health-check"] == await pool.keys("*")


async def test_each_verdict_does_what_it_says(pool: ArqRedis, make_worker: MakeWorker) -> None:
    """Retries are charged or not, ledgered burials leave nothing, others leave a letter, what is gone just goes."""
    await pool.enqueue_job("work", _job_id="x")
    plan: list[Verdict] = [
        RetryAt(0.0),
        RetryAt(0.0, charged=False),
        GiveBack(),
        Bury("not_in_ledger", "no such event"),
    ]
    runner = Recorder(*plan)
    await make_worker(batch_runner=runner).main()
    assert [1, 2, 2, 2] == [batch[0].attempt for batch in runner.batches]
    (letter,) = await DeadLetters(pool, QUEUE).listed()
    assert ("not_in_ledger", "no such event") == (letter.error, letter.message)
    await DeadLetters(pool, QUEUE).discard()
    for verdict in (Bury("bad_input", ledgered=True), Gone()):
        await pool.enqueue_job("work", _job_id="y")
        await make_worker(batch_runner=Recorder(verdict)).main()
        assert 0 == await DeadLetters(pool, QUEUE).count()
        assert 0 == await pool.zcard(QUEUE)


async def test_the_id_is_enough(pool: ArqRedis, make_worker: MakeWorker) -> None:
    """Missing and broken payloads go to the runner too: the ledger knows what the id means."""
    await pool.zadd(QUEUE, {"bare": 1, "broken": 2})
    await pool.set("arq:job:broken", b"garbage")
    runner = Recorder()
    await make_worker(batch_runner=runner).main()
    assert [("bare", ""), ("broken", "")] == [(job.job_id, job.function) for job in runner.batches[0]]


async def test_registered_functions_do_not_go_to_the_runner(pool: ArqRedis, make_worker: MakeWorker) -> None:
    """A pool may have functions that need no ledger row."""
    ran: list[str] = []

    async def local(ctx: dict[str, str]) -> None:
        ran.append(ctx["job_id"])

    await pool.enqueue_job("test_registered_functions_do_not_go_to_the_runner.<locals>.local", _job_id="a")
    await pool.enqueue_job("other", _job_id="b")
    runner = Recorder()
    await make_worker(local, batch_runner=runner).main()
    assert (["a"], ["b"]) == (ran, [job.job_id for batch in runner.batches for job in batch])


async def test_a_job_counts_once_however_often_it_is_reported(
    pool: ArqRedis, make_worker: MakeWorker
) -> None:
    """Slots are not freed twice by a runner that repeats itself."""

    class Twice(Recorder):
        async def start(self, jobs: Sequence[ClaimedJob], report: Report) -> None:
            for job in jobs:
                report(job, Done())
                report(job, RetryAt(0.0))

    await pool.enqueue_job("work")
    worker = make_worker(batch_runner=Twice())
    await worker.main()
    assert (1, 0, 0) == (worker.jobs_complete, worker.jobs_retried, worker.job_counter)


async def test_what_a_runner_forgets_or_drops_is_given_back(pool: ArqRedis, make_worker: MakeWorker) -> None:
    """A runner that raises, or returns without a verdict, loses nothing and charges nothing."""

    class Broken(Recorder):
        async def start(self, jobs: Sequence[ClaimedJob], report: Report) -> None:
            report(jobs[0], Done())
            raise RuntimeError("text of a document")

    for number in range(2):
        await pool.enqueue_job("work", _job_id=f"job-{number}")
    worker = make_worker(batch_runner=Broken(), burst=False)
    with structlog.testing.capture_logs() as logs:
        async with serving(worker):
            await wait_until(lambda: _settled(pool))
    assert [b"job-1"] == await pool.zrange(QUEUE, 0, -1)
    assert 0 == await pool.exists("arq:retry:job-1")
    assert "text of a document" not in repr(logs)


async def _settled(pool: ArqRedis) -> bool:
    return (await pool.zcard(QUEUE), await pool.zcard(queue_keys.running(QUEUE))) == (1, 0)


async def test_shutdown_gives_unfinished_work_back_uncharged(pool: ArqRedis, make_worker: MakeWorker) -> None:
    """The jobs are ready again at once, for somebody else, as if they had not been claimed."""
    for number in range(3):
        await pool.enqueue_job("work", _job_id=f"job-{number}")
    first = Hanging()
    async with serving(make_worker(batch_runner=first, burst=False)):
        await first.started.wait()
    second = Recorder()
    await make_worker(batch_runner=second).main()
    assert {("job-0", 1, 0), ("job-1", 1, 0), ("job-2", 1, 0)} == {
        (job.job_id, job.attempt, job.losses) for batch in second.batches for job in batch
    }


async def test_a_lost_lease_is_told_to_the_runner(pool: ArqRedis, make_worker: MakeWorker) -> None:
    """Its slot is free again, and its verdict is not awaited any more."""
    await pool.enqueue_job("work", _job_id="x")
    runner = Hanging()
    worker = make_worker(batch_runner=runner, burst=False, lease=0.3)
    async with serving(worker):
        await runner.started.wait()
        await pool.set("arq:in-progress:x", "L99", px=60_000)

        async def told() -> bool:
            return runner.given_up == ["x"] and worker.job_counter == 0

        await wait_until(told)
    assert b"L99" == await pool.get("arq:in-progress:x")


async def test_work_that_killed_five_workers_is_buried_by_the_runner(
    pool: ArqRedis, make_worker: MakeWorker
) -> None:
    """It is not run a sixth time."""
    await pool.enqueue_job("work", _job_id="killer")
    await pool.execute_command("HSET", queue_keys.lost(QUEUE), "killer", "5")  # type: ignore[no-untyped-call]
    runner = Recorder()
    await make_worker(batch_runner=runner).main()
    assert (["killer"], []) == (runner.judged, runner.batches)


async def test_where_nobody_is_suspected_deaths_are_counted_and_may_be_forgiven(
    pool: ArqRedis, make_worker: MakeWorker
) -> None:
    """Work that lost two workers comes with the rest; after five its runner decides, and it may begin from none."""
    for losses in (0, 2, 4, 5):
        await pool.enqueue_job("work", _job_id=f"lost-{losses}")
        await pool.execute_command("HSET", queue_keys.lost(QUEUE), f"lost-{losses}", losses)  # type: ignore[no-untyped-call]
    runner = Recorder(forgives=True)
    await make_worker(batch_runner=runner, suspects=False).main()
    first, second = [[(job.job_id, job.losses) for job in batch] for batch in runner.batches]
    assert [("lost-0", 0), ("lost-2", 2), ("lost-4", 4)] == sorted(first)
    assert (["lost-5"], [("lost-5", 0)]) == (runner.judged, second)
    assert not await pool.exists(queue_keys.lost(QUEUE))
