from __future__ import annotations

import asyncio

import pytest

from infra.collections import clear_dropped, drop_collection
from infra.database import Database
from infra.local.model.faults_client import Faults
from schemas.errors import NotFound
from tests.workers.ingest.shelf import Shelf

HELD = """
SELECT (SELECT count(*) FROM chunks WHERE tenant_id = $1) AS chunks,
       (SELECT count(*) FROM documents WHERE tenant_id = $1) AS documents,
       (SELECT count(*) FROM embedding_cache WHERE tenant_id = $1) AS kept
"""


async def drop(shelf: Shelf) -> None:
    """Drop the shelf's collection."""
    async with shelf.drive.resources.database.transaction(shelf.tenant) as connection:
        await drop_collection(connection, shelf.tenant, "c", actor="test")


async def standing(shelf: Shelf) -> list[str]:
    """The documents of the collection that has the name now."""
    rows = await shelf.drive.rows(
        "SELECT d.document_id FROM documents d JOIN collections c USING (tenant_id, collection_id)"
        " WHERE d.tenant_id = $1 AND c.name = 'c' ORDER BY 1",
        shelf.tenant,
    )
    return [row["document_id"] for row in rows]


async def test_a_drop_takes_all_that_was_accepted_before_it(shelf: Shelf) -> None:
    """What waits goes too, whether the collection is made anew in between or not; what comes later lives."""
    await shelf.put("indexed", "a", sequence=7)
    waiting = await shelf.publish("waiting", "b")
    await drop(shelf)
    await shelf.drive.settle(shelf.tenant)
    assert "done" == await shelf.status(waiting)
    assert [] == await shelf.drive.rows(
        "SELECT FROM collections WHERE tenant_id = $1 AND name = 'c'", shelf.tenant
    )
    await shelf.put("second", "a", sequence=1)
    await shelf.publish("waiting too", "c")
    await drop(shelf)
    await shelf.put("third", "a")
    assert ["a"] == await standing(shelf)
    assert ["b", "c"] == sorted(said["document_id"] for said in await shelf.said("superseded"))


async def test_what_a_dropped_collection_held_is_cleared(shelf: Shelf, owner_database: Database) -> None:
    """Chunks, vectors, documents and kept embeddings go; a collection of the same name keeps its own."""
    for name in ("a", "b"):
        await shelf.put(f"text of {name}", name)
    await drop(shelf)
    with pytest.raises(NotFound):
        await drop(shelf)
    await shelf.put("text of the next one", "a")
    async with owner_database.connection() as connection:
        await clear_dropped(connection)
    [left] = await shelf.drive.rows(HELD, shelf.tenant)
    assert {"chunks": 1, "documents": 1, "kept": 1} == left
    assert ["text of the next one"] == await shelf.texts("a")
    await shelf.check()


async def test_a_drop_wins_against_a_version_that_is_being_embedded(shelf: Shelf, faults: Faults) -> None:
    """A worker that read the document before the drop writes nothing after it."""
    await shelf.put("here already", "a")
    calls = await faults.requests("embeddings")
    await faults.latency("embeddings", seconds=1.0)
    slow = await shelf.publish("slow to embed", "b")
    adding = asyncio.create_task(shelf.drive.settle(shelf.tenant))
    async with asyncio.timeout(20):
        while await faults.requests("embeddings") == calls:  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(0.02)
    await drop(shelf)
    await adding
    await shelf.drive.settle(shelf.tenant)
    assert "done" == await shelf.status(slow)
    assert ["b"] == [said["document_id"] for said in await shelf.said("superseded")]
    assert [] == await standing(shelf)


async def test_a_new_collection_repeats_no_generation_of_a_dropped_one(shelf: Shelf) -> None:
    """Kept answers are found by name and generation: those of a dropped collection never are."""
    await shelf.put("one")
    before = await shelf.generation()
    await drop(shelf)
    await shelf.put("two")
    [row] = await shelf.drive.rows(
        "SELECT generation FROM collections WHERE tenant_id = $1 AND name = 'c'", shelf.tenant
    )
    assert row["generation"] > before
