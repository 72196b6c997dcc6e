from __future__ import annotations

import asyncio
from dataclasses import replace
from pydoc_data.topics import topics

import asyncpg
import pytest

from infra.governor import Governor, insight, resume
from infra.llm import ModelApi
from infra.local.model.faults_client import Faults
from infra.prices import ModelPrice
from tests.conftest import Stack
from tests.drive import Drive
from tests.workers.ingest.shelf import Shelf

DEAD_AFTER = 8


@pytest.mark.parametrize("kind", ["nan", "wrong_dimensions", "empty", "short", "malformed", "cut"])
async def test_a_useless_reply_is_tried_again_and_nothing_is_half_written(
    shelf: Shelf, faults: Faults, kind: str
) -> None:
    """NaN, a wrong width, missing vectors, broken JSON: charged attempts, no row, then the document is whole."""
    await faults.add("embeddings", kind, times=2)
    event_id = await shelf.publish("one\n\n" + "some words. " * 200)
    await shelf.drive.step(shelf.tenant)
    assert await shelf.status(event_id) in {"retrying", "accepted"}
    assert await shelf.drive.rows("SELECT * FROM chunks WHERE tenant_id = $1", shelf.tenant) == []
    assert await shelf.drive.rows("SELECT * FROM documents WHERE tenant_id = $1", shelf.tenant) == []
    await shelf.drive.settle(shelf.tenant)
    assert await shelf.status(event_id) == "done"
    await shelf.check()


async def test_a_model_that_never_gives_a_vector_ends_in_the_dead_letters(
    shelf: Shelf, faults: Faults
) -> None:
    """After all attempts the document is failed with the reason; the version before is still served."""
    await shelf.put("served", sequence=1)
    await faults.add("embeddings", "nan")
    event_id = await shelf.put("never", sequence=2)
    event = await shelf.drive.event(event_id)
    assert ("dead", DEAD_AFTER, "call_failed") == (event["status"], event["attempts"], event["error"]["code"])
    row = await shelf.row()
    assert ("failed", 2, 1) == (row["status"], row["sequence"], row["served_sequence"])
    assert await shelf.texts() == ["served"]


@pytest.mark.parametrize("kind", ["429", "500", "503", "insufficient_quota", "401", "404", "drop"])
async def test_an_outage_or_a_limit_burns_no_attempt(shelf: Shelf, faults: Faults, kind: str) -> None:
    """Whatever keeps the model API from answering, the event waits and its attempts stay as they are."""
    await faults.add("embeddings", kind)
    event_id = await shelf.publish("patience")
    for _ in range(DEAD_AFTER + 2):
        await shelf.drive.step(shelf.tenant)
    event = await shelf.drive.event(event_id)
    assert ("accepted", 0) == (event["status"], event["attempts"])
    await faults.clear("embeddings")
    await shelf.drive.settle(shelf.tenant)
    assert await shelf.status(event_id) == "done"


async def test_a_refused_text_fails_alone(shelf: Shelf, faults: Faults) -> None:
    """A poison text shares its request with forty others: they succeed, and its document is failed with the reason."""
    await faults.add("embeddings", "400", match="poison")
    names = [f"d{number}" for number in range(40)]
    for number, name in enumerate(names):
        await shelf.publish("poison" if number == 17 else f"harmless text {number}", name)
    await shelf.drive.settle(shelf.tenant)
    statuses = {name: (await shelf.row(name))["status"] for name in names}
    assert statuses == {name: "failed" if name == "d17" else "indexed" for name in names}
    [said] = await shelf.said("failed")
    assert ("d17", "refused") == (said["document_id"], said["error"]["code"])
    assert await faults.requests("embeddings") < 40
    await shelf.check()


@pytest.mark.parametrize("kind", ["insufficient_quota", "401"])
async def test_a_pool_without_quota_or_key_waits_and_fails_no_document(
    shelf: Shelf, faults: Faults, kind: str
) -> None:
    """A few calls find it out, not a hundred and twenty; the documents wait without a charge, and go on when it is mended."""
    resources = shelf.drive.resources
    async with (
        ModelApi.open(
            resources.settings.openai_base_url,
            resources.settings.need("OPENAI_API_KEY"),
            governor=Governor(resources.redis, shelf.tenant),
        ) as models,
        Drive.open(replace(resources, models=models), shelf.drive.owner) as drive,
    ):
        await drive.use("ingest")
        events = [await shelf.publish(f"text {number}", f"d{number}") for number in range(40)]
        async with faults.during("embeddings", kind):
            for _ in range(3):
                await drive.step(shelf.tenant)
            assert await faults.requests("embeddings") < 12
        assert [one.paused for one in await insight(resources.redis) if one.account == shelf.tenant] != [None]
        assert {("accepted", 0)} == {
            (row["status"], row["attempts"]) for row in [await drive.event(event) for event in events]
        }
        await resume(resources.redis)
        await drive.settle(shelf.tenant)
    assert {"done"} == {await shelf.status(event) for event in events}


