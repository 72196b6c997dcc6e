"""A dataset's examples are counted here, and what leaves is the one `training.batch_ready` that they are worth.

Counting, firing and the begin and end of runs happen under the lock of the dataset's row, so that a threshold fires
exactly once however many workers record and count at the same time. Used by the train wing and by whoever reviews.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeAlias

import asyncpg

from infra.database import Connection, queries
from schemas.errors import NotFound
from schemas.work import Publication

Reason: TypeAlias = Literal["threshold", "age"]


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset as it was when its row was locked.

    Attributes:
        threshold: free examples that make a run.
        minimum: valid examples of the train split without which nothing is trained.
        holdout_minimum: valid examples of the holdout without which no model could be judged.
        failures: runs in a row that ended without a model; at `max_failures` nothing fires by itself.
        not_before: cool-down, or the pause after a failure.
        trigger_at: a threshold's event is under way and acts from then on.
        age_check_at: the same for the oldest example's age.
        countdown: examples that have to come at least before counting again could matter.
        screening: what becomes of an example with secrets or personal data: ``quarantine`` or ``redact``.
        near_duplicate: cosine from which two prompts are the same; None looks for none.
        key_share: of a batch's examples, what one supplier may give at most.
        budget_month: US dollars for runs per UTC month; None is unlimited.
        collections: where evaluations retrieve context.
    """

    tenant_id: str
    name: str
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
    trigger_at: datetime | None
    age_check_at: datetime | None
    countdown: int
    screening: str
    near_duplicate: float | None
    key_share: float
    budget_month: float | None
    collections: Sequence[str]


@dataclass(frozen=True, slots=True)
class Counts:
    """Valid examples of a dataset; each count stops where it is enough.

    Attributes:
        free: not yet part of a run, without what is beyond their suppliers' share.
        train: of the train split, earlier used ones included.
        holdout: held out.
        running: whether a run is under way.
    """

    free: int
    train: int
    holdout: int
    running: bool


@dataclass(frozen=True, slots=True)
class Shortage:
    """What is missing for a run."""

    what: str
    have: int
    need: int


async def lock_dataset(connection: Connection, tenant_id: str, name: str) -> Dataset:
    """Lock a dataset's row until the transaction ends.

    Raises:
        NotFound: there is none of this name.
    """
    row = await connection.fetchrow(queries("train").lock_dataset, tenant_id, name)
    if row is None:
        raise NotFound(f"there is no dataset {name}", field="dataset", fix="create it, or record an example")
    return _dataset(row)


async def lock_for_examples(
    connection: Connection, tenant_id: str, name: str, examples: int, base_model: str
) -> Dataset:
    """Lock a dataset to which examples are about to be added, and make it where it is new.

    Args:
        connection: acts for the tenant.
        tenant_id: whose.
        name: of the dataset.
        examples: how many will be added at most; `Dataset.countdown` has them taken off.
        base_model: of a new dataset.
    """
    sql = queries("train")
    row = await connection.fetchrow(sql.count_down, tenant_id, name, examples)
    if row is None:
        await connection.execute(sql.ensure_dataset, tenant_id, name, base_model)
        row = await connection.fetchrow(sql.count_down, tenant_id, name, examples)
    assert row is not None
    return _dataset(row)


def _dataset(row: asyncpg.Record) -> Dataset:
    fields = {key: row[key] for key in Dataset.__dataclass_fields__ if key != "name"}
    return Dataset(name=row["dataset"], **fields)


async def count(connection: Connection, dataset: Dataset) -> Counts:
    """Count under the lock."""
    row = await connection.fetchrow(
        queries("train").counts,
        dataset.tenant_id,
        dataset.name,
        dataset.threshold,
        dataset.minimum,
        dataset.holdout_minimum,
    )
    assert row is not None
    free = row["free"]
    if dataset.key_share < 1:
        given = await count_suppliers(connection, dataset)
        cap = fair_cap(given, dataset.key_share)
        free = sum(min(one, cap) for one in given)
    return Counts(free, row["train"], row["holdout"], row["running"])


async def count_suppliers(connection: Connection, dataset: Dataset) -> list[int]:
    """How many free examples each supplier gave."""
    rows = await connection.fetch(queries("train").suppliers, dataset.tenant_id, dataset.name)
    return [row["examples"] for row in rows]


