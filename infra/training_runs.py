"""Training runs as people see and steer them: the CLI and the gateway ask here, workers do the work."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Literal, TypeAlias
from uuid import UUID

import asyncpg
import orjson

from infra.database import Database, queries
from infra.trainer import training_line
from infra.training_store import MOST
from schemas.errors import Conflict, NotFound

Split: TypeAlias = Literal["train", "validation", "holdout"]


@dataclass(frozen=True, slots=True)
class RunView:
    """A run as people see it.

    Attributes:
        evaluation: the table, whether to promote, and the reason.
        tainted_at: since when examples that it was made of are erased.
    """

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
    pause_asked_at: datetime | None
    cost_micros: int
    evaluation: Mapping[str, Any] | None
    error: Mapping[str, Any] | None
    started_at: datetime
    ended_at: datetime | None
    tainted_at: datetime | None


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
    await _ask(database, tenant_id, run_id, "cancel", actor)


async def pause_run(database: Database, tenant_id: str, run_id: UUID, *, actor: str) -> None:
    """Ask a run to wait, its job with it, until it is resumed.

    Raises:
        NotFound: the tenant has no such run.
        Conflict: it has ended.
    """
    await _ask(database, tenant_id, run_id, "pause", actor)


async def resume_run(database: Database, tenant_id: str, run_id: UUID, *, actor: str) -> None:
    """Let a run go on.

    Raises:
        NotFound: the tenant has no such run.
        Conflict: it has ended.
    """
    await _ask(database, tenant_id, run_id, "resume", actor)


async def _ask(
    database: Database, tenant_id: str, run_id: UUID, what: Literal["cancel", "pause", "resume"], actor: str
) -> None:
    sql = queries("training_store")
    statement = {"cancel": sql.ask_cancel, "pause": sql.ask_pause, "resume": sql.ask_resume}[what]
    async with database.transaction(tenant_id) as connection:
        if await connection.fetchrow(sql.run, tenant_id, run_id) is None:
            raise NotFound("there is no such training run", field="run_id")
        if await connection.fetchval(statement, tenant_id, run_id) is None:
            raise Conflict("the training run has ended", field="run_id")
        await connection.execute(sql.audit, tenant_id, actor, f"training.{what}", str(run_id), {})


async def export_run(
    database: Database, tenant_id: str, run_id: UUID, split: Split, *, lineage: bool = False
) -> AsyncIterator[bytes]:
    """The lines of one split of a run, byte for byte as the trainer got them; or what each goes back to."""
    sql = queries("training_store")
    async with database.transaction(tenant_id, readonly=True) as connection:
        rows = await connection.fetch(
            sql.run_lineage if lineage else sql.run_messages, tenant_id, run_id, split
        )
    for row in rows:
        yield _lineage_line(row) if lineage else training_line(row["messages"])


async def export_free(
    database: Database, tenant_id: str, dataset: str, split: Split, *, lineage: bool = False
) -> AsyncIterator[bytes]:
    """The lines of a dataset's free examples, in the order in which a run would have them; or what each goes back to."""
    sql = queries("training_store")
    async with database.transaction(tenant_id, readonly=True) as connection:
        rows = await connection.fetch(
            sql.free_lineage if lineage else sql.free_messages, tenant_id, dataset, split
        )
    for row in rows:
        yield _lineage_line(row) if lineage else training_line(row["messages"])


def _lineage_line(row: asyncpg.Record) -> bytes:
    """One line of lineage, the same bytes whenever it is written: example, answer, question, documents."""
    return orjson.dumps(dict(row), default=str, option=orjson.OPT_SORT_KEYS) + b"\n"


def _run_view(row: asyncpg.Record) -> RunView:
    return RunView(**{field.name: row[field.name] for field in fields(RunView)})
