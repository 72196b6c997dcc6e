"""Points at which a worker can die in a run: around each call to the trainer, each transaction and each commit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

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
    """Counts the points at which a process could die, and dies at one of them."""

    def __init__(self, die: Callable[[str], None] = crash) -> None:
        self.seen: list[str] = []
        self.at: int | None = None
        self._die = die

    def point(self, name: str) -> None:
        """Die here, if it is here."""
        self.seen.append(name)
        if len(self.seen) - 1 == self.at:
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
        yield
    await committer.aclose()


def without_repeated_looks(points: list[str]) -> list[int]:
    """The points to die at: how often a job is looked at depends on its speed, and one look stands for all."""
    first = points.index("before job")
    last = len(points) - 1 - points[::-1].index("after job")
    return [*range(first + 6), *range(last + 1, len(points))]