async def test_a_tenant_over_its_budget_waits_and_says_so(shelf: Shelf, faults: Faults) -> None:
    """Nothing is called while the budget is used up; the event is paused, not failed, and goes on later."""
    prices = shelf.drive.resources.budget.prices.models
    prices["local-embed-256"] = ModelPrice.model_validate({"in": 1000.0})
    try:
        await shelf.drive.rows(
            "UPDATE tenants SET limits = $2 WHERE tenant_id = $1", shelf.tenant, {"budget_day": 0.000001}
        )
        event_id = await shelf.publish("costs too much")
        await shelf.drive.step(shelf.tenant)
        assert await shelf.status(event_id) == "paused_budget"
        assert await faults.requests("embeddings") == 0
    finally:
        del prices["local-embed-256"]
    await shelf.drive.settle(shelf.tenant)
    assert await shelf.status(event_id) == "done"


async def test_what_was_embedded_is_booked_to_its_tenant(shelf: Shelf) -> None:
    """The provider's own count of tokens stands in the tenant's usage."""
    await shelf.put("some words to be counted by the provider")
    await shelf.drive.resources.budget.flush()
    [usage] = await shelf.drive.rows("SELECT * FROM usage WHERE tenant_id = $1", shelf.tenant)
    assert ("embed", "local-embed-256", 1) == (usage["purpose"], usage["model"], usage["calls"])
    assert usage["tokens_in"] > 5


@pytest.mark.parametrize(
    ("content", "media_type", "code"),
    [
        ("", "text/plain", "unreadable"),
        ("   \n", "text/markdown", "unreadable"),
        ("{", "application/json", "unreadable"),
        ("x", "image/png", "bad_input"),
        ("not base64!", "application/pdf", "bad_input"),
        ("bm8gcGRm", "application/pdf", "unreadable"),
        ("<div>" * 100, "text/html", "unreadable"),
    ],
)
async def test_a_document_that_cannot_be_read_is_failed_with_the_reason(
    shelf: Shelf, faults: Faults, content: str, media_type: str, code: str
) -> None:
    """The event is dead at once, the document shows why, and nothing was paid."""
    event_id = await shelf.put(content, sequence=1, media_type=media_type)
    event = await shelf.drive.event(event_id)
    assert ("dead", code, 1) == (event["status"], event["error"]["code"], event["attempts"])
    row = await shelf.row()
    assert ("failed", code, None) == (row["status"], row["error"]["code"], row["served_sequence"])
    [said] = await shelf.said("failed")
    assert said["error"]["code"] == code
    assert len(await shelf.drive.said(shelf.tenant, "event.dead")) == 1
    assert await faults.requests("embeddings") == 0


async def test_one_line_of_ten_megabytes_is_indexed(shelf: Shelf) -> None:
    """A document that is one very long line is a document like any other."""
    await shelf.put("the first one makes the collection")
    await shelf.drive.rows(
        "UPDATE collections SET settings = $2 WHERE tenant_id = $1",
        shelf.tenant,
        {"chunking": {"size": 2048}},
    )
    words = " ".join("\n".join(topics.values()).split())
    event_id = await shelf.put((words * (10_000_000 // len(words) + 1))[:10_000_000])
    assert await shelf.status(event_id) == "done"
    assert (await shelf.row())["chunks"] > 1_000
    await shelf.check()


async def test_a_connection_cut_in_the_middle_of_a_group_loses_and_doubles_nothing(
    shelf: Shelf, stack: Stack
) -> None:
    """PostgreSQL ends the connection while a group of documents is written: all come again, and each is there once."""
    names = [f"d{number}" for number in range(12)]
    await shelf.put("the first one makes the collection", "zero")
    for name in names:
        await shelf.publish(f"the text of {name}", name)
    superuser = await asyncpg.connect(stack.servers.superuser_url)
    async with shelf.drive.owner.pool.acquire() as blocker:
        hold = blocker.transaction()
        await hold.start()
        await blocker.execute("LOCK TABLE chunks IN SHARE MODE")
        working = asyncio.create_task(shelf.drive.step(shelf.tenant))
        cut = 0
        async with asyncio.timeout(30):
            while not cut:
                cut = await superuser.fetchval(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_locks JOIN pg_class ON pg_class.oid = relation"
                    " WHERE relname = 'chunks' AND NOT granted"
                )
                await asyncio.sleep(0.02)
        await hold.rollback()
    await superuser.close()
    await working
    await shelf.drive.settle(shelf.tenant)
    assert [(await shelf.row(name))["status"] for name in names] == ["indexed"] * len(names)
    assert len(await shelf.said("indexed")) == len(names) + 1
    await shelf.check()
