from __future__ import annotations

import asyncio
from typing import Any

import pytest

from penstock_client import (
    AsyncClient,
    BadRequest,
    Client,
    Conflict,
    NotAnswered,
    NotFound,
    PenstockError,
    Unauthorized,
    event,
)
from producers.gateway.server import Serving
from tests.drive import Drive

TEXT = "# Aurora\n\nThe warranty of the Aurora lasts five years from the day of delivery."
QUESTION = "How long does the warranty of the Aurora last?"
TALK = [{"role": "user", "content": "Name a river."}, {"role": "assistant", "content": "The Rhône."}]


async def work(wheels: Drive, tenant: str, until: asyncio.Task[Any]) -> Any:
    """Let workers work until a task of the client's is done."""
    async with asyncio.timeout(60):
        while not until.done():
            await wheels.step(tenant)
            await asyncio.wait({until}, timeout=0.05)
    return until.result()


async def test_a_document_is_put_found_asked_about_rated_and_deleted(
    penstock: AsyncClient, wheels: Drive, tenant: str
) -> None:
    """The whole way of an upstream system, in typed answers."""
    put = await penstock.put_document("docs", "a/b c", TEXT, title="Aurora", metadata={"lang": "en"})
    followed = asyncio.create_task(penstock.wait_for(put.event_id))
    assert "done" == (await work(wheels, tenant, followed)).status
    document = await penstock.document("docs", "a/b c")
    assert ("indexed", "Aurora", {"lang": "en"}) == (document.status, document.title, document.metadata)
    assert ["a/b c"] == [one.id async for one in penstock.documents("docs")]
    assert ["docs"] == [one.name async for one in penstock.collections()]
    assert 1 == (await penstock.collection("docs")).chunks
    [passage] = await penstock.search("docs", QUESTION, filter={"lang": "en"}, top_k=3)
    assert "five years" in passage.text

    answer = await work(wheels, tenant, asyncio.create_task(penstock.ask("docs", QUESTION)))
    assert ("answered", "a/b c") == (answer.status, answer.citations[0].document_id)
    assert answer == await penstock.answer(answer.id)
    rated = await penstock.rate(answer.id, 1, corrected="Five years.")
    await wheels.settle(tenant)
    assert "done" == (await penstock.event(rated.event_id)).status

    gone = await penstock.delete_document("docs", "a/b c")
    await wheels.settle(tenant)
    assert (await penstock.event(gone.event_id)).ended
    assert [] == [one.id async for one in penstock.documents("docs")]
    erased = await penstock.erase("document", collection="docs", document_id="a/b c", dry_run=True)
    assert (True, 1) == (erased.dry_run, erased.counts["answers"])


async def test_an_answer_is_followed_while_it_is_written(
    penstock: AsyncClient, wheels: Drive, tenant: str
) -> None:
    """Tokens come before the answer; the same question may be followed again from any event; one may be withdrawn."""
    await penstock.put_document("docs", "a", TEXT)
    await wheels.settle(tenant)

    async def follow() -> list[Any]:
        return [said async for said in penstock.stream("docs", QUESTION)]

    said = await work(wheels, tenant, asyncio.create_task(follow()))
    names = [one.event for one in said]
    assert ("retrieved", "done") == (names[0], names[-1])
    assert "token" in names
    assert "answered" == said[-1].answer.status
    again = [one async for one in penstock.follow(said[-1].answer.id, after=said[1].id)]
    assert [one.id for one in again] == [one.id for one in said[2:]]
    query_id = await penstock.submit("docs", "What else?")
    assert "failed" == (await penstock.withdraw(query_id)).status
    with pytest.raises(NotAnswered) as caught:
        await penstock.ask("docs", "Nobody answers this?", timeout=0)
    assert "pending" == (await penstock.answer(caught.value.query_id)).status


async def test_events_are_published_one_by_one_and_in_batches(penstock: AsyncClient) -> None:
    """Each item has its result, in order, across batches; a repetition is a duplicate."""
    one = await penstock.publish("example.recorded", {"dataset": "d", "messages": TALK}, id="1", source="s")
    assert "accepted" == one.status
    with pytest.raises(Conflict):
        await penstock.publish("example.recorded", {"dataset": "e", "messages": TALK}, id="1", source="s")
    with pytest.raises(BadRequest) as caught:
        await penstock.publish("example.recorded", {"dataset": "d"})
    assert ("data.messages", 400) == (caught.value.field, caught.value.status)
    assert caught.value.request_id
    data = {"collection": "docs", "document_id": "x"}
    events = [event("document.deleted", data, id=str(number), source="batch") for number in range(700)]
    events[650] = event("document.deleted", {"collection": "docs"}, id="bad", source="batch")
    results = await penstock.publish_many(events)
    assert list(range(700)) == [result.index for result in results]
    assert [(650, "data.document_id")] == [
        (result.index, result.error.field) for result in results if result.error
    ]
    assert {"duplicate"} == {result.status for result in await penstock.publish_many(events[:5])}
    found = await penstock.find_event("batch", "7")
    assert found.event_id == results[7].event_id
    assert 700 == len([one async for one in penstock.events()])


async def test_examples_datasets_runs_and_webhooks(penstock: AsyncClient, wheels: Drive, tenant: str) -> None:
    """What the owner of a model and a receiver of webhooks do."""
    assert 7 == (await penstock.set_dataset("d", threshold=7)).threshold
    recorded = await penstock.record_examples("d", [{"messages": TALK}, {"messages": TALK[:1]}])
    assert ["accepted", "rejected"] == [one.status for one in recorded]
    await wheels.settle(tenant)
    assert 1 == sum(sum(splits.values()) for splits in (await penstock.dataset("d")).examples.values())
    assert [] == [run async for run in penstock.runs(dataset="d")]
    assert [] == await penstock.models()
    with pytest.raises(NotFound):
        await penstock.run("01890000-0000-7000-8000-000000000000")
    with pytest.raises(NotFound):
        await penstock.cancel_run("01890000-0000-7000-8000-000000000000")
    made = await penstock.add_webhook("http://127.0.0.1:9/hook", ["document.*"], description="ours")
    assert made.secret is not None
    assert made.secret.startswith("whsec_")
    assert "disabled" == (await penstock.change_webhook(made.id, status="disabled")).status
    await penstock.change_webhook(made.id, status="active")
    delivery = await penstock.test_webhook(made.id)
    assert [delivery] == [one.id async for one in penstock.deliveries(made.id)]
    assert [made.id] == [one.id async for one in penstock.webhooks()]
    await penstock.delete_webhook(made.id)
    assert [] == [one.id async for one in penstock.webhooks()]


async def test_the_synchronous_client_does_the_same(gateway: Serving, key: str) -> None:
    """Without a loop; address and key may come from the environment; a wrong key is an exception of its own."""

    def act() -> list[str]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PENSTOCK_URL", gateway.url)
            patch.setenv("PENSTOCK_API_KEY", key)
            with Client() as penstock:
                put = penstock.put_document("docs", "a", TEXT)
                first = penstock.wait_for(put.event_id, timeout=0).status
                listed = [one.type for one in penstock.events(status="accepted")]
        with Client(gateway.url, "psk_wrong") as stranger, pytest.raises(Unauthorized):
            stranger.document("docs", "a")
        with pytest.raises(PenstockError, match="PENSTOCK_API_KEY"):
            Client(gateway.url)
        return [first, *listed]

    assert ["accepted", "document.added"] == await asyncio.to_thread(act)
