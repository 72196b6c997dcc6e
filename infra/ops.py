"""Probes, metrics and scaling figures leave here, on a port of their own that every serving process has.

No tenant and no id is a label or an answer: the port is for orchestrators and dashboards, not for users.
"""

from __future__ import annotations

import asyncio
import math
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import orjson
import redis.asyncio
import structlog
import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from redis.exceptions import RedisError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from infra import governor
from infra.database import Database, queries
from infra.queue_insight import OUTCOMES, QueueInsight, insight
from schemas.errors import PenstockError
from schemas.registry import QUEUES

PROBE_TIMEOUT = 5.0
JOBS_PER_WORKER = 64
"""How many ready jobs justify one more worker, for `wanted_workers`; autoscalers may use the other figures."""
SHORT = {queue.removeprefix("penstock:"): queue for queue in QUEUES}
_log = structlog.get_logger("penstock.ops")

Probe = Callable[[], Awaitable[str | None]]
"""Returns None when the resource is well, or one sentence that says what is wrong."""


@dataclass(frozen=True, slots=True)
class OpsPort:
    """What the port tells.

    Attributes:
        probes: resource → probe; `/readyz` is well when all are.
        redis: for queue figures.
        database: for dead counts; acts as any serving role.
        registry: the process's own metrics.
    """

    probes: Mapping[str, Probe]
    redis: redis.asyncio.Redis
    database: Database
    registry: CollectorRegistry | None = None


def ping_database(database: Database) -> Probe:
    """A probe: PostgreSQL answers."""

    async def probe() -> str | None:
        try:
            await database.ping()
        except PenstockError as error:
            return error.message
        return None

    return probe


def ping_redis(client: redis.asyncio.Redis) -> Probe:
    """A probe: Redis answers."""

    async def probe() -> str | None:
        try:
            await client.ping()
        except (RedisError, OSError) as error:
            return f"Redis cannot be reached ({type(error).__name__})"
        return None

    return probe


def _json(value: object, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status, media_type="application/json")


async def dead_counts(database: Database) -> dict[str, int]:
    """Dead events per queue, from the ledger."""
    async with database.connection() as connection:
        rows = await connection.fetch(queries("ops").dead)
    return {row["queue"]: row["events"] for row in rows}


def scaling_of(found: QueueInsight, dead: int) -> dict[str, object]:
    """The figures an autoscaler reads: what is ready counts, not what is deferred or running."""
    busy = found.ready + found.running
    return {
        "queue": found.queue,
        "ready": found.ready,
        "deferred": found.deferred,
        "running": found.running,
        "oldest_ready_seconds": round(found.oldest_ready_seconds, 3),
        "dead": dead + found.dead,
        "wanted_workers": 0 if busy == 0 else max(1, math.ceil(busy / JOBS_PER_WORKER)),
        "paused": found.paused,
    }


def ops_app(port: OpsPort) -> Starlette:
    """The port's application."""

    async def livez(_: Request) -> Response:
        return _json({"status": "ok"})

    async def readyz(_: Request) -> Response:
        async def one(probe: Probe) -> str | None:
            try:
                async with asyncio.timeout(PROBE_TIMEOUT):
                    return await probe()
            except TimeoutError:
                return f"no answer within {PROBE_TIMEOUT:g} s"

        problems = dict(zip(port.probes, await asyncio.gather(*map(one, port.probes.values())), strict=True))
        failed = any(problem is not None for problem in problems.values())
        body = {
            "status": "failed" if failed else "ok",
            "checks": {name: problem or "ok" for name, problem in problems.items()},
        }
        return _json(body, 503 if failed else 200)

    async def scaling(request: Request) -> Response:
        name = request.path_params["queue"]
        queue = SHORT.get(name, name)
        if queue not in QUEUES:
            return _json(
                {"title": "There is no such queue", "status": 404, "detail": f"use {', '.join(SHORT)}"}, 404
            )
        try:
            found = await insight(port.redis, queue)
            dead = await dead_counts(port.database)
        except (RedisError, OSError, PenstockError) as error:
            return _json({"title": "Not available now", "status": 503, "detail": type(error).__name__}, 503)
        return _json(scaling_of(found, dead.get(queue, 0)))

    async def metrics(_: Request) -> Response:
        own = b"" if port.registry is None else generate_latest(port.registry)
        return Response(own + await _queue_metrics(port), media_type=CONTENT_TYPE_LATEST)

    return Starlette(
        routes=[
            Route("/livez", livez),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
            Route("/v1/scaling/{queue:path}", scaling),
        ]
    )


