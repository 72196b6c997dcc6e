from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pydoc_data.topics import topics
from typing import Any

import pytest

from infra import recall
from infra.budget import Budget
from infra.database import Database
from infra.filters import compile_filter
from infra.llm import ModelApi
from infra.local.model.server import ModelServer
from infra.prices import load_prices
from infra.retrieval import Retriever
from infra.spaces import build_index
from infra.vectors import to_wire
from tests.conftest import NewTenant
from tests.infra.library import MODEL, Library

BIG, SMALL = 3000, 60
QUESTIONS = (
    "Which methods must a context manager have?",
    "How is an augmented assignment evaluated?",
    "What does the finally clause do?",
    "How are string literals prefixed?",
    "When is a generator finalized?",
    "What is the order of evaluation of operators?",
    "How does pdb set a breakpoint?",
    "How are attributes of a class looked up?",
)
FILTERS = [None, {"tenth": True}, {"hundredth": True}, {"number": {"$lt": 30}}]
"""All documents, a tenth, a hundredth, and a hundredth that no index finds."""


def pieces(count: int) -> list[str]:
    """Real text in short pieces, all different."""
    text = "\n".join(topics.values())
    size = len(text) // count
    return [f"{text[n * size : (n + 1) * size]} ({n})" for n in range(count)]


