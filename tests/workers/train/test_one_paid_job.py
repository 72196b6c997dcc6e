"""Promise P4: one training run creates at most one paid job, whatever crashes and whenever."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from infra.database import Connection, Database
from infra.settings import Settings
from infra.trainer import Trainer, training_line
from tests.workers.train.conftest import Wheel
from tests.workers.train.lessons import lessons
from workers.commit import Committer, Ending
from workers.handling import HandlerSpec
from workers.train.advance import open_advance
from workers.train.ending import open_dead
from workers.train.runs import Wing


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """A hanging server is given up soon."""
    return settings.model_copy(update={"model_timeout": 4.0})


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


class Crashed(BaseException):
    """The process is gone: no handler of errors gets to see this."""


class Crasher:
    """Counts the points at which a process could die, and dies at one of them."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.at: int | None = None

    def point(self, name: str) -> None:
        """Die here, if it is here."""
        self.seen.append(name)
        if len(self.seen) - 1 == self.at:
            self.at = None
            raise Crashed(name)


class CrashingTrainer(Trainer):
    """The real trainer, with a point before and after each call."""

    __slots__ = ("crasher",)
    crasher: Crasher

    def __getattribute__(self, name: str) -> Any:
        found = object.__getattribute__(self, name)
        if name not in {
            "upload",
            "create_job",
            "find_jobs",
            "job",
            "cancel_job",
            "events",
            "delete_file",
            "model",
        }:
            return found
        crasher = object.__getattribute__(self, "crasher")

        async def call(*args: Any, **kwargs: Any) -> Any:
            crasher.point(f"before {name}")
            result = await found(*args, **kwargs)
            crasher.point(f"after {name}")
            return result

        return call


class CrashingDatabase(Database):
    """The real database, with a point before and after each transaction of a handler."""

    def __init__(self, inner: Database, crasher: Crasher) -> None:
        super().__init__(inner.pool, inner.role)
        self.crasher = crasher

    @asynccontextmanager
    async def transaction(self, *tenants: str, readonly: bool = False) -> AsyncIterator[Connection]:
        """Read or write, and die before or after it."""
        self.crasher.point("before a transaction")
        async with super().transaction(*tenants, readonly=readonly) as connection:
            yield connection
        self.crasher.point("after a transaction")


class CrashingCommitter(Committer):
    """The real committer, with a point before and after each commit."""

    crasher: Crasher

    async def commit(self, ending: Ending) -> None:
        """Commit, and die before or after it."""
        self.crasher.point("before a commit")
        await super().commit(ending)
        self.crasher.point("after a commit")


@pytest.fixture
async def crasher(wheel: Wheel) -> AsyncIterator[Crasher]:
    """Puts crash points around everything that a step of a run does to the world."""
    crasher = Crasher()
    drive = wheel.drive
    resources = replace(
        drive.resources,
        database=CrashingDatabase(drive.resources.database, crasher),
    )
    assert resources.models is not None
    committer = CrashingCommitter(drive.resources.database, drive.resources.bus)
    committer.crasher = crasher
    async with Trainer.open(resources.settings) as trainer:
        crashing = CrashingTrainer(trainer._client)
        crashing.crasher = crasher
        wing = Wing(resources, crashing, resources.models)
        drive.handlers["training.advance"] = HandlerSpec(open_advance(wing), on_dead=open_dead(wing))
        drive._committer = committer
        yield crasher
    await committer.aclose()


async def one_run(wheel: Wheel, crasher: Crasher, at: int | None) -> None:
    """A run of a dataset of its own that dies once, at the given point, and is taken up again."""
    name = f"crash-{'none' if at is None else at}"
    await wheel.dataset(name, alias=name, **SMALL)
    await wheel.record(lessons(40), name)
    crasher.seen, crasher.at = [], at
    story = await wheel.finish()
    assert story.run.dataset == name
    assert story.run.status in ENDINGS, (crasher.seen[at or 0], story.run.error)
    assert 1 == len(await wheel.jobs(story.run.run_id)), crasher.seen[at or 0]
    kept = await wheel.drive.rows(
        "SELECT status, count(*) AS n FROM examples WHERE tenant_id = $1 AND dataset = $2 GROUP BY status",
        wheel.tenant,
        name,
    )
    assert [{"status": "used", "n": 40}] == kept


async def crash_points(wheel: Wheel, crasher: Crasher) -> list[str]:
    """The points of a run in which nothing dies, in order."""
    await one_run(wheel, crasher, None)
    return list(crasher.seen)


async def test_a_crash_around_the_paid_call_leaves_one_job(wheel: Wheel, crasher: Crasher) -> None:
    """Dying at each point from the uploaded files to the job's first look: before, within and after the paid step."""
    points = await crash_points(wheel, crasher)
    first, last = points.index("after upload"), points.index("before job")
    assert "before create_job" in points[first:last]
    assert "after create_job" in points[first:last]
    for at in range(first, last):
        await one_run(wheel, crasher, at)


@pytest.mark.chaos
@pytest.mark.timeout(900)
async def test_a_crash_at_any_point_leaves_one_job_and_an_end(wheel: Wheel, crasher: Crasher) -> None:
    """A run has some fifty points at which its worker can die; dying at each of them in turn changes nothing."""
    points = await crash_points(wheel, crasher)
    first_watch = points.index("before job")
    last_watch = len(points) - 1 - points[::-1].index("after job")
    # How often a job is looked at depends on its speed; one look stands for all.
    crashes = [*range(first_watch + 6), *range(last_watch + 1, len(points))]
    assert len(crashes) >= 30
    for at in crashes:
        await one_run(wheel, crasher, at)