async def _queue_metrics(port: OpsPort) -> bytes:
    """Queue figures in the text format, read at the time of the scrape; none while Redis or PostgreSQL is away."""
    lines: list[str] = []
    with suppress(RedisError, OSError, PenstockError):
        dead = await dead_counts(port.database)
        found: Sequence[QueueInsight] = [await insight(port.redis, queue) for queue in QUEUES]
        for name in ("ready", "deferred", "running", "oldest_ready_seconds", "dead"):
            lines.append(f"# TYPE penstock_queue_{name} gauge")
            lines += [
                f'penstock_queue_{name}{{queue="{one.queue}"}} {scaling_of(one, dead.get(one.queue, 0))[name]}'
                for one in found
            ]
        lines += _type_metrics(found)
        lines += _governor_metrics(await governor.insight(port.redis))
        lines += await _recall_metrics(port.database)
    return ("\n".join(lines) + "\n").encode() if lines else b""


async def _recall_metrics(database: Database) -> list[str]:
    """What searches through vector indexes found of the exact result, over the last day's samples."""
    async with database.connection() as connection:
        rows = await connection.fetch(queries("ops").recall)
    lines: list[str] = []
    for name in ("recall", "samples"):
        lines.append(f"# TYPE penstock_search_{name} gauge")
        lines += [f'penstock_search_{name}{{space="{row["space_id"]}"}} {row[name]:g}' for row in rows]
    return lines


def _type_metrics(found: Sequence[QueueInsight]) -> list[str]:
    """What became of attempts, by event type: counters over the whole fleet, from the workers' tally in Redis."""
    each = [(f'queue="{one.queue}",type="{kind}"', sums) for one in found for kind, sums in one.types.items()]
    lines = ["# TYPE penstock_attempts_total counter"]
    lines += [
        f'penstock_attempts_total{{{label},outcome="{outcome}"}} {getattr(sums, outcome)}'
        for label, sums in each
        for outcome in OUTCOMES
    ]
    for name in ("wait", "run"):
        lines.append(f"# TYPE penstock_attempt_{name}_seconds summary")
        for label, sums in each:
            total = getattr(sums, f"{name}_seconds")
            lines.append(f"penstock_attempt_{name}_seconds_sum{{{label}}} {total:.3f}")
            lines.append(f"penstock_attempt_{name}_seconds_count{{{label}}} {sums.attempts}")
    return lines


def _governor_metrics(found: Sequence[governor.Insight]) -> list[str]:
    """The pace of calls to the model API; accounts, which are made from keys, are numbered."""
    accounts = sorted({one.account for one in found})
    lines: list[str] = []
    for name in ("window", "under_way", "blocked", "refusals", "paused"):
        lines.append(f"# TYPE penstock_model_{name} gauge")
        lines += [
            f'penstock_model_{name}{{model="{one.model}",account="{accounts.index(one.account)}"}} '
            f"{int(one.paused is not None) if name == 'paused' else getattr(one, name):g}"
            for one in found
            if re.fullmatch(r"[A-Za-z0-9._:/-]{1,100}", one.model)
        ]
    return lines


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    listener.listen(128)
    listener.setblocking(False)
    return listener


@asynccontextmanager
async def serve_ops(host: str, port: int, ops: OpsPort) -> AsyncIterator[int]:
    """Serve until the block ends; yields the port."""
    async with serve_app(ops_app(ops), host, port) as taken:
        yield taken


@asynccontextmanager
async def serve_app(app: Starlette, host: str, port: int) -> AsyncIterator[int]:
    """Serve an application on a port until the block ends; yields the port.

    A taken port is not fatal: several processes on one machine share a default, so the next ones pick a free port and
    say so in the log.
    """
    try:
        listener = _listen(host, port)
    except OSError as error:
        listener = _listen(host, 0)
        _log.warning("ops.port_taken", wanted=port, port=listener.getsockname()[1], error=error.strerror)
    _log.info("ops.listening", host=host, port=listener.getsockname()[1])
    async with _serve(app, listener):
        yield int(listener.getsockname()[1])


@asynccontextmanager
async def serve_ops_on_socket(path: Path, ops: OpsPort) -> AsyncIterator[None]:
    """Serve on a Unix socket, for a supervisor that asks; one that a killed process left behind is replaced."""
    path.unlink(missing_ok=True)  # noqa: ASYNC240 - one system call
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(16)
    listener.setblocking(False)
    async with _serve(ops_app(ops), listener):
        yield


@asynccontextmanager
async def _serve(app: Starlette, listener: socket.socket) -> AsyncIterator[None]:
    config = uvicorn.Config(
        app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    # serve() would take over the process's signals; the host has its own.
    task = asyncio.create_task(server._serve(sockets=[listener]))  # noqa: SLF001
    try:
        yield
    finally:
        server.should_exit = True
        await task
        listener.close()
