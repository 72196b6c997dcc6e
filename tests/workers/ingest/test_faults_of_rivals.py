"""What goes wrong elsewhere, by name: each fault was read in the source of another system, and is shown not to be ours."""

from __future__ import annotations

import asyncio

import asyncpg
import numpy as np

from infra.local.model.faults_client import Faults
from infra.vectors import from_wire
from tests.conftest import Stack
from tests.workers.ingest.shelf import Shelf


async def test_dify_one_nan_vector_moves_no_other(shelf: Shelf, faults: Faults) -> None:
    """A vector that is none does not shift those behind it onto the wrong text: each stands by its own."""
    texts = {f"d{number}": f"the text of page number {number}" for number in range(8)}
    await faults.add("embeddings", "nan", times=1)
    for name, text in texts.items():
        await shelf.publish(text, name)
    await shelf.drive.settle(shelf.tenant)
    models = shelf.drive.resources.models
    assert models is not None
    true = (await models.embed(list(texts.values()), model="local-embed-256", dimensions=256)).vectors
    for name, vector in zip(texts, true, strict=True):
        [chunk] = await shelf.chunks(name)
        stored = from_wire(chunk["embedding"]).astype(np.float32)
        assert np.allclose(vector, stored, atol=2e-3), name


async def test_llamaindex_an_old_version_is_served_until_the_new_one_has_its_vectors(
    shelf: Shelf, faults: Faults
) -> None:
    """Nothing is deleted first, and no hash is kept of what failed: the same content again is indexed."""
    await shelf.put("the old text", sequence=1)
    async with faults.during("embeddings", "400", match="new"):
        await shelf.put("the new text", sequence=2)
    assert ["the old text"] == await shelf.texts()
    await shelf.put("the new text", sequence=3)
    assert ["the new text"] == await shelf.texts()
    await shelf.check()


async def test_haystack_no_document_without_vectors(shelf: Shelf, faults: Faults) -> None:
    """When the request of a batch fails, nothing of the batch is there; when it succeeds, all of it."""
    for number in range(10):
        await shelf.publish(f"the text of page number {number}", f"d{number}")
    async with faults.during("embeddings", "500"):
        await shelf.drive.step(shelf.tenant)
        assert [] == await shelf.drive.rows("SELECT FROM documents WHERE tenant_id = $1", shelf.tenant)
        assert [] == await shelf.drive.rows("SELECT FROM chunks WHERE tenant_id = $1", shelf.tenant)
    await shelf.drive.settle(shelf.tenant)
    await shelf.check()
    assert 10 == len(await shelf.said("indexed"))


async def test_r2r_a_document_that_could_not_be_stored_is_no_success(shelf: Shelf, stack: Stack) -> None:
    """The database refuses one document of a group: that one is not done, its company is, and later it is too."""
    await shelf.put("the first one makes the collection", "zero")
    superuser = await asyncpg.connect(stack.servers.superuser_url)
    await superuser.execute(
        "CREATE FUNCTION refuse_a_page() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'the disk is full' USING ERRCODE = '53100'; END $$;"
        "CREATE TRIGGER refuse_a_page BEFORE INSERT ON chunks FOR EACH ROW"
        " WHEN (NEW.text = 'a page for a full disk') EXECUTE FUNCTION refuse_a_page()"
    )
    try:
        bad = await shelf.publish("a page for a full disk", "bad")
        good = await shelf.publish("a page like any other", "good")
        await shelf.drive.step(shelf.tenant)
        assert "done" != await shelf.status(bad)
        assert "done" == await shelf.status(good)
        assert [] == await shelf.drive.rows(
            "SELECT FROM documents WHERE tenant_id = $1 AND document_id = 'bad'", shelf.tenant
        )
    finally:
        await superuser.execute("DROP FUNCTION refuse_a_page() CASCADE")
        await superuser.close()
    await shelf.drive.settle(shelf.tenant)
    assert "done" == await shelf.status(bad)
    await shelf.check()


async def test_pgai_no_transaction_is_open_while_the_model_is_waited_for(
    shelf: Shelf, faults: Faults
) -> None:
    """A model that hangs holds no lock and no snapshot in the database."""
    await shelf.put("the first one makes the collection", "zero")
    await shelf.publish("a page whose embedding takes long", "slow")
    async with faults.during("embeddings", "hang", seconds=5):
        working = asyncio.create_task(shelf.drive.step(shelf.tenant))
        async with asyncio.timeout(30):
            while await faults.requests("embeddings") < 2:  # noqa: ASYNC110 - another process counts
                await asyncio.sleep(0.01)
        assert [] == await shelf.drive.rows(
            "SELECT pid, state FROM pg_stat_activity WHERE xact_start IS NOT NULL AND pid <> pg_backend_pid()"
            " AND backend_type = 'client backend' AND datname = current_database()"
        )
        working.cancel()
        await asyncio.wait([working])
    await shelf.drive.settle(shelf.tenant)
    await shelf.check()
