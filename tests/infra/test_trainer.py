import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from infra.local.model.faults_client import Faults
from infra.settings import Settings
from infra.trainer import Trainer, is_certain, training_line
from schemas.errors import (
    CallFailed,
    Misconfigured,
    PenstockError,
    PoolPaused,
    RateLimited,
    Refused,
    Unavailable,
)


def content(count: int = 12) -> bytes:
    """A training file."""
    return b"".join(
        training_line([{"role": "user", "content": f"q {i}"}, {"role": "assistant", "content": f"a {i}"}])
        for i in range(count)
    )


@pytest.fixture
async def trainer(settings: Settings, faults: Faults) -> AsyncIterator[Trainer]:
    """The local model server as a trainer."""
    await faults.train_seconds(0)
    async with Trainer.open(settings.model_copy(update={"model_timeout": 2.0})) as opened:
        yield opened


async def create(trainer: Trainer, run: str, **more: Any) -> Any:
    """A job of a run."""
    file = await trainer.upload(f"{run}.jsonl", content())
    return await trainer.create_job(
        model="local-chat",
        training_file=file.file_id,
        validation_file=None,
        suffix=run,
        metadata={"penstock_run": run},
        epochs=None,
        **more,
    )


async def ended(trainer: Trainer, job_id: str) -> None:
    """Wait for a job's end."""
    async with asyncio.timeout(30):
        while not (await trainer.job(job_id)).has_ended:  # noqa: ASYNC110 - another process ends it
            await asyncio.sleep(0.05)


async def test_a_file_is_uploaded_once(trainer: Trainer, faults: Faults) -> None:
    """The same name and size is the same file, also when the first upload's reply was lost."""
    await faults.add("files.create", "drop_reply", times=1)
    with pytest.raises(PenstockError):
        await trainer.upload("once-0123.jsonl", content())
    found = await trainer.upload("once-0123.jsonl", content())
    assert found == await trainer.upload("once-0123.jsonl", content())
    assert 1 == await faults.requests("files.create")
    assert [found] == await trainer.files("once-")
    await trainer.delete_file(found.file_id)
    await trainer.delete_file(found.file_id)
    assert [] == await trainer.files("once-")


async def test_a_job_is_found_by_its_metadata_alone(trainer: Trainer, faults: Faults) -> None:
    """Also when the server ignores the filter: a stranger's job is never taken for ours."""
    mine, other = await create(trainer, "run-mine"), await create(trainer, "run-other")
    await faults.add("jobs.list", "ignore_filter")
    assert [mine.job_id] == [job.job_id for job in await trainer.find_jobs({"penstock_run": "run-mine"})]
    assert [other.job_id] == [job.job_id for job in await trainer.find_jobs({"penstock_run": "run-other"})]
    assert [] == await trainer.find_jobs({"penstock_run": "run-none"})


async def test_a_server_that_knows_no_filter_is_asked_without(trainer: Trainer, faults: Faults) -> None:
    """A 400 at the filter is no reason to create a second job."""
    job = await create(trainer, "run-filter")
    await faults.add("jobs.list", "400", times=1)
    assert [job.job_id] == [one.job_id for one in await trainer.find_jobs({"penstock_run": "run-filter"})]


async def test_events_are_read_to_the_first_known_page_in_the_trainers_order(trainer: Trainer) -> None:
    """New events come oldest first with their losses, and known ones are left out."""
    job = await create(trainer, "run-events")
    await ended(trainer, job.job_id)
    events = await trainer.events(job.job_id, lambda _: False)
    steps = [event.step for event in events if event.train_loss is not None]
    assert steps == sorted(steps, key=lambda step: step or 0)
    assert steps[-1] == events[[e.step for e in events].index(steps[-1])].total_steps
    known = {event.provider_id for event in events[:-2]}
    assert events[-2:] == await trainer.events(job.job_id, known.__contains__)
    checkpoints = await trainer.checkpoints(job.job_id)
    assert checkpoints
    assert [one.step for one in checkpoints] == sorted(one.step for one in checkpoints)


async def test_one_seed_makes_one_model(trainer: Trainer) -> None:
    """Two jobs with the same file and seed measure the same losses; another seed measures others."""
    losses = []
    for run, seed in (("run-seed-a", 7), ("run-seed-b", 7), ("run-seed-c", 8)):
        job = await create(trainer, run, seed=seed)
        await ended(trainer, job.job_id)
        events = await trainer.events(job.job_id, lambda _: False)
        losses.append([event.train_loss for event in events if event.train_loss is not None])
    assert losses[0] == losses[1] != losses[2]


async def test_cancelling_an_ended_job_tells_how_it_ended(trainer: Trainer) -> None:
    """Whoever comes too late learns it, instead of an error."""
    job = await create(trainer, "run-late")
    await ended(trainer, job.job_id)
    assert "succeeded" == (await trainer.cancel_job(job.job_id)).status


async def test_a_models_end_is_told(trainer: Trainer, faults: Faults) -> None:
    """A base model that dies is known beforehand; one that does not exist is None."""
    await faults.shutdown_date("local-chat", "2099-01-14")
    try:
        info = await trainer.model("local-chat")
    finally:
        await faults.shutdown_date("local-chat", None)
    assert info is not None
    assert "2099-01-14" == str(info.shutdown_date)
    assert await trainer.model("no-such-model") is None


@pytest.mark.parametrize(
    ("kind", "expected", "certain"),
    [
        ("drop_reply", Unavailable, False),
        ("500_after", Unavailable, False),
        ("500", Unavailable, False),
        ("hang", Unavailable, False),
        ("malformed", CallFailed, False),
        ("400", Refused, True),
        ("403", Refused, True),
        ("404", Refused, True),
        ("429", RateLimited, True),
        ("401", PoolPaused, True),
        ("insufficient_quota", PoolPaused, True),
    ],
)
async def test_only_a_refusal_is_certain_and_nothing_is_retried(
    trainer: Trainer, faults: Faults, kind: str, expected: type[PenstockError], *, certain: bool
) -> None:
    """One call on the wire, and an error that says whether a job may exist."""
    await faults.add("jobs.create", kind)
    with pytest.raises(expected) as caught:
        await create(trainer, f"run-{kind}")
    assert certain is is_certain(caught.value)
    assert 1 == await faults.requests("jobs.create")


async def test_a_trainer_of_its_own_needs_a_key_of_its_own(settings: Settings) -> None:
    """The model API's key is never sent to another server; the error names the setting."""
    elsewhere = settings.model_copy(
        update={"trainer_base_url": "http://127.0.0.1:1/v1", "trainer_api_key": None}
    )
    with pytest.raises(Misconfigured) as caught:
        async with Trainer.open(elsewhere):
            pass
    assert "PENSTOCK_TRAINER_API_KEY" == caught.value.field


def test_a_training_line_is_the_same_bytes_every_time() -> None:
    """Files are found again by the hash of their content."""
    line = training_line([{"role": "user", "content": "ä\u2028"}])
    assert line == training_line(orjson.loads(line)["messages"])
    assert line.count(b"\n") == 1