@pytest.fixture(scope="module")
async def shelves(
    _model_server: ModelServer, worker_database: Database, owner_database: Database, new_tenant: NewTenant
) -> AsyncIterator[tuple[Library, Library]]:
    """A large tenant and a small one in the same tables."""
    async with (
        ModelApi.open(_model_server.base_url, _model_server.api_key) as models,
        Budget(worker_database, load_prices(None), None, None) as budget,
    ):
        retriever = Retriever(worker_database, models, budget)
        big, small = [Library(owner_database, models, retriever, await new_tenant()) for _ in range(2)]
        texts = pieces(BIG)
        metadata = {
            f"d{n}": {"tenth": n % 10 == 0, "hundredth": n % 100 == 0, "number": n} for n in range(BIG)
        }
        await big.put({f"d{n}": [text] for n, text in enumerate(texts)}, metadata=metadata)
        await small.put({f"s{n}": [text] for n, text in enumerate(texts[7 :: BIG // SMALL])})
        async with owner_database.connection() as connection:
            await build_index(connection, await space(connection, big.tenant))
            await connection.execute("ANALYZE chunks, documents")
            await connection.execute(f"ANALYZE vectors_{await space(connection, big.tenant)}")
            await connection.execute("SELECT word_shares_refresh()")
        yield big, small


async def space(connection: Any, tenant: str) -> int:
    """The embedding space of a tenant's collection."""
    return int(await connection.fetchval("SELECT space_id FROM collections WHERE tenant_id = $1", tenant))


async def nearest(shelf: Library, question: str, condition: Any) -> list[str]:
    """The ten nearest documents by reading every vector: the truth."""
    wire = to_wire((await shelf.models.embed([question], model=MODEL, dimensions=256)).vectors)[0]
    async with shelf.owner.connection() as connection:
        rows = await connection.fetch(
            f"SELECT d.document_id FROM vectors_{await space(connection, shelf.tenant)} v"  # noqa: S608 - a number
            " JOIN chunks c ON c.tenant_id = v.tenant_id AND c.chunk_id = v.chunk_id"
            " JOIN documents d ON d.tenant_id = c.tenant_id AND d.document_id = c.document_id"
            " WHERE v.tenant_id = $1 AND ($3::text IS NULL OR d.metadata @@ $3::text::jsonpath)"
            " ORDER BY (v.embedding <#> $2::halfvec) + 0 LIMIT 10",
            shelf.tenant,
            wire,
            compile_filter(condition),
        )
    return [row["document_id"] for row in rows]


@pytest.mark.parametrize("condition", FILTERS, ids=str)
async def test_the_nearest_are_found_at_every_selectivity(
    shelves: tuple[Library, Library], condition: Any
) -> None:
    """Recall@10 against reading every vector is at least 0.98, whichever way the search takes."""
    big, _ = shelves
    found = wanted = 0
    for question in QUESTIONS:
        truth = set(await nearest(big, question, condition))
        got = await big.documents(question, filter=condition, top_k=10, mode="vector")
        found += len(truth & set(got))
        wanted += len(truth)
    assert found / wanted >= 0.98


async def test_a_small_tenant_beside_a_large_one_finds_all_of_its_own(
    shelves: tuple[Library, Library],
) -> None:
    """An index shared with a tenant fifty times as large hides nothing: recall is 1."""
    _, small = shelves
    for question in QUESTIONS:
        truth = await nearest(small, question, None)
        assert truth == await small.documents(question, top_k=10, mode="vector")


@pytest.mark.parametrize("mode", ["hybrid", "vector", "text"])
@pytest.mark.parametrize("condition", FILTERS, ids=str)
async def test_no_search_reads_a_whole_table(
    shelves: tuple[Library, Library], worker_database: Database, mode: str, condition: Any
) -> None:
    """As the worker's role, with row-level security on, every way of searching goes through indexes."""
    wire = to_wire((await shelves[0].models.embed(QUESTIONS[:1], model=MODEL, dimensions=256)).vectors)[0]
    for shelf in shelves:
        async with worker_database.transaction(shelf.tenant) as connection:
            number = await space(connection, shelf.tenant)
            before = await scans(connection, number)
            rows = await connection.fetch(
                "SELECT * FROM search_passages(ARRAY['docs'], $1, $2::halfvec, $3, $4, 10, $5::text::jsonpath)",
                number,
                wire,
                QUESTIONS[0],
                mode,
                compile_filter(condition),
            )
            assert await scans(connection, number) == before
        if condition is None:
            assert len(rows) == 10


@pytest.mark.parametrize("share", [1.0, 0.01])
async def test_a_walk_that_brings_too_few_goes_on(
    shelves: tuple[Library, Library], owner_database: Database, share: float
) -> None:
    """A filter that passes a hundredth of what a walk brings gets its pool, nearest first, whatever was thought of it."""
    big, _ = shelves
    wire = to_wire((await big.models.embed(QUESTIONS[:1], model=MODEL, dimensions=256)).vectors)[0]
    async with owner_database.connection() as connection:
        rows = await connection.fetch(
            "SELECT similarity FROM search_near($1, (SELECT array_agg(collection_id) FROM collections"
            " WHERE tenant_id = $1), $2, $3::halfvec, $4::text::jsonpath, false, $5, 20)",
            big.tenant,
            await space(connection, big.tenant),
            wire,
            compile_filter({"hundredth": True}),
            share,
        )
    found = [row["similarity"] for row in rows]
    assert sorted(found, reverse=True) == found
    assert len(found) == 20


@pytest.mark.parametrize(("condition", "expected"), [({"number": {"$gte": 0}}, 0.98), ({"number": -1}, 0.0)])
async def test_the_share_that_a_filter_passes_is_guessed(
    shelves: tuple[Library, Library], owner_database: Database, condition: Any, expected: float
) -> None:
    """A few pages of documents say about which share of all chunks passes; those of other tenants are among all."""
    big, _ = shelves
    async with owner_database.connection() as connection:
        share = await connection.fetchval(
            "SELECT search_share($1, (SELECT array_agg(collection_id) FROM collections WHERE tenant_id = $1),"
            " $2::text::jsonpath)",
            big.tenant,
            compile_filter(condition),
        )
    assert expected == pytest.approx(share, abs=0.35)


async def test_words_are_counted_when_it_is_due(
    shelves: tuple[Library, Library], owner_database: Database, worker_database: Database
) -> None:
    """Shares of words are kept until there are a tenth more chunks, and are the owner's to read."""
    big, _ = shelves
    async with owner_database.connection() as connection:
        assert await connection.fetchval("SELECT word_shares_refresh()") is None
        await connection.execute("UPDATE word_sample SET chunks = chunks / 2")
        assert await connection.fetchval("SELECT word_shares_refresh()") > 1000
        kept = await connection.fetchval(
            "SELECT share FROM word_shares WHERE word_hash = hashtextextended('class', 0)"
        )
        real = await connection.fetchval(
            "SELECT count(*) FILTER (WHERE words @@ 'class'::tsquery)::float8 / count(*) FROM chunks"
        )
    assert kept == pytest.approx(real, rel=0.1)
    async with worker_database.transaction(big.tenant) as connection:
        for table in ("word_shares", "word_sample", "collection_shares"):
            assert not await connection.fetchval("SELECT has_table_privilege($1, 'SELECT')", table)


async def scans(connection: Any, number: int) -> dict[str, int]:
    """How often this transaction has read each table from end to end."""
    rows = await connection.fetch(
        "SELECT relname, seq_scan FROM pg_stat_xact_user_tables WHERE relname = ANY ($1::text[])",
        ["chunks", "documents", f"vectors_{number}"],
    )
    return {row["relname"]: row["seq_scan"] for row in rows}


async def test_what_an_index_finds_is_checked_on_live_queries(
    shelves: tuple[Library, Library], system_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sampled query is searched exactly too, beside the caller, and no other soon; the share found becomes a metric."""
    monkeypatch.setattr(recall, "SHARE", 1.0)
    big, _ = shelves
    await big.find(QUESTIONS[0], mode="vector")
    assert not big.retriever.recall.sample(
        big.tenant, ["docs"], 1, b""
    )  # the next one is due in half a minute
    async with asyncio.timeout(60):
        while True:
            async with system_database.connection() as connection:
                rows = await connection.fetch("SELECT * FROM system_recall()")
            if rows:
                break
            await asyncio.sleep(0.02)
    [row] = rows
    async with big.owner.connection() as connection:
        assert await space(connection, big.tenant) == row["space_id"]
    assert 0.9 <= row["recall"] <= 1.0
