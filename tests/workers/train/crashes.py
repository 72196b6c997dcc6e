"""Points at which a worker can die in a run: around each call to the trainer, each transaction and each commit."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any

import structlog

from infra.database import Connection, Database
from infra.trainer import Trainer
from tests.drive import Drive
from workers.commit import Committer, Ending
from workers.handling import HandlerSpec
from workers.train.advance import open_advance
from workers.train.ending import open_dead
from workers.train.runs import Wing


class Crashed(BaseException):
    """The process is gone: no handler of errors gets to see this."""


def crash(name: str) -> None:
    """End this process, as far as the code in it can tell."""
    raise Crashed(name)


class Crasher:
    """Names the points at which a process could die, and dies at one of them.

    A run passes the same points each time but for its looks at the job, whose number depends on the job's speed. So a
    point is named by its part of the run and its place in it: ``start`` until the first look, ``look`` within that
    one, ``looks`` within later ones, ``end`` from where the job has succeeded.
    """

    def __init__(self, die: Callable[[str], None] = crash) -> None:
        self.seen: list[str] = []
        self.at: str | None = None
        self._die = die
        self._part, self._place = "start", 0

    def begin(self, at: str | None) -> None:
        """Follow a run from its beginning, and die at this point of it; None lets it live."""
        self.seen, self.at = [], at
        self._part, self._place = "start", 0

    def point(self, name: str) -> None:
        """Die here, if it is here."""
        if name == "before job" and self._part in {"start", "look"}:
            self._part, self._place = ("look" if self._part == "start" else "looks"), 0
        elif name == "before checkpoints" and self._part != "end":
            self._part, self._place = "end", 0
        self.seen.append(f"{self._part} {self._place}: {name}")
        self._place += 1
        if self.seen[-1] == self.at:
            self.at = None
            self._die(name)


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
            "checkpoints",
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


@asynccontextmanager
async def crashing(drive: Drive, crasher: Crasher) -> AsyncIterator[None]:
    """Put the points around everything that a step of a run does to the world."""
    resources = replace(drive.resources, database=CrashingDatabase(drive.resources.database, crasher))
    assert resources.models is not None
    committer = CrashingCommitter(drive.resources.database, drive.resources.bus)
    committer.crasher = crasher
    async with Trainer.open(resources.settings) as trainer:
        pointed = CrashingTrainer(trainer._client)
        pointed.crasher = crasher
        wing = Wing(resources, pointed, resources.models)
        drive.handlers["training.advance"] = HandlerSpec(open_advance(wing), on_dead=open_dead(wing))
        drive._committer = committer
        with unlogged():
            yield
    await committer.aclose()


@contextmanager
def unlogged() -> Iterator[None]:
    """Log nothing: a death would be logged with all frames that it came through, which takes longer than the run."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.configure(**before)


FIRST_LOOK = 6
"""Points of a look that every job passes, however fast it is: the call, the transaction, the events."""


def crash_points(seen: list[str]) -> list[str]:
    """Where to die, of the points that a run passed: everywhere, but of the looks at its job in the first one only."""
    looked = [point for point in seen if point.startswith("look ")][:FIRST_LOOK]
    return [point for point in seen if point.startswith(("start ", "end ")) or point in looked]


def paid_points(seen: list[str]) -> list[str]:
    """The points from the uploaded files to the job's first look: before, within and after the paid step."""
    first = next(place for place, point in enumerate(seen) if point.endswith("after upload"))
    return [point for point in seen[first:] if point.startswith("start ")]
