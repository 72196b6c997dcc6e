from __future__ import annotations

import asyncio

import pytest

from infra import reembed
from infra.collections import provider_of
from infra.database import queries
from infra.local.model.faults_client import Faults
from infra.reembed import Reembedding, find_target
from infra.retrieval import Retriever
from schemas.errors import ModelAway, NotFound
from tests.workers.ingest.shelf import Shelf

MODEL = "local-embed-256"


async def to(shelf: Shelf, dimensions: int) -> Reembedding:
    """The shelf's collection on its way to another width."""
    resources = shelf.drive.resources
    target = await find_target(
        resources.database,
        shelf.tenant,
        "c",
        provider=provider_of(resources.settings.openai_base_url),
        model=MODEL,
        dimensions=dimensions,
    )
    return Reembedding(resources.database, resources.models, resources.budget, target)


async def served(shelf: Shelf) -> tuple[int, int]:
    """The collection's dimensions, and how many of its chunks have no vector there."""
    [row] = await shelf.drive.rows(
        "SELECT s.dimensions, (SELECT missing FROM reembed_size(c.tenant_id, c.collection_id, c.space_id)) AS missing"
        " FROM collections c JOIN embedding_spaces s USING (space_id) WHERE tenant_id = $1",
        shelf.tenant,
    )
    return row["dimensions"], row["missing"]


async def find(shelf: Shelf, question: str) -> str:
    """The best passage by vector alone."""
    resources = shelf.drive.resources
    assert resources.models is not None
    retriever = Retriever(resources.database, resources.models, resources.budget)
    known = await retriever.look_up(shelf.tenant, ["c"])
    found = await retriever.find(shelf.tenant, known, question, mode="vector")
    return found.passages[0].document_id


async def test_a_collection_goes_to_another_model_and_back(shelf: Shelf, faults: Faults) -> None:
    """Everything is embedded once and then served; going back embeds only what came in between."""
    for name, text in {"a": "The gate opens at noon.", "b": "A river runs to the sea."}.items():
        await shelf.put(text, name)
    there = await to(shelf, 128)
    estimate = await there.estimate()
    assert (2, 2) == (estimate.chunks, estimate.missing)
    assert (256, 0) == await served(shelf)
    assert await there.run() == 2
    assert (128, 0) == await served(shelf)
    assert "a" == await find(shelf, "When does the gate open?")
    await shelf.put("The third one came later.", "late")
    await shelf.put("The gate opens at noon.", "a")
    assert (128, 0) == await served(shelf)
    await faults.reset_calls()
    back = await to(shelf, 256)
    assert (await back.estimate()).missing == 1
    assert await back.run() == 1
    assert await faults.requests("embeddings") == 1
    assert (256, 0) == await served(shelf)
    assert "late" == await find(shelf, "Which one came later?")
    await shelf.check()


async def test_what_was_filled_before_an_outage_is_not_paid_for_again(
    shelf: Shelf, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old model is served until all is there; a second run goes on where the first one stopped."""
    monkeypatch.setattr(reembed, "BATCH", 2)
    for number in range(6):
        await shelf.publish(f"text number {number}", f"d{number}")
    await shelf.drive.settle(shelf.tenant)
    await faults.add("embeddings", "500", after=2, times=1)
    with pytest.raises(ModelAway):
        await (await to(shelf, 64)).run()
    assert (256, 0) == await served(shelf)
    again = await to(shelf, 64)
    assert (await again.estimate()).missing == 2
    assert await again.run() == 2
    assert (64, 0) == await served(shelf)


async def test_documents_that_arrive_during_the_move_are_moved_too(shelf: Shelf) -> None:
    """While a collection is filled and switched, documents are added, replaced and deleted: none lacks its vector."""
    for number in range(8):
        await shelf.publish(f"text number {number}", f"d{number}")
    await shelf.drive.settle(shelf.tenant)

    async def write() -> None:
        for number in range(12):
            await shelf.publish(f"new text number {number}", f"d{number}")
            if number % 4 == 0:
                await shelf.publish(None, f"d{number}")
            await shelf.drive.step(shelf.tenant)

    await asyncio.gather((await to(shelf, 128)).run(), write())
    await shelf.drive.settle(shelf.tenant)
    assert (128, 0) == await served(shelf)
    assert 9 == len(
        await shelf.drive.rows("SELECT FROM documents WHERE tenant_id = $1 AND chunks > 0", shelf.tenant)
    )


async def test_the_switch_waits_for_who_is_writing(shelf: Shelf) -> None:
    """A writer that has looked at the collection's space commits before the space changes."""
    await shelf.put("some text")
    moving = await to(shelf, 128)
    home = (shelf.tenant, moving.target.collection_id)
    async with shelf.drive.resources.database.transaction(shelf.tenant) as connection:
        await connection.execute(queries("ingest").enter_collections, [home[0]], [home[1]])
        running = asyncio.create_task(moving.run())
        async with asyncio.timeout(30):
            while not await shelf.drive.rows(  # noqa: ASYNC110 - the database has no event for it
                "SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database ="
                " (SELECT oid FROM pg_database WHERE datname = current_database())"
            ):
                await asyncio.sleep(0.02)
        assert (256, 0) == await served(shelf)
    await running
    assert (128, 0) == await served(shelf)


async def test_a_collection_that_does_not_exist_goes_nowhere(shelf: Shelf) -> None:
    """The error names it."""
    with pytest.raises(NotFound):
        await to(shelf, 128)
