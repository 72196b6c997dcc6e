"""Examples join their dataset here, under its lock; when that fills the threshold, `training.batch_ready` follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import structlog

from infra.database import Connection, queries
from infra.training_trigger import Dataset, fire_if_due, lock_for_examples
from schemas.envelope import SUPPLIER
from schemas.states import ExampleState
from schemas.work import Publication, Work
from workers.train.examples import Checked
from workers.train.nearness import Neighbour, Place, find_place

_log = structlog.get_logger("penstock.train")


@dataclass(frozen=True, slots=True)
class Entry:
    """An example on its way into a dataset.

    Attributes:
        status: ``free``, or ``pending`` where somebody has to approve it; a broken rule may make it ``quarantined``.
        rules: on secrets and personal data that its text broke.
        query_id: the answer that it corrects or confirms.
        supplier: who gave it: an API key, or else a source.
        lineage: what it goes back to: the answer's question, model and documents.
        near: its prompt as halfvec(256) on the wire; None where nobody looks for near duplicates.
        embed_model: what made `near`.
    """

    example_id: UUID
    checked: Checked
    status: ExampleState = ExampleState.FREE
    rules: tuple[str, ...] = ()
    weight: float = 1.0
    source: str | None = None
    query_id: str | None = None
    event_id: UUID | None = None
    supplier: str | None = None
    lineage: Mapping[str, Any] | None = None
    near: bytes | None = None
    embed_model: str = ""


def supplier_of(work: Work) -> str:
    """The API key that an event came by, as the gateway noted it, or else its source."""
    return str(work.attributes.get(SUPPLIER) or work.source)


async def add_entries(connection: Connection, dataset: Dataset, entries: Sequence[Entry]) -> int:
    """Write entries on a transaction that holds the dataset's lock; what it has already is left out.

    Returns:
        How many are new.
    """
    if any(entry.near is not None for entry in entries):
        await connection.execute(queries("train").search_far)
    added = 0
    for entry in entries:
        place = await _place(connection, dataset, entry)
        if place.same_as is not None:
            _log.info("train.example_known", dataset=dataset.name, same_as=str(place.same_as))
            continue
        reasons = [*entry.rules, *(["near_several_splits"] if place.straddles else [])]
        row = await connection.fetchval(
            queries("train").add_example,
            dataset.tenant_id,
            entry.example_id,
            dataset.name,
            str(ExampleState.QUARANTINED if place.straddles else entry.status),
            place.split,
            entry.checked.messages,
            entry.checked.content_sha256,
            entry.checked.prompt_sha256,
            entry.weight,
            entry.checked.tokens,
            entry.source,
            entry.query_id,
            ", ".join(reasons) or None,
            entry.event_id,
            entry.supplier,
            entry.lineage,
            entry.embed_model,
            entry.near,
        )
        added += row is not None
    return added


async def _place(connection: Connection, dataset: Dataset, entry: Entry) -> Place:
    """Where an entry belongs among the dataset's examples."""
    if entry.near is None or dataset.near_duplicate is None:
        return Place(entry.checked.split)
    rows = await connection.fetch(
        queries("train").neighbours,
        dataset.tenant_id,
        dataset.name,
        entry.embed_model,
        entry.near,
        entry.checked.prompt_sha256,
    )
    neighbours = [Neighbour(**dict(row)) for row in rows]
    return find_place(entry.checked.messages, entry.checked.split, neighbours, dataset.near_duplicate)


async def record(
    connection: Connection, *, work: Work, dataset: str, base_model: str, entries: Sequence[Entry]
) -> list[Publication]:
    """The effect: the dataset exists, the examples are in it, and the threshold is looked at once under its lock.

    The lock comes before the first insert: two transactions that enter each other's duplicates would deadlock. Most
    examples cannot be the ones that fill the threshold; then nothing is counted.
    """
    locked = await lock_for_examples(connection, work.tenant_id, dataset, len(entries), base_model)
    added = await add_entries(connection, locked, entries)
    if not added or locked.countdown > 0:
        return []
    return list(await fire_if_due(connection, locked))
