"""Documents pass between the handlers and PostgreSQL here: what is known of them, and what a version writes.

Reads of many jobs share a transaction. Writes run inside the transaction that the runtime opens for an effect; each
begins with a compare-and-set on the document's revision, so that what was computed from an older state is not written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

from infra.coalesce import Coalescer
from infra.collections import ensure_collection
from infra.database import Connection, Database, queries
from infra.settings import Settings
from schemas.errors import Uncharged
from schemas.ids import uuid7
from schemas.states import DocumentState
from workers.ingest.chunk import Chunk
from workers.ingest.diff import Diff, Stored
from workers.ingest.version import Known, Place, Space

Item = TypeVar("Item")
_SLICE = 256
"""Rows per statement: a large document must not run into the time limit of a statement."""


@dataclass(frozen=True, slots=True)
class Key:
    """Names a document. Ordered, as rows are always taken in order."""

    tenant_id: str
    collection: str
    document_id: str


@dataclass(frozen=True, slots=True)
class Row:
    """What a version makes of its document's row.

    Attributes:
        status: indexed or purged.
        explicit: whether the caller numbered it.
        tokens: estimated tokens of all chunks.
    """

    status: DocumentState
    sequence: int
    explicit: bool
    event_id: UUID
    content_sha256: bytes | None = None
    recipe_sha256: bytes | None = None
    title: str | None = None
    metadata: Mapping[str, Any] | None = None
    media_type: str | None = None
    uri: str | None = None
    chunks: int = 0
    tokens: int = 0


class Store:
    """The wing's reads; one per process."""

    def __init__(self, database: Database, settings: Settings) -> None:
        """Read from a database that acts as the role ``penstock_worker``."""
        self._database = database
        self._settings = settings
        self._load: Coalescer[Key, Place | None] = Coalescer(self._load_many, limit=500, parallel=2)

    async def place(self, key: Key) -> Place:
        """Where a document belongs and what is known of it; its collection is made when it is new.

        Raises:
            LimitReached: the tenant may have no more collections.
        """
        found = await self._load(key)
        if found is None:
            async with self._database.transaction(key.tenant_id) as connection:
                await ensure_collection(connection, key.tenant_id, key.collection, self._settings)
            found = await self._load(key)
        if found is None:
            raise Uncharged("the collection is being dropped")
        return found

    async def chunks(self, key: Key, place: Place) -> list[Stored]:
        """A document's chunks as they are; from the same revision or a newer one, which the write will notice."""
        async with self._database.transaction(key.tenant_id, readonly=True) as connection:
            rows = await connection.fetch(
                queries("ingest").load_chunks, key.tenant_id, place.collection_id, key.document_id
            )
        return [Stored(**row) for row in rows]

    async def aclose(self) -> None:
        """Wait for reads under way."""
        await self._load.aclose()

    async def _load_many(self, keys: Sequence[Key]) -> list[Place | None]:
        tenants = sorted({key.tenant_id for key in keys})
        columns = zip(*((key.tenant_id, key.collection, key.document_id) for key in keys), strict=True)
        async with self._database.transaction(*tenants, readonly=True) as connection:
            rows = await connection.fetch(queries("ingest").load, *(list(column) for column in columns))
        places: list[Place | None] = [None] * len(keys)
        for row in rows:
            places[row["place"] - 1] = _place(dict(row))
        return places


def _place(row: Mapping[str, Any]) -> Place:
    known = None
    if row["revision"] is not None:
        known = Known(
            revision=row["revision"],
            sequence=row["sequence"],
            settled=row["settled_sequence"],
            served=row["served_sequence"],
            explicit=row["explicit_sequence"],
            content_sha256=row["content_sha256"],
            recipe_sha256=row["recipe_sha256"],
            title=row["title"],
            metadata=row["metadata"],
            uri=row["uri"],
            chunks=row["chunks"],
            tokens=row["tokens"],
            event_id=row["event_id"],
        )
    return Place(
        collection_id=row["collection_id"],
        space=Space(row["space_id"], row["model"], row["dimensions"]),
        settings=row["settings"],
        known=known,
    )


async def settle(connection: Connection, key: Key, place: Place, row: Row) -> bool:
    """Let a version decide its document; False when the document is not as it was read, and nothing is written."""
    sql = queries("ingest")
    arguments = (
        *(key.tenant_id, place.collection_id, key.document_id, row.status, row.sequence, row.explicit),
        *(
            row.content_sha256,
            row.recipe_sha256,
            row.title,
            dict(row.metadata or {}),
            row.media_type,
            row.uri,
        ),
        *(row.chunks, row.tokens, row.event_id, place.space.space_id),
    )
    if place.known is None:
        written = await connection.fetchval(sql.create_document, *arguments)
    else:
        written = await connection.fetchval(sql.settle_document, *arguments, place.known.revision)
    return written is not None


async def write_chunks(
    connection: Connection, key: Key, place: Place, diff: Diff, vectors: Mapping[bytes, bytes]
) -> None:
    """Bring a document's chunks to a new version.

    Args:
        connection: the transaction in which `settle` succeeded.
        key: the document.
        place: as it was read.
        diff: what changes.
        vectors: content hash → halfvec wire bytes, for all added chunks.
    """
    sql = queries("ingest")
    home = (key.tenant_id, place.collection_id)
    if diff.removed:
        await connection.execute(sql.remove_chunks, key.tenant_id, list(diff.removed))
    for moved in _slices(diff.moved):
        rows = [(chunk_id, chunk.position, chunk.heading, chunk.page) for chunk_id, chunk in moved]
        await connection.execute(sql.move_chunks, *home, *_columns(rows))
    for added in _slices(diff.added):
        ids = [uuid7() for _ in added]
        await connection.execute(
            sql.add_chunks,
            *home,
            key.document_id,
            *_columns([_values(*pair) for pair in zip(ids, added, strict=True)]),
        )
        wires = [vectors[chunk.sha256] for chunk in added]
        await connection.execute(sql.add_vectors, place.space.space_id, *home, ids, wires)


async def purge_chunks(connection: Connection, key: Key, place: Place) -> None:
    """Remove all chunks and vectors of a deleted document."""
    await connection.execute(
        queries("ingest").purge_chunks, key.tenant_id, place.collection_id, key.document_id
    )


def _values(chunk_id: UUID, chunk: Chunk) -> tuple[object, ...]:
    return chunk_id, chunk.position, chunk.text, chunk.heading, chunk.page, chunk.tokens, chunk.sha256


def _columns(rows: Sequence[tuple[object, ...]]) -> list[list[object]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _slices(items: Sequence[Item]) -> list[Sequence[Item]]:
    return [items[at : at + _SLICE] for at in range(0, len(items), _SLICE)]
