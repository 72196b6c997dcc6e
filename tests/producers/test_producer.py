from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest
import stamina

from infra.bus import Bus
from infra.database import Database
from infra.settings import Settings
from producers import Producer
from producers.naming import event_name
from schemas.errors import BadInput, Forbidden, IdReused, NotFound, Unavailable
from tests.drive import Drive

TALK = [{"role": "user", "content": "Name a river."}, {"role": "assistant", "content": "The Rhône."}]


async def test_every_event_can_be_said(settings: Settings, tenant: str, owner_database: Database) -> None:
    """One call per event; each is in the ledger, under the tenant, when the call has returned."""
    async with Producer(tenant=tenant, settings=settings) as producer:
        said = [
            await producer.document_added("books", "a", "Water.", title="W", metadata={"lang": "en"}),
            await producer.document_added("books", "b", uri="https://a.example/b.pdf", subjectref="p-7"),
            await producer.document_deleted("books", "a"),
            await producer.query_received("Why?", ["books"], top_k=3, correlationid="thread-1"),
            await producer.example_recorded("rivers", TALK, weight=2.0, source="import"),
            await producer.training_batch_ready("rivers", reason="nightly"),
            await producer.feedback_received("01890000-0000-7000-8000-000000000000", rating=-1),
        ]
    assert {one.status for one in said} == {"accepted"}
    async with owner_database.connection() as connection:
        rows = await connection.fetch(
            "SELECT event_id, type, source, subject, attributes, data FROM events WHERE tenant_id = $1"
            " ORDER BY accept_no",
            tenant,
        )
    assert [(row["event_id"], row["source"]) for row in rows] == [
        (one.event_id, "penstock:sdk") for one in said
    ]
    assert [row["type"] for row in rows] == [
        "document.added",
        "document.added",
        "document.deleted",
        "query.received",
        "example.recorded",
        "training.batch_ready",
        "feedback.received",
    ]
    assert rows[1]["attributes"] == {"subjectref": "p-7"}
    assert rows[3]["attributes"] == {"correlationid": "thread-1"}
    assert rows[0]["subject"] == "a"
    assert rows[3]["data"] == {"collections": ["books"], "question": "Why?", "top_k": 3}


async def test_saying_it_again_changes_nothing(settings: Settings, tenant: str) -> None:
    """Examples and numbered versions have ids of their content; a given id with other data is refused."""
    async with Producer(tenant=tenant, settings=settings) as producer:
        await producer.document_added("books", "a", "Water.", sequence=4)
        await producer.example_recorded("rivers", TALK)
        numbered = await producer.document_added("books", "a", "Water.", sequence=4)
        example = await producer.example_recorded("rivers", TALK)
        assert [numbered.status, example.status] == ["duplicate", "duplicate"]
        first = await producer.document_added("books", "a", "Water.", id="mine")
        again = await producer.document_added("books", "a", "Water.", id="mine")
        assert (again.status, again.event_id) == ("duplicate", first.event_id)
        with pytest.raises(IdReused):
            await producer.document_added("books", "a", "Fire.", id="mine")


async def test_a_document_may_go_back_to_an_earlier_text(
    settings: Settings, tenant: str, drive: Drive
) -> None:
    """Without a number every call is a version of its own, so that A, B, A ends with A."""
    await drive.use("ingest")
    async with Producer(tenant=tenant, settings=settings) as producer:
        for text in ("The Rhine.", "The Rhône.", "The Rhine."):
            assert (await producer.document_added("books", "a", text)).status == "accepted"
            await drive.settle(tenant)
    [row] = await drive.rows("SELECT text FROM chunks WHERE tenant_id = $1", tenant)
    assert row["text"] == "The Rhine."


async def test_a_batch_has_a_result_per_event(settings: Settings, tenant: str) -> None:
    """Good events are entered beside bad ones, in order, and each bad one names its field."""
    batch: list[dict[str, Any]] = [
        {"type": "example.recorded", "data": {"dataset": "rivers", "messages": TALK}},
        {"type": "example.recorded", "data": {"dataset": "rivers"}},
        {"type": "query.answered", "data": {}},
        {"type": "example.recorded", "data": {"dataset": "rivers", "messages": TALK, "weight": 2.0}},
        {"data": {}},
    ]
    async with Producer(tenant=tenant, settings=settings) as producer:
        results = await producer.publish(batch)
        assert await producer.publish([]) == []
    assert [one.index for one in results] == [0, 1, 2, 3, 4]
    assert [one.status for one in results] == ["accepted", "rejected", "rejected", "accepted", "rejected"]
    assert [one.error.field for one in results if one.error] == ["data.messages", "type", "type"]


