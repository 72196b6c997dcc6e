"""A `training.batch_ready` becomes a training run here: whoever asks, threshold, upstream or person, one door.

Everything is decided in the effect, under the dataset's lock: examples that came along are entered, what is lacking is
counted, and either a run is made with its examples reserved, or `training.failed` says what it has and what it needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import structlog

from infra.budget import Budget
from infra.database import Connection, queries
from infra.egress import Egress
from infra.training_trigger import (
    Counts,
    Dataset,
    Shortage,
    count,
    count_suppliers,
    fair_cap,
    find_shortage,
    fire_if_due,
    lock_dataset,
    lock_for_examples,
    may_fire,
    reached_age,
    reached_threshold,
    set_marks,
)
from schemas.errors import BudgetExceeded, PenstockError, Uncharged
from schemas.ids import uuid7
from schemas.inbound import TrainingBatchReady
from schemas.registry import read_data
from schemas.work import Publication, Work
from workers.handling import Done, Handle, Resources
from workers.train.admission import Admission
from workers.train.batch_file import fetch_examples
from workers.train.examples import check_example
from workers.train.intake import Entry, add_entries, supplier_of
from workers.train.money import promise
from workers.train.runs import Run, note, read_run

OURS = "penstock"
"""The source of events that our own effects say."""
BUSY_WAIT = 30.0
EARLY = timedelta(seconds=2)
_log = structlog.get_logger("penstock.train")


@dataclass(frozen=True, slots=True)
class Batch:
    """What a `training.batch_ready` asks for."""

    work: Work
    data: TrainingBatchReady
    entries: Sequence[Entry]
    resources: Resources

    @property
    def trigger(self) -> str | None:
        """``threshold`` or ``age`` where we asked ourselves."""
        return self.data.reason if self.work.source == OURS else None


def open_batch(resources: Resources, egress: Egress, admission: Admission) -> Handle:
    """The handler of `training.batch_ready`."""

    async def handle(work: Work) -> Done:
        data = read_data(work.type, work.major, work.data)
        assert isinstance(data, TrainingBatchReady)
        given = data.examples or []
        if data.uri is not None and data.sha256 is not None:
            given = await fetch_examples(egress, data.uri, data.sha256)
        entries = [
            Entry(
                uuid7(),
                check_example(example.messages, f"data.examples.{index}.messages"),
                weight=example.weight,
                source=work.source,
                event_id=work.event_id,
                supplier=supplier_of(work),
            )
            for index, example in enumerate(given)
        ]
        entries = await admission.prepare(work.tenant_id, data.dataset, entries)
        batch = Batch(work, data, entries, resources)

        async def effect(connection: Connection) -> Sequence[Publication]:
            return await begin(connection, batch)

        return Done(effect)

    return handle


async def begin(connection: Connection, batch: Batch) -> Sequence[Publication]:
    """Make a run, or say why there is none.

    Raises:
        NotFound: the dataset does not exist and no examples came along.
        Uncharged: another run is under way, and somebody asked for this one: it waits.
    """
    work, name = batch.work, batch.data.dataset
    new = len(batch.entries)
    dataset = (
        await lock_for_examples(
            connection, work.tenant_id, name, new, batch.resources.settings.train_base_model
        )
        if new
        else await lock_dataset(connection, work.tenant_id, name)
    )
    await add_entries(connection, dataset, batch.entries)
    if batch.trigger is not None:
        return await _begin_by_itself(connection, batch, dataset)
    counts = await count(connection, dataset)
    if counts.running:
        raise Uncharged("another run of this dataset is under way", retry_after=BUSY_WAIT)
    shortage = find_shortage(dataset, counts)
    if shortage is not None:
        return [_refusal(dataset, shortage)]
    return await _start(connection, batch, dataset)


async def _begin_by_itself(connection: Connection, batch: Batch, dataset: Dataset) -> Sequence[Publication]:
    """A trigger of our own: what was true when it was said must still be true."""
    mark = "age_check_at" if batch.trigger == "age" else "trigger_at"
    await set_marks(connection, dataset, **{mark: None})
    dataset = await lock_dataset(connection, dataset.tenant_id, dataset.name)
    counts = await count(connection, dataset)
    now = datetime.now(UTC)
    waits = dataset.not_before is not None and dataset.not_before > now + EARLY
    if not waits and await _is_due(connection, batch, dataset, counts, now):
        return await _start(connection, batch, dataset)
    return await fire_if_due(connection, dataset, counts)


async def _is_due(
    connection: Connection, batch: Batch, dataset: Dataset, counts: Counts, now: datetime
) -> bool:
    if reached_threshold(dataset, counts):
        return True
    if batch.trigger != "age" or not may_fire(dataset, counts):
        return False
    at = await reached_age(connection, dataset)
    return at is not None and at <= now + EARLY


async def _start(connection: Connection, batch: Batch, dataset: Dataset) -> Sequence[Publication]:
    work, data = batch.work, batch.data
    run_id: UUID = work.event_id
    base_model = data.base_model or dataset.base_model
    reason = data.reason or "asked for"
    row = await connection.fetchrow(
        queries("train").add_run,
        work.tenant_id,
        run_id,
        dataset.name,
        dataset.alias,
        base_model,
        reason,
        dataset.margin,
        dataset.epochs,
        list(dataset.collections),
    )
    assert row is not None
    reserved = await _reserve(
        connection, dataset, run_id, None if data.example_ids is None else _uuids(data.example_ids)
    )
    await _promise(connection, batch.resources.budget, dataset, read_run(row))
    await connection.execute(
        queries("train").note, work.tenant_id, run_id, "started", {"reason": reason, "examples": reserved}
    )
    _log.info("train.run_started", run_id=str(run_id), dataset=dataset.name, examples=reserved)
    started = {
        "run_id": str(run_id),
        "dataset": dataset.name,
        "base_model": base_model,
        "examples": reserved,
        "reason": reason,
    }
    return [
        Publication("training.started", started, subject=dataset.name),
        Publication("training.advance", {"run_id": str(run_id)}, subject=str(run_id)),
    ]


async def _reserve(
    connection: Connection, dataset: Dataset, run_id: UUID, chosen: Sequence[UUID] | None
) -> int:
    """Reserve free examples, no supplier's beyond its share, and fix what the run is made of."""
    sql, tenant = queries("train"), dataset.tenant_id
    shared = dataset.key_share < 1
    cap = fair_cap(await count_suppliers(connection, dataset), dataset.key_share) if shared else None
    tag = await connection.execute(sql.reserve, tenant, dataset.name, run_id, chosen, cap)
    reserved = int(tag.rsplit(" ", 1)[-1])
    await connection.execute(sql.set_reserved, tenant, run_id, reserved)
    await connection.execute(sql.fix_examples, tenant, dataset.name, run_id, not shared)
    return reserved


