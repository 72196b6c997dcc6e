"""Webhooks under kills: workers die, Redis is emptied, receivers fail, and every message arrives where it belongs."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import os
import signal
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import pytest
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

ROOT = Path(__file__).parents[2]
TENANT = "town"
ENDPOINTS = 8


@dataclass(slots=True)
class Receivers:
    """Eight receivers behind one port, each with a path and a secret of its own, which refuse 30 % of all calls."""

    secrets: dict[str, str] = field(default_factory=dict)
    arrived: dict[str, set[tuple[str, bytes]]] = field(default_factory=lambda: defaultdict(set))
    calls: Counter[str] = field(default_factory=Counter)
    refused: int = 0

    async def __call__(self, exchange: Exchange) -> None:
        """Take one call; its signature must fit the path's own secret."""
        path = exchange.head.split(" ", 2)[1]
        headers = dict(line.split(": ", 1) for line in exchange.head.strip().split("\r\n")[1:])
        body = Webhook(self.secrets[path]).verify(exchange.body, headers)
        message = headers["webhook-id"]
        assert (message, path) == (body["id"], body["data"]["document_id"].split("#")[0])
        self.calls[message] += 1
        lot = hashlib.sha256(f"{message} {self.calls[message]}".encode()).digest()[0]
        if lot < 0.3 * 256:
            self.refused += 1
            await exchange.reply(500)
            return
        self.arrived[message].add((path, exchange.body))
        await exchange.reply(204)


@dataclass(slots=True)
class Workers:
    """Processes that are killed, oldest first, and replaced at once."""

    environment: dict[str, str]
    folder: Path
    running: list[asyncio.subprocess.Process] = field(default_factory=list)
    started: itertools.count[int] = field(default_factory=itertools.count)

    async def start(self) -> None:
        """One more `penstock worker deliver`."""
        with (self.folder / f"worker-{next(self.started)}.log").open("ab") as out:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "cli.main", "worker", "deliver", "--concurrency", "16"),
                stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=out, env=self.environment, cwd=self.folder,
                start_new_session=True,
            )  # fmt: skip
        self.running.append(process)

    async def kill(self) -> None:
        """Kill -9 the oldest, with whatever it had started."""
        process = self.running.pop(0)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()

    def logs(self) -> str:
        """The end of what they said."""
        return "\n".join(
            path.read_text(errors="replace")[-800:] for path in sorted(self.folder.glob("*.log"))[-4:]
        )


@asynccontextmanager
async def town(
    servers: Servers,
    client: redis.asyncio.Redis,
    folder: Path,
    port: int,
    receivers: Receivers,
    messages: int,
) -> AsyncIterator[tuple[Database, Workers]]:
    """A tenant with eight endpoints, and so many results that are committed and pushed."""
    extra = {
        "PENSTOCK_SECRET_KEYS": SECRET_KEYS,
        "PENSTOCK_EGRESS_ALLOW": "127.0.0.0/8:*",
        "PENSTOCK_OPS_PORT": "0",
        "PENSTOCK_LEASE": "2",
        "PENSTOCK_WEBHOOK_DELAYS": ",".join(["0.5"] * 25),
        "PYTHONPATH": str(ROOT),
    }
    box = SecretBox.from_keys(SECRET_KEYS)
    async with AsyncExitStack() as held:
        owner = await held.enter_async_context(Database.open(servers.database_owner_url, role=None, size=2))
        says = await held.enter_async_context(
            Database.open(servers.database_url, role="penstock_worker", size=2)
        )
        bus = Bus(says, client)
        held.push_async_callback(bus.aclose)
        async with owner.connection() as connection:
            await connection.execute("INSERT INTO tenants (tenant_id, title) VALUES ($1, 'test')", TENANT)
            for number in range(ENDPOINTS):
                path, endpoint, secret = f"/{number}", uuid4(), new_secret()
                receivers.secrets[path] = secret
                sealed = seal_secret(box, secret, tenant=TENANT, endpoint=str(endpoint))
                await connection.execute(
                    "INSERT INTO webhook_endpoints (tenant_id, endpoint_id, url, filter, secrets)"
                    " VALUES ($1, $2, $3, $4, $5)",
                    *(TENANT, endpoint, f"http://127.0.0.1:{port}{path}", {"collection": path}, [sealed]),
                )
        said = [
            Said(
                TENANT,
                Publication(
                    "document.purged",
                    {
                        "collection": f"/{n % ENDPOINTS}",
                        "document_id": f"/{n % ENDPOINTS}#{n}",
                        "sequence": 1,
                    },
                ),
            )
            for n in range(messages)
        ]
        async with says.transaction(TENANT) as connection:
            pushables = await outbox.write(connection, said)
        await bus.push(pushables)
        workers = Workers(child_environment(servers, extra=extra), folder)
        try:
            yield owner, workers
        finally:
            while workers.running:
                await workers.kill()


async def left(owner: Database) -> dict[str, int]:
    """Deliveries by status."""
    async with owner.connection() as connection:
        rows = await connection.fetch("SELECT status, count(*) FROM deliveries GROUP BY 1")
    return {row["status"]: row["count"] for row in rows}


async def reasons(owner: Database) -> list[str]:
    """Why deliveries ended dead."""
    async with owner.connection() as connection:
        rows = await connection.fetch("SELECT error FROM deliveries WHERE status = 'dead'")
    return [str(row["error"]) for row in rows]


@pytest.mark.parametrize(
    ("messages", "side_by_side", "kills"),
    [
        pytest.param(240, 2, 3, id="short"),
        pytest.param(2000, 4, None, id="long", marks=[pytest.mark.chaos, pytest.mark.timeout(900)]),
    ],
)
async def test_every_message_arrives_where_it_belongs(
    fresh_database: Servers,
    redis_client: redis.asyncio.Redis,
    tmp_path: Path,
    messages: int,
    side_by_side: int,
    kills: int | None,
) -> None:
    """Workers are killed every second, Redis is emptied midway, and 30 % of calls refused: every message arrives.

    Each arrives under one id and with the same bytes at every attempt, at its own endpoint and no other, and what the
    ledger calls delivered was received. The next kill waits until something arrived, so that a slow machine gets on.
    """
    receivers = Receivers()
    killed, emptied = 0, False
    async with (
        raw_server(receivers) as server,
        town(fresh_database, redis_client, tmp_path, server.port, receivers, messages) as (owner, workers),
    ):
        for _ in range(side_by_side):
            await workers.start()
        seen = 0
        while (states := await left(owner)) != {"delivered": messages}:
            assert "dead" not in states, (states, await reasons(owner), workers.logs())
            await asyncio.sleep(1.0 if kills is None else 0.3)
            arrived = len(receivers.arrived)
            if arrived >= messages // 3 and not emptied:
                await redis_client.flushall()
                emptied = True
            if arrived > seen and (kills is None or killed < kills):
                seen = arrived
                await workers.kill()
                await workers.start()
                killed += 1
        async with owner.connection() as connection:
            rows = await connection.fetch("SELECT message_id, body, attempts FROM deliveries")
    assert messages == len(rows) == len(receivers.arrived)
    assert emptied
    assert killed >= (kills or messages // 200)
    assert receivers.refused > messages / 5
    for row in rows:
        [(path, body)] = receivers.arrived[row["message_id"]]
        assert row["body"] == body
        assert path in receivers.secrets
        assert row["attempts"] <= receivers.calls[row["message_id"]]
