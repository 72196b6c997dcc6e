from __future__ import annotations

import asyncio
import re
from pydoc_data.topics import topics

import pytest
import structlog.testing

from infra.attempts import claim
from infra.local.model.faults_client import Faults
from infra.prices import ModelPrice
from schemas.work import Work
from tests.conftest import NewTenant
from tests.workers.ingest.shelf import Shelf
from workers.commit import Committer, Ending
from workers.engine.types import Done

PROSE = "\n\n".join(topics.values())[:90_000]
MARKDOWN = (
    "# Guide\n\nWater turns wheels.\n\n"
    + PROSE[:1_200]
    + "\n\n## Sluices\n\nMore about them. "
    + PROSE[1_200:1_700]
)


async def test_a_document_becomes_chunks_with_vectors(shelf: Shelf) -> None:
    """One event makes the collection, the document, chunks with heading and words, and a vector for each."""
    event_id = await shelf.put(MARKDOWN, media_type="text/markdown", metadata={"lang": "en"}, sequence=4)
    assert await shelf.status(event_id) == "done"
    row = await shelf.row()
    assert ("indexed", 4, 4, "Guide", {"lang": "en"}) == (
        row["status"], row["sequence"], row["served_sequence"], row["title"], row["metadata"],
    )  # fmt: skip
    chunks = await shelf.chunks()
    assert len(chunks) == row["chunks"] > 2
    assert sum(chunk["tokens"] for chunk in chunks) == row["tokens"]
    assert all(len(chunk["embedding"]) == 4 + 2 * 256 for chunk in chunks)
    assert chunks[-1]["heading"] == "Guide > Sluices"
    assert "sluic" in chunks[-1]["words"]
    [said] = await shelf.said("indexed")
    expected = {
        "collection": "c",
        "document_id": "d",
        "sequence": 4,
        "chunks": len(chunks),
        "embedded": len(chunks),
    }
    assert expected == {name: said[name] for name in expected}
    await shelf.check()


async def test_the_same_content_again_embeds_nothing(shelf: Shelf, faults: Faults) -> None:
    """An unchanged corpus published again costs no embedding call, and answers that were kept stay good."""
    for name in "abc":
        await shelf.put(PROSE[:5_000] + name, name)
    calls, generation = await faults.requests("embeddings"), await shelf.generation()
    ids = {chunk["chunk_id"] for chunk in await shelf.chunks("a")}
    for name in "abc":
        await shelf.put(PROSE[:5_000] + name, name)
    assert await faults.requests("embeddings") == calls
    assert await shelf.generation() == generation
    assert {chunk["chunk_id"] for chunk in await shelf.chunks("a")} == ids
    assert [said["embedded"] for said in await shelf.said("indexed")][3:] == [0, 0, 0]


async def test_one_changed_word_embeds_at_most_two_chunks(shelf: Shelf) -> None:
    """In a document of a hundred chunks the others keep their ids and vectors."""
    await shelf.put(PROSE)
    before = {chunk["chunk_id"]: chunk["embedding"] for chunk in await shelf.chunks()}
    assert len(before) >= 100
    changed = re.sub(r"\bobject\b", "gadget", PROSE[45_000:], count=1)
    await shelf.put(PROSE[:45_000] + changed)
    after = {chunk["chunk_id"]: chunk["embedding"] for chunk in await shelf.chunks()}
    assert (await shelf.said("indexed"))[1]["embedded"] in {1, 2}
    assert len(after.keys() - before.keys()) in {1, 2}
    assert all(after[chunk_id] == before[chunk_id] for chunk_id in after.keys() & before.keys())
    await shelf.check()


async def test_metadata_and_title_change_without_touching_a_chunk(shelf: Shelf, faults: Faults) -> None:
    """The row changes, chunks and vectors are the same rows as before, and kept answers are out of date."""
    await shelf.put(MARKDOWN, media_type="text/markdown", metadata={"a": 1})
    rows = await shelf.drive.rows("SELECT ctid, xmin FROM chunks WHERE tenant_id = $1", shelf.tenant)
    calls, generation = await faults.requests("embeddings"), await shelf.generation()
    await shelf.put(MARKDOWN, media_type="text/markdown", metadata={"a": 2})
    await shelf.put(MARKDOWN, media_type="text/markdown", metadata={"a": 2}, title="Given")
    assert ({"a": 2}, "Given") == ((await shelf.row())["metadata"], (await shelf.row())["title"])
    await shelf.put(MARKDOWN, media_type="text/markdown", metadata={"a": 2})
    assert (await shelf.row())["title"] == "Guide"
    assert await shelf.drive.rows("SELECT ctid, xmin FROM chunks WHERE tenant_id = $1", shelf.tenant) == rows
    assert await faults.requests("embeddings") == calls
    assert await shelf.generation() == generation + 3


