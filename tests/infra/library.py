"""Chunks for tests of retrieval: embedded by the local model server and copied into the tables as ingest leaves them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from infra.database import Database
from infra.llm import ModelApi
from infra.retrieval import Found, Passage, Retriever
from infra.vectors import to_wire

MODEL = "local-embed-256"


@dataclass(frozen=True, slots=True)
class Library:
    """One tenant's collections."""

    owner: Database
    models: ModelApi
    retriever: Retriever
    tenant: str

    async def put(
        self,
        texts: Mapping[str, Sequence[str]],
        *,
        collection: str = "docs",
        metadata: Mapping[str, Mapping[str, Any]] | None = None,
        dimensions: int = 256,
        config: str = "english",
    ) -> None:
        """Add documents: name → the texts of its chunks."""
        chunks = [(name, place, text) for name, parts in texts.items() for place, text in enumerate(parts)]
        wires: list[bytes] = []
        for at in range(0, len(chunks), 1000):
            some = [text for _, _, text in chunks[at : at + 1000]]
            wires += to_wire((await self.models.embed(some, model=MODEL, dimensions=dimensions)).vectors)
        async with self.owner.connection() as connection, connection.transaction():
            space = await connection.fetchval("SELECT space_ensure('openai', $1, $2)", MODEL, dimensions)
            collection_id = await connection.fetchval(
                "INSERT INTO collections (tenant_id, name, space_id, text_config) VALUES ($1, $2, $3, $4::text::regconfig)"
                " ON CONFLICT (tenant_id, name) DO UPDATE SET name = excluded.name RETURNING collection_id",
                self.tenant,
                collection,
                space,
                config,
            )
            await connection.execute(
                "INSERT INTO documents (tenant_id, collection_id, document_id, status, sequence, served_sequence,"
                " explicit_sequence, title, metadata, chunks)"
                " SELECT $1, $2, d.name, 'indexed', 1, 1, false, d.name, d.metadata, d.chunks"
                " FROM unnest($3::text[], $4::jsonb[], $5::int[]) AS d (name, metadata, chunks)",
                self.tenant,
                collection_id,
                list(texts),
                [dict((metadata or {}).get(name, {})) for name in texts],
                [len(parts) for parts in texts.values()],
            )
            ids = [uuid4() for _ in chunks]
            await connection.execute(
                "INSERT INTO chunks (tenant_id, collection_id, chunk_id, document_id, position, text, tokens, sha256, words)"
                " SELECT $1, $2, c.id, c.name, c.place, c.text, 1, c.sha256, to_tsvector($7::text::regconfig, c.text)"
                " FROM unnest($3::uuid[], $4::text[], $5::int[], $6::text[], $8::bytea[])"
                " AS c (id, name, place, text, sha256)",
                self.tenant,
                collection_id,
                ids,
                [name for name, _, _ in chunks],
                [place for _, place, _ in chunks],
                [text for _, _, text in chunks],
                config,
                [hashlib.sha256(text.encode()).digest() for _, _, text in chunks],
            )
            await connection.execute(
                f"INSERT INTO vectors_{space} (tenant_id, collection_id, chunk_id, embedding)"  # noqa: S608 - a number
                " SELECT $1, $2, v.id, v.embedding FROM unnest($3::uuid[], $4::halfvec[]) AS v (id, embedding)",
                self.tenant,
                collection_id,
                ids,
                wires,
            )

    async def find(self, question: str, *collections: str, **options: Any) -> Found:
        """Search, and what it took."""
        known = await self.retriever.look_up(self.tenant, collections or ("docs",))
        return await self.retriever.find(self.tenant, known, question, **options)

    async def search(self, question: str, *collections: str, **options: Any) -> list[Passage]:
        """Search."""
        return list((await self.find(question, *collections, **options)).passages)

    async def documents(self, question: str, *collections: str, **options: Any) -> list[str]:
        """The documents of the passages, best first."""
        return [passage.document_id for passage in await self.search(question, *collections, **options)]
