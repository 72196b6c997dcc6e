"""A new run passes through here: its base model is looked at, its examples are fixed, and its files go to the provider."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from infra.database import Connection, queries
from infra.trainer import training_line
from infra.training_trigger import Counts, find_shortage, lock_dataset
from schemas.errors import Conflict
from schemas.states import RunState
from schemas.work import Publication
from workers.handling import Later, Outcome
from workers.train.ending import ended_without_model
from workers.train.money import promise
from workers.train.runs import Run, Wing, note

DYING = timedelta(days=30)
"""A tuned model ends with its base: one that lives no longer than this is not worth its price."""


@dataclass(frozen=True, slots=True)
class JobFile:
    """A training file.

    Attributes:
        tokens: of one epoch, estimated.
        sha256: of the content.
    """

    content: bytes
    examples: int
    tokens: int
    sha256: bytes

    def name(self, run: Run, split: str) -> str:
        """Holds run and hash, so that a later attempt finds the same file."""
        return f"{run.file_prefix}{split}-{self.sha256.hex()[:16]}.jsonl"


async def collect(wing: Wing, run: Run) -> Outcome:
    """``collecting``: refuse a base model that is about to end, then go on."""
    info = await wing.trainer.model(run.base_model)
    if info is not None and is_dying(info.shutdown_date, datetime.now(UTC).date()):
        error = {
            "code": "base_model_ends",
            "message": f"the base model ends on {info.shutdown_date}",
            "field": "base_model",
            "fix": "choose a base model with a future",
        }
        return ended_without_model(wing, run, RunState.FAILED, error)

    async def effect(connection: Connection) -> Sequence[Publication]:
        await connection.execute(
            queries("train").move, run.tenant_id, run.run_id, run.status, str(RunState.PREPARING)
        )
        return []

    return Later(0.0, effect)


def is_dying(shutdown: date | None, today: date) -> bool:
    """Whether a model ends too soon to be trained on."""
    return shutdown is not None and shutdown - today <= DYING


async def prepare(wing: Wing, run: Run) -> Outcome:
    """``preparing``: make sure of the money, and say what the files hold.

    Raises:
        BudgetExceeded: the run waits, and the event says for what sum.
    """
    async with wing.resources.database.transaction(run.tenant_id) as connection:
        dataset = await lock_dataset(connection, run.tenant_id, run.dataset)
        # A run may have waited long for its money: nothing is trained on that was withdrawn meanwhile.
        await connection.execute(queries("train").drop_withdrawn, run.tenant_id, run.run_id)
        counts = await connection.fetch(queries("train").run_counts, run.tenant_id, run.run_id)
        train = await build_file(connection, run, "train")
        validation = await build_file(connection, run, "validation")
        # Promised already, unless the budget was too small when the run began: then it waits here.
        await promise(connection, wing.resources.budget, dataset, run, train.tokens)
    holdout = {row["split"]: row["examples"] for row in counts}.get("holdout", 0)
    shortage = find_shortage(dataset, Counts(0, train.examples, holdout, running=True))
    if shortage is not None:
        error = {
            "code": "too_few_examples",
            "message": f"{shortage.need} valid {shortage.what} are needed, {shortage.have} are there",
        }
        numbers = {"have": shortage.have, "need": shortage.need}
        return ended_without_model(wing, run, RunState.FAILED, error, **numbers)

    async def effect(connection: Connection) -> Sequence[Publication]:
        await connection.execute(
            queries("train").set_files,
            run.tenant_id,
            run.run_id,
            train.examples,
            validation.examples,
            holdout,
            train.tokens,
            train.sha256,
            validation.sha256,
        )
        await note(connection, run, "prepared", train=train.examples, holdout=holdout, tokens=train.tokens)
        return []

    return Later(0.0, effect)


async def upload(wing: Wing, run: Run) -> Outcome:
    """``uploading``: bring the files to the provider, or find them there.

    Raises:
        Conflict: an example of the run was erased or withdrawn meanwhile.
        PenstockError: see `infra.trainer`.
    """
    async with wing.resources.database.transaction(run.tenant_id, readonly=True) as connection:
        train = await build_file(connection, run, "train")
        validation = await build_file(connection, run, "validation")
        withdrawn = await connection.fetchval(queries("train").withdrawn, run.tenant_id, run.run_id)
    if withdrawn or train.examples != run.train_examples:
        raise Conflict(
            "examples of the run were taken back while it was being prepared", fix="start it again"
        )
    train_file = await wing.trainer.upload(train.name(run, "train"), train.content)
    validation_file = None
    if validation.examples:
        validation_file = await wing.trainer.upload(validation.name(run, "validation"), validation.content)

    async def effect(connection: Connection) -> Sequence[Publication]:
        await connection.execute(
            queries("train").set_uploaded,
            run.tenant_id,
            run.run_id,
            train_file.file_id,
            None if validation_file is None else validation_file.file_id,
        )
        await note(connection, run, "uploaded", bytes=len(train.content))
        return []

    return Later(0.0, effect)


async def build_file(connection: Connection, run: Run, split: str) -> JobFile:
    """One split of a run as JSONL: the same bytes whenever it is asked for."""
    rows = await connection.fetch(queries("train").run_messages, run.tenant_id, run.run_id, split)
    content = b"".join(training_line(row["messages"]) for row in rows)
    tokens = sum(row["tokens"] for row in rows)
    return JobFile(content, len(rows), tokens, hashlib.sha256(content).digest())
