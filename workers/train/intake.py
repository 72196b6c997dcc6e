"""An `example.recorded` joins its dataset here; when that fills the threshold, `training.batch_ready` follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from uuid import UUID

import structlog

from infra.database import Connection, queries
from infra.training_trigger import fire_if_due, lock_for_examples
from schemas.inbound import ExampleRecorded
from schemas.registry import read_data
from schemas.states import ExampleState
from schemas.work import Publication, Work
from workers.handling import Done, Handle
from workers.train.examples import Checked, check_example, text_of_message
from workers.train.screening import broken_rules

_log = structlog.get_logger("penstock.train")


@dataclass(frozen=True, slots=True)
class Entry:
    """An example on its way into a dataset.

    Attributes:
        status: ``free``, or ``pending`` where somebody has to approve it; a broken rule makes it ``quarantined``.
        query_id: the answer that it corrects or confirms.
    """

    example_id: UUID
    checked: Checked
    status: ExampleState = ExampleState.FREE
    rules: tuple[str, ...] = ()
    weight: float = 1.0
    source: str | None = None
    query_id: str | None = None
    event_id: UUID | None = None


def screened(entry: Entry) -> Entry:
    """The entry, kept apart where its text breaks the rules on secrets and personal data."""
    rules = broken_rules("\n".join(text_of_message(message) for message in entry.checked.messages))
    return replace(entry, status=ExampleState.QUARANTINED, rules=tuple(rules)) if rules else entry


async def add_entries(connection: Connection, tenant_id: str, dataset: str, entries: Sequence[Entry]) -> int:
    """Write entries on a transaction that holds the dataset's lock; exact duplicates are left out.

    Returns:
        How many are new.
    """
    added = 0
    for entry in entries:
        row = await connection.fetchval(
            queries("train").add_example,
            tenant_id,
            entry.example_id,
            dataset,
            str(entry.status),
            entry.checked.split,
            entry.checked.messages,
            entry.checked.content_sha256,
            entry.checked.prompt_sha256,
            entry.weight,
            entry.checked.tokens,
            entry.source,
            entry.query_id,
            ", ".join(entry.rules) or None,
            entry.event_id,
        )
        added += row is not None
    return added


async def record(
    connection: Connection, *, work: Work, dataset: str, base_model: str, entries: Sequence[Entry]
) -> list[Publication]:
    """The effect: the dataset exists, the examples are in it, and the threshold is looked at once under its lock.

    The lock comes before the first insert: two transactions that enter each other's duplicates would deadlock. Most
    examples cannot be the ones that fill the threshold; then nothing is counted.
    """
    locked = await lock_for_examples(connection, work.tenant_id, dataset, len(entries), base_model)
    added = await add_entries(connection, work.tenant_id, dataset, entries)
    if not added or locked.countdown > 0:
        return []
    return list(await fire_if_due(connection, locked))


def open_recorded(base_model: str) -> Handle:
    """The handler of `example.recorded`; datasets that it makes train on this base model."""

    async def handle(work: Work) -> Done:
        data = read_data(work.type, work.major, work.data)
        assert isinstance(data, ExampleRecorded)
        entry = screened(
            Entry(
                work.event_id,
                check_example(data.messages),
                weight=data.weight,
                source=data.source or work.source,
                event_id=work.event_id,
            )
        )
        if entry.rules:
            _log.info("train.example_quarantined", dataset=data.dataset, rules=list(entry.rules))
        return Done(partial(record, work=work, dataset=data.dataset, base_model=base_model, entries=[entry]))

    return handle
