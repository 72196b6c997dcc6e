"""The training loop against a server that we did not write; `make test-aimock` fetches it, and without it this is skipped."""

import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from infra.settings import Settings
from tests.workers.train.conftest import Wheel
from tests.workers.train.crashes import Crasher, crashing, without_repeated_looks
from tests.workers.train.lessons import lessons

AIMOCK = Path(__file__).parents[3] / ".peers/aimock/node_modules/@copilotkit/aimock/dist/cli.js"
NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(
    NODE is None or not AIMOCK.is_file(),
    reason="there is no Node, or aimock is not fetched: make test-aimock",
)
SMALL: dict[str, Any] = {"threshold": 24, "minimum": 10, "holdout_minimum": 4}


@pytest.fixture(scope="module")
async def aimock(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """The base URL of a running aimock, on a port that it chose."""
    assert NODE is not None
    folder = tmp_path_factory.mktemp("aimock")
    (folder / "none.json").write_text('{"fixtures": []}')
    arguments = (str(AIMOCK), "--port", "0", "--fixtures", str(folder), "--log-level", "info")
    process = await asyncio.create_subprocess_exec(
        NODE, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    assert process.stdout is not None
    url = None
    async with asyncio.timeout(60):
        while url is None:
            line = (await process.stdout.readline()).decode()
            assert line, "aimock has ended"
            found = re.search(r"http://(?:127\.0\.0\.1|localhost):(\d+)", line)
            url = found and f"http://127.0.0.1:{found[1]}/v1"
    reading = asyncio.create_task(process.stdout.read())
    yield url
    process.terminate()
    await process.wait()
    await reading


@pytest.fixture
def settings(settings: Settings, aimock: str) -> Settings:
    """The trainer is aimock; what serves is the local model server, which does not know aimock's models."""
    own = {"trainer_base_url": aimock, "trainer_api_key": SecretStr("any"), "model_timeout": 10.0}
    return settings.model_copy(update=own)


async def one_run(wheel: Wheel, crasher: Crasher, at: int | None) -> list[str]:
    """A run that dies once, at the given point, and is taken up again; its points, in order."""
    name = f"crash-{'none' if at is None else at}"
    await wheel.dataset(name, alias=name, **SMALL)
    await wheel.record(lessons(40), name)
    crasher.seen, crasher.at = [], at
    story = await wheel.finish()
    # Its model answers nothing here, so it cannot be better.
    assert (name, "rejected") == (story.run.dataset, story.run.status), story.run.error
    assert 1 == len(await wheel.jobs(story.run.run_id))
    return list(crasher.seen)


@pytest.mark.timeout(900)
async def test_a_stranger_trains_and_every_crash_leaves_one_job(wheel: Wheel) -> None:
    """Files, job, events and end come from another's server; dying at each point around each call changes nothing."""
    crasher = Crasher()
    async with crashing(wheel.drive, crasher):
        points = await one_run(wheel, crasher, None)
        assert "after create_job" in points
        for at in without_repeated_looks(points):
            await one_run(wheel, crasher, at)
