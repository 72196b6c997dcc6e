"""The engine's own dead letters: listed, filtered, replayed and discarded."""

from __future__ import annotations

from itertools import pairwise

import pytest
from arq.connections import ArqRedis

from infra.queue_insight import insight
from tests.workers.engine.harness import QUEUE, MakeWorker
from tests.workers.engine.test_batch_runner import Recorder
from workers.engine.deadletters import DeadLetters
from workers.engine.types import Bury


@pytest.fixture
async def letters(pool: ArqRedis, make_worker: MakeWorker) -> DeadLetters:
    """Six dead jobs, half of them for another reason."""
    for number in range(6):
        await pool.enqueue_job("work", number, _job_id=f"job-{number}")
    plan = [Bury("even" if number % 2 == 0 else "odd") for number in range(6)]
    await make_worker(batch_runner=Recorder(*plan)).main()
    return DeadLetters(pool, QUEUE)


async def test_letters_are_listed_and_filtered(letters: DeadLetters) -> None:
    """In order of death, at most as many as asked for."""
    assert 6 == await letters.count()
    even = await letters.listed(match=lambda letter: letter.error == "even")
    assert ["job-0", "job-2", "job-4"] == [letter.job_id for letter in even]
    assert ["job-0"] == [letter.job_id for letter in await letters.listed(limit=1)]
    shown = await letters.show("job-3")
    assert shown is not None
    assert ("odd", b'"a":[3]' in shown.payload) == (shown.error, True)
    assert await letters.show("nobody") is None


async def test_a_dry_run_changes_nothing(letters: DeadLetters) -> None:
    """It only says what would happen."""
    assert 6 == len(await letters.replay(dry_run=True))
    assert 6 == len(await letters.discard(dry_run=True))
    assert 6 == await letters.count()


async def test_a_replay_is_capped_and_staggered(pool: ArqRedis, letters: DeadLetters) -> None:
    """The replayed jobs come one after another, as new jobs with their payloads."""
    assert ["job-0", "job-1", "job-2"] == await letters.replay(limit=3, stagger=60.0)
    seen = await insight(pool, QUEUE)
    assert (1, 2, 3) == (seen.ready, seen.deferred, seen.dead)
    times = [await pool.zscore(QUEUE, f"job-{number}") for number in range(3)]
    assert [60_000.0, 60_000.0] == [late - early for early, late in pairwise(times) if early and late]
    assert await pool.pttl("arq:job:job-1") == -1


async def test_a_letter_without_a_payload_is_kept(pool: ArqRedis, make_worker: MakeWorker) -> None:
    """There is nothing to run; only a person can decide what it was."""
    await pool.zadd(QUEUE, {"bare": 1})
    await make_worker(batch_runner=Recorder(Bury("not_in_ledger"))).main()
    letters = DeadLetters(pool, QUEUE)
    assert [] == await letters.replay()
    assert ["bare"] == await letters.discard()
    assert 0 == await letters.count()
