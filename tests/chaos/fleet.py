"""A fleet of worker processes that are killed, stopped and replaced, on servers that may be restarted under it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import redis.asyncio

from cli.local import make_tenant
from infra.bus import Bus, open_redis
from infra.database import Database
from infra.local.environment import child_environment
from infra.local.stack import LocalStack
from infra.sweeper import Sweeper
from schemas.envelope import Event, parse_event
from schemas.errors import PenstockError
from tests.chaos.effect_worker import READY

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path(__file__).with_name("effect_worker.py")
TENANTS = ["red", "blue", "green"]
LEASE = 2.0
Process = asyncio.subprocess.Process


def numbered(number: int) -> Event:
    """A small event; its number is the caller's id."""
    return parse_event(
        {
            "specversion": "1.0",
            "id": str(number),
            "source": "chaos",
            "type": "document.added",
            "data": {"collection": "c", "document_id": str(number), "content": "text"},
        }
    )


@dataclass
class Fleet:
    """Workers, the servers they meet, and what was done."""

    stack: LocalStack
    owner: Database
    redis: redis.asyncio.Redis
    bus: Bus
    logs: Path
    workers: list[Process] = field(default_factory=list)
    started: int = 0
    said: dict[int, Path] = field(default_factory=dict)

    @classmethod
    @asynccontextmanager
    async def open(cls, stack: LocalStack, logs: Path) -> AsyncIterator[Self]:
        """Empty servers, a sweeper, no worker yet; none is left at the end."""
        servers = stack.servers
        async with AsyncExitStack() as held:
            owner = await held.enter_async_context(
                Database.open(servers.database_owner_url, role=None, size=2)
            )
            gateway = await held.enter_async_context(
                Database.open(servers.database_url, role="penstock_gateway", size=2)
            )
            system = await held.enter_async_context(
                Database.open(servers.database_url, role="penstock_system", size=2)
            )
            async with owner.connection() as connection:
                await connection.execute("TRUNCATE events, event_keys, audit_log")
            for tenant in TENANTS:
                with suppress(PenstockError):  # the last test made it
                    await make_tenant(servers.database_owner_url, tenant, {})
            client = open_redis(servers.redis_url)
            held.push_async_callback(client.aclose, close_connection_pool=True)
            await client.flushall()
            fleet = cls(stack, owner, client, Bus(gateway, client), logs)
            sweeping = asyncio.create_task(Sweeper(system, client, name="chaos", lag=1.0, every=0.2).run())
            try:
                yield fleet
            finally:
                sweeping.cancel()
                await asyncio.wait([sweeping])
                for worker in fleet.workers:
                    with suppress(ProcessLookupError):
                        worker.kill()
                    await worker.wait()

    async def start(self) -> Process:
        """One more worker."""
        self.started += 1
        path = self.logs / f"{self.started}.log"
        with path.open("wb") as output:
            worker = await asyncio.create_subprocess_exec(
                sys.executable, str(SCRIPT), str(LEASE), stdout=output, stderr=output, start_new_session=True,
                env=child_environment(self.stack.servers, extra={"PYTHONPATH": str(ROOT)}), cwd=self.logs,
            )  # fmt: skip
        self.workers.append(worker)
        self.said[worker.pid] = path
        return worker

    async def until_ready(self, worker: Process) -> None:
        """Wait until a worker listens to signals: before that, SIGTERM ends it as it ends any Python."""
        async with asyncio.timeout(60):
            while READY not in self.said[worker.pid].read_text(errors="replace"):  # noqa: ASYNC110 - a process writes it
                await asyncio.sleep(0.05)

    async def replace(self, worker: Process, signum: signal.Signals) -> int:
        """Send a worker a signal, start another in its place, and return the exit code of the first."""
        with suppress(ProcessLookupError):
            os.kill(worker.pid, signum)
        self.workers.remove(worker)
        await self.start()
        return await worker.wait()

    async def keep(self) -> None:
        """Replace workers that ended by themselves, as a supervisor does."""
        for worker in [one for one in self.workers if one.returncode is not None]:
            self.workers.remove(worker)
            await self.start()

    async def publish(self, numbers: Sequence[int]) -> None:
        """Publish until every event is accepted or known; outages are waited out, as a careful producer does."""
        tenant = TENANTS[numbers[0] // len(numbers) % len(TENANTS)]
        events = [numbered(number) for number in numbers]
        while True:
            try:
                results = await self.bus.publish(tenant, events)
            except PenstockError:
                await asyncio.sleep(0.05)
                continue
            assert {one.status for one in results} <= {"accepted", "duplicate"}
            return

    async def restart_redis(self) -> None:
        """Stop it and start it on its file."""
        await asyncio.to_thread(self.stack.valkey.stop)
        await asyncio.to_thread(self.stack.valkey.start)

    async def empty_redis(self) -> None:
        """Lose everything that it holds."""
        await self.redis.flushall()

    async def restart_postgres(self) -> None:
        """Stop it under load, whatever transactions are open, and start it again."""
        await asyncio.to_thread(self.stack.postgres.stop)
        await asyncio.to_thread(self.stack.postgres.start)

    async def done(self) -> int:
        """How many events are done; -1 while PostgreSQL is away."""
        try:
            [row] = await self.rows("SELECT count(*) AS n FROM events WHERE status = 'done'")
        except PenstockError:
            return -1
        return int(row["n"])

    async def rows(self, sql: str, *arguments: Any) -> list[dict[str, Any]]:
        """Look at the database as its owner."""
        async with self.owner.connection() as connection:
            return [dict(row) for row in await connection.fetch(sql, *arguments)]

    async def until_done(self, enough: int, *, within: float) -> None:
        """Wait until so many events are done, keeping the fleet alive; fails with states and the ends of the logs."""
        deadline = time.monotonic() + within
        while await self.done() < enough:
            if time.monotonic() > deadline:
                states = await self.rows("SELECT status, count(*), max(losses) FROM events GROUP BY 1")
                tails = [path.read_text(errors="replace")[-800:] for path in sorted(self.logs.glob("*.log"))]
                raise AssertionError(f"not {enough} done in {within:g} s; {states}\n" + "\n".join(tails[-4:]))
            await self.keep()
            await asyncio.sleep(0.05)
