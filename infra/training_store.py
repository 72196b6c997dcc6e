"""Datasets, examples and runs as people see and steer them: the CLI and the gateway ask here, workers do the work.

What steers may say events (a threshold that is reached by an approval); these come back as `Pushable`s, which the
caller hands to `Bus.push` after the call, and which the sweeper pushes if the caller dies first.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import asyncpg
from pydantic import Field, ValidationError

from infra import outbox
from infra.database import Database, queries
from infra.outbox import Said
from infra.trainer import training_line
from infra.training_trigger import fire_if_due, lock_dataset
from schemas.errors import Conflict, NotFound
from schemas.registry import first_problem
from schemas.states import ExampleState, sources
from schemas.values import Name, Shape, Text
from schemas.work import Pushable

FIRST = UUID(int=0)
MOST = 500


class DatasetSettings(Shape):
    """What can be set of a dataset; what is left out keeps its value, and null lifts an age or a number of epochs."""

    alias: Name | None = None
    base_model: Annotated[Text, Field(min_length=1, max_length=255)] | None = None
    threshold: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    minimum: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    holdout_minimum: Annotated[int, Field(ge=1, le=100_000)] | None = None
    approval: Literal["manual", "automatic"] | None = None
    max_age_hours: Annotated[float, Field(gt=0, le=100_000)] | None = None
    cooldown_seconds: Annotated[float, Field(ge=0, le=31_536_000)] | None = None
    max_failures: Annotated[int, Field(ge=1, le=1000)] | None = None
    margin: Annotated[float, Field(gt=0, lt=1)] | None = None
    epochs: Annotated[int, Field(ge=1, le=50)] | None = None


@dataclass(frozen=True, slots=True)
class DatasetView:
    """A dataset with its settings and its counts.

    Attributes:
        examples: state → split → how many.
    """

    dataset: str
    alias: str
    base_model: str
    threshold: int
    minimum: int
    holdout_minimum: int
    approval: str
    max_age_hours: float | None
    cooldown_seconds: float
    max_failures: int
    margin: float
    epochs: int | None
    failures: int
    not_before: datetime | None
    created_at: datetime
    examples: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class RunView:
    """A run as people see it; `evaluation` holds the table, whether to promote, and the reason."""

    run_id: UUID
    dataset: str
    alias: str
    base_model: str
    reason: str
    status: str
    examples: int
    train_examples: int | None
    validation_examples: int | None
    holdout_examples: int | None
    train_tokens: int | None
    trained_tokens: int | None
    job_id: str | None
    job_status: str | None
    model: str | None
    estimated_finish: datetime | None
    cancel_asked_at: datetime | None
    evaluation: Mapping[str, Any] | None
    error: Mapping[str, Any] | None
    started_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class RunStory:
    """A run with all that happened in it.

    Attributes:
        losses: (step, training loss, validation loss), in order of the steps.
        history: every line: at, what, step, train_loss, valid_loss, details.
    """

    run: RunView
    losses: Sequence[tuple[int, float | None, float | None]]
    history: Sequence[Mapping[str, Any]]


def read_settings(body: Any) -> dict[str, Any]:
    """Check the settings of a dataset as somebody sent them.

    Raises:
        BadInput: names the field.
    """
    try:
        return DatasetSettings.model_validate(body, strict=True, extra="forbid").model_dump(
            exclude_unset=True
        )
    except ValidationError as error:
        raise first_problem(error, "") from None


async def set_dataset(
    database: Database, tenant_id: str, name: str, changes: Mapping[str, Any], *, base_model: str, actor: str
) -> tuple[DatasetView, list[Pushable]]:
    """Create a dataset or change it; its failures are forgotten, and its threshold is looked at.

    Args:
        database: acts as the gateway.
        tenant_id: whose.
        name: of the dataset; `schemas.values.Name` says what is allowed.
        changes: as `read_settings` gave them.
        base_model: of a new dataset that does not say.
        actor: for the audit log.
    """
    sql = queries("training_store")
    async with database.transaction(tenant_id) as connection:
        await connection.execute(sql.add_dataset, tenant_id, name, base_model)
        await lock_dataset(connection, tenant_id, name)
        await connection.execute(sql.set_dataset, tenant_id, name, dict(changes))
        locked = await lock_dataset(connection, tenant_id, name)
        said = [Said(tenant_id, one) for one in await fire_if_due(connection, locked)]
        await connection.execute(sql.audit, tenant_id, actor, "dataset.set", name, dict(changes))
        pushables = await outbox.write(connection, said)
    return await get_dataset(database, tenant_id, name), pushables


async def list_datasets(database: Database, tenant_id: str, name: str | None = None) -> list[DatasetView]:
    """The tenant's datasets with their counts."""
    sql = queries("training_store")
    async with database.transaction(tenant_id, readonly=True) as connection:
        rows = await connection.fetch(sql.datasets, tenant_id, name)
        counts = await connection.fetch(sql.example_counts, tenant_id, name)
    by_dataset: dict[str, dict[str, dict[str, int]]] = {}
    for row in counts:
        by_dataset.setdefault(row["dataset"], {}).setdefault(row["status"], {})[row["split"]] = row[
            "examples"
        ]
    plain = [field.name for field in fields(DatasetView) if field.name != "examples"]
    return [
        DatasetView(**{key: row[key] for key in plain}, examples=by_dataset.get(row["dataset"], {}))
        for row in rows
    ]


