"""What PostgreSQL knows of documents passes through here to the handlers; reads of many jobs share a transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infra.coalesce import Coalescer
from infra.collections import ensure_collection
from infra.database import Database, queries
from infra.settings import Settings
from schemas.errors import Uncharged
from workers.ingest.diff import Stored
from workers.ingest.version import Dropped, Known, Place, Space


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """Names a document. Ordered, as rows are always taken in order."""

    tenant_id: str
    collection: str
    document_id: str


class Store:
    """The wing's reads; one per process."""

    def __init__(self, database: Database, settings: Settings) -> None:
        """Read from a database that acts as the role ``penstock_worker``."""
        self._database = database
        self._settings = settings
        self._load: Coalescer[Key, Place | None] = Coalescer(self._load_many, limit=500, parallel=2)

    async def place(self, key: Key, accept_no: int) -> Place | Dropped:
        """Where a document belongs and what is known of it; its collection is made when it is new.

        Args:
            key: the document.
            accept_no: where the version stands among all that was accepted: a collection that was dropped later took it
                with it.

        Raises:
            LimitReached: the tenant may have no more collections.
        """
        found = await self._load(key)
        if found is None:
            async with self._database.transaction(key.tenant_id) as connection:
                last = await connection.fetchval(queries("ingest").dropped, key.tenant_id, key.collection)
                if last is not None and accept_no < last:
                    return Dropped(last)
                await ensure_collection(connection, key.tenant_id, key.collection, self._settings)
            found = await self._load(key)
        if found is None:
            raise Uncharged("the collection was dropped at the same moment")
        if found.dropped is not None and accept_no < found.dropped.accept_no:
            return found.dropped
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
        dropped=None if row["dropped_no"] is None else Dropped(row["dropped_no"]),
    )
