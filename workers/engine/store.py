"""Claims, renewals and settlements pass through here to Redis: each is one Lua script, typed like a function.

Scripts are called by SHA and loaded again when Redis has forgotten them (a restart). Nothing here waits or retries:
a `redis` error goes to the caller, who knows whether it may.
"""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Final, Literal, NamedTuple

from arq.connections import ArqRedis
from arq.constants import abort_jobs_ss
from redis.exceptions import NoScriptError

from infra import queue_keys
from workers.engine.lua import Script

LANED: Final = 2**52
"""What a job's due time is less in the sorted set while it waits in a lane; see `claim.lua`."""

Verb = Literal["done", "dead", "again", "lost", "forgiven"]
Outcome = Literal["done", "gone", "retried", "given_back", "dead", "lost"]


class Candidate(NamedTuple):
    """One job of a claim as Redis gave it, not yet decoded."""

    job_id: str
    score_ms: int
    payload: bytes | None
    charged: int
    losses: int
    aborted: bool


@dataclass(frozen=True, slots=True)
class Claim:
    """What a claim brought and what is known about the rest of the queue.

    `held` says that limits keep ready work back.
    """

    now_ms: int
    next_due_ms: int | None
    token: int
    suspects: int
    more: bool
    paused: bool
    jobs: Sequence[Candidate]
    held: bool = False


class Settlement(NamedTuple):
    """How one claim ends in Redis.

    Args:
        delay_ms: for `again`, from Redis's now.
        attempt: for `again`, the new count of charged attempts; None leaves it as it is. For `done`, 1 says that none
            was charged before.
        result: arq's serialised result, if one is kept; `result_ttl_ms` 0 keeps it for ever.
        keep_ms: how long the in-progress key outlives the job (cron).
        letter: for `dead`, the dead letter as JSON.
        outcome: what became of the attempt, for the tally.
    """

    job_id: str
    token: int
    verb: Verb = "done"
    delay_ms: int = 0
    attempt: int | None = None
    result: bytes | None = None
    result_ttl_ms: int = 0
    keep_ms: int = 0
    letter: bytes = b""
    outcome: Outcome = "done"


def _claim_of(reply: Sequence[Any]) -> Claim:
    """What the script said."""
    now_ms, next_due, token, suspects, more, paused, held, *lists = reply
    return Claim(
        now_ms=now_ms,
        next_due_ms=None if next_due < 0 else next_due,
        token=int(token),
        suspects=suspects,
        more=more == 1,
        paused=paused == 1,
        jobs=_candidates(lists) if lists else [],
        held=held == 1,
    )


def _candidates(lists: Sequence[Sequence[Any]]) -> list[Candidate]:
    """The jobs of a claim from the script's six lists, of which the last two may be empty."""
    ids, scores, payloads, tries, losses, aborts = lists
    none = repeat(0)
    return [
        Candidate(job_id.decode(), _due(score), payload, int(charged or 0), lost, asked == 1)
        for job_id, score, payload, charged, lost, asked in zip(
            ids, scores, payloads, tries, losses or none, aborts or none, strict=False
        )
    ]


def _due(score: bytes) -> int:
    due = int(float(score))
    return due + LANED if due < 0 else due


