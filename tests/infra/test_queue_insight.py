"""What `penstock status` and the scaler see of a queue."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import cast

import redis.asyncio

from infra import queue_keys
from infra.queue_insight import QueueInsight, insight, pause, resume


async def test_ready_deferred_running_and_dead_are_told_apart(redis_client: redis.asyncio.Redis) -> None:
    """Arq's sorted set holds all of them; the parts are counted without reading it."""
    queue = "penstock:insight"
    keys = [getattr(queue_keys, name)(queue) for name in ("running", "held", "dead_times", "bell")] + [queue]
    await redis_client.delete(*keys)
    assert QueueInsight(queue, 0, 0, 0, 0.0, 0, paused=False) == await insight(redis_client, queue)
    seconds, micros = await redis_client.time()
    now = seconds * 1000 + micros // 1000
    await redis_client.zadd(queue, {"a": now - 5000, "b": now, "later": now + 60_000, "held": now + 30_000})
    await redis_client.zadd(queue_keys.running(queue), {"7": now + 30_000, "6": now - 1})
    held = redis_client.hset(queue_keys.held(queue), mapping={"7": "1", "6": "2"})
    await cast("Awaitable[int]", held)
    await redis_client.zadd(queue_keys.dead_times(queue), {"x": now})
    await pause(redis_client, queue)
    seen = await insight(redis_client, queue)
    assert (2, 1, 1, 1, True) == (seen.ready, seen.deferred, seen.running, seen.dead, seen.paused)
    assert 5.0 <= seen.oldest_ready_seconds < 60.0
    await resume(redis_client, queue)
    assert not (await insight(redis_client, queue)).paused
    assert await redis_client.exists(queue_keys.bell(queue))
    await redis_client.delete(*keys)
