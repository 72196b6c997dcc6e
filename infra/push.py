"""Ids of committed events pass through here onto their arq queues, each into the lane of its type and tenant."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import UUID

import redis.asyncio
from arq.constants import job_key_prefix
from arq.jobs import serialize_job

from infra import queue_keys, wire
from schemas.registry import EVENT_TYPES
from schemas.work import Pushable

CHUNK: Final = 1000
_ID: Final = str(UUID(int=0))


class QueuedJob(NamedTuple):
    """One arq job as the push script takes it; an empty lane means the order of time."""

    job_id: str
    delay_ms: int
    lane: str
    payload: bytes


@cache
def _script() -> str:
    return (Path(__file__).parent / "scripts" / "push.lua").read_text(encoding="utf-8")


async def push(client: redis.asyncio.Redis, jobs: Sequence[Pushable]) -> int:
    """Put events on their queues: ids only, idempotent, one call per queue and thousand.

    Returns:
        How many were not there before.

    Raises:
        redis.exceptions.RedisError: Redis is away; nothing is lost, the sweeper will push.
    """
    by_queue: dict[str, list[QueuedJob]] = defaultdict(list)
    templates: dict[tuple[str, str], tuple[str, bytes, bytes]] = {}
    now = time.time_ns() // 1_000_000
    for job in jobs:
        kind = job.type, job.tenant
        if kind not in templates:
            templates[kind] = _template(job, now)
        lane, head, tail = templates[kind]
        event_id = str(job.event_id)
        payload = head + event_id.encode() + tail
        by_queue[job.queue].append(QueuedJob(event_id, round(job.delay * 1000), lane, payload))
    return sum([await enqueue(client, queue, group) for queue, group in by_queue.items()])


async def enqueue(client: redis.asyncio.Redis, queue: str, jobs: Sequence[QueuedJob]) -> int:
    """Put serialised jobs on one queue; returns how many were not there before."""
    script = client.register_script(_script())
    keys = [
        queue,
        queue_keys.bell(queue),
        queue_keys.turns(queue, urgent=True),
        queue_keys.turns(queue, urgent=False),
    ]
    added = 0
    for start in range(0, len(jobs), CHUNK):
        arguments: list[Any] = [job_key_prefix, queue_keys.lane_prefix(queue)]
        for job in jobs[start : start + CHUNK]:
            arguments += job
        added += int(await script(keys=keys, args=arguments))
    return added


def lane_of(job: Pushable) -> str:
    """The lane in which a job waits: ``u`` (urgent) or ``b`` (bulk), its type and its tenant. Empty without a tenant."""
    if not job.tenant:
        return ""
    known = EVENT_TYPES.get(job.type)
    return f"{'u' if known is not None and known.urgent else 'b'}/{job.type}/{job.tenant}"


def _template(job: Pushable, now_ms: int) -> tuple[str, bytes, bytes]:
    """The lane of a kind of job, and what stands before and after the event's id in it: it holds nothing else."""
    lane = lane_of(job)
    payload = serialize_job(job.type, (_ID,), {}, None, now_ms, serializer=partial(_with_lane, lane))
    head, _, tail = payload.partition(_ID.encode())
    return lane, head, tail


def _with_lane(lane: str, job: dict[str, Any]) -> bytes:
    """Encode arq's job with its lane last, where the claim script looks for it; arq itself ignores the field."""
    return wire.dumps({**job, "lane": lane} if lane else job)
