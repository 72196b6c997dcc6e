"""`--processes N` becomes N worker processes here; what dies is started again, signals are passed on, all end together.

Children run in sessions of their own, so that Ctrl-C in a terminal reaches them once, through the supervisor, and
not twice (a second signal would cut their grace short). Each inherits the read end of a pipe: when the supervisor is
killed, the pipe closes and `follow_supervisor` ends the child in an orderly way.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from typing import Final

import structlog

FD_VARIABLE: Final = "PENSTOCK_SUPERVISOR_FD"
INDEX_VARIABLE: Final = "PENSTOCK_PROCESS_INDEX"
FIRST_DELAY: Final = 0.2
LONGEST_DELAY: Final = 30.0
LIVED: Final = 10.0

log = structlog.get_logger()


class Supervisor:
    """Runs one command in several processes.

    Args:
        command: argv of one worker process.
        processes: how many.
        environment: of the children; each also gets its index and the pipe's number.
    """

    def __init__(self, command: Sequence[str], *, processes: int, environment: Mapping[str, str]) -> None:
        self._command = list(command)
        self._processes = processes
        self._environment = environment
        self._stop = asyncio.Event()
        self._children: dict[int, asyncio.subprocess.Process] = {}

    async def run(self) -> int:
        """Run until all children have ended after a signal, or by themselves with 0 (a burst).

        Returns:
            0 when every child's last exit was 0, otherwise 1.
        """
        loop = asyncio.get_running_loop()
        read_end, write_end = os.pipe()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self._forward, signum)
        try:
            codes = await asyncio.gather(*[self._keep(index, read_end) for index in range(self._processes)])
        finally:
            for signum in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(signum)
            os.close(write_end)
            os.close(read_end)
        return 0 if all(code == 0 for code in codes) else 1

    def _forward(self, signum: signal.Signals) -> None:
        self._stop.set()
        for child in self._children.values():
            if child.returncode is None:
                child.send_signal(signum)

    async def _keep(self, index: int, read_end: int) -> int:
        """Keep one place filled, with back-off when its process does not live long."""
        loop = asyncio.get_running_loop()
        delay = FIRST_DELAY
        while True:
            started = loop.time()
            child = await asyncio.create_subprocess_exec(
                *self._command,
                env={**self._environment, FD_VARIABLE: str(read_end), INDEX_VARIABLE: str(index)},
                pass_fds=(read_end,),
                start_new_session=True,
            )
            self._children[index] = child
            if self._stop.is_set():  # the signal came while it was being started
                child.send_signal(signal.SIGTERM)
            log.info("engine.process_started", index=index, pid=child.pid)
            code = await child.wait()
            if code == 0 or self._stop.is_set():
                return code
            delay = FIRST_DELAY if loop.time() - started > LIVED else min(delay * 2, LONGEST_DELAY)
            log.warning("engine.process_died", index=index, pid=child.pid, code=code, restart_in=delay)
            try:
                async with asyncio.timeout(delay):
                    await self._stop.wait()
            except TimeoutError:
                continue
            return code


def is_supervised() -> bool:
    """Whether a supervisor started this process."""
    return FD_VARIABLE in os.environ


def index_of_process() -> int:
    """In a child: which of the supervisor's processes it is, from 0."""
    return int(os.environ.get(INDEX_VARIABLE, "0"))


def follow_supervisor() -> None:
    """In a child: end like on SIGTERM when the supervisor is gone. Does nothing in a process without one.

    Call it with a running event loop.
    """
    number = os.environ.get(FD_VARIABLE)
    if number is None:
        return
    descriptor = int(number)
    loop = asyncio.get_running_loop()

    def gone() -> None:
        loop.remove_reader(descriptor)
        log.warning("engine.supervisor_gone")
        os.kill(os.getpid(), signal.SIGTERM)

    loop.add_reader(descriptor, gone)