async def get_dataset(database: Database, tenant_id: str, name: str) -> DatasetView:
    """One dataset.

    Raises:
        NotFound: there is none of this name.
    """
    found = await list_datasets(database, tenant_id, name)
    if not found:
        raise NotFound(f"there is no dataset {name}", field="dataset")
    return found[0]


async def list_examples(
    database: Database,
    tenant_id: str,
    dataset: str,
    *,
    status: str | None = None,
    after: UUID = FIRST,
    limit: int = 100,
) -> list[dict[str, Any]]:
    """Examples of a dataset, oldest first; go on with the last one's id."""
    async with database.transaction(tenant_id, readonly=True) as connection:
        rows = await connection.fetch(
            queries("training_store").examples, tenant_id, dataset, status, after, min(limit, MOST)
        )
    return [dict(row) for row in rows]


async def review(
    database: Database,
    tenant_id: str,
    dataset: str,
    example_ids: Sequence[UUID],
    verdict: Literal["approve", "quarantine", "withdraw"],
    *,
    actor: str,
) -> tuple[list[UUID], list[Pushable]]:
    """Decide about examples: approved ones count towards the threshold from now on.

    Returns:
        Which examples changed their state, and what to push.
    """
    sql = queries("training_store")
    after = {
        "approve": ExampleState.FREE,
        "quarantine": ExampleState.QUARANTINED,
        "withdraw": ExampleState.WITHDRAWN,
    }[verdict]
    # Approving is for what waits; a reserved example is freed by its run only.
    before = [state for state in sources(after) if state != "reserved" or verdict != "approve"]
    async with database.transaction(tenant_id) as connection:
        locked = await lock_dataset(connection, tenant_id, dataset)
        rows = await connection.fetch(sql.review, tenant_id, dataset, list(example_ids), str(after), before)
        changed = [row["example_id"] for row in rows]
        details = {"verdict": verdict, "examples": [str(one) for one in changed]}
        await connection.execute(sql.audit, tenant_id, actor, "examples.review", dataset, details)
        said = [Said(tenant_id, one) for one in await fire_if_due(connection, locked)]
        return changed, await outbox.write(connection, said)


async def list_runs(
    database: Database,
    tenant_id: str,
    *,
    dataset: str | None = None,
    before: UUID | None = None,
    limit: int = 50,
) -> list[RunView]:
    """Runs, newest first; go on with the last one's id."""
    async with database.transaction(tenant_id, readonly=True) as connection:
        rows = await connection.fetch(
            queries("training_store").runs, tenant_id, dataset, before, min(limit, MOST)
        )
    return [_run_view(row) for row in rows]


async def show_run(database: Database, tenant_id: str, run_id: UUID) -> RunStory:
    """A run with its losses and its history.

    Raises:
        NotFound: the tenant has no such run.
    """
    sql = queries("training_store")
    async with database.transaction(tenant_id, readonly=True) as connection:
        row = await connection.fetchrow(sql.run, tenant_id, run_id)
        if row is None:
            raise NotFound("there is no such training run", field="run_id")
        history = [dict(line) for line in await connection.fetch(sql.history, tenant_id, run_id)]
    measured = [line for line in history if line["step"] is not None and line["train_loss"] is not None]
    losses = sorted({line["step"]: (line["train_loss"], line["valid_loss"]) for line in measured}.items())
    return RunStory(_run_view(row), [(step, *pair) for step, pair in losses], history)


async def cancel_run(database: Database, tenant_id: str, run_id: UUID, *, actor: str) -> None:
    """Ask a run to stop; its next step stops the job, and its examples are free again.

    Raises:
        NotFound: the tenant has no such run.
        Conflict: it has ended.
    """
    sql = queries("training_store")
    async with database.transaction(tenant_id) as connection:
        if await connection.fetchrow(sql.run, tenant_id, run_id) is None:
            raise NotFound("there is no such training run", field="run_id")
        if await connection.fetchval(sql.ask_cancel, tenant_id, run_id) is None:
            raise Conflict("the training run has ended", field="run_id")
        await connection.execute(sql.audit, tenant_id, actor, "training.cancel", str(run_id), {})


async def export_run(
    database: Database, tenant_id: str, run_id: UUID, split: Literal["train", "validation", "holdout"]
) -> AsyncIterator[bytes]:
    """The lines of one split of a run, byte for byte as the trainer got them."""
    async with database.transaction(tenant_id, readonly=True) as connection:
        rows = await connection.fetch(queries("training_store").run_messages, tenant_id, run_id, split)
    for row in rows:
        yield training_line(row["messages"])


def _run_view(row: asyncpg.Record) -> RunView:
    return RunView(**{field.name: row[field.name] for field in fields(RunView)})
