"""A small Penstock of a story's own: a database of its own, real processes, and the means to kill and to look.

Processes are the commands that an operator runs, on the session's servers.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from uuid import UUID, uuid4

import httpx2
import redis.asyncio

from cli.demo.receiver import Receiver
from cli.demo.stack import free_port
from cli.local import make_tenant, model_environment
from infra.bus import Bus, open_redis
from infra.database import Database
from infra.local.environment import child_environment
from infra.local.model.server import ModelServer
from infra.local.servers import Servers
from infra.push import push
from schemas.envelope import Event, parse_event
from schemas.registry import EVENT_TYPES
from schemas.work import Pushable

ROOT = Path(__file__).resolve().parents[2]
SECRET_KEYS = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
SCOPES = ["publish", "query", "feedback", "train", "admin", "ops"]
PATIENCE = 60.0


def event(kind: str, data: Mapping[str, Any], **attributes: Any) -> Event:
    """An event as an upstream system sends it."""
    raw = {"specversion": "1.0", "id": str(uuid4()), "source": "story", "type": kind, "data": dict(data)}
    return parse_event({**raw, **attributes})


def document(name: str, content: str, *, collection: str = "town", **attributes: Any) -> Event:
    """A document that was added or changed."""
    return event(
        "document.added", {"collection": collection, "document_id": name, "content": content}, **attributes
    )


@dataclass
class Town:
    """What a story sees and does."""

    servers: Servers
    owner: Database
    redis: redis.asyncio.Redis
    bus: Bus
    environment: dict[str, str]
    logs: Path
    held: AsyncExitStack
    processes: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)
    url: str = ""

    @classmethod
    @asynccontextmanager
    async def open(cls, servers: Servers, model: ModelServer, folder: Path) -> AsyncIterator[Self]:
        """No process runs yet; all that were started are gone at the end."""
        extra = {
            **model_environment(model.base_url, model.api_key),
            "PENSTOCK_SECRET_KEYS": SECRET_KEYS,
            "PENSTOCK_EGRESS_ALLOW": "127.0.0.0/8:*",
            "PENSTOCK_OPS_PORT": "0",
            "PENSTOCK_TRAIN_POLL": "0.3",
            "PENSTOCK_LEASE": "3",
            "PENSTOCK_GRACE": "5",
            "PENSTOCK_LOG_LEVEL": "debug",
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
        }
        async with AsyncExitStack() as held:
            owner = await held.enter_async_context(
                Database.open(servers.database_owner_url, role=None, size=3)
            )
            gateway = await held.enter_async_context(
                Database.open(servers.database_url, role="penstock_gateway", size=3)
            )
            client = open_redis(servers.redis_url)
            held.push_async_callback(client.aclose, close_connection_pool=True)
            await client.flushall()
            bus = Bus(gateway, client)
            town = cls(servers, owner, client, bus, child_environment(servers, extra=extra), folder, held)
            try:
                yield town
            finally:
                await town._stop_all()

    async def start(self, name: str, *arguments: str) -> None:
        """Start ``penstock ARGUMENTS…`` as a process with this name."""
        with (self.logs / f"{name}.log").open("ab") as log:
            self.processes[name] = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "cli.main", *arguments,
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment, cwd=self.logs,
                start_new_session=True,
            )  # fmt: skip

    async def run_to_end(self, name: str, log: Any, *arguments: str) -> None:
        """Run a command until it ends by itself; it must succeed."""
        self.processes[name] = await asyncio.create_subprocess_exec(
            *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment, cwd=self.logs,
            start_new_session=True,
        )  # fmt: skip
        assert await self.processes.pop(name).wait() == 0, (self.logs / f"{name}.log").read_text()[-3000:]

    async def push_again(self, ids: Sequence[UUID], kind: str = "document.added") -> None:
        """Put ids on their queue as if they had never been there."""
        queue = EVENT_TYPES[kind].queue
        assert queue is not None
        await push(self.redis, [Pushable(event_id, kind, queue) for event_id in ids])

    async def workers(self, *pools: str, concurrency: int = 16) -> None:
        """Start one process per pool."""
        for pool in pools:
            await self.start(pool, "worker", pool, "--concurrency", str(concurrency))

    async def gateway(self) -> str:
        """Start the HTTP API and wait until it answers; returns its address."""
        port = free_port()
        self.environment["PENSTOCK_GATEWAY_PORT"] = str(port)
        await self.start("gateway", "gateway")
        self.url = f"http://127.0.0.1:{port}"
        async with httpx2.AsyncClient(trust_env=False) as http:

            async def answers() -> bool:
                try:
                    return (await http.get(f"{self.url}/healthz")).status_code == 200
                except httpx2.HTTPError:
                    return False

            await self.until(answers, "the gateway answers")
        return self.url

    async def kill(self, name: str) -> None:
        """Kill -9, as the machine's memory killer would."""
        process = self.processes.pop(name)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()

    async def tenant(self, name: str) -> httpx2.AsyncClient:
        """A tenant with a key for everything; its client needs a gateway that runs."""
        keys = await make_tenant(self.servers.database_owner_url, name, {"key": SCOPES})
        headers = {"authorization": f"Bearer {keys['key']}"}
        client = httpx2.AsyncClient(
            base_url=self.url or "http://127.0.0.1:1", headers=headers, trust_env=False, timeout=60
        )
        return await self.held.enter_async_context(client)

    async def receiver(self, client: httpx2.AsyncClient, *types: str) -> Receiver:
        """A webhook receiver that verifies, registered for these types of the client's tenant."""
        receiver = await self.held.enter_async_context(Receiver.open())
        made = await client.post("/v1/webhooks", json={"url": receiver.url, "types": list(types) or ["*"]})
        assert made.status_code == 201, made.text
        receiver.trust(made.json()["secret"])
        return receiver

    async def publish(self, tenant: str, events: Sequence[Event]) -> list[UUID]:
        """Publish; every event must be accepted."""
        results = await self.bus.publish(tenant, events)
        ids = [
            result.event_id
            for result in results
            if result.status == "accepted" and result.event_id is not None
        ]
        assert len(ids) == len(events), [result for result in results if result.status != "accepted"]
        return list(ids)

    async def rows(self, sql: str, *arguments: Any) -> list[dict[str, Any]]:
        """Look at the database as its owner."""
        async with self.owner.connection() as connection:
            return [dict(row) for row in await connection.fetch(sql, *arguments)]

    async def value(self, sql: str, *arguments: Any) -> Any:
        """One value."""
        [row] = await self.rows(sql, *arguments)
        return next(iter(row.values()))

    async def unfinished(self, tenant: str) -> int:
        """How many events of a tenant have not ended."""
        return int(
            await self.value(
                "SELECT count(*) FROM events WHERE tenant_id = $1 AND finished_at IS NULL", tenant
            )
        )

    async def settled(self, tenant: str, *, within: float = PATIENCE) -> None:
        """Wait until every event of a tenant has ended."""

        async def nothing_left() -> bool:
            return await self.unfinished(tenant) == 0

        await self.until(nothing_left, "every event has ended", within=within)

    async def until(
        self, condition: Callable[[], Awaitable[bool]], what: str, *, within: float = PATIENCE
    ) -> None:
        """Wait for a condition, and fail with what it was and the end of every log."""
        deadline = time.monotonic() + within
        while not await condition():
            if time.monotonic() > deadline:
                tails = {
                    path.name: path.read_text(errors="replace")[-1500:]
                    for path in sorted(self.logs.glob("*.log"))
                }
                raise AssertionError(
                    f"not within {within:g} s: {what}\n" + "\n".join(f"{k}:\n{v}" for k, v in tails.items())
                )
            await asyncio.sleep(0.1)

    async def _stop_all(self) -> None:
        for process in self.processes.values():
            with suppress(ProcessLookupError):
                process.terminate()
        for process in self.processes.values():
            try:
                async with asyncio.timeout(15):
                    await process.wait()
            except TimeoutError:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
