from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from uuid import UUID

import pytest
import redis.asyncio

from infra import answer_stream
from infra.answer_stream import StreamEvent, follow, pointer_key, stream_key, wait_for_answer
from infra.answers import cancel_answer, finished_answer
from infra.local.model.faults_client import Faults
from schemas.errors import Conflict, NotFound
from tests.conftest import NewTenant
from tests.drive import Drive
from tests.workers.answer.desk import Desk
from workers.handling import Resources

WARRANTY = "How long does the warranty of the Aurora 7 last?"


def watch(desk: Desk, query_id: UUID, after: str | None = None) -> AsyncIterator[StreamEvent]:
    """Follow an answer as the gateway does."""
    resources = desk.drive.resources
    final = partial(finished_answer, resources.database, desk.tenant, query_id)
    return follow(resources.redis, str(query_id), after, final=final)


async def collect(desk: Desk, query_id: UUID, after: str | None = None) -> list[StreamEvent]:
    """Everything that a follower hears until the end."""
    async with asyncio.timeout(20):
        return [event async for event in watch(desk, query_id, after)]


def text_of(events: list[StreamEvent]) -> str:
    """What a client shows: it starts over at a restart."""
    text = ""
    for event in events:
        text = (
            ""
            if event.event == "restart"
            else text + str(event.data.get("text", "")) * (event.event == "token")
        )
    return text


async def test_a_follower_hears_an_answer_while_it_is_written(desk: Desk, faults: Faults) -> None:
    """Passages first, then tokens, then citations, and at the end the answer as the database has it."""
    await faults.latency("chat", per_token=0.02)
    query_id = await desk.publish(WARRANTY, stream=True)
    running = asyncio.create_task(desk.drive.settle(desk.tenant))
    events = await collect(desk, query_id)
    await running
    answer = await desk.read(query_id)
    kinds = [event.event for event in events]
    assert kinds[0] == "retrieved"
    assert kinds.count("token") >= 3
    assert kinds[-2:] == ["citation", "done"]
    assert text_of(events) == answer["answer"]
    assert dict(events[-1].data) == answer
    assert [f"1-{n}" for n in range(1, len(events) + 1)] == [event.id for event in events]


async def test_the_row_says_that_a_model_is_writing(desk: Desk, faults: Faults) -> None:
    """A moment after the first token the answer is `streaming`; before a worker takes it up, `pending`."""
    await faults.latency("chat", per_token=0.1)
    query_id = await desk.publish(WARRANTY, stream=True)
    assert "pending" == (await desk.read(query_id))["status"]
    running = asyncio.create_task(desk.drive.settle(desk.tenant))
    async for event in watch(desk, query_id):
        if event.event == "token":
            break
    while "pending" == (status := (await desk.read(query_id))["status"]):  # noqa: ASYNC110 - a worker writes it
        await asyncio.sleep(0.01)
    assert "streaming" == status
    await running
    assert "answered" == (await desk.read(query_id))["status"]


async def test_a_stream_is_resumed_where_it_was_left(desk: Desk) -> None:
    """With the last event's id a client hears the rest, and nothing twice."""
    query_id = await desk.publish(WARRANTY, stream=True)
    await desk.drive.settle(desk.tenant)
    whole = await collect(desk, query_id)
    for place, event in enumerate(whole[:-1]):
        rest = await collect(desk, query_id, event.id)
        assert [one.id for one in whole[place + 1 :]] == [one.id for one in rest]


async def test_another_attempt_begins_with_a_restart(desk: Desk, faults: Faults) -> None:
    """A stream that broke is written again from the start, and followers are told to discard what they have."""
    await faults.add("chat", "cut", times=1)
    query_id = await desk.publish(WARRANTY, stream=True)
    running = asyncio.create_task(collect(desk, query_id))
    await desk.drive.settle(desk.tenant)
    events = await running
    answer = await desk.read(query_id)
    assert 1 == [event.event for event in events].count("restart")
    assert text_of(events) == answer["answer"]
    late = await collect(desk, query_id, "1-2")
    assert ["restart", "retrieved"] == [event.event for event in late[:2]]
    assert text_of(late) == answer["answer"]


async def test_a_lost_stream_costs_no_answer(desk: Desk, faults: Faults) -> None:
    """An emptied Redis in the middle: the follower still hears the end, from the database."""
    await faults.latency("chat", per_token=0.05)
    query_id = await desk.publish(WARRANTY, stream=True)
    running = asyncio.create_task(desk.drive.settle(desk.tenant))
    events = []
    async for event in watch(desk, query_id):
        events.append(event)
        if event.event == "token" and len(events) < 4:
            await desk.drive.resources.redis.flushall()
    await running
    assert "done" == events[-1].event
    assert events[-1].data["answer"] == (await desk.read(query_id))["answer"]


async def test_an_answer_needs_no_redis(desk: Desk) -> None:
    """With Redis away the question is answered all the same."""
    away = redis.asyncio.Redis.from_url("redis://127.0.0.1:1/0")
    resources = replace(desk.drive.resources, redis=away)
    async with Drive.open(resources, desk.drive.owner) as drive:
        await drive.use("answer")
        answer = await Desk(drive, desk.tenant).ask(WARRANTY, stream=True)
    await away.aclose()
    assert "answered" == answer["status"]


