"""Documents that may be hostile pass through here to a child process, and come back as chunks or as an error.

A child is warm (see `child`), holds nothing of ours (no environment, an empty folder, no open files), and is killed
with its whole group when a document takes too long, when its reader is cancelled, and at the end.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from schemas.errors import PenstockError, Unavailable, Unreadable
from workers.ingest.child import ERRORS, FRAME, KILLED, REQUEST, unpack
from workers.ingest.chunk import Chunk, Chunking
from workers.ingest.media import OFFICE, Source

_START = "import sys; sys.path.insert(0, sys.argv[1]); from workers.ingest.child import main; main()"
_ROOT = Path(__file__).resolve().parents[2]
# Without it numpy would start threads, whose stacks count as memory and which a fork does not copy.
_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1"}
_DIED = (asyncio.IncompleteReadError, ConnectionError)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one document may use up.

    Attributes:
        memory: bytes of address space, where the system can limit it.
        cpu: seconds on the processor.
        wall: seconds in all; only a starved machine gets there before ``cpu`` is used up.
    """

    memory: int = 1 << 30
    cpu: int = 120
    wall: float = 600.0


class Sandbox:
    """A few children, each of which reads one document at a time; a document waits for a free one."""

    def __init__(self, limits: Limits, children: int) -> None:
        """Prepare; a child starts when it is first needed."""
        self._limits = limits
        # Last in, first out: a warm child is taken before a cold place.
        self._free: asyncio.LifoQueue[_Child | None] = asyncio.LifoQueue()
        for _ in range(children):
            self._free.put_nowait(None)
        self._all: set[_Child] = set()

    @classmethod
    @asynccontextmanager
    async def open(cls, limits: Limits | None = None, *, children: int = 2) -> AsyncIterator[Sandbox]:
        """Open a sandbox and kill its children at the end."""
        sandbox = cls(limits or Limits(), children)
        try:
            yield sandbox
        finally:
            for child in list(sandbox._all):
                await sandbox._end(child)

    async def read(self, origin: Source, chunking: Chunking) -> tuple[str | None, tuple[Chunk, ...]]:
        """Read and cut a document; return its title and its chunks.

        Raises:
            Unreadable, BadInput, TooLarge, Misconfigured: as `workers.ingest.read.read`, and Unreadable when the
                document uses up more than its limits.
            Unavailable: the child died for another reason, or got no time on the processor.
        """
        child = await self._free.get()
        try:
            if child is None:
                child = await self._start()
            async with asyncio.timeout(self._limits.wall):
                return await child.read(origin, chunking, self._limits)
        except TimeoutError:
            raise Unavailable(f"the document was not read within {self._limits.wall:.0f} s") from None
        finally:
            # A child that is still clean waits for the next document; any other is replaced by the next caller.
            if child is not None and not child.clean:
                await asyncio.shield(self._end(child))
                child = None
            self._free.put_nowait(child)

    async def _start(self) -> _Child:
        child = await _Child.start()
        self._all.add(child)
        return child

    async def _end(self, child: _Child) -> None:
        self._all.discard(child)
        await child.kill()


class _Child:
    """One warm process."""

    def __init__(self, process: asyncio.subprocess.Process, folder: tempfile.TemporaryDirectory[str]) -> None:
        self._process = process
        self._folder = folder
        self.clean = True
        """Whether it waits for a document, having answered the last one in full."""

    @classmethod
    async def start(cls) -> _Child:
        folder = tempfile.TemporaryDirectory(prefix="penstock-")
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-X", "utf8", "-c", _START, str(_ROOT)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                cwd=folder.name,
                env=_ENVIRONMENT,
                start_new_session=True,
            )
        except OSError as error:
            folder.cleanup()
            raise Unavailable(f"no process can be started ({type(error).__name__})") from error
        return cls(process, folder)

    async def read(
        self, origin: Source, chunking: Chunking, limits: Limits
    ) -> tuple[str | None, tuple[Chunk, ...]]:
        self.clean = False
        try:
            await self._send(origin, chunking, limits)
            title, chunks = await self._receive()
        except _DIED:
            raise await self._cause() from None
        except PenstockError:
            self.clean = True
            raise
        self.clean = True
        return title, chunks

    async def _send(self, origin: Source, chunking: Chunking, limits: Limits) -> None:
        description = orjson.dumps(
            {
                "family": origin.media.family,
                "charset": origin.media.charset,
                "base64": origin.base64,
                "strategy": chunking.strategy,
                "size": chunking.size,
                "overlap": chunking.overlap,
                "memory": limits.memory,
                "cpu": limits.cpu,
            }
        )
        office = origin.media.family in OFFICE
        stdin = self._process.stdin
        assert stdin is not None
        stdin.write(REQUEST.pack(office, len(description), len(origin.raw)) + description)
        stdin.write(origin.raw)
        await stdin.drain()

    async def _receive(self) -> tuple[str | None, tuple[Chunk, ...]]:
        stdout = self._process.stdout
        assert stdout is not None
        chunks: list[Chunk] = []
        while True:
            (size,) = FRAME.unpack(await stdout.readexactly(FRAME.size))
            frame = orjson.loads(await stdout.readexactly(size))
            if isinstance(frame, list):
                chunks.extend(unpack(row) for row in frame)
            elif "error" in frame:
                raise _rebuilt(frame["error"], frame["page"])
            else:
                return frame["title"], tuple(chunks)

    async def _cause(self) -> PenstockError:
        """Why the child is gone: the document's fault, unless somebody else killed it."""
        code = await self._process.wait()
        if code == KILLED + signal.SIGXCPU:
            return Unreadable("the document takes too long to read")
        if code > KILLED and code != KILLED + signal.SIGKILL:
            return Unreadable(f"the document crashes its reader (signal {code - KILLED})")
        return Unavailable(f"the reader of the document died (exit code {code})")

    async def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()
        self._folder.cleanup()


def _rebuilt(error: dict[str, Any], page: int | None) -> PenstockError:
    """The child's error, by its code; a code that is not on the list would be a mistake of ours."""
    kind = ERRORS[error["code"]]
    if kind is Unreadable:
        return Unreadable(error["message"], field=error.get("field"), fix=error.get("fix"), page=page)
    return kind(error["message"], field=error.get("field"), fix=error.get("fix"))
