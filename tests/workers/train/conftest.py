"""A train wing on the real stack: datasets of a test's own, the trainer's faults, and what a run left behind."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest

from infra.database import Database
from infra.local.model.faults_client import Faults
from infra.settings import Settings
from infra.trainer import Trainer
from infra.trainer_replies import Job
from infra.training_runs import RunStory, list_runs, show_run
from infra.training_store import set_dataset
from schemas.envelope import parse_event
from tests.drive import Drive
from tests.workers.train.lessons import lessons


class Wheel:
    """One tenant's training, driven step by step."""

    def __init__(self, drive: Drive, gateway: Database, tenant: str, faults: Faults) -> None:
        self.drive = drive
        self.gateway = gateway
        self.tenant = tenant
        self.faults = faults

    async def dataset(self, name: str = "faq", **settings: Any) -> None:
        """Create or change a dataset."""
        await set_dataset(self.gateway, self.tenant, name, settings, base_model="local-chat", actor="test")

    async def record(self, examples: list[dict[str, Any]] | None = None, dataset: str = "faq") -> None:
        """Publish examples, all of them at once, and take them in."""
        envelope = {"specversion": "1.0", "source": "test", "type": "example.recorded"}
        given = lessons() if examples is None else examples
        results = await self.drive.publish_events(
            self.tenant,
            [
                parse_event({**envelope, "id": str(uuid4()), "data": {"dataset": dataset, **one}})
                for one in given
            ],
        )
        assert {"accepted"} == {result.status for result in results}
        await self.drive.step(self.tenant)

    async def start(self, dataset: str = "faq", **data: Any) -> UUID:
        """Ask for a run as a person does."""
        return await self.drive.publish(self.tenant, "training.batch_ready", {"dataset": dataset, **data})

    async def finish(self) -> RunStory:
        """Work until every run is over and cleaned up; the newest run. A trigger that waits for its day stays."""
        for _ in range(500):
            await self.drive.step(self.tenant)
            left = await self.drive.rows(
                "SELECT type FROM events e WHERE tenant_id = $1 AND finished_at IS NULL AND NOT EXISTS ("
                " SELECT FROM datasets d WHERE d.tenant_id = $1 AND e.type = 'training.batch_ready'"
                " AND e.source = 'penstock' AND d.dataset = e.subject AND d.not_before > now())",
                self.tenant,
            )
            if not left:
                return await self.newest()
        raise AssertionError("still working")

    async def newest(self) -> RunStory:
        """The newest run."""
        runs = await list_runs(self.gateway, self.tenant)
        return await show_run(self.gateway, self.tenant, runs[0].run_id)

    async def until(self, *statuses: str) -> RunStory:
        """Work step by step until the newest run is in one of these states."""
        for _ in range(500):
            runs = await list_runs(self.gateway, self.tenant)
            if runs and runs[0].status in statuses:
                return await show_run(self.gateway, self.tenant, runs[0].run_id)
            assert await self.drive.step(self.tenant), f"nothing left to do at {runs and runs[0].status}"
        raise AssertionError(f"never {statuses}")

    async def jobs(self, run_id: UUID) -> list[Job]:
        """The jobs of a run, as the trainer has them."""
        async with Trainer.open(self.drive.resources.settings) as trainer:
            return await trainer.find_jobs({"penstock_run": str(run_id)})

    async def statuses(self) -> dict[str, int]:
        """How many examples are in which state."""
        rows = await self.drive.rows(
            "SELECT status, count(*) AS n FROM examples WHERE tenant_id = $1 GROUP BY status", self.tenant
        )
        return {row["status"]: row["n"] for row in rows}

    async def said(self, kind: str) -> list[dict[str, Any]]:
        """The data of the out events of one type."""
        return await self.drive.said(self.tenant, kind)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Every job gets the same seed: the same examples give the same model."""
    return settings.model_copy(update={"train_seed": 6})


@pytest.fixture
async def wheel(drive: Drive, gateway_database: Database, tenant: str, faults: Faults) -> Wheel:
    """The train wing of a tenant of the test's own."""
    await faults.train_seconds(0)
    # A trainer without checkpoints, so that every run compares the same models; see `test_a_checkpoint_may_win`.
    await faults.add("jobs.checkpoints", "404")
    await drive.use("train")
    return Wheel(drive, gateway_database, tenant, faults)
