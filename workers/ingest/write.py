"""Versions of many documents pass through here into PostgreSQL: the effect that all ingest jobs of a group share.

It runs inside the transaction that the runtime opens. It begins with a compare-and-set on the revision of every
document, so that what was computed from an older state is not written; then chunks and vectors of all documents go in
few statements. When one version does not count any more the group is rolled back and each is written by itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

import orjson
import structlog

from infra.database import Connection, queries
from schemas.errors import Uncharged
from schemas.ids import uuid7
from schemas.states import DocumentState
from schemas.work import Publication
from workers.ingest.chunk import Chunk
from workers.ingest.diff import Diff
from workers.ingest.news import Row, Version, indexed, overtaken, purged
from workers.ingest.store import Key
from workers.ingest.version import Place

Item = TypeVar("Item")
_log = structlog.get_logger("penstock.ingest")
UNCHANGED = Diff(kept=0, moved=(), added=(), removed=())
SLICE = 256
"""Rows per statement: a large document must not run into the time limit of a statement."""


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a version writes: nothing is computed in a transaction.

    Attributes:
        place: the document as it was read.
        row: what the version makes of its row; its status says whether it is served or purged.
        diff: how its chunks change.
        wires: content hash → halfvec wire bytes, for all added chunks.
        called: how many texts were sent to the model API for it.
    """

    version: Version
    place: Place
    row: Row
    diff: Diff = UNCHANGED
    wires: Mapping[bytes, bytes] = field(default_factory=dict)
    called: int = 0


async def write(connection: Connection, plans: Sequence[Plan]) -> list[list[Publication]]:
    """Let versions decide their documents.

    Raises:
        Uncharged: one of the documents is not as it was read; nothing may be committed.
    """
    newest = _newest(plans)
    written = list(newest.values())
    # A statement of its own: the next one then sees which space a collection is in, until the end of the transaction.
    homes = sorted({_home(plan)[:2] for plan in written})
    await connection.execute(queries("ingest").enter_collections, *_columns(homes))
    await _settle(connection, written)
    await _write_chunks(connection, written)
    _log.debug(
        "ingest.documents_written", documents=len(written), added=sum(len(p.diff.added) for p in written)
    )
    return [[_say(plan, newest[_home(plan)])] for plan in plans]


def _newest(plans: Sequence[Plan]) -> dict[tuple[str, int, str], Plan]:
    """Of several versions of one document the newest is written, in the order of keys."""
    newest: dict[tuple[str, int, str], Plan] = {}
    for plan in sorted(plans, key=lambda plan: (plan.version.key, plan.version.sequence)):
        other = newest.get(_home(plan))
        if other is not None and (other.version.explicit, other.place) != (plan.version.explicit, plan.place):
            raise _conflict()
        newest[_home(plan)] = plan
    return newest


def _say(plan: Plan, newest: Plan) -> Publication:
    if plan is not newest:
        return overtaken(plan.version, newest.version.sequence)
    if plan.row.status is DocumentState.PURGED:
        return purged(plan.version)
    return indexed(plan.version, plan.row, plan.called)


async def _settle(connection: Connection, plans: Sequence[Plan]) -> None:
    """Compare and set every document's row."""
    sql = queries("ingest")
    new = [_values(plan) for plan in plans if plan.place.known is None]
    old = [(*_values(plan), plan.place.known.revision) for plan in plans if plan.place.known is not None]
    settled = 0
    if new:
        settled += len(await connection.fetch(sql.create_documents, *_columns(new)))
    if old:
        settled += len(await connection.fetch(sql.settle_documents, *_columns(old)))
    if settled != len(plans):
        raise _conflict()


async def _write_chunks(connection: Connection, plans: Sequence[Plan]) -> None:
    """Bring the chunks of all documents to their new versions."""
    sql = queries("ingest")
    gone = [_home(plan) for plan in plans if plan.row.status is DocumentState.PURGED]
    if gone:
        await connection.execute(sql.purge_chunks, *_columns(gone))
    removed = [(plan.version.key.tenant_id, chunk_id) for plan in plans for chunk_id in plan.diff.removed]
    if removed:
        await connection.execute(sql.remove_chunks, *_columns(sorted(removed)))
    moved = [(*_home(plan)[:2], *_moved(*pair)) for plan in plans for pair in plan.diff.moved]
    for part in _slices(moved):
        await connection.execute(sql.move_chunks, *_columns(part))
    added: defaultdict[int, list[tuple[Any, ...]]] = defaultdict(list)
    for plan in plans:
        home, wires = _home(plan), plan.wires
        added[plan.place.space.space_id] += [
            (*home, uuid7(), *_added(chunk), wires[chunk.sha256]) for chunk in plan.diff.added
        ]
    for space_id, rows in sorted(added.items()):
        for part in _slices(rows):
            *chunks, wired = _columns(part)
            await connection.execute(sql.add_chunks, *chunks)
            tenants, collections, _, ids = chunks[:4]
            await connection.execute(sql.add_vectors, space_id, tenants, collections, ids, wired)


def _conflict() -> Uncharged:
    return Uncharged("another version of the document was written meanwhile", retry_after=0.0)


def _home(plan: Plan) -> tuple[str, int, str]:
    key: Key = plan.version.key
    return key.tenant_id, plan.place.collection_id, key.document_id


def _values(plan: Plan) -> tuple[object, ...]:
    row = plan.row
    return (
        *(*_home(plan), plan.place.space.space_id, row.status, plan.version.sequence, plan.version.explicit),
        *(row.content_sha256, row.recipe_sha256, row.title, orjson.dumps(row.metadata).decode()),
        *(row.media_type, row.uri, row.chunks, row.tokens, plan.version.event_id),
    )


def _moved(chunk_id: UUID, chunk: Chunk) -> tuple[object, ...]:
    return chunk_id, chunk.position, chunk.heading, chunk.page


def _added(chunk: Chunk) -> tuple[object, ...]:
    return chunk.position, chunk.text, chunk.heading, chunk.page, chunk.tokens, chunk.sha256


def _columns(rows: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _slices(items: Sequence[Item]) -> list[Sequence[Item]]:
    return [items[at : at + SLICE] for at in range(0, len(items), SLICE)]
