"""A local model server as a process of its own passes through here, from its start to its clean end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import orjson

from infra.local.model.key import KEY_VARIABLE, USUAL_KEY
from schemas.errors import Unavailable

_ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1")
"""The matrices are small: more threads would only wait for each other."""
START_SECONDS = 30.0
STOP_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class ModelServer:
    """A running server.

    Attributes:
        base_url: for `OPENAI_BASE_URL`, ends in /v1.
        api_key: for `OPENAI_API_KEY`.
        state_dir: its files, jobs and tuned models.
        process: the subprocess.
    """

    base_url: str
    api_key: str
    state_dir: Path
    process: Process

    @property
    def admin_url(self) -> str:
        """Where faults are switched and calls counted."""
        return self.base_url.removesuffix("/v1")

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    @classmethod
    @asynccontextmanager
    async def start(
        cls, state_dir: Path, *, port: int = 0, api_key: str = USUAL_KEY, train_seconds: float = 3.0
    ) -> AsyncIterator[Self]:
        """Start a server and wait until it answers; stop it at the end of the context.

        The server also stops by itself when the process that started it is gone.

        Args:
            state_dir: created if it does not exist; what an earlier server left there is found again.
            port: 0 takes any free one.
            api_key: what clients have to send.
            train_seconds: how long training a job takes at least.

        Raises:
            Unavailable: it did not start.
        """
        process = await asyncio.create_subprocess_exec(
            *_command(state_dir, port, train_seconds),
            stdin=PIPE,
            stdout=PIPE,
            cwd=_home(),
            env={**os.environ, **_ONE_THREAD, KEY_VARIABLE: api_key},
            start_new_session=True,
        )
        try:
            base_url = await _ready(process)
            yield cls(base_url=base_url, api_key=api_key, state_dir=state_dir, process=process)
        finally:
            await _stop(process)


def _command(state_dir: Path, port: int, train_seconds: float) -> list[str]:
    options = [
        "--port",
        str(port),
        "--state",
        str(state_dir.absolute()),
        "--train-seconds",
        str(train_seconds),
    ]
    return [sys.executable, "-m", "infra.local.model", *options, "--lifeline"]


def _home() -> Path:
    """The folder that holds the packages: a checkout or site-packages."""
    return Path(__file__).resolve().parents[3]


async def _ready(process: Process) -> str:
    """The address that the server prints when it listens."""
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_SECONDS):
            line = await process.stdout.readline()
    except TimeoutError as error:
        raise Unavailable(f"The local model server did not start within {START_SECONDS:.0f} s.") from error
    if not line:
        status = await process.wait()
        raise Unavailable(f"The local model server exited with status {status} at its start.")
    return str(orjson.loads(line)["base_url"])


async def _stop(process: Process) -> None:
    """SIGTERM, and SIGKILL when that is not heeded in time."""
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
    if process.stdin is not None:
        process.stdin.close()