async def test_a_paragraph_that_moves_is_not_embedded_again(shelf: Shelf, faults: Faults) -> None:
    """Sections in another order: positions and headings change, vectors do not."""
    sections = [f"## Part {n}\n\n" + PROSE[n * 900 : n * 900 + 800] for n in range(6)]
    await shelf.put("\n\n".join(sections), media_type="text/markdown")
    calls = await faults.requests("embeddings")
    before = {chunk["text"]: chunk["chunk_id"] for chunk in await shelf.chunks()}
    moved = [sections[n] for n in (3, 4, 5, 0, 1, 2)]
    await shelf.put("\n\n".join(moved), media_type="text/markdown")
    assert {chunk["text"]: chunk["chunk_id"] for chunk in await shelf.chunks()} == before
    assert (await shelf.texts())[0].startswith("## Part 3")
    assert await faults.requests("embeddings") == calls


async def test_a_text_is_paid_for_once_per_tenant(
    shelf: Shelf, faults: Faults, new_tenant: NewTenant
) -> None:
    """The same text in another document comes from the cache; another tenant's cache is another one."""
    await shelf.put(PROSE[:3_000], "one")
    calls = await faults.requests("embeddings")
    await shelf.put(PROSE[:3_000], "two")
    assert await faults.requests("embeddings") == calls
    assert [c["embedding"] for c in await shelf.chunks("one")] == [
        c["embedding"] for c in await shelf.chunks("two")
    ]
    await Shelf(shelf.drive, await new_tenant()).put(PROSE[:3_000])
    assert await faults.requests("embeddings") == calls + 1


