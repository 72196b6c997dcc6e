"""Examples are recorded here, and runs and models looked at and steered."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

from penstock_client import wire
from penstock_client.aio.transport import AsyncTransport
from penstock_client.models import Alias, Dataset, PublishResult, Run


class AsyncLearning(AsyncTransport):
    """Datasets, training runs and models."""

    async def record_examples(
        self, dataset: str, examples: Iterable[Mapping[str, Any]]
    ) -> list[PublishResult]:
        """Record training examples: ``{"messages": [{"role", "content"} …], "weight", "source"}``; at most 1,000 at once.

        Returns:
            One result per example, in order.
        """
        body = {"examples": [dict(one) for one in examples]}
        found = await self.request("POST", wire.path("datasets", dataset, "examples"), body)
        return [PublishResult.model_validate(one) for one in found["results"]]

    async def dataset(self, name: str) -> Dataset:
        """A dataset with its settings and counts."""
        return Dataset.model_validate(await self.request("GET", wire.path("datasets", name)))

    async def set_dataset(self, name: str, **settings: Any) -> Dataset:
        """Make a dataset, or change settings of it: such as threshold, approval and base_model."""
        return Dataset.model_validate(await self.request("PUT", wire.path("datasets", name), settings))

    async def runs(self, *, dataset: str | None = None) -> AsyncIterator[Run]:
        """Training runs, newest first."""
        async for item in self.pages(wire.path("training", "runs"), dataset=dataset):
            yield Run.model_validate(item)

    async def run(self, run_id: str) -> Run:
        """A training run with its losses and its history."""
        return Run.model_validate(await self.request("GET", wire.path("training", "runs", run_id)))

    async def cancel_run(self, run_id: str) -> Run:
        """Ask a run to stop; its examples are free again."""
        return Run.model_validate(await self.request("POST", wire.path("training", "runs", run_id, "cancel")))

    async def promote_run(self, run_id: str) -> Alias:
        """Let a run's model serve its alias, whatever the evaluation said."""
        found = await self.request("POST", wire.path("training", "runs", run_id, "promote"))
        return Alias.model_validate(found)

    async def roll_back(self, alias: str, *, reason: str | None = None) -> Alias:
        """Point an alias at its previous model again."""
        found = await self.request(
            "POST", wire.path("models", alias, "rollback"), wire.present(reason=reason)
        )
        return Alias.model_validate(found)

    async def models(self) -> list[dict[str, Any]]:
        """Tuned models."""
        found: list[dict[str, Any]] = (await self.request("GET", wire.path("models")))["items"]
        return found
