"""The child's side of isolation: one job comes in over a socket, a runner runs it, its verdict goes back.

The parent holds the lease and renews it. When the parent is gone the socket ends, and so does the child.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any, Final

import orjson

from infra import wire
from workers.engine.types import BatchRunner, Bury, ClaimedJob, Done, GiveBack, Gone, RetryAt, Verdict

FD_VARIABLE: Final = "PENSTOCK_SOLO_FD"
LINE: Final = 64 * 1024 * 1024
VERDICTS: Final[Mapping[str, type[Verdict]]] = {
    kind.__name__: kind for kind in (Done, RetryAt, GiveBack, Bury, Gone)
}


def pack_job(job: ClaimedJob) -> bytes:
    """A job as one line."""
    return wire.dumps(job._asdict()) + b"\n"


def unpack_job(line: bytes) -> ClaimedJob:
    """A line as a job."""
    return ClaimedJob(**wire.loads(line))


def pack_verdict(verdict: Verdict) -> bytes:
    """A verdict as one line."""
    return orjson.dumps({"verdict": type(verdict).__name__, **asdict(verdict)}) + b"\n"


def unpack_verdict(line: bytes) -> Verdict:
    """A line as a verdict.

    Raises:
        ValueError: it is not one, or only half of one.
    """
    fields: dict[str, Any] = orjson.loads(line)
    return VERDICTS[fields.pop("verdict")](**fields)


async def run_solo(runner: BatchRunner) -> None:
    """Run the one job that the parent sends, and report its verdict to it."""
    reader, writer = await asyncio.open_connection(
        sock=socket.socket(fileno=int(os.environ[FD_VARIABLE])), limit=LINE
    )
    verdicts: list[Verdict] = []

    def report(_: ClaimedJob, verdict: Verdict) -> None:
        verdicts.append(verdict)

    try:
        job = unpack_job(await reader.readline())
        running = asyncio.create_task(runner.start([job], report))
        orphaned = asyncio.create_task(reader.read())  # ends only when the parent's side does
        done, _ = await asyncio.wait({running, orphaned}, return_when=asyncio.FIRST_COMPLETED)
        if running not in done:
            running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        orphaned.cancel()
        if verdicts:
            writer.write(pack_verdict(verdicts[0]))
            await writer.drain()
    finally:
        writer.close()
