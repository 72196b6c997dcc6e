"""A queue's state comes out of Redis here, in one cheap call, for `penstock status`, `/metrics` and scaling.

ZCARD would be the wrong number: arq's sorted set also holds what is deferred and what runs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, cast

import redis.asyncio

from infra import queue_keys


@dataclass(frozen=True, slots=True)
class TypeInsight:
    """What became of the attempts at one event type since the tally began; sums of seconds over all attempts.

    An attempt ends `done`, `retried` (charged or not, it failed), `given_back` (nothing was wrong with it), `dead`,
    `gone` (somebody else had finished it) or `lost` (its process died in a child).
    """

    done: int = 0
    retried: int = 0
    given_back: int = 0
    dead: int = 0
    gone: int = 0
    lost: int = 0
    wait_seconds: float = 0.0
    run_seconds: float = 0.0

    @property
    def attempts(self) -> int:
        """How many attempts have ended."""
        return self.done + self.retried + self.given_back + self.dead + self.gone + self.lost


OUTCOMES = ("done", "retried", "given_back", "dead", "gone", "lost")


@dataclass(frozen=True, slots=True)
class QueueInsight:
    """How a queue stands. `oldest_ready_seconds` is 0 when nothing is ready.

    `dead` counts the engine's own dead letters; ledgered work has its dead rows in the ledger. `lanes` is the number
    of lanes (urgency, type and tenant) that wait for their turn.
    """

    queue: str
    ready: int
    deferred: int
    running: int
    oldest_ready_seconds: float
    dead: int
    paused: bool
    lanes: int = 0
    types: Mapping[str, TypeInsight] = field(default_factory=dict)


@cache
def _script() -> str:
    return (Path(__file__).parent / "scripts" / "insight.lua").read_text(encoding="utf-8")


async def insight(client: redis.asyncio.Redis, queue: str) -> QueueInsight:
    """Look at one queue; costs the same with ten jobs and with ten million.

    Raises:
        redis.exceptions.RedisError: Redis is away.
    """
    keys = [
        queue,
        queue_keys.running(queue),
        queue_keys.dead_times(queue),
        queue_keys.paused(queue),
        queue_keys.turns(queue, urgent=True),
        queue_keys.turns(queue, urgent=False),
        queue_keys.tally(queue),
        queue_keys.held(queue),
    ]
    script = client.register_script(_script())
    reply = await cast("Awaitable[list[Any]]", script(keys=keys))
    ready, deferred, running, age_ms, dead, paused, lanes = (int(value) for value in reply[:7])
    age = max(0, age_ms) / 1000
    types = _types(reply[7])
    return QueueInsight(queue, ready, deferred, running, age, dead, paused == 1, lanes, types)


def _types(pairs: Sequence[bytes]) -> Mapping[str, TypeInsight]:
    """Read the tally: fields are `type what`, times in milliseconds."""
    found: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    for name, number in zip(pairs[::2], pairs[1::2], strict=True):
        kind, _, what = name.decode().rpartition(" ")
        if what in OUTCOMES:
            found[kind][what] = int(number)
        elif what in {"wait_ms", "run_ms"}:
            found[kind][what.replace("_ms", "_seconds")] = int(number) / 1000
    return {kind: TypeInsight(**sums) for kind, sums in sorted(found.items())}


def type_rows(found: Iterable[QueueInsight]) -> list[dict[str, Any]]:
    """A row per queue and event type, for people: counts, and means in milliseconds."""
    return [
        {
            "queue": one.queue,
            "type": kind,
            "attempts": sums.attempts,
            **{outcome: getattr(sums, outcome) for outcome in OUTCOMES},
            "wait_ms": round(sums.wait_seconds * 1000 / max(1, sums.attempts), 1),
            "run_ms": round(sums.run_seconds * 1000 / max(1, sums.attempts), 1),
        }
        for one in found
        for kind, sums in one.types.items()
    ]


async def pause(client: redis.asyncio.Redis, queue: str) -> None:
    """Let no worker claim from the queue until `resume`; what runs goes on."""
    await client.set(queue_keys.paused(queue), "1")


async def resume(client: redis.asyncio.Redis, queue: str) -> None:
    """Let workers claim again, and wake one."""
    bell = queue_keys.bell(queue)
    async with client.pipeline(transaction=True) as pipe:
        pipe.delete(queue_keys.paused(queue))
        pipe.lpush(bell, "1")
        pipe.ltrim(bell, 0, 3)
        pipe.pexpire(bell, 60_000)
        await pipe.execute()
