"""The servers that `benchmarks/train.py` measures on, and what a tenant does there."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from uuid import UUID, uuid4

from benchmarks.servers import empty_servers
from benchmarks.train_child import drive_of, read
from infra.database import Database
from infra.local.model.faults_client import Faults
from infra.local.model.server import ModelServer
from infra.secretbox import SecretBox
from infra.trainer import Trainer
from infra.training_store import set_dataset
from schemas.envelope import parse_event
from tests.drive import Drive


@dataclass(slots=True)
class Town:
    """What is running; `settings` is what a child process gets."""

    drive: Drive
    gateway: Database
    faults: Faults
    settings: str
    folder: Path

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator[Self]:
        """Start the servers; all are gone at the end."""
        async with AsyncExitStack() as held:
            servers, folder = await held.enter_async_context(empty_servers())
            model = await held.enter_async_context(ModelServer.start(folder / "model"))
            faults = await held.enter_async_context(Faults(model.base_url))
            await faults.train_seconds(0)
            settings = json.dumps(
                {
                    "database_url": servers.database_url,
                    "database_owner_url": servers.database_owner_url,
                    "redis_url": servers.redis_url,
                    "openai_base_url": model.base_url,
                    "openai_api_key": model.api_key,
                    "embed_model": "local-embed-256",
                    "embed_dimensions": 256,
                    "chat_model": "local-chat",
                    "train_base_model": "local-chat",
                    "secret_keys": SecretBox.new_key(),
                    "egress_allow": "127.0.0.0/8:*",
                    "train_poll": 0.2,
                    "model_timeout": 5.0,
                }
            )
            drive = await held.enter_async_context(drive_of(read(settings)))
            gateway = await held.enter_async_context(
                Database.open(servers.database_url, role="penstock_gateway", size=2)
            )
            yield cls(drive, gateway, faults, settings, folder)

    async def tenant(self, *names: str, **dataset: Any) -> str:
        """A tenant of its own with these datasets; with `faq` unless any is named."""
        name = f"t-{uuid4().hex[:10]}"
        async with self.drive.owner.connection() as connection:
            await connection.execute("INSERT INTO tenants (tenant_id, title) VALUES ($1, 'bench')", name)
        for one in names or ("faq",):
            settings = {**dataset, "alias": one}
            await set_dataset(self.gateway, name, one, settings, base_model="local-chat", actor="bench")
        return name

    async def publish(self, tenant: str, examples: Sequence[dict[str, Any]]) -> list[UUID]:
        """Publish examples; the ids of their events."""
        envelope = {"specversion": "1.0", "source": "bench", "type": "example.recorded"}
        accepted = await self.drive.publish_events(
            tenant,
            [
                parse_event({**envelope, "id": str(uuid4()), "data": {"dataset": "faq", **one}})
                for one in examples
            ],
        )
        return [one.event_id for one in accepted if one.event_id is not None]

    async def runs(self, tenant: str) -> list[dict[str, Any]]:
        """A tenant's runs, oldest first, each with the number of its jobs at the trainer."""
        rows = await self.drive.rows(
            "SELECT run_id, status, examples, model, cost_micros FROM training_runs WHERE tenant_id = $1 ORDER BY run_id",
            tenant,
        )
        async with Trainer.open(self.drive.resources.settings) as trainer:
            return [
                {**row, "jobs": len(await trainer.find_jobs({"penstock_run": str(row["run_id"])}))}
                for row in rows
            ]
