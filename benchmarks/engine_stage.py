"""The servers that the engine's samples meet, and the queues and ledgers that are filled for them.

One Valkey without persistence, the same for every competitor, and an embedded PostgreSQL with its settings as they
are (fsync on). Work that grows has two of each: a small backlog beside a large one, measured in turns.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import redis.asyncio
from arq.connections import ArqRedis, RedisSettings, create_pool

from infra import bus, wire
from infra.bus import Bus
from infra.database import Database
from infra.local import processes
from infra.local.binaries import valkey_server
from infra.local.stack import LocalStack
from infra.migrate import migrate
from infra.push import push
from schemas.envelope import Event, parse_event
from schemas.registry import INGEST
from schemas.work import Pushable

QUEUE = "bench"
TENANTS = [f"bench-{number}" for number in range(8)]
PAGE = 1000


@dataclass(frozen=True, slots=True)
class Place:
    """One Redis database and one PostgreSQL database that belong together."""

    redis_url: str
    database_url: str

    @asynccontextmanager
    async def redis(self) -> AsyncIterator[redis.asyncio.Redis]:
        """A producer's client."""
        client = bus.open_redis(self.redis_url)
        yield client
        await client.aclose(close_connection_pool=True)

    @asynccontextmanager
    async def pool(self) -> AsyncIterator[ArqRedis]:
        """Arq's pool, with JSON on the wire."""
        options: dict[str, Any] = {"job_serializer": wire.dumps, "job_deserializer": wire.loads}
        settings = RedisSettings.from_dsn(self.redis_url)
        pool = await create_pool(settings, default_queue_name=QUEUE, **options)
        yield pool
        await pool.aclose(close_connection_pool=True)

    async def flush(self) -> None:
        """Empty every Redis database."""
        async with self.redis() as client:
            await client.flushall()

    async def fill(self, count: int, *, lanes: bool) -> None:
        """Put `count` no-op jobs into the queue: in the lanes of all tenants, or as arq's own producers would."""
        jobs = [
            Pushable(UUID(int=number), "noop", QUEUE, 0.0, TENANTS[number % len(TENANTS)] if lanes else "")
            for number in range(count)
        ]
        async with self.redis() as client:
            await push(client, jobs)

    async def publish(self, count: int, *, first: int = 0) -> float:
        """Publish `count` events as a producer does, 500 at a time, over all tenants; returns seconds."""
        async with AsyncExitStack() as held:
            client = await held.enter_async_context(self.redis())
            database = await held.enter_async_context(
                Database.open(self.database_url, role="penstock_gateway", size=3)
            )
            producer = Bus(database, client)
            began = time.perf_counter()
            for start in range(first, first + count, 500):
                tenant = TENANTS[start // 500 % len(TENANTS)]
                numbers = range(start, min(first + count, start + 500))
                for result in await producer.publish(tenant, [document(number) for number in numbers]):
                    assert result.status == "accepted", result
            return time.perf_counter() - began

    async def backlog(self, count: int) -> None:
        """Let `count` events wait, entered by one statement per page of 100,000 and pushed as the sweeper does."""
        connection = await asyncpg.connect(self.database_url)
        await connection.execute("SET ROLE penstock_worker")
        await connection.execute("SELECT set_config('app.tenants', $1, false)", ",".join(TENANTS))
        async with self.redis() as client:
            for start in range(0, count, 100_000):
                ids = await connection.fetch(BACKLOG, start, min(count, start + 100_000) - 1, TENANTS)
                await push(client, [Pushable(row[0], "document.added", INGEST, 0.0, row[1]) for row in ids])
        await connection.close()


BACKLOG = """
WITH numbers AS (
  SELECT n, ($3::text[])[1 + n % cardinality($3::text[])] AS tenant, uuidv7(interval '-1 minute') AS event_id
  FROM generate_series($1::bigint, $2::bigint) AS n
), keys AS (
  INSERT INTO event_keys (tenant_id, source, id, event_id, data_sha256)
  SELECT tenant, 'backlog', n::text, event_id, sha256(n::text::bytea) FROM numbers
)
INSERT INTO events (tenant_id, event_id, source, id, type, queue, data)
SELECT tenant, event_id, 'backlog', n::text, 'document.added', 'penstock:ingest',
  jsonb_build_object('collection', 'bench', 'document_id', n::text, 'content', 'text')
FROM numbers RETURNING event_id, tenant_id
"""


def document(number: int) -> Event:
    """A small event."""
    return parse_event(
        {
            "specversion": "1.0",
            "id": str(number),
            "source": "bench",
            "type": "document.added",
            "data": {"collection": "bench", "document_id": str(number), "content": "text"},
        }
    )


@dataclass(frozen=True, slots=True)
class Stage:
    """Where samples run. `grown` is the place with the large backlog."""

    place: Place
    grown: Place


@asynccontextmanager
async def open_stage() -> AsyncIterator[Stage]:
    """Start the servers; nothing is left of them at the end."""
    async with AsyncExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="penstock-bench-")))
        stack = await held.enter_async_context(
            LocalStack.start(folder, what="the benchmark", wipe_at_end=True)
        )
        servers = stack.servers
        await migrate(servers.database_owner_url, serving_url=servers.database_url)
        superuser = await asyncpg.connect(servers.superuser_url.replace("/penstock?", "/postgres?"))
        for database in ("penstock", "grown"):
            if database == "grown":
                await superuser.execute("CREATE DATABASE grown TEMPLATE penstock OWNER penstock_owner")
            await _make_tenants(servers.database_owner_url.replace("/penstock?", f"/{database}?"))
        await superuser.close()
        url = held.enter_context(valkey(folder))
        yield Stage(
            Place(f"{url}/0", servers.database_url),
            Place(f"{url}/1", servers.database_url.replace("/penstock?", "/grown?")),
        )


@contextmanager
def valkey(folder: Path) -> Iterator[str]:
    """A server without persistence; yields its address without a database number."""
    port = processes.free_port(0)
    command: Sequence[str] = [
        str(valkey_server()), "--port", str(port), "--bind", processes.LOOPBACK, "--save", "", "--dir", "./",
    ]  # fmt: skip
    server = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    try:
        while not processes.listens(port):
            time.sleep(0.01)
        yield f"redis://{processes.LOOPBACK}:{port}"
    finally:
        server.terminate()
        server.wait()


async def _make_tenants(owner_url: str) -> None:
    owner = await asyncpg.connect(owner_url)
    await owner.executemany(
        "INSERT INTO tenants (tenant_id) VALUES ($1) ON CONFLICT DO NOTHING", [(t,) for t in TENANTS]
    )
    await owner.close()
