"""A corpus passes through here into the tables as ingest leaves them, embedded in this process and copied in bulk."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import UUID

import asyncpg
import numpy as np
import orjson
from numpy.typing import NDArray

from benchmarks.answer_corpus import Corpus, KnownItem, Piece
from infra.database import set_codecs
from infra.local.model.vectors import Encoder
from infra.spaces import build_index
from infra.vectors import to_wire

TENANT = "bench"
COLLECTION = "docs"
MODEL = "local-embed-256"
DIMENSIONS = 256
_CHUNKS = (
    "tenant_id", "collection_id", "chunk_id", "document_id", "position", "text", "tokens", "sha256", "words",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Shelf:
    """What was put into the tables, in the order of the pieces.

    Attributes:
        vectors: float32[n, 256], rounded as halfvec rounds them.
    """

    corpus: Corpus
    encoder: Encoder
    vectors: NDArray[np.float32]
    ids: list[UUID]


def embed(corpus: Corpus) -> Shelf:
    """Embed a corpus with the local model's weights."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    encoder = Encoder.load()
    texts = [piece.text for piece in corpus.pieces]
    parts = [encoder.embed(texts[at : at + 5000]) for at in range(0, len(texts), 5000)]
    vectors = np.concatenate(parts)
    spoken = np.flatnonzero(np.linalg.norm(vectors, axis=1) > 0)
    corpus.pieces = [corpus.pieces[at] for at in spoken]
    return Shelf(corpus, encoder, vectors[spoken].astype(np.float16).astype(np.float32), _ids(corpus))


def store(shelf: Shelf, folder: Path) -> None:
    """Keep a shelf beside the servers that were filled from it."""
    np.save(folder / "vectors.npy", shelf.vectors)
    (folder / "corpus.json").write_bytes(orjson.dumps(asdict(shelf.corpus)))


def load(folder: Path) -> Shelf | None:
    """A shelf that was kept; None when there is none."""
    try:
        kept = orjson.loads((folder / "corpus.json").read_bytes())
        vectors = np.load(folder / "vectors.npy")
    except FileNotFoundError:
        return None
    corpus = Corpus(
        [Piece(**one) for one in kept["pieces"]],
        [KnownItem(**one) for one in kept["items"]],
        kept["metadata"],
    )
    return Shelf(corpus, Encoder.load(), vectors, _ids(corpus))


def _ids(corpus: Corpus) -> list[UUID]:
    return [UUID(bytes=hashlib.md5(piece.text.encode()).digest()) for piece in corpus.pieces]  # noqa: S324 - an id


async def forget_questions(owner_url: str) -> None:
    """Take away what earlier runs asked: a repeated question would be answered from the cache."""
    connection = await asyncpg.connect(owner_url)
    await connection.execute("TRUNCATE answers, answer_cache, events, event_keys, usage, recall_samples")
    await connection.execute("VACUUM (ANALYZE) answers, answer_cache, events, event_keys, usage")
    await connection.close()


async def fill(owner_url: str, shelf: Shelf) -> None:
    """Copy everything into the tables of one tenant; the vector index is built afterwards, as `penstock maintain` does."""
    connection = await asyncpg.connect(owner_url)
    await set_codecs(connection)
    await connection.execute("SET maintenance_work_mem = '1GB'")
    await connection.execute("INSERT INTO tenants (tenant_id, title) VALUES ($1, $1)", TENANT)
    space = await connection.fetchval("SELECT space_ensure('127.0.0.1', $1, $2)", MODEL, DIMENSIONS)
    collection = await connection.fetchval(
        "INSERT INTO collections (tenant_id, name, space_id) VALUES ($1, $2, $3) RETURNING collection_id",
        TENANT, COLLECTION, space,
    )  # fmt: skip
    pieces = shelf.corpus.pieces
    sizes = Counter(piece.document for piece in pieces)
    await connection.execute(
        "INSERT INTO documents (tenant_id, collection_id, document_id, status, sequence, served_sequence,"
        " explicit_sequence, title, metadata, chunks)"
        " SELECT $1, $2, d.name, 'indexed', 1, 1, false, d.name, d.metadata::jsonb, d.chunks"
        " FROM unnest($3::text[], $4::text[], $5::int[]) AS d (name, metadata, chunks)",
        TENANT, collection, list(sizes), [json.dumps(shelf.corpus.metadata[name]) for name in sizes],
        list(sizes.values()),
    )  # fmt: skip
    await connection.execute("CREATE TEMP TABLE loaded (LIKE chunks INCLUDING DEFAULTS)")
    await connection.execute("ALTER TABLE loaded ALTER words DROP NOT NULL")
    await connection.copy_records_to_table(
        "loaded",
        columns=_CHUNKS[:-1],
        records=[
            (
                TENANT, collection, chunk_id, piece.document, piece.position, piece.text, len(piece.text) // 4,
                hashlib.sha256(piece.text.encode()).digest(),
            )
            for chunk_id, piece in zip(shelf.ids, pieces, strict=True)
        ],
    )  # fmt: skip
    await connection.execute(
        f"INSERT INTO chunks ({', '.join(_CHUNKS)}) SELECT {', '.join(_CHUNKS[:-1])},"  # noqa: S608 - constants
        " to_tsvector('english', text) FROM loaded"
    )
    await connection.execute(f"DROP INDEX IF EXISTS vectors_{space}_hnsw")
    wires = to_wire(shelf.vectors)
    await connection.copy_records_to_table(
        f"vectors_{space}",
        columns=("tenant_id", "collection_id", "chunk_id", "embedding"),
        records=[
            (TENANT, collection, chunk_id, wire) for chunk_id, wire in zip(shelf.ids, wires, strict=True)
        ],
    )
    await build_index(connection, space)
    # As autovacuum and `penstock maintain` do within minutes.
    await connection.execute(f"VACUUM (ANALYZE) chunks, documents, vectors_{space}")
    await connection.execute("SELECT word_shares_refresh()")
    await connection.close()
