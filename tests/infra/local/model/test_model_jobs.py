from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from openai import AsyncOpenAI, BadRequestError, NotFoundError

from tests.infra.local.model.helpdesk import Desk, Pair, upload
from tests.infra.local.model.waiting import finished_job, job_in, until

if TYPE_CHECKING:
    from infra.local.model.faults_client import Faults

ORDER = ["validating_files", "queued", "running", "succeeded"]


async def test_a_job_runs_to_a_model(client: AsyncOpenAI, desk: Desk, faults: Faults) -> None:
    """It passes the documented statuses in their order and ends with all that OpenAI's job has."""
    await faults.train_seconds(0.6)
    job = await client.fine_tuning.jobs.create(
        model="local-chat",
        training_file=await upload(client, desk.train),
        validation_file=await upload(client, desk.held_out[:20]),
        suffix="Help Desk!",
        metadata={"run": "r1"},
        seed=5,
    )
    assert "validating_files" == job.status
    assert job.error is not None
    assert {"code": None, "message": None, "param": None} == job.error.to_dict()
    seen: list[str] = [job.status]

    async def ended() -> bool:
        now = await client.fine_tuning.jobs.retrieve(job.id)
        if now.status != seen[-1]:
            seen.append(now.status)
        assert (
            now.status != "running" or now.estimated_finish is None or now.estimated_finish >= now.created_at
        )
        return now.status == "succeeded"

    await until(ended)
    done = await client.fine_tuning.jobs.retrieve(job.id)
    assert seen == [status for status in ORDER if status in seen]
    assert {"validating_files", "running", "succeeded"} <= set(seen)
    assert (3, 8, 1.0) == (
        done.hyperparameters.n_epochs,
        done.hyperparameters.batch_size,
        done.hyperparameters.learning_rate_multiplier,
    )
    assert f"ft:local-chat:local:help-desk:{job.id[6:14]}" == done.fine_tuned_model
    assert (5, {"run": "r1"}) == (done.seed, done.metadata)
    assert done.trained_tokens is not None
    assert done.trained_tokens % 3 == 0
    assert done.finished_at is not None
    assert b"step,train_loss" in (await client.files.content(done.result_files[0])).content


async def test_every_step_reports_its_losses(client: AsyncOpenAI, desk: Desk) -> None:
    """Metrics events carry the losses of each step, in order; a checkpoint ends each epoch and is a model."""
    job = await client.fine_tuning.jobs.create(
        model="local-chat",
        training_file=await upload(client, desk.train),
        validation_file=await upload(client, desk.held_out[:20]),
    )
    await finished_job(client, job.id)
    events = [event async for event in client.fine_tuning.jobs.list_events(job.id, limit=50)][::-1]
    metrics: list[dict[str, Any]] = [dict(event.data) for event in events if event.type == "metrics"]  # type: ignore[call-overload]
    assert list(range(1, 61)) == [entry["step"] for entry in metrics]
    assert {60} == {entry["total_steps"] for entry in metrics}
    assert all(entry["train_loss"] > 0 and entry["valid_loss"] > 0 for entry in metrics)
    assert [20, 40, 60] == [entry["step"] for entry in metrics if entry["full_valid_loss"] is not None]
    checkpoints = [point async for point in client.fine_tuning.jobs.checkpoints.list(job.id, limit=2)][::-1]
    assert [20, 40, 60] == [point.step_number for point in checkpoints]
    assert metrics[-1]["full_valid_loss"] == checkpoints[-1].metrics.full_valid_loss
    for point in checkpoints:
        assert point.fine_tuned_model_checkpoint.endswith(f":ckpt-step-{point.step_number}")
        await client.models.retrieve(point.fine_tuned_model_checkpoint)


