"""Datasets and examples as people see and steer them: the CLI and the gateway ask here, workers do the work.

What steers may say events (a threshold that is reached by an approval); these come back as `Pushable`s, which the
caller hands to `Bus.push` after the call, and which the sweeper pushes if the caller dies first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field, ValidationError

from infra import outbox
from infra.database import Database, queries
from infra.outbox import Said
from infra.training_trigger import fire_if_due, lock_dataset
from schemas.errors import NotFound
from schemas.registry import first_problem
from schemas.states import ExampleState, sources
from schemas.values import Name, Shape, Text
from schemas.work import Pushable

FIRST = UUID(int=0)
MOST = 500


class DatasetSettings(Shape):
    """What can be set of a dataset; what is left out keeps its value.

    Null lifts an age, a number of epochs, a budget, or the search for near duplicates.
    """

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
    screening: Literal["quarantine", "redact"] | None = None
    near_duplicate: Annotated[float, Field(gt=0, le=1)] | None = None
    key_share: Annotated[float, Field(gt=0, le=1)] | None = None
    budget_month: Annotated[float, Field(ge=0, le=1e9)] | None = None
    collections: Annotated[list[Name], Field(max_length=16)] | None = None


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
    screening: str
    near_duplicate: float | None
    key_share: float
    budget_month: float | None
    collections: Sequence[str]
    failures: int
    not_before: datetime | None
    created_at: datetime
    examples: Mapping[str, Mapping[str, int]]


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
