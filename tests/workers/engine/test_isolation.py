"""Jobs whose worker died twice run in a child process, which may die without taking anything along."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from arq.connections import ArqRedis

from infra import queue_keys
from tests.workers.engine.harness import QUEUE, MakeWorker, serving, wait_until
from tests.workers.engine.test_batch_runner import Recorder
from workers.engine.solo import pack_verdict, unpack_verdict
from workers.engine.types import Bury, Done, GiveBack, Gone, RetryAt, Verdict

CHILD = [sys.executable, str(Path(__file__).parent / "solo_child.py")]


@pytest.fixture(autouse=True)
def _import_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))


async def suspect(pool: ArqRedis, function: str, *args: str) -> None:
    """Enqueue a job that has lost two workers already."""
    await pool.enqueue_job(function, *args, _job_id=function)
    await pool.execute_command("HSET", queue_keys.lost(QUEUE), function, "2")  # type: ignore[no-untyped-call]


async def test_a_suspect_finishes_in_a_child(pool: ArqRedis, make_worker: MakeWorker) -> None:
    """An innocent one is done, a failing one is tried again, and neither meets the runner of this process."""
    await suspect(pool, "innocent")
    await suspect(pool, "again")
    runner = Recorder()
    worker = make_worker(batch_runner=runner, isolate=CHILD)
    await worker.main()
    assert ([], 2, 1) == (runner.batches, worker.jobs_complete, worker.jobs_retried)
    assert not await pool.exists(queue_keys.lost(QUEUE))


async def test_a_killer_dies_alone(pool: ArqRedis, make_worker: MakeWorker) -> None:
    """Each death is charged at once, the fifth buries; other jobs are done meanwhile, by a process that lives."""
    await suspect(pool, "poison")
    for number in range(20):
        await pool.enqueue_job("work", _job_id=f"job-{number}")
    runner = Recorder()
    worker = make_worker(batch_runner=runner, isolate=CHILD)
    await worker.main()
    assert ["poison"] == runner.judged
    assert 20 == worker.jobs_complete
    assert 0 == await pool.zcard(QUEUE)


async def test_shutdown_ends_the_child_and_gives_its_job_back(
    pool: ArqRedis, make_worker: MakeWorker, tmp_path: Path
) -> None:
    """Nothing is charged, and no process is left."""
    marker = tmp_path / "pid"
    await suspect(pool, "hang", str(marker))
    async with serving(make_worker(batch_runner=Recorder(), isolate=CHILD, burst=False)):
        await wait_until(lambda: _written(marker))
        pid = int(marker.read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert [b"hang"] == await pool.zrange(QUEUE, 0, -1)
    assert b"2" == await pool.execute_command("HGET", queue_keys.lost(QUEUE), "hang")  # type: ignore[no-untyped-call]
    assert not await pool.exists("arq:in-progress:hang")


async def _written(marker: Path) -> bool:
    return marker.exists() and marker.read_text() != ""


@pytest.mark.parametrize(
    "verdict", [Done(), RetryAt(1.5, charged=False), GiveBack(2.0), Bury("a", "b", ledgered=True), Gone()]
)
def test_a_verdict_survives_the_way_back(verdict: Verdict) -> None:
    """Every kind of verdict can cross the socket."""
    assert verdict == unpack_verdict(pack_verdict(verdict))