class QueueStore:
    """The scripts of one queue.

    Args:
        redis: the pool that runs them.
        queue: arq's queue name.
        lease_ms: how long a claim holds without renewal.
        memory_ms: how long after its end a lease is still recognised as lost. A crash loop's back-off must be
            shorter than this, or a killer is never found.
        limits: group → how many of its jobs the whole fleet runs at once (see `limits`); holds for work in lanes.
        suspects: whether jobs whose worker died at least twice are claimed alone.
    """

    def __init__(
        self,
        redis: ArqRedis,
        queue: str,
        *,
        lease_ms: int,
        memory_ms: int,
        limits: Mapping[str, int] | None = None,
        suspects: bool = True,
    ) -> None:
        self.queue = queue
        self.lease_ms = lease_ms
        self.memory_ms = memory_ms
        self._many = "many" if suspects else "any"
        self._redis = redis
        self._claim = Script(redis, "claim")
        self._finish = Script(redis, "finish")
        self._renew = Script(redis, "renew")
        self._bell = queue_keys.bell(queue)
        self._own_bell = f"{self._bell}:{secrets.token_hex(8)}"
        self._claim_keys = [
            queue,
            queue_keys.lost(queue),
            queue_keys.clock(queue),
            queue_keys.paused(queue),
            self._bell,
            abort_jobs_ss,
            queue_keys.running(queue),
            queue_keys.turns(queue, urgent=True),
            queue_keys.turns(queue, urgent=False),
            queue_keys.turn(queue),
            queue_keys.held(queue),
        ]
        bounds = dict(limits or {})
        self._claim_rest: list[str | int] = [
            queue_keys.lane_prefix(queue),
            queue_keys.group_prefix(queue),
            len(bounds),
            *(value for pair in bounds.items() for value in pair),
        ]
        self._finish_keys = [
            queue,
            queue_keys.lost(queue),
            queue_keys.clock(queue),
            queue_keys.dead(queue),
            queue_keys.dead_times(queue),
            self._bell,
            abort_jobs_ss,
            queue_keys.running(queue),
            queue_keys.held(queue),
        ]
        self._renew_keys = [queue, queue_keys.running(queue), queue_keys.held(queue)]

    async def claim(
        self,
        *,
        want: int,
        alone: bool = False,
        aborts: bool = False,
        ids: Iterable[str | bytes] = (),
    ) -> Claim:
        """Take up to `want` ready jobs under lease.

        Args:
            want: free slots, at most 1000.
            alone: take one job whose worker died at least twice, instead of jobs that are above suspicion.
            aborts: look up abort requests for the jobs taken.
            ids: consider only these.
        """
        mode = "alone" if alone else self._many
        args = [want, self.lease_ms, self.memory_ms, mode, "1" if aborts else "0", *self._claim_rest, *ids]
        return _claim_of(await self._claim(keys=self._claim_keys, args=args))

    async def listen_and_claim(self, *, timeout: float, want: int, aborts: bool) -> Claim | None:
        """Wait for the bell, and claim at that moment; occupies one connection.

        Redis runs what a connection has sent behind a command that waits as soon as the waiting ends.

        Returns:
            None when Redis has forgotten the script: then nothing was claimed.
        """
        args = [want, self.lease_ms, self.memory_ms, self._many, "1" if aborts else "0", *self._claim_rest]
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.execute_command("BLPOP", self._bell, self._own_bell, timeout)
            pipe.execute_command("EVALSHA", self._claim.sha, len(self._claim_keys), *self._claim_keys, *args)
            rung, reply = await pipe.execute(raise_on_error=False)
        if isinstance(reply, NoScriptError):
            return None
        for error in (rung, reply):
            if isinstance(error, Exception):
                raise error
        return _claim_of(reply)

    async def finish(self, settlements: Sequence[Settlement]) -> list[str]:
        """End claims; returns the ids that were refused because another worker has them now."""
        plain: defaultdict[tuple[int, str], list[str]] = defaultdict(list)
        others: list[str | int | bytes] = []
        for job_id, token, verb, delay_ms, attempt, result, ttl_ms, keep_ms, letter, _ in settlements:
            if verb == "done" and result is None and not keep_ms and "\n" not in job_id:
                plain[token, "0" if attempt == 1 else "1"].append(job_id)
            else:
                others += (job_id, token, verb, delay_ms, "" if attempt is None else attempt)
                others += (result or b"", ttl_ms, keep_ms, letter)
        args: list[str | int | bytes] = [len(plain)]
        for kind, ids in plain.items():
            # One argument per claim, because redis-py encodes arguments one by one, in Python.
            args += (*kind, "\n".join(ids))
        refused: list[bytes] = await self._finish(keys=self._finish_keys, args=args + others)
        return [job_id.decode() for job_id in refused]

    async def renew(self, held: Iterable[tuple[str, int]]) -> list[str]:
        """Renew leases given as (id, token); returns the ids that another worker has now."""
        args: list[str | int] = [self.lease_ms, self.memory_ms]
        for pair in held:
            args += pair
        lost: list[bytes] = await self._renew(keys=self._renew_keys, args=args)
        return [job_id.decode() for job_id in lost]

    async def listen(self, *, timeout: float) -> bool:
        """Wait for the bell, `timeout` seconds at most; occupies one connection."""
        rung: Awaitable[object] = self._redis.execute_command("BLPOP", self._bell, timeout)  # type: ignore[no-untyped-call] # redis-py types whole seconds only
        return await rung is not None

    async def ring(self, *, own: bool = False) -> None:
        """Wake one idle worker, or with `own` this one."""
        bell = self._own_bell if own else self._bell
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.lpush(bell, "1")
            pipe.ltrim(bell, 0, 3)
            pipe.pexpire(bell, 60_000)
            await pipe.execute()

    async def abort_requests(self, *, now_ms: int, max_age_ms: int) -> list[str]:
        """The jobs that `Job.abort()` wants stopped; requests older than `max_age_ms` are forgotten."""
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.zremrangebyscore(abort_jobs_ss, min=float("-inf"), max=now_ms - max_age_ms)
            pipe.zrange(abort_jobs_ss, start=0, end=-1)
            _, ids = await pipe.execute()
        return [job_id.decode() for job_id in ids]
