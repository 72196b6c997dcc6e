"""A run's row becomes a `Run` here, which the steps read, and `Wing` holds what every step works with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from infra.budget import Reservation
from infra.database import Connection, queries
from infra.llm import ModelApi
from infra.trainer import Trainer
from schemas.states import RunState
from schemas.work import Work
from workers.handling import Resources

USUAL_EPOCHS = 3
"""What a run is budgeted for where the dataset leaves the number of epochs to the trainer."""


@dataclass(frozen=True, slots=True)
class Wing:
    """What every step works with."""

    resources: Resources
    trainer: Trainer
    models: ModelApi


@dataclass(frozen=True, slots=True)
class Run:
    """A training run, as it was when the step began.

    Attributes:
        called_at: when somebody last took the right to create the job; from then on the job may exist.
        empty_lists: how often the job was looked for since then, in vain.
        heard_at: when the trainer last said something new.
        collections: where its evaluation retrieves context.
        contenders: checkpoints that are compared beside the tuned model.
    """

    tenant_id: str
    run_id: UUID
    dataset: str
    alias: str
    base_model: str
    reason: str
    margin: float
    epochs: int | None
    status: str
    train_examples: int | None
    holdout_examples: int | None
    train_tokens: int | None
    train_file: str | None
    validation_file: str | None
    called_at: datetime | None
    empty_lists: int
    job_id: str | None
    job_status: str | None
    model: str | None
    heard_at: datetime | None
    cancel_asked_at: datetime | None
    pause_asked_at: datetime | None
    resume_asked_at: datetime | None
    collections: Sequence[str]
    contenders: Sequence[str]
    started_at: datetime
    ended_at: datetime | None
    cleaned_at: datetime | None

    @property
    def state(self) -> RunState:
        """The status as a state of the machine."""
        return RunState(self.status)

    def paid_tokens(self, file_tokens: int) -> int:
        """Tokens of the training file times epochs: what the run is budgeted for."""
        return file_tokens * (self.epochs or USUAL_EPOCHS)

    @property
    def file_prefix(self) -> str:
        """How the names of the run's files begin."""
        return f"penstock-{self.run_id}-"

    def reservation(self) -> Reservation:
        """The promise made for this run; its key is the run's id, so that nothing has to be remembered."""
        tokens = self.paid_tokens(self.train_tokens or 0)
        return Reservation(self.tenant_id, "train", self.base_model, tokens, 0, 0.0, self.run_id)


def read_run(row: asyncpg.Record) -> Run:
    """A row of `training_runs`."""
    return Run(**{field.name: row[field.name] for field in fields(Run)})


async def load_run(wing: Wing, work: Work, run_id: UUID) -> Run | None:
    """A run of the event's tenant."""
    async with wing.resources.database.transaction(work.tenant_id, readonly=True) as connection:
        row = await connection.fetchrow(queries("train").run, work.tenant_id, run_id)
    return None if row is None else read_run(row)


async def note(connection: Connection, run: Run, what: str, **details: Any) -> None:
    """Add a line to a run's history."""
    await connection.execute(queries("train").note, run.tenant_id, run.run_id, what, details)