async def test_what_was_paid_for_a_document_is_kept_with_it(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tokens and money of documents add up to the tenant's: those of an overtaken and of a deleted version too."""
    budget = shelf.drive.resources.budget
    monkeypatch.setitem(budget.prices.models, "local-embed-256", ModelPrice.model_validate({"in": 2.0}))
    await shelf.publish(PROSE[:2_000])
    await shelf.publish(PROSE[2_000:4_000])
    await shelf.publish(PROSE[4_000:5_000], "gone")
    await shelf.drive.settle(shelf.tenant)
    await shelf.put(None, "gone")
    await shelf.put(PROSE[2_000:4_000] + "One more.")
    await budget.flush()
    [used] = await shelf.drive.rows(
        "SELECT sum(tokens_in)::bigint AS tokens, sum(cost_micros)::bigint AS micros FROM usage WHERE tenant_id = $1",
        shelf.tenant,
    )
    kept = await shelf.drive.rows(
        "SELECT document_id, embedded_tokens, cost_micros FROM document_usage WHERE tenant_id = $1",
        shelf.tenant,
    )
    assert {"d", "gone"} == {row["document_id"] for row in kept}
    assert used["tokens"] == sum(row["embedded_tokens"] for row in kept)
    assert used["micros"] == sum(row["cost_micros"] for row in kept) == 2 * used["tokens"]
    await shelf.drive.rows(
        "DELETE FROM documents WHERE tenant_id = $1 AND document_id = 'gone'", shelf.tenant
    )
    left = await shelf.drive.rows("SELECT document_id FROM document_usage WHERE tenant_id = $1", shelf.tenant)
    assert ["d"] == [row["document_id"] for row in left]


async def test_a_text_that_repeats_within_a_document_is_embedded_once(shelf: Shelf) -> None:
    """Equal chunks share a vector and are all there."""
    section = "## Same\n\n" + PROSE[:800]
    await shelf.put("\n\n".join([section] * 5), media_type="text/markdown")
    chunks = await shelf.chunks()
    assert len(chunks) > len({chunk["text"] for chunk in chunks})
    assert (await shelf.said("indexed"))[0]["embedded"] == len({chunk["text"] for chunk in chunks})
    await shelf.check()


async def test_documents_of_many_jobs_share_requests(shelf: Shelf, faults: Faults) -> None:
    """Forty documents that wait together are embedded in a few calls."""
    for number in range(40):
        await shelf.publish(f"Document {number}. " + PROSE[number * 500 : number * 500 + 400], f"d{number}")
    await shelf.drive.settle(shelf.tenant)
    assert len(await shelf.said("indexed")) == 40
    assert await faults.requests("embeddings") <= 10
    await shelf.check()


async def test_a_deleted_document_leaves_a_tombstone_and_nothing_else(shelf: Shelf) -> None:
    """Chunks, vectors, title and cached vectors are gone; the version stays."""
    await shelf.put(MARKDOWN, sequence=1, media_type="text/markdown", metadata={"a": 1})
    await shelf.put(None, sequence=2)
    row = await shelf.row()
    expected: tuple[object, ...] = ("purged", 2, None, None, {}, None, 0)
    assert expected == tuple(
        row[name]
        for name in ("status", "sequence", "served_sequence", "title", "metadata", "content_sha256", "chunks")
    )
    assert await shelf.texts() == []
    assert await shelf.drive.rows("SELECT * FROM embedding_cache WHERE tenant_id = $1", shelf.tenant) == []
    assert await shelf.said("purged") == [{"collection": "c", "document_id": "d", "sequence": 2}]
    await shelf.check()


async def test_a_collection_cuts_as_its_settings_say(shelf: Shelf) -> None:
    """Another chunk size makes other chunks when the same document comes again."""
    await shelf.put(PROSE[:8_000])
    many = len(await shelf.texts())
    await shelf.drive.rows(
        "UPDATE collections SET settings = $2 WHERE tenant_id = $1",
        shelf.tenant,
        {"chunking": {"size": 1024}},
    )
    await shelf.put(PROSE[:8_000])
    assert len(await shelf.texts()) < many / 2
    await shelf.check()


async def test_a_tenant_has_so_many_collections_and_no_more(shelf: Shelf) -> None:
    """The first document beyond the limit is refused with the reason; the collections that exist go on."""
    await shelf.drive.rows(
        "UPDATE tenants SET limits = $2 WHERE tenant_id = $1", shelf.tenant, {"collections": 1}
    )
    await shelf.put("first")
    data = {"collection": "second", "document_id": "x", "content": "x"}
    event_id = await shelf.drive.publish(shelf.tenant, "document.added", data)
    await shelf.drive.settle(shelf.tenant)
    assert (await shelf.drive.event(event_id))["error"]["code"] == "limit_reached"
    assert [said["error"]["code"] for said in await shelf.said("failed")] == ["limit_reached"]
    assert await shelf.status(await shelf.put("more")) == "done"


async def test_documents_that_are_ready_together_are_written_together(shelf: Shelf) -> None:
    """Forty new documents, then forty changed and deleted ones, need no group to be taken apart."""
    with structlog.testing.capture_logs() as logs:
        for text in ("first", "second", None):
            for number in range(40):
                await shelf.publish(None if text is None else f"the {text} text of {number}", f"d{number}")
            await shelf.drive.settle(shelf.tenant)
    assert [] == [line for line in logs if line["event"] == "commit.group_split"]
    assert {"purged"} == {(await shelf.row(f"d{number}"))["status"] for number in range(40)}
    await shelf.check()


async def test_of_two_versions_that_are_written_together_the_newer_is_served(shelf: Shelf) -> None:
    """The older one is superseded without ever having been served, and the group is not taken apart."""
    ids = [await shelf.publish(f"version {number}", sequence=number) for number in (2, 1, 3)]
    resources, spec = shelf.drive.resources, shelf.drive.handlers["document.added"]
    works = (await claim(resources.database, [(event_id, 1) for event_id in ids])).values()
    endings = [
        Ending(work, await spec.handle(work), Done(), None, spec) for work in works if isinstance(work, Work)
    ]
    committer = Committer(resources.database, resources.bus)
    with structlog.testing.capture_logs() as logs:
        await asyncio.gather(*map(committer.commit, endings))
        await committer.aclose()
    assert [] == [line for line in logs if line["event"] == "commit.group_split"]
    assert ["version 3"] == await shelf.texts()
    assert [3, 3] == [said["by_sequence"] for said in await shelf.said("superseded")]
    assert 1 == len(await shelf.said("indexed"))
