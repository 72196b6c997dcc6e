"""Jobs without a ledger row that can never succeed rest here until an operator replays or discards them.

Ledgered work has its dead row in the ledger, and only there. A letter is JSON, followed by a newline and the job's
payload exactly as the producer wrote it, so that a replay is the same job again.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import orjson
from arq.connections import ArqRedis
from arq.utils import timestamp_ms

from infra import queue_keys
from workers.engine.lua import Script
from workers.engine.types import ClaimedJob

FRAMES: Final = 12
PAGE: Final = 500
CAP: Final = 10_000
LANE: Final = re.compile(rb'"lane":"[^"]*/([^"/]*)"}$')


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Why a job is dead. Times are milliseconds since the epoch."""

    job_id: str
    function: str
    error: str
    message: str
    trace: Sequence[str]
    attempts: int
    losses: int
    enqueued_ms: int
    died_ms: int
    payload: bytes

    @property
    def tenant(self) -> str:
        """Whose lane the job was in; empty for jobs of other producers."""
        lane = LANE.search(self.payload)
        return "" if lane is None else lane[1].decode()


def letter_for(job: ClaimedJob, *, error: str, message: str, cause: BaseException | None = None) -> bytes:
    """The letter of a job that just died, without its payload (the script that buries it adds that).

    Args:
        job: the job.
        error: an error code or the class name.
        message: one sentence without text of documents.
        cause: its traceback is kept as file, line and function: no source, no values.
    """
    return orjson.dumps(
        {
            "function": job.function,
            "error": error,
            "message": message,
            "trace": [] if cause is None else trace_of(cause),
            "attempts": job.attempt,
            "losses": job.losses,
            "enqueued_ms": job.enqueue_time_ms,
            "died_ms": timestamp_ms(),
        }
    )


def trace_of(error: BaseException) -> list[str]:
    """Where an error was raised, as file, line and function: no source, no values, no message (promise P8)."""
    frames = traceback.extract_tb(error.__traceback__)[-FRAMES:]
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]


def _read(job_id: str, stored: bytes) -> DeadLetter:
    head, _, payload = stored.partition(b"\n")
    fields: dict[str, Any] = orjson.loads(head)
    return DeadLetter(job_id=job_id, payload=payload, **fields)


Match = Callable[[DeadLetter], bool]


def _any(_: DeadLetter) -> bool:
    return True


class DeadLetters:
    """The dead letters of one queue.

    Args:
        redis: where they are.
        queue: arq's queue name.
    """

    def __init__(self, redis: ArqRedis, queue: str) -> None:
        self.queue = queue
        self._redis = redis
        self._letters = queue_keys.dead(queue)
        self._times = queue_keys.dead_times(queue)
        self._replay = Script(redis, "replay")

    async def count(self) -> int:
        """How many there are."""
        return int(await self._redis.zcard(self._times))

    async def listed(
        self, *, match: Match = _any, limit: int = 100, newest: bool = False
    ) -> list[DeadLetter]:
        """Letters that match, in order of death: the oldest first, or the newest."""
        found: list[DeadLetter] = []
        offset = 0
        while len(found) < limit:
            ids: list[bytes] = await self._redis.zrange(self._times, offset, offset + PAGE - 1, desc=newest)
            if not ids:
                break
            offset += len(ids)
            stored = await cast("Awaitable[list[bytes | None]]", self._redis.hmget(self._letters, ids))
            letters = (_read(i.decode(), raw) for i, raw in zip(ids, stored, strict=True) if raw is not None)
            found += [letter for letter in letters if match(letter)]
        return found[:limit]

    async def show(self, job_id: str) -> DeadLetter | None:
        """One letter, if it is there."""
        stored = await cast("Awaitable[bytes | None]", self._redis.hget(self._letters, job_id))
        return None if stored is None else _read(job_id, stored)

    async def replay(
        self,
        *,
        match: Match = _any,
        limit: int = CAP,
        stagger: float = 0.0,
        dry_run: bool = False,
    ) -> list[str]:
        """Put matching jobs back into the queue as new jobs: attempts and losses start again.

        Args:
            match: which.
            limit: at most this many.
            stagger: seconds between the due times of two jobs, so that a replay does not become a flood.
            dry_run: only say which.

        Returns:
            The job ids; with `dry_run` those that would be replayed.
        """
        letters = await self.listed(match=match, limit=limit)
        ids = [letter.job_id for letter in letters]
        if dry_run or not ids:
            return ids
        keys = [
            self.queue,
            self._letters,
            self._times,
            queue_keys.bell(self.queue),
            queue_keys.lost(self.queue),
        ]
        replayed: list[str] = []
        for start in range(0, len(ids), PAGE):
            args: Sequence[str | int] = [int(stagger * 1000), start, *ids[start : start + PAGE]]
            replayed += [job_id.decode() for job_id in await self._replay(keys=keys, args=args)]
        return replayed

    async def discard(self, *, match: Match = _any, limit: int = CAP, dry_run: bool = False) -> list[str]:
        """Delete matching letters for ever; returns their job ids."""
        ids = [letter.job_id for letter in await self.listed(match=match, limit=limit)]
        if not dry_run:
            for start in range(0, len(ids), PAGE):
                page = ids[start : start + PAGE]
                async with self._redis.pipeline(transaction=True) as pipe:
                    pipe.hdel(self._letters, *page)
                    pipe.zrem(self._times, *page)
                    await pipe.execute()
        return ids
