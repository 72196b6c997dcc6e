"""The servers, the receiver and the worker that `benchmarks/deliver.py` measures, on loopback and in a folder of their own."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from uuid import UUID, uuid4

import httpx2
import psutil
import redis.asyncio

from benchmarks.servers import empty_servers
from infra import outbox
from infra.bus import open_redis
from infra.database import Database
from infra.local.environment import child_environment
from infra.outbox import Said
from infra.push import push
from infra.secretbox import SecretBox
from infra.signing_secrets import new_secret, seal_secret
from schemas.work import Publication

ROOT = Path(__file__).resolve().parents[1]
TENANT = "bench"
BATCH = 500
Seen = dict[str, tuple[float, str]]


@dataclass(slots=True)
class Town:
    """What is running."""

    owner: Database
    database: Database
    redis: redis.asyncio.Redis
    http: httpx2.AsyncClient
    keys: str
    environment: dict[str, str]
    folder: Path
    url: str

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator[Self]:
        """Start the servers and the receiver; all are gone at the end."""
        async with AsyncExitStack() as held:
            servers, folder = await held.enter_async_context(empty_servers())
            owner = await held.enter_async_context(
                Database.open(servers.database_owner_url, role=None, size=2)
            )
            database = await held.enter_async_context(
                Database.open(servers.database_url, role="penstock_worker", size=4)
            )
            client = open_redis(servers.redis_url)
            held.push_async_callback(client.aclose, close_connection_pool=True)
            keys = SecretBox.new_key()
            extra = {
                "PENSTOCK_SECRET_KEYS": keys,
                "PENSTOCK_EGRESS_ALLOW": "127.0.0.0/8:*",
                "PENSTOCK_OPS_PORT": "0",
                "PENSTOCK_GRACE": "1",
                "PYTHONPATH": str(ROOT),
            }
            receiver = await held.enter_async_context(_receiver())
            http = await held.enter_async_context(httpx2.AsyncClient(trust_env=False, timeout=30))
            async with owner.connection() as connection:
                await connection.execute(
                    "INSERT INTO tenants (tenant_id, title) VALUES ($1, 'bench')", TENANT
                )
            environment = child_environment(servers, extra=extra)
            yield cls(
                owner, database, client, http, keys, environment, folder, f"http://127.0.0.1:{receiver}"
            )

    async def endpoints(self, paths: Sequence[str]) -> None:
        """Replace all endpoints; number n gets the events with this document id."""
        box = SecretBox.from_keys(self.keys)
        async with self.owner.connection() as connection:
            await connection.execute("TRUNCATE webhook_endpoints, deliveries, events, webhook_replays")
            for path in paths:
                endpoint = uuid4()
                sealed = seal_secret(box, new_secret(), tenant=TENANT, endpoint=str(endpoint))
                await connection.execute(
                    "INSERT INTO webhook_endpoints (tenant_id, endpoint_id, url, filter, secrets)"
                    " VALUES ($1, $2, $3, $4, $5)",
                    *(TENANT, endpoint, self.url + path, {"document_id": path}, [sealed]),
                )
        await self.redis.flushall()
        await self.http.get(self.url + "/forget")

    async def say(self, path: str) -> tuple[UUID, float]:
        """Write a result for an endpoint and push it, as a commit does; returns its `delivery.due` event and when."""
        said = [Said(TENANT, Publication("document.purged", content(path), subject=path))]
        async with self.database.transaction(TENANT) as connection:
            pushables = await outbox.write(connection, said)
        at = time.time()
        await push(self.redis, pushables)
        return pushables[0].event_id, at

    async def messages(self, due: Sequence[UUID]) -> dict[UUID, str]:
        """The `webhook-id` that each `delivery.due` event sends."""
        async with self.owner.connection() as connection:
            rows = await connection.fetch(
                "SELECT event_id, caused_by FROM events WHERE event_id = ANY ($1)", due
            )
        return {row["event_id"]: outbox.message_id(row["caused_by"]) for row in rows}

    async def fill(self, paths: Sequence[str]) -> None:
        """Write many results, to be delivered when a worker starts."""
        for start in range(0, len(paths), BATCH):
            part = paths[start : start + BATCH]
            said = [
                Said(TENANT, Publication("document.purged", content(path), subject=path)) for path in part
            ]
            async with self.database.transaction(TENANT) as connection:
                pushables = await outbox.write(connection, said)
            await push(self.redis, pushables)
        async with self.owner.connection() as connection:
            await connection.execute("ANALYZE events, deliveries, webhook_endpoints")

    async def seen(self) -> Seen:
        """What the receiver has got."""
        found: Seen = (await self.http.get(self.url + "/seen")).json()
        return found

    async def until(self, count: int, without: str = "other") -> list[float]:
        """Wait until so many messages came, those to paths with this word left out; returns when each came, in order."""
        while True:
            counts: dict[str, int] = (await self.http.get(self.url + "/counts")).json()
            if sum(number for path, number in counts.items() if without not in path) >= count:
                seen = await self.seen()
                return sorted(at for at, path in seen.values() if without not in path)
            await asyncio.sleep(0.1)

    @asynccontextmanager
    async def worker(self, profile: str | None = None) -> AsyncIterator[psutil.Process]:
        """One `penstock worker deliver`, as it runs in production, logging into a file."""
        wrap = () if profile is None else ("-m", "cProfile", "-o", profile)
        with (self.folder / "worker.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, *wrap, "-m", "cli.main", "worker", "deliver"),
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment, cwd=self.folder,
            )  # fmt: skip
        try:
            yield psutil.Process(process.pid)
        finally:
            process.terminate()
            await process.wait()


def content(path: str) -> dict[str, object]:
    """The data of one result."""
    return {"collection": "books", "document_id": path, "sequence": 1}


@asynccontextmanager
async def _receiver() -> AsyncIterator[int]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("deliver_receiver.py")),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        yield int(json.loads(await process.stdout.readline())["port"])
    finally:
        process.kill()
        await process.wait()
