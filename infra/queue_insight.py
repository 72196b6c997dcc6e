"""A queue's state comes out of Redis here, in one cheap call, for `penstock status`, `/metrics` and scaling.

ZCARD would be the wrong number: arq's sorted set also holds what is deferred and what runs.
"""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import redis.asyncio

from infra import queue_keys


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
    ]
    script = client.register_script(_script())
    reply = await cast("Awaitable[list[Any]]", script(keys=keys))
    ready, deferred, running, age_ms, dead, paused, lanes = (int(value) for value in reply)
    return QueueInsight(queue, ready, deferred, running, max(0, age_ms) / 1000, dead, paused == 1, lanes)


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