async def test_jobs_are_found_by_metadata_and_page(client: AsyncOpenAI, desk: Desk) -> None:
    """The filter wants every given pair; pages are newest first and join without a gap."""
    file = await upload(client, desk.train)
    made = [
        (
            await client.fine_tuning.jobs.create(
                model="local-chat", training_file=file, metadata={"test": "paging", "n": str(n)}
            )
        ).id
        for n in range(5)
    ]
    found = [job.id async for job in client.fine_tuning.jobs.list(metadata={"test": "paging"}, limit=2)]
    assert made[::-1] == found
    one = await client.fine_tuning.jobs.list(metadata={"test": "paging", "n": "3"})
    assert [made[3]] == [job.id for job in one.data]
    assert [] == (await client.fine_tuning.jobs.list(metadata={"test": "other"})).data
    for job_id in made:
        await finished_job(client, job_id)


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        (b'{"messages": "no"}\n' * 12, "invalid_training_file", "Line 1:"),
        (b"", "empty", ""),
    ],
)
async def test_a_bad_file_fails_the_job(client: AsyncOpenAI, data: bytes, code: str, words: str) -> None:
    """The upload is taken, the job fails and names the line; an empty file is not even taken."""
    if not data:
        with pytest.raises(BadRequestError):
            await client.files.create(file=("bad.jsonl", data), purpose="fine-tune")
        return
    file = await client.files.create(file=("bad.jsonl", data), purpose="fine-tune")
    job = await client.fine_tuning.jobs.create(model="local-chat", training_file=file.id)
    failed = await finished_job(client, job.id)
    assert failed.error is not None
    assert ("failed", code, "training_file") == (failed.status, failed.error.code, failed.error.param)
    assert words in failed.error.message
    assert failed.fine_tuned_model is None


async def test_a_cancelled_job_leaves_no_model(client: AsyncOpenAI, desk: Desk, faults: Faults) -> None:
    """Cancelling is final, and only possible while the job runs."""
    await faults.train_seconds(30)
    job = await client.fine_tuning.jobs.create(
        model="local-chat", training_file=await upload(client, desk.train)
    )
    await job_in(client, job.id, frozenset({"running"}))
    assert "cancelled" == (await client.fine_tuning.jobs.cancel(job.id)).status
    done = await finished_job(client, job.id)
    assert ("cancelled", None) == (done.status, done.fine_tuned_model)
    with pytest.raises(BadRequestError):
        await client.fine_tuning.jobs.cancel(job.id)


async def test_a_paused_job_waits_to_be_resumed(client: AsyncOpenAI, desk: Desk, faults: Faults) -> None:
    """It reports no step while it is paused and goes on where it was."""
    await faults.train_seconds(2)
    job = await client.fine_tuning.jobs.create(
        model="local-chat", training_file=await upload(client, desk.train)
    )
    await job_in(client, job.id, frozenset({"running"}))
    await client.fine_tuning.jobs.pause(job.id)
    assert "paused" == str((await client.fine_tuning.jobs.retrieve(job.id)).status)
    await faults.train_seconds(0)

    async def steps() -> int:
        return len(
            [e async for e in client.fine_tuning.jobs.list_events(job.id, limit=100) if e.type == "metrics"]
        )

    assert await steps() < 60
    assert "running" == (await client.fine_tuning.jobs.resume(job.id)).status
    assert "succeeded" == (await finished_job(client, job.id)).status
    assert 60 == await steps()
    with pytest.raises(BadRequestError):
        await client.fine_tuning.jobs.resume(job.id)


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"training_file": "file-none"}, "training_file"),
        ({"model": "gpt-5.6"}, "model"),
        ({"model": "local-embed-256"}, "model"),
        ({"metadata": {"a": "x" * 513}}, "metadata"),
        ({"suffix": "x" * 65}, "suffix"),
        ({"seed": -1}, "seed"),
        ({"method": {"type": "dpo"}}, "method.type"),
        ({"hyperparameters": {"n_epochs": 51}}, "hyperparameters.n_epochs"),
        (
            {"method": {"type": "supervised", "supervised": {"hyperparameters": {"batch_size": 0}}}},
            "method.supervised.hyperparameters.batch_size",
        ),
    ],
)
async def test_a_bad_job_names_its_parameter(
    client: AsyncOpenAI, options: dict[str, Any], param: str
) -> None:
    """Nothing is entered then."""
    pairs = [Pair(f"Question {n}?", "Answer.") for n in range(10)]
    body = {"model": "local-chat", "training_file": await upload(client, pairs), **options}
    with pytest.raises(BadRequestError) as caught:
        await client.fine_tuning.jobs.create(**body)
    assert param == caught.value.param


async def test_a_missing_job_is_not_found(client: AsyncOpenAI) -> None:
    """As are its events and checkpoints."""
    for ask in (client.fine_tuning.jobs.retrieve, client.fine_tuning.jobs.cancel):
        with pytest.raises(NotFoundError):
            await ask("ftjob-missing")
    with pytest.raises(NotFoundError):
        await client.fine_tuning.jobs.list_events("ftjob-missing")