async def test_many_events_go_in_groups(settings: Settings, tenant: str) -> None:
    """A batch larger than a group is entered whole."""
    events = [
        {"type": "document.deleted", "data": {"collection": "books", "document_id": str(number)}}
        for number in range(2500)
    ]
    async with Producer(tenant=tenant, settings=settings) as producer:
        results = await producer.publish(events)
    assert [one.index for one in results] == list(range(2500))
    assert {one.status for one in results} == {"accepted"}


async def test_bad_input_names_its_field(settings: Settings, tenant: str) -> None:
    """What the gate refuses is raised where it was said."""
    async with Producer(tenant=tenant, settings=settings) as producer:
        with pytest.raises(BadInput) as caught:
            await producer.document_added("Books!", "a", "x")
        assert caught.value.field == "data.collection"
        with pytest.raises(BadInput) as caught:
            await producer.document_added("books", "a")
        assert caught.value.field == "data"


async def test_only_a_living_tenant_can_publish(
    settings: Settings, tenant: str, owner_database: Database
) -> None:
    """An unknown or suspended tenant is refused before anything is published."""
    with pytest.raises(NotFound):
        async with Producer(tenant="nobody-of-that-name", settings=settings):
            raise AssertionError("opened")
    async with owner_database.connection() as connection:
        await connection.execute("UPDATE tenants SET suspended_at = now() WHERE tenant_id = $1", tenant)
    with pytest.raises(Forbidden):
        async with Producer(tenant=tenant, settings=settings):
            raise AssertionError("opened")


async def test_an_outage_is_waited_out(
    settings: Settings, tenant: str, owner_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lost connection in the middle of publishing is tried again with the same ids: nothing twice, nothing lost."""
    lost = 0
    publish = Bus.publish

    async def cut_after_the_commit(self: Bus, tenant_id: str, events: Any) -> Any:
        nonlocal lost
        results = await publish(self, tenant_id, events)
        if lost < 2:
            lost += 1
            raise Unavailable("the reply was lost")
        return results

    monkeypatch.setattr(Bus, "publish", cut_after_the_commit)
    with stamina.set_testing(True, attempts=5):
        async with Producer(tenant=tenant, settings=settings) as producer:
            result = await producer.document_added("books", "a", "Water.")
    assert (lost, result.status) == (2, "duplicate")
    async with owner_database.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM events WHERE tenant_id = $1", tenant) == 1


async def test_redis_may_be_away(settings: Settings, tenant: str) -> None:
    """Events are accepted without Redis; the sweeper pushes them later (P1)."""
    chosen = settings.model_copy(update={"redis_url": None})
    async with Producer(tenant=tenant, settings=chosen, redis_url="redis://127.0.0.1:1/0") as producer:
        assert (await producer.document_added("books", "a", "Water.")).status == "accepted"


async def test_outside_its_block_it_says_so(settings: Settings, tenant: str) -> None:
    """A producer that was not opened does not publish in silence."""
    with pytest.raises(RuntimeError, match="async with"):
        await Producer(tenant=tenant, settings=settings).document_added("books", "a", "x")


def test_importing_it_opens_and_imports_nothing() -> None:
    """`import producers` costs nothing; `from producers import Producer` brings no web framework."""
    code = (
        "import sys, producers; assert 'asyncpg' not in sys.modules;"
        "from producers import Producer; assert 'fastapi' not in sys.modules; print(Producer.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "Producer"


def test_ids_follow_content_only_where_twice_means_once() -> None:
    """Examples and numbered versions are named by content; questions and unnumbered versions are not."""
    data = {"dataset": "d", "messages": TALK}
    assert event_name("example.recorded", data, None) == event_name("example.recorded", dict(data), None)
    document = {"collection": "c", "document_id": "d", "content": "x"}
    assert event_name("document.added", document, 1) == event_name("document.added", document, 1)
    assert event_name("document.added", document, 1) != event_name("document.added", document, 2)
    assert event_name("document.added", document, None) != event_name("document.added", document, None)
    assert event_name("query.received", {"question": "x"}, 1) != event_name(
        "query.received", {"question": "x"}, 1
    )


async def test_lingering_gathers_calls_that_come_apart(
    settings: Settings, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a linger, calls from different moments leave in one transaction; each has its own result."""
    groups: list[int] = []
    accept_group = Bus._accept_group

    async def counted(self: Bus, offered: Any) -> Any:
        groups.append(len(offered))
        return await accept_group(self, offered)

    monkeypatch.setattr(Bus, "_accept_group", counted)

    async def later(producer: Producer, number: int) -> str:
        for _ in range(number):
            await asyncio.sleep(0)
        return (await producer.document_added("books", str(number), "Water.")).status

    async with Producer(tenant=tenant, settings=settings, linger=0.2) as producer:
        assert {"accepted"} == set(await asyncio.gather(*(later(producer, number) for number in range(40))))
    assert groups == [40]
