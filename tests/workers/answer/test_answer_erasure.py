from __future__ import annotations

import asyncio
import secrets
from uuid import UUID

import pytest
import redis.asyncio

from infra.bus import open_redis
from infra.database import Database
from infra.erasure import Erased, Target, erase
from infra.local.model.faults_client import Faults
from schemas.errors import BadInput, NotFound, Unavailable
from tests.conftest import NewTenant
from tests.drive import Drive
from tests.stories.remains import tables_with
from tests.workers.answer.desk import HEATING, Desk

QUESTION = "How long does the warranty of the Aurora 7 last?"


@pytest.fixture
def mark() -> str:
    """A word that stands nowhere else: tests share a database."""
    return f"zqheron{secrets.token_hex(4)}"


@pytest.fixture
async def shelf(bare_desk: Desk, mark: str) -> Desk:
    """A desk with one document that holds the mark."""
    text = HEATING.replace("five years", f"five years, says {mark},")
    await bare_desk.put(text, "aurora", title=mark)
    return bare_desk


async def forget(desk: Desk, client: redis.asyncio.Redis, database: Database, target: Target) -> Erased:
    """Erase as the gateway does."""
    return await erase(database, client, desk.tenant, target)


async def test_a_document_goes_with_the_answers_that_were_made_of_it(
    shelf: Desk,
    mark: str,
    drive: Drive,
    owner_database: Database,
    gateway_database: Database,
    redis_client: redis.asyncio.Redis,
    new_tenant: NewTenant,
) -> None:
    """Text, quotes and earlier versions are gone; the asker's question stays, and so does the same document of others."""
    other = Desk(drive, await new_tenant())
    await other.put("Somebody else's heron.", "aurora")
    answer = await shelf.ask(QUESTION)
    assert mark in answer["answer"]
    assert await tables_with(owner_database, mark)
    done = await forget(shelf, redis_client, gateway_database, Target("document", "aurora", "docs"))
    assert {} == await tables_with(owner_database, mark)
    assert (done.counts["documents"], done.counts["answers"]) == (1, 1)
    [row] = await drive.rows("SELECT question, status FROM answers WHERE tenant_id = $1", shelf.tenant)
    assert (QUESTION, "answered") == (row["question"], row["status"])
    assert 1 == len(await drive.rows("SELECT 1 FROM chunks WHERE tenant_id = $1", other.tenant))
    # The document may come again, as a version like any other.
    await shelf.put(HEATING, "aurora")
    assert "five years" in (await shelf.ask(QUESTION))["answer"]


async def test_an_answer_that_is_being_written_begins_again_without_it(
    shelf: Desk,
    mark: str,
    drive: Drive,
    owner_database: Database,
    gateway_database: Database,
    redis_client: redis.asyncio.Redis,
    faults: Faults,
) -> None:
    """A question whose passages were read before the erasure cannot write what it read."""
    await faults.add("chat", "slow_first_token", seconds=1.5, times=1)
    query_id = await shelf.publish(QUESTION)
    running = asyncio.create_task(drive.step(shelf.tenant))
    await _until_running(drive, query_id)
    await forget(shelf, redis_client, gateway_database, Target("document", "aurora", "docs"))
    await running
    assert {} == await tables_with(owner_database, mark)
    await drive.settle(shelf.tenant)
    # Abstained, or, where this machine was so slow that the answer was there first, answered and blank.
    [row] = await drive.rows("SELECT answer FROM answers WHERE query_id = $1", query_id)
    assert row["answer"] is None
    assert {} == await tables_with(owner_database, mark)


async def _until_running(drive: Drive, query_id: UUID) -> None:
    async with asyncio.timeout(30):
        while not await drive.rows("SELECT 1 FROM answers WHERE query_id = $1", query_id):  # noqa: ASYNC110 - the state of a row
            await asyncio.sleep(0.02)


async def test_a_question_goes_with_all_that_was_made_of_it(
    desk: Desk,
    mark: str,
    drive: Drive,
    owner_database: Database,
    gateway_database: Database,
    redis_client: redis.asyncio.Redis,
) -> None:
    """Answered and waiting questions; a waiting one is never answered, and says why; the documents stay."""
    answered = await desk.ask(f"{QUESTION} asks {mark}")
    waiting = await desk.publish(f"Is {mark} waiting?")
    assert await tables_with(owner_database, mark)
    for query_id in (answered["id"], str(waiting)):
        await forget(desk, redis_client, gateway_database, Target("query", query_id))
        assert (
            1
            == (await forget(desk, redis_client, gateway_database, Target("query", query_id))).counts[
                "answers"
            ]
        )
    assert {} == await tables_with(owner_database, mark)
    assert await redis_client.zscore("penstock:answer", str(waiting)) is None
    assert [] == await drive.settle(desk.tenant)
    [row] = await drive.rows("SELECT status, error FROM answers WHERE query_id = $1", waiting)
    assert ("failed", "erased") == (row["status"], row["error"]["code"])
    assert "five years" in (await desk.ask(QUESTION))["answer"]


async def test_what_cannot_be_erased_now_is_said_before_anything_is(
    shelf: Desk,
    mark: str,
    owner_database: Database,
    gateway_database: Database,
    redis_client: redis.asyncio.Redis,
) -> None:
    """Redis away, no such tenant, an id that is none: nothing has changed."""
    target = Target("document", "aurora", "docs")
    before = await tables_with(owner_database, mark)
    away = open_redis("redis://127.0.0.1:1/0")
    with pytest.raises(Unavailable):
        await forget(shelf, away, gateway_database, target)
    await away.aclose(close_connection_pool=True)
    with pytest.raises(NotFound):
        await erase(gateway_database, redis_client, "nobody-of-that-name", target)
    with pytest.raises(BadInput):
        await forget(shelf, redis_client, gateway_database, Target("query", "seven"))
    assert before == await tables_with(owner_database, mark)
