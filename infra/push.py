"""Ids of committed events pass through here onto their arq queues, each into the lane of its type and tenant."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import redis.asyncio
from arq.constants import job_key_prefix
from arq.jobs import serialize_job

from infra import queue_keys, wire
from schemas.registry import EVENT_TYPES
from schemas.work import Pushable

CHUNK: Final = 1000
_ID: Final = str(UUID(int=0))
_TIME: Final = 1_111_111_111_111
"""Stands for the time in a payload that is kept: the first such number after the id."""


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
    groups: dict[str, dict[tuple[str, str, float], list[str]]] = defaultdict(lambda: defaultdict(list))
    for job in jobs:
        groups[job.queue][job.type, job.tenant, job.delay].append(str(job.event_id))
    script = client.register_script(_script())
    now = time.time_ns() // 1_000_000
    added = 0
    for queue, kinds in groups.items():
        keys = [
            queue,
            queue_keys.bell(queue),
            queue_keys.turns(queue, urgent=True),
            queue_keys.turns(queue, urgent=False),
        ]
        prefixes = [job_key_prefix, queue_keys.lane_prefix(queue)]
        for call in _calls(kinds, now):
            added += int(await script(keys=keys, args=[*prefixes, *call]))
    return added


def _calls(
    kinds: Mapping[tuple[str, str, float], Sequence[str]], now_ms: int
) -> Iterator[list[str | int | bytes]]:
    """The groups of a queue's jobs as the script takes them, a thousand jobs per call at most."""
    call: list[str | int | bytes] = []
    room = CHUNK
    for (kind, tenant, delay), ids in kinds.items():
        lane, head, tail = _template(kind, tenant, now_ms)
        at = 0
        while at < len(ids):
            some = ids[at : at + room]
            call += (lane, round(delay * 1000), head, tail, "\n".join(some))
            at, room = at + len(some), room - len(some)
            if room == 0:
                yield call
                call, room = [], CHUNK
    if call:
        yield call


def lane_of(kind: str, tenant: str) -> str:
    """The lane in which a job waits: ``u`` (urgent) or ``b`` (bulk), its type and its tenant. Empty without a tenant."""
    if not tenant:
        return ""
    known = EVENT_TYPES.get(kind)
    return f"{'u' if known is not None and known.urgent else 'b'}/{kind}/{tenant}"


def _template(kind: str, tenant: str, now_ms: int) -> tuple[str, bytes, bytes]:
    """The lane of a kind of job, and what stands before and after the event's id in it: it holds nothing else."""
    lane, head, between, tail = _pieces(kind, tenant)
    return lane, head, b"%b%d%b" % (between, now_ms, tail)


@lru_cache(maxsize=4096)
def _pieces(kind: str, tenant: str) -> tuple[str, bytes, bytes, bytes]:
    """The same without the time: a single push is most of an idle worker's pickup, and this was a tenth of it."""
    lane = lane_of(kind, tenant)
    payload = serialize_job(kind, (_ID,), {}, None, _TIME, serializer=partial(_with_lane, lane))
    head, _, rest = payload.partition(_ID.encode())
    between, _, tail = rest.partition(b"%d" % _TIME)
    return lane, head, between, tail


def _with_lane(lane: str, job: dict[str, Any]) -> bytes:
    """Encode arq's job with its lane last, where the claim script looks for it; arq itself ignores the field."""
    return wire.dumps({**job, "lane": lane} if lane else job)
