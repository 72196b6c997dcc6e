from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from uuid import uuid4

import redis.asyncio
from standardwebhooks import Webhook

from infra import outbox
from infra.bus import Bus
from infra.database import Database
from infra.local.environment import child_environment
from infra.local.servers import Servers
from infra.outbox import Said
from infra.secretbox import SecretBox
from infra.signing_secrets import new_secret, seal_secret
from schemas.work import Publication
from tests.conftest import SECRET_KEYS
from tests.infra.raw_server import Exchange, raw_server

ROOT = Path(__file__).parents[3]
MESSAGES = 90


@asynccontextmanager
async def worker(servers: Servers, log: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """`penstock worker deliver` as a process of its own, killed at the end of the block."""
    extra = {
        "PENSTOCK_SECRET_KEYS": SECRET_KEYS,
        "PENSTOCK_EGRESS_ALLOW": "127.0.0.0/8:*",
        "PENSTOCK_OPS_PORT": "0",
        "PENSTOCK_LEASE": "2",
        "PYTHONPATH": str(ROOT),
    }
    with log.open("ab") as out:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "cli.main", "worker", "deliver"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=child_environment(servers, extra=extra),
            cwd=log.parent,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def endpoint_of(owner: Database, tenant: str, url: str) -> str:
    """Register an endpoint in a database of the test's own, and return its secret."""
    endpoint, secret = uuid4(), new_secret()
    box = SecretBox.from_keys(SECRET_KEYS)
    sealed = [seal_secret(box, secret, tenant=tenant, endpoint=str(endpoint))]
    async with owner.connection() as connection:
        await connection.execute("INSERT INTO tenants (tenant_id, title) VALUES ($1, 'test')", tenant)
        await connection.execute(
            "INSERT INTO webhook_endpoints (tenant_id, endpoint_id, url, secrets) VALUES ($1, $2, $3, $4)",
            *(tenant, endpoint, url, sealed),
        )
    return secret


async def test_kill_and_failing_receiver_lose_nothing(
    fresh_database: Servers, redis_client: redis.asyncio.Redis, tmp_path: Path
) -> None:
    """With the worker killed midway, Redis emptied and a third of first attempts refused, every message arrives.

    A message has the same id and the same bytes at each attempt, and what the ledger calls delivered was received.
    """
    received: dict[str, set[bytes]] = {}
    refused: set[str] = set()
    enough = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        headers = dict(line.split(": ", 1) for line in exchange.head.strip().split("\r\n")[1:])
        message = str(Webhook(secret).verify(exchange.body, headers)["id"])
        if int(message[-2:], 16) % 3 == 0 and message not in refused:
            refused.add(message)
            await exchange.reply(500)
            return
        received.setdefault(message, set()).add(exchange.body)
        if len(received) >= MESSAGES // 3:
            enough.set()
        await asyncio.sleep(0.02)
        await exchange.reply(204)

    async with AsyncExitStack() as held:
        owner = await held.enter_async_context(
            Database.open(fresh_database.database_owner_url, role=None, size=2)
        )
        says = await held.enter_async_context(
            Database.open(fresh_database.database_url, role="penstock_worker", size=2)
        )
        server = await held.enter_async_context(raw_server(script))
        bus = Bus(says, redis_client)
        held.push_async_callback(bus.aclose)
        secret = await endpoint_of(owner, "town", f"http://127.0.0.1:{server.port}/")
        said = [
            Said(
                "town",
                Publication("document.purged", {"collection": "c", "document_id": f"d{n}", "sequence": 1}),
            )
            for n in range(MESSAGES)
        ]
        async with says.transaction("town") as connection:
            pushables = await outbox.write(connection, said)
        await bus.push(pushables)

        async with worker(fresh_database, tmp_path / "first.log"), asyncio.timeout(40):
            await enough.wait()
        await redis_client.flushall()
        async with worker(fresh_database, tmp_path / "second.log"):
            await all_delivered(owner, tmp_path)
        rows = await owner_rows(owner, "SELECT message_id, body FROM deliveries")
    assert MESSAGES == len(rows) == len(received)
    assert {row["message_id"]: {row["body"]} for row in rows} == received


async def all_delivered(owner: Database, logs: Path) -> None:
    """Wait until no delivery is left, or fail with the workers' logs."""
    for _ in range(300):
        if not await owner_rows(owner, "SELECT 1 FROM deliveries WHERE status <> 'delivered' LIMIT 1"):
            return
        await asyncio.sleep(0.2)
    rows = await owner_rows(owner, "SELECT status, attempts, count(*) FROM deliveries GROUP BY 1, 2")
    tails = [path.read_text(errors="replace")[-3000:] for path in sorted(logs.glob("*.log"))]
    raise AssertionError("\n".join([str(rows), *tails]))


async def owner_rows(owner: Database, sql: str) -> list[dict[str, object]]:
    """Look at the database as its owner."""
    async with owner.connection() as connection:
        return [dict(row) for row in await connection.fetch(sql)]
