"""Examples are recorded here, and runs and models looked at and steered."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from penstock_client import wire
from penstock_client.models import Alias, Dataset, PublishResult, Run
from penstock_client.sync.transport import Transport


class Learning(Transport):
    """Datasets, training runs and models."""

    def record_examples(self, dataset: str, examples: Iterable[Mapping[str, Any]]) -> list[PublishResult]:
        """Record training examples: ``{"messages": [{"role", "content"} …], "weight", "source"}``; at most 1,000 at once.

        Returns:
            One result per example, in order.
        """
        body = {"examples": [dict(one) for one in examples]}
        found = self.request("POST", wire.path("datasets", dataset, "examples"), body)
        return [PublishResult.model_validate(one) for one in found["results"]]

    def dataset(self, name: str) -> Dataset:
        """A dataset with its settings and counts."""
        return Dataset.model_validate(self.request("GET", wire.path("datasets", name)))

    def set_dataset(self, name: str, **settings: Any) -> Dataset:
        """Make a dataset, or change settings of it: such as threshold, approval and base_model."""
        return Dataset.model_validate(self.request("PUT", wire.path("datasets", name), settings))

    def runs(self, *, dataset: str | None = None) -> Iterator[Run]:
        """Training runs, newest first."""
        for item in self.pages(wire.path("training", "runs"), dataset=dataset):
            yield Run.model_validate(item)

    def run(self, run_id: str) -> Run:
        """A training run with its losses and its history."""
        return Run.model_validate(self.request("GET", wire.path("training", "runs", run_id)))

    def cancel_run(self, run_id: str) -> Run:
        """Ask a run to stop; its examples are free again."""
        return Run.model_validate(self.request("POST", wire.path("training", "runs", run_id, "cancel")))

    def promote_run(self, run_id: str) -> Alias:
        """Let a run's model serve its alias, whatever the evaluation said."""
        found = self.request("POST", wire.path("training", "runs", run_id, "promote"))
        return Alias.model_validate(found)

    def roll_back(self, alias: str, *, reason: str | None = None) -> Alias:
        """Point an alias at its previous model again."""
        found = self.request("POST", wire.path("models", alias, "rollback"), wire.present(reason=reason))
        return Alias.model_validate(found)

    def models(self) -> list[dict[str, Any]]:
        """Tuned models."""
        found: list[dict[str, Any]] = (self.request("GET", wire.path("models")))["items"]
        return found
