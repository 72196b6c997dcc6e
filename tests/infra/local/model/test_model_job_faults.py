from __future__ import annotations

from typing import TYPE_CHECKING, Any

import openai
import pytest
from openai import AsyncOpenAI

from tests.infra.local.model.helpdesk import Desk, upload
from tests.infra.local.model.waiting import finished_job, job_in, until

if TYPE_CHECKING:
    from infra.local.model.faults_client import Faults


@pytest.fixture
async def file_id(client: AsyncOpenAI, desk: Desk) -> str:
    """An uploaded training file."""
    return await upload(client, desk.train)


async def create(client: AsyncOpenAI, file_id: str, **options: Any) -> str:
    """Create a job; returns its id."""
    return (await client.fine_tuning.jobs.create(model="local-chat", training_file=file_id, **options)).id


async def jobs_of(client: AsyncOpenAI, run: str) -> list[str]:
    """The jobs with a run's id in their metadata."""
    return [job.id async for job in client.fine_tuning.jobs.list(metadata={"run": run})]


@pytest.mark.parametrize("kind", ["drop_reply", "cut", "malformed", "hang_reply", "500_after"])
async def test_a_lost_reply_leaves_one_job(
    kind: str, client: AsyncOpenAI, faults: Faults, file_id: str
) -> None:
    """The job exists once; whoever looks for its metadata can adopt it."""
    await faults.add("jobs.create", kind, times=1, seconds=0.05)
    with pytest.raises((openai.APIError, ValueError)):
        await create(client, file_id, metadata={"run": kind})
    found = await jobs_of(client, kind)
    assert 1 == len(found)
    assert 1 == await faults.served("jobs.create")
    assert "succeeded" == (await finished_job(client, found[0])).status


@pytest.mark.parametrize("kind", ["403", "500", "429", "drop", "hang"])
async def test_a_refused_creation_leaves_no_job(
    kind: str, client: AsyncOpenAI, faults: Faults, file_id: str
) -> None:
    """Nothing was entered, so creating again is right."""
    await faults.add("jobs.create", kind, times=1, seconds=0.05)
    with pytest.raises(openai.APIError):
        await create(client, file_id, metadata={"run": f"no-{kind}"})
    assert [] == await jobs_of(client, f"no-{kind}")


async def test_a_retrying_client_creates_more_than_one_job(
    client: AsyncOpenAI, faults: Faults, file_id: str
) -> None:
    """Why Penstock switches retries off: each lost reply is another paid job."""
    await faults.add("jobs.create", "drop_reply", times=2)
    await create(client.with_options(max_retries=2), file_id, metadata={"run": "thrice"})
    assert 3 == len(await jobs_of(client, "thrice"))


async def test_a_stuck_job_goes_on_when_the_fault_is_cleared(
    client: AsyncOpenAI, faults: Faults, file_id: str
) -> None:
    """Until then it is running and reports nothing new; other jobs are not held up."""
    await faults.add("jobs.run", "stuck", match="held", after=5, times=1)
    held = await create(client, file_id, metadata={"run": "held"})
    free = await create(client, file_id, metadata={"run": "free"})
    assert "succeeded" == (await finished_job(client, free)).status

    async def stands_still() -> bool:
        return bool((await faults.shown())[0]["used"])

    await until(stands_still)
    metrics = [e async for e in client.fine_tuning.jobs.list_events(held, limit=100) if e.type == "metrics"]
    assert ("running", 5) == ((await client.fine_tuning.jobs.retrieve(held)).status, len(metrics))
    await faults.clear("jobs.run")
    assert "succeeded" == (await finished_job(client, held)).status


async def test_faults_of_requests_do_not_touch_running_jobs(
    client: AsyncOpenAI, faults: Faults, file_id: str
) -> None:
    """A job's steps use up no fault that is meant for requests, whatever it matches."""
    job_id = await create(client, file_id)
    await faults.add("*", "500", match=job_id)
    await faults.add("jobs", "500", match=job_id)
    assert "succeeded" == (await finished_job(client, job_id)).status
    assert [0, 0] == [fault["used"] for fault in await faults.shown()]


async def test_a_stuck_job_can_be_cancelled(client: AsyncOpenAI, faults: Faults, file_id: str) -> None:
    """A stalled run is not for ever."""
    await faults.add("jobs.run", "stuck")
    job_id = await create(client, file_id)
    await job_in(client, job_id, frozenset({"running"}))
    assert "cancelled" == (await client.fine_tuning.jobs.cancel(job_id)).status


async def test_a_job_can_fail_in_the_middle(client: AsyncOpenAI, faults: Faults, file_id: str) -> None:
    """With a reason, and without a model."""
    await faults.add("jobs.run", "fail", after=7, times=1, message="out of memory")
    failed = await finished_job(client, await create(client, file_id))
    assert failed.error is not None
    assert ("failed", "server_error", "out of memory") == (
        failed.status,
        failed.error.code,
        failed.error.message,
    )
    assert failed.fine_tuned_model is None


async def test_listings_can_mislead(client: AsyncOpenAI, faults: Faults, file_id: str) -> None:
    """As other servers' do: the filter ignored, the newest job not yet there, a status that nobody documents."""
    first = await create(client, file_id, metadata={"run": "first"})
    second = await create(client, file_id, metadata={"run": "second"})
    await faults.add("jobs.list", "ignore_filter", times=1)
    page = await client.fine_tuning.jobs.list(metadata={"run": "first"}, limit=2)
    assert [second, first] == [job.id for job in page.data]
    await faults.add("jobs.list", "stale", times=1)
    assert [] == (await client.fine_tuning.jobs.list(metadata={"run": "second"})).data
    await faults.add("jobs.retrieve", "odd_status", times=1)
    assert "pending" == str((await client.fine_tuning.jobs.retrieve(first)).status)
    for job_id in (first, second):
        await finished_job(client, job_id)