def fair_cap(given: Sequence[int], share: float) -> int:
    """How many examples each supplier may give so that none gives more than its share of what all give.

    The allowed caps are all those up to the largest: what all give grows ever more slowly with the cap.
    """
    low, high = 0, max(given, default=0)
    while low < high:
        middle = (low + high + 1) // 2
        if middle <= share * sum(min(one, middle) for one in given):
            low = middle
        else:
            high = middle - 1
    return low


def find_shortage(dataset: Dataset, counts: Counts) -> Shortage | None:
    """What a dataset lacks for a run that could be trained and judged, or None."""
    if counts.train < dataset.minimum:
        return Shortage("train examples", counts.train, dataset.minimum)
    if counts.holdout < dataset.holdout_minimum:
        return Shortage("holdout examples", counts.holdout, dataset.holdout_minimum)
    return None


def may_fire(dataset: Dataset, counts: Counts) -> bool:
    """Whether anything may start by itself now: a run could be judged, none is under way, not too many failed."""
    return (
        counts.free > 0
        and not counts.running
        and dataset.failures < dataset.max_failures
        and find_shortage(dataset, counts) is None
    )


def reached_threshold(dataset: Dataset, counts: Counts) -> bool:
    """Whether enough new examples wait. The whole dataset decides whether the holdout is large enough to judge by."""
    return may_fire(dataset, counts) and counts.free >= dataset.threshold


def distance(dataset: Dataset, counts: Counts) -> int:
    """How many examples have to be added at least before something could fire; the end of a run counts anew anyway."""
    if counts.running:
        return dataset.threshold
    needed = [1, dataset.minimum - counts.train, dataset.holdout_minimum - counts.holdout]
    if dataset.max_age_hours is None or dataset.age_check_at is not None:
        # One more example lets other suppliers give more, where a share bounds them.
        needed.append(math.ceil((dataset.threshold - counts.free) * dataset.key_share))
    return max(needed)


async def reached_age(connection: Connection, dataset: Dataset) -> datetime | None:
    """When the oldest free example is as old as the dataset allows, or None."""
    if dataset.max_age_hours is None:
        return None
    oldest = await connection.fetchval(queries("train").oldest_free, dataset.tenant_id, dataset.name)
    return None if oldest is None else oldest + timedelta(hours=dataset.max_age_hours)


async def fire_if_due(
    connection: Connection, dataset: Dataset, counts: Counts | None = None
) -> Sequence[Publication]:
    """Say `training.batch_ready` once, where the threshold is reached or an age has to be looked at later.

    Args:
        connection: the transaction that locked the dataset.
        dataset: as `lock_dataset` gave it.
        counts: counted after the last change; counted here unless given.
    """
    if dataset.trigger_at is not None or dataset.failures >= dataset.max_failures:
        return []
    counts = counts or await count(connection, dataset)
    now = datetime.now(UTC)
    begin = max(now, dataset.not_before or now)
    if reached_threshold(dataset, counts):
        await set_marks(connection, dataset, trigger_at=begin)
        return [_batch_ready(dataset, "threshold", begin - now)]
    await connection.execute(
        queries("train").set_countdown, dataset.tenant_id, dataset.name, distance(dataset, counts)
    )
    if dataset.age_check_at is None and may_fire(dataset, counts):
        at = await reached_age(connection, dataset)
        if at is not None:
            begin = max(begin, at)
            await set_marks(connection, dataset, age_check_at=begin)
            return [_batch_ready(dataset, "age", begin - now)]
    return []


async def set_marks(connection: Connection, dataset: Dataset, **marks: Any) -> None:
    """Remember which triggers of our own are under way; what is not named stays."""
    trigger_at = marks.get("trigger_at", dataset.trigger_at)
    age_check_at = marks.get("age_check_at", dataset.age_check_at)
    await connection.execute(
        queries("train").set_marks, dataset.tenant_id, dataset.name, trigger_at, age_check_at
    )


def _batch_ready(dataset: Dataset, reason: Reason, delay: timedelta) -> Publication:
    return Publication(
        "training.batch_ready",
        {"dataset": dataset.name, "reason": reason},
        subject=dataset.name,
        delay=max(0.0, delay.total_seconds()),
    )
