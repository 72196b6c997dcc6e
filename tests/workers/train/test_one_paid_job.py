"""Promise P4: one training run creates at most one paid job, whatever crashes and whenever."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from infra.settings import Settings
from infra.trainer import Trainer, training_line
from tests.workers.train.conftest import Wheel
from tests.workers.train.crashes import Crasher, crash_points, crashing, paid_points
from tests.workers.train.lessons import lessons


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """A hanging server is given up soon."""
    return settings.model_copy(update={"model_timeout": 3.0})


SMALL: dict[str, Any] = {"threshold": 24, "minimum": 10, "holdout_minimum": 4}
ENDINGS = {"promoted", "rejected"}


IN_DOUBT = ("drop_reply", "cut", "malformed", "hang_reply", "500_after", "drop", "hang", "500", "503")
REFUSED = ("429", "insufficient_quota", "401")


@pytest.mark.parametrize(
    ("fault", "listing"),
    [
        *((kind, None) for kind in (*IN_DOUBT, *REFUSED)),
        *((kind, listing) for kind in ("drop_reply", "500") for listing in ("stale", "ignore_filter", "500")),
    ],
)
async def test_one_job_whatever_becomes_of_the_call(wheel: Wheel, fault: str, listing: str | None) -> None:
    """However the call that creates the job ends, and however the list lags, the run ends with one job."""
    await wheel.dataset(**SMALL)
    await wheel.record(lessons(40))
    await wheel.until("submitted")
    await wheel.faults.add("jobs.create", fault, times=1)
    if listing is not None:
        await wheel.faults.add("jobs.list", listing, times=1)
    await wheel.until("validating", "queued", "running")
    # Only a refusal is certain enough to call again without having looked.
    assert (fault in IN_DOUBT) == (await wheel.faults.requests("jobs.list") > 0)
    story = await wheel.finish()
    await wheel.faults.clear()
    assert story.run.status in ENDINGS
    assert 1 == len(await wheel.jobs(story.run.run_id))


async def test_a_provider_that_fails_for_long_is_asked_again_and_again(wheel: Wheel) -> None:
    """Three failed calls in a row cost three times three looks and still one job."""
    await wheel.dataset(**SMALL)
    await wheel.record(lessons(40))
    await wheel.faults.add("jobs.create", "500", times=3)
    story = await wheel.finish()
    assert 4 == await wheel.faults.requests("jobs.create")
    assert 1 == len(await wheel.jobs(story.run.run_id))


async def test_a_second_job_is_found_and_stopped(wheel: Wheel) -> None:
    """A worker that was stopped within its call, for longer than anybody waits, is the one way to a second job."""
    await wheel.dataset(**SMALL)
    await wheel.record(lessons(40))
    run = (await wheel.until("evaluating")).run
    await wheel.faults.add("jobs.run", "stuck")
    async with Trainer.open(wheel.drive.resources.settings) as trainer:
        [first] = await wheel.jobs(run.run_id)
        file = await trainer.upload(
            "late.jsonl", b"".join(training_line(one["messages"]) for one in lessons(40))
        )
        await trainer.create_job(
            model="local-chat",
            training_file=file.file_id,
            validation_file=None,
            suffix="late",
            metadata=first.metadata,
            epochs=None,
        )
    story = await wheel.finish()
    assert story.run.status in ENDINGS
    statuses = {job.job_id: job.status for job in await wheel.jobs(run.run_id)}
    assert "succeeded" == statuses.pop(first.job_id)
    assert ["cancelled"] == list(statuses.values())


@pytest.fixture
async def crasher(wheel: Wheel) -> AsyncIterator[Crasher]:
    """A run of this wheel may die at any point."""
    crasher = Crasher()
    async with crashing(wheel.drive, crasher):
        yield crasher


FAULTS = (None, "drop_reply", "500", "429", "hang", "malformed")
"""What becomes of the call that creates the job: what the issue names, and nothing."""


async def one_run(wheel: Wheel, crasher: Crasher, at: str | None, fault: str | None = None) -> list[str]:
    """A run of a dataset of its own that dies once, at the given point, and is taken up again; its points, in order."""
    name = f"crash-{uuid4().hex[:12]}"
    await wheel.dataset(name, alias=name, **SMALL)
    await wheel.record(lessons(40), name)
    if fault is not None:
        await wheel.faults.add("jobs.create", fault, times=1)
    crasher.begin(at)
    story = await wheel.finish()
    await wheel.faults.clear("jobs.create")
    where = (fault, at, story.run.error)
    assert story.run.dataset == name
    assert crasher.at is None, where
    assert story.run.status in ENDINGS, where
    assert 1 == len(await wheel.jobs(story.run.run_id)), where
    kept = await wheel.drive.rows(
        "SELECT status, count(*) AS n FROM examples WHERE tenant_id = $1 AND dataset = $2 GROUP BY status",
        wheel.tenant,
        name,
    )
    assert [{"status": "used", "n": 40}] == kept
    return list(crasher.seen)


async def test_a_crash_around_the_paid_call_leaves_one_job(wheel: Wheel, crasher: Crasher) -> None:
    """Dying at each point from the uploaded files to the job's first look: before, within and after the paid step."""
    points = await one_run(wheel, crasher, None)
    paid = paid_points(points)
    assert {"before create_job", "after create_job"} <= {point.partition(": ")[2] for point in paid}
    for at in paid:
        await one_run(wheel, crasher, at)


@pytest.mark.chaos
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_crash_at_any_point_leaves_one_job_and_an_end(
    wheel: Wheel, crasher: Crasher, fault: str | None
) -> None:
    """A run has some fifty points at which its worker can die; dying at each in turn, whatever becomes of the call."""
    points = await one_run(wheel, crasher, None, fault)
    crashes = crash_points(points)
    assert len(crashes) >= 30
    for at in crashes:
        await one_run(wheel, crasher, at, fault)
