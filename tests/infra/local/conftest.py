"""A root with a space in its path, owners that can be killed, and a way to wait for what they leave behind."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from infra.local.stack import wipe

REPOSITORY = Path(__file__).parents[3]
OWNER = """
import asyncio, sys
from pathlib import Path
from infra.local.stack import LocalStack

async def own() -> None:
    async with LocalStack.start(Path(sys.argv[1]), what="the owner of a test", wipe_at_end="wipe" in sys.argv):
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(own())
"""


class Owner:
    """A process of its own that holds a stack until it is told to go, or killed."""

    def __init__(self, root: Path, *arguments: str, user: int | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWNER, root, *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            cwd=REPOSITORY, user=user, group=user, extra_groups=None if user is None else [],
        )  # fmt: skip
        assert self.process.stdout is not None
        # Log lines come before; nothing at all comes from an owner that was refused.
        self.ready = any(line == "ready\n" for line in self.process.stdout)

    @property
    def guard(self) -> psutil.Process:
        """The process that waits for the owner's death."""
        return next(
            child
            for child in psutil.Process(self.process.pid).children()
            if "infra.local.guard" in child.cmdline()
        )

    def leave(self) -> str:
        """Let the owner end by itself. Returns what it wrote to stderr."""
        return self.process.communicate("", timeout=60.0)[1]

    def kill(self) -> None:
        """SIGKILL, and collect what is left of the process. Calling it twice is fine."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()


@pytest.fixture
def owner() -> Iterator[Callable[..., Owner]]:
    """Starts owners; kills those that a failed test leaves."""
    started: list[Owner] = []

    def start(root: Path, *arguments: str, user: int | None = None) -> Owner:
        started.append(Owner(root, *arguments, user=user))
        return started[-1]

    yield start
    for one in started:
        one.kill()


@pytest.fixture(scope="session")
def root() -> Iterator[Path]:
    """One directory with spaces in its name. Its data lives from test to test: making it anew costs a second each."""
    path = Path(tempfile.mkdtemp(prefix="a stack of tests "))
    yield path
    wipe(path)
    shutil.rmtree(path)


@pytest.fixture
def wait_until() -> Callable[[Callable[[], bool]], None]:
    """Waits for a condition, half a minute at most."""

    def wait(condition: Callable[[], bool]) -> None:
        until = time.monotonic() + 30.0
        while not condition():
            assert time.monotonic() < until, "waited for half a minute"
            time.sleep(0.02)

    return wait


@pytest.fixture
def gone() -> Callable[[int], bool]:
    """Whether a process has ended, collected by its parent or not."""

    def ended(pid: int) -> bool:
        with suppress(psutil.NoSuchProcess):
            return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
        return True

    return ended
