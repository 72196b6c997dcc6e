"""What the engine hands to a runner (`ClaimedJob`) and what it gets back (`Verdict`), which it then writes to Redis.

A runner is whoever knows what a job means: Penstock's runtime, which loads the events from the ledger. The engine
knows only ids, leases and times. Delays are seconds from now and not points in time, so that Redis (and, in the
ledger, PostgreSQL) can add them to its own clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias


class ClaimedJob(NamedTuple):
    """One job under lease, as it came out of a claim.

    All jobs of one claim share a `token`; a later claim of the same queue has a greater one, also after Redis was
    emptied (its high part is Redis's clock in microseconds). The token is what fences the ledger's transaction.

    A named tuple, because a frozen dataclass of ten fields costs four times as much to make.
    """

    job_id: str
    """arq's job id; for ledgered work the ledger's event id."""
    function: str
    """arq's function name; for ledgered work the event type (as Redis says: not to be trusted)."""
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    attempt: int
    """1 for the first try; counts only charged tries. For ledgered work the ledger's own count is the true one."""
    losses: int
    """How many leases of this job ran out because its worker died, this claim's discovery included."""
    token: int
    """Fencing token: positive, below 2**53, the same for all jobs of a claim."""
    enqueue_time_ms: int
    """When the producer enqueued the job: milliseconds since the epoch, on the producer's clock."""
    score_ms: int
    """When the job was due: milliseconds since the epoch."""
    queue: str


@dataclass(frozen=True, slots=True)
class Done:
    """The work is finished: the job leaves Redis."""


@dataclass(frozen=True, slots=True)
class RetryAt:
    """The work failed and runs again after `delay` seconds; `charged` counts the attempt."""

    delay: float
    charged: bool = True


@dataclass(frozen=True, slots=True)
class GiveBack:
    """Nothing was wrong with the work: it runs again after `delay` seconds and no attempt is charged.

    `forgiven` forgets the deaths of its workers: they are counted from none again.
    """

    delay: float = 0.0
    forgiven: bool = False


@dataclass(frozen=True, slots=True)
class Bury:
    """The work can never succeed. `reason` is an error code, `message` a sentence without text or secrets.

    From a runner with `ledgered` True: the dead row is committed already and the job just leaves Redis. Otherwise
    the engine keeps the payload in its own dead letters.
    """

    reason: str
    message: str = ""
    ledgered: bool = False


@dataclass(frozen=True, slots=True)
class Gone:
    """The ledger did not give the row (done already, or another worker's): the job leaves Redis silently."""


Verdict: TypeAlias = Done | RetryAt | GiveBack | Bury | Gone

Report: TypeAlias = Callable[[ClaimedJob, Verdict], None]
"""Called exactly once per job, from the event loop's thread; never blocks. Frees the job's slot."""


class BatchRunner(Protocol):
    """Runs the jobs of one claim together; Penstock's runtime is one."""

    async def start(self, jobs: Sequence[ClaimedJob], report: Report) -> None:
        """Run the jobs and report each exactly once, as soon as its verdict is known; return after the last report.

        The engine runs this in a task of its own, several at a time. Jobs that are not reported when it returns or
        raises are given back uncharged with a delay. On shutdown, after the grace time, the task is cancelled and
        what is not reported by then is given back at once.
        """

    async def judge_lost(self, jobs: Sequence[ClaimedJob], report: Report) -> None:
        """Bury jobs whose worker died too often (`worker_lost`), or give them back forgiven; report like `start`."""

    def lost(self, job: ClaimedJob) -> None:
        """Another worker may have this job now: stop it and write nothing. It needs no report any more."""


@dataclass(frozen=True, slots=True)
class Health:
    """What `/readyz` says about a worker. `loop_lag` is in seconds."""

    redis: bool
    loop_lag: float
    healthy: bool
    claiming: bool
    running: int
