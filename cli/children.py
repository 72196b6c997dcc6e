"""The processes that `up` and `demo` start pass through here: started, watched, stopped, none left behind.

Each child has a pipe as its standard input and ends when the pipe does (`cli.run.tie_to_owner`), so that a killed owner
leaves nothing running.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from cli.run import TIED
from schemas.errors import Unavailable

GRACE = 30.0
RESTART_AFTER = 1.0


@dataclass(slots=True)
class Child:
    """One process: what it is, and where its output goes."""

    name: str
    arguments: Sequence[str]
    log: Path
    process: asyncio.subprocess.Process | None = None
    restarts: int = 0
    watcher: asyncio.Task[None] | None = field(default=None, repr=False)

    @property
    def alive(self) -> bool:
        """Whether it runs now."""
        return self.process is not None and self.process.returncode is None

    def last_lines(self, count: int = 5) -> str:
        """The end of its output, for an error message to the person who started it."""
        with suppress(OSError):
            return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-count:])
        return ""


class Children:
    """Runs `penstock` commands as processes of their own."""

    def __init__(self, environment: Mapping[str, str], logs: Path, *, cwd: Path) -> None:
        """Children see this environment only, and write to one file each under `logs`."""
        self._environment = {**environment, TIED: "1", "PYTHONUNBUFFERED": "1"}
        self._logs = logs
        self._cwd = cwd
        self._stopping = False
        self.children: dict[str, Child] = {}

    async def start(self, name: str, *arguments: str) -> Child:
        """Start ``penstock ARGUMENTS…`` under this name and keep it running."""
        self._logs.mkdir(parents=True, exist_ok=True)
        child = Child(name, arguments, self._logs / f"{name}.log")
        self.children[name] = child
        await self._spawn(child)
        child.watcher = asyncio.create_task(self._watch(child))
        return child

    async def _spawn(self, child: Child) -> None:
        with child.log.open("ab") as output:
            child.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "cli.main",
                *child.arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=self._environment,
                cwd=self._cwd,
                start_new_session=True,  # a Ctrl-C at the terminal is ours to pass on, in order
            )

    async def _watch(self, child: Child) -> None:
        while child.process is not None:
            code = await child.process.wait()
            if self._stopping:
                return
            import structlog

            structlog.get_logger("penstock.children").warning(
                "children.died",
                child=child.name,
                exit_code=code,
                log=str(child.log),
                next_step="it is started again",
            )
            child.restarts += 1
            await asyncio.sleep(min(30.0, RESTART_AFTER * 2 ** min(child.restarts - 1, 5)))
            if not self._stopping:
                await self._spawn(child)

    def check(self) -> None:
        """Fail when a child keeps dying.

        Raises:
            Unavailable: says which, with the end of its log.
        """
        for child in self.children.values():
            if child.restarts >= 3:
                raise Unavailable(
                    f"{child.name} does not stay up:\n{child.last_lines()}", fix=f"see {child.log}"
                )

    async def stop(self) -> None:
        """Ask all to stop, wait for their grace time, then insist."""
        self._stopping = True
        self._signal(signal.SIGTERM)
        with suppress(TimeoutError):
            async with asyncio.timeout(GRACE):
                await asyncio.gather(*(self._ended(child) for child in self.children.values()))
        self._signal(signal.SIGKILL)
        await asyncio.gather(*(self._ended(child) for child in self.children.values()))
        for child in self.children.values():
            if child.watcher is not None:
                child.watcher.cancel()

    def _signal(self, signum: signal.Signals) -> None:
        for child in self.children.values():
            if child.alive and child.process is not None:
                with suppress(ProcessLookupError):
                    os.kill(child.process.pid, signum)

    @staticmethod
    async def _ended(child: Child) -> None:
        if child.process is not None:
            await child.process.wait()