async def test_a_redis_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the beginning of an attempt nor its end waits for longer than a moment; what was to be written is dropped."""
    monkeypatch.setattr(answer_stream, "PATIENCE", 0.05)
    held: list[asyncio.StreamWriter] = []
    silent = await asyncio.start_server(lambda _, writer: held.append(writer), "127.0.0.1", 0)
    client = redis.asyncio.Redis(port=silent.sockets[0].getsockname()[1])
    async with asyncio.timeout(10):
        writer = answer_stream.AnswerWriter(client, "q")
        assert not await writer.begin()
        writer.write("finished", {})
        await writer.flush()
    await client.aclose()
    for one in held:
        one.close()
    silent.close()


async def test_no_token_is_written_that_nobody_asked_for(
    desk: Desk, redis_client: redis.asyncio.Redis
) -> None:
    """Without `stream` Redis carries the passages and the end alone, and every key expires."""
    query_id = await desk.publish(WARRANTY)
    await desk.drive.settle(desk.tenant)
    entries = await redis_client.xrange(stream_key(str(query_id), 1))
    assert [b"retrieved", b"citation", b"finished"] == [fields[b"event"] for _, fields in entries]
    for key in (pointer_key(str(query_id)), stream_key(str(query_id), 1)):
        assert 0 < await redis_client.ttl(key) <= 3600


async def test_whoever_waits_gets_the_finished_answer(desk: Desk) -> None:
    """Waiting ends with the answer, or with None when the time is up."""
    query_id = await desk.publish(WARRANTY)
    final = partial(finished_answer, desk.drive.resources.database, desk.tenant, query_id)
    client = desk.drive.resources.redis
    assert await wait_for_answer(client, str(query_id), final=final, timeout=0.05) is None
    waiting = asyncio.create_task(wait_for_answer(client, str(query_id), final=final, timeout=20))
    await desk.drive.settle(desk.tenant)
    assert await waiting == await desk.read(query_id)


async def test_a_withdrawn_question_is_never_paid(desk: Desk, faults: Faults) -> None:
    """Withdrawn before a worker has it: nothing is called, and the out event says why."""
    await faults.reset_calls()
    query_id = await desk.publish(WARRANTY)
    resources: Resources = desk.drive.resources
    answer = await cancel_answer(resources.database, resources.redis, desk.tenant, query_id)
    assert ("failed", "cancelled") == (answer["status"], answer["error"]["code"])
    await desk.drive.settle(desk.tenant)
    assert await faults.calls() == {}
    assert "cancelled" == (await desk.read(query_id))["error"]["code"]
    assert ["cancelled"] == [said["error"]["code"] for said in await desk.said("failed")]


@pytest.mark.parametrize("stream", [True, False])
async def test_withdrawing_stops_the_model_call(desk: Desk, faults: Faults, stream: bool) -> None:
    """A call under way is ended; what it said is thrown away."""
    await faults.latency("chat", per_token=0.3)
    query_id = await desk.publish(WARRANTY, stream=stream)
    running = asyncio.create_task(desk.drive.settle(desk.tenant))
    async for event in watch(desk, query_id):
        if event.event == "retrieved":
            break
    resources = desk.drive.resources
    await cancel_answer(resources.database, resources.redis, desk.tenant, query_id)
    await running
    answer = await desk.read(query_id)
    assert ("failed", "cancelled", None) == (answer["status"], answer["error"]["code"], answer["answer"])
    assert [] == await desk.said("answered")
    assert 1 == len(await desk.said("failed"))


@pytest.mark.parametrize("endpoint", ["embeddings", "chat"])
async def test_withdrawing_ends_a_call_that_says_nothing(desk: Desk, faults: Faults, endpoint: str) -> None:
    """A model that has not said a word, or not embedded the question, is waited for no longer either."""
    await faults.reset_calls()
    await faults.add(endpoint, "hang")
    query_id = await desk.publish(WARRANTY)
    running = asyncio.create_task(desk.drive.settle(desk.tenant))
    async with asyncio.timeout(30):
        while not await faults.requests(endpoint):  # noqa: ASYNC110 - the server counts
            await asyncio.sleep(0.02)
        resources = desk.drive.resources
        await cancel_answer(resources.database, resources.redis, desk.tenant, query_id)
        await running
    assert "cancelled" == (await desk.read(query_id))["error"]["code"]
    assert 1 == await faults.requests(endpoint)


async def test_an_answered_question_cannot_be_withdrawn(desk: Desk, new_tenant: NewTenant) -> None:
    """What is answered stays; another tenant's question does not exist."""
    query_id = await desk.publish(WARRANTY)
    await desk.drive.settle(desk.tenant)
    resources = desk.drive.resources
    with pytest.raises(Conflict):
        await cancel_answer(resources.database, resources.redis, desk.tenant, query_id)
    with pytest.raises(NotFound):
        await cancel_answer(resources.database, resources.redis, await new_tenant(), query_id)
    assert "answered" == (await desk.read(query_id))["status"]


async def test_a_follower_that_leaves_holds_nothing_up(desk: Desk, faults: Faults) -> None:
    """A client that vanishes in the middle costs the worker nothing."""
    await faults.latency("chat", per_token=0.02)
    query_id = await desk.publish(WARRANTY, stream=True)
    follower = asyncio.create_task(collect(desk, query_id))
    running = asyncio.create_task(desk.drive.settle(desk.tenant))
    await asyncio.sleep(0)
    follower.cancel()
    with suppress(asyncio.CancelledError):
        await follower
    await running
    assert "answered" == (await desk.read(query_id))["status"]