async def _promise(connection: Connection, budget: Budget, dataset: Dataset, run: Run) -> None:
    """Promise the run's money in the trigger's transaction; where it is too much, the run waits and says for what."""
    tokens = await connection.fetchval(queries("train").train_tokens, run.tenant_id, run.run_id)
    try:
        await promise(connection, budget, dataset, run, tokens)
    except BudgetExceeded as excess:
        await note(connection, run, "waits_for_budget", reason=excess.message)


def _uuids(texts: Sequence[str]) -> list[UUID]:
    """Ids of examples; what is none names no example."""
    found: list[UUID] = []
    for text in texts:
        try:
            found.append(UUID(text))
        except ValueError:
            continue
    return found


def _refusal(dataset: Dataset, shortage: Shortage) -> Publication:
    error = {
        "code": "too_few_examples",
        "message": f"{shortage.need} valid {shortage.what} are needed, {shortage.have} are there",
        "fix": "record more examples",
    }
    data = {
        "run_id": None,
        "dataset": dataset.name,
        "error": error,
        "have": shortage.have,
        "need": shortage.need,
    }
    return Publication("training.failed", data, subject=dataset.name)


async def batch_dead(connection: Connection, work: Work, error: PenstockError) -> Sequence[Publication]:
    """A trigger that was given up no longer stands in the way of the next one."""
    name = str(work.data.get("dataset", ""))
    if work.source == OURS:
        dataset = await lock_dataset(connection, work.tenant_id, name)
        mark = "age_check_at" if work.data.get("reason") == "age" else "trigger_at"
        await set_marks(connection, dataset, **{mark: None})
    failed = {"run_id": None, "dataset": name, "error": error.as_dict()}
    return [Publication("training.failed", failed, subject=name)]
