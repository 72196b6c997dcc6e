"""The training loop against a server that we did not write; `make test-aimock` fetches it, and without it this is skipped."""

import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pydantic import SecretStr

from infra.settings import Settings
from tests.workers.train.conftest import Wheel
from tests.workers.train.crashes import Crasher, crash_points, crashing, paid_points
from tests.workers.train.in_between import DONE_FIRST, FAULTS, InBetween, in_between
from tests.workers.train.lessons import lessons

AIMOCK = Path(__file__).parents[3] / ".peers/aimock/node_modules/@copilotkit/aimock/dist/cli.js"
NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(
    NODE is None or not AIMOCK.is_file(),
    reason="there is no Node, or aimock is not fetched: make test-aimock",
)
SMALL: dict[str, Any] = {"threshold": 24, "minimum": 10, "holdout_minimum": 4}


@pytest.fixture(scope="module")
async def aimock(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[int]:
    """The port of a running aimock, which it chose."""
    assert NODE is not None
    folder = tmp_path_factory.mktemp("aimock")
    (folder / "none.json").write_text('{"fixtures": []}')
    arguments = (str(AIMOCK), "--port", "0", "--fixtures", str(folder), "--log-level", "info")
    process = await asyncio.create_subprocess_exec(
        NODE, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    assert process.stdout is not None
    found = None
    async with asyncio.timeout(60):
        while found is None:
            line = (await process.stdout.readline()).decode()
            assert line, "aimock has ended"
            found = re.search(r"http://(?:127\.0\.0\.1|localhost):(\d+)", line)
    reading = asyncio.create_task(process.stdout.read())
    yield int(found[1])
    process.terminate()
    await process.wait()
    await reading


@pytest.fixture(scope="module")
async def proxy(aimock: int) -> AsyncIterator[InBetween]:
    """What stands before it."""
    async with in_between(aimock) as standing:
        yield standing


@pytest.fixture
def settings(settings: Settings, proxy: InBetween) -> Settings:
    """The trainer is aimock; what serves is the local model server, which does not know aimock's models."""
    own = {"trainer_base_url": proxy.base_url, "trainer_api_key": SecretStr("any"), "model_timeout": 3.0}
    return settings.model_copy(update=own)


@pytest.fixture
async def crasher(wheel: Wheel) -> AsyncIterator[Crasher]:
    """A run of this wheel may die at any point."""
    crasher = Crasher()
    async with crashing(wheel.drive, crasher):
        yield crasher


async def one_run(
    wheel: Wheel, crasher: Crasher, proxy: InBetween, at: str | None, fault: str | None
) -> list[str]:
    """A run that dies once, at the given point, and is taken up again; its points, in order."""
    name = f"crash-{uuid4().hex[:12]}"
    await wheel.dataset(name, alias=name, **SMALL)
    await wheel.record(lessons(40), name)
    crasher.begin(at)
    proxy.fault, proxy.created = fault, 0
    proxy.hit.clear()
    story = await wheel.finish()
    where = (fault, at, story.run.error)
    # Its model answers nothing here, so it cannot be better.
    assert (name, "rejected") == (story.run.dataset, story.run.status), where
    assert crasher.at is None, where
    assert ([] if fault is None else [fault]) == proxy.hit, where
    assert 1 == len(await wheel.jobs(story.run.run_id)), where
    return list(crasher.seen)


@pytest.mark.parametrize("fault", [None, *FAULTS])
async def test_a_stranger_makes_one_job_whatever_becomes_of_the_call(
    wheel: Wheel, crasher: Crasher, proxy: InBetween, fault: str | None
) -> None:
    """Files, job, events and end come from another's server; a job that may exist is looked for and found there."""
    points = await one_run(wheel, crasher, proxy, None, fault)
    again = fault is not None and fault not in DONE_FIRST
    assert (2 if again else 1) == proxy.created
    for name in ("before create_job", "before job", "before checkpoints", "before delete_file"):
        assert any(point.endswith(name) for point in points), name


@pytest.mark.chaos
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("fault", [None, *FAULTS])
async def test_a_stranger_makes_one_job_whatever_crashes(
    wheel: Wheel, crasher: Crasher, proxy: InBetween, fault: str | None
) -> None:
    """Dying at each point of a run in turn; with a fault, at each around the paid call, which is where they differ."""
    seen = await one_run(wheel, crasher, proxy, None, fault)
    points = crash_points(seen) if fault is None else paid_points(seen)
    assert len(points) >= (30 if fault is None else 5)
    for at in points:
        await one_run(wheel, crasher, proxy, at, fault)
