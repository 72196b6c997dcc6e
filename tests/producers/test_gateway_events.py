from __future__ import annotations

import asyncio
from uuid import UUID

import redis.asyncio

from infra.database import Database
from schemas.registry import INGEST, TRAIN
from tests.producers.clients import STRUCTURED, Client, NewClient, cloud_event, document_event, example_event


async def test_a_structured_event_is_accepted_and_told_of(client: Client) -> None:
    """One structured CloudEvent gets a 202, a result of the documented shape and the address of its status."""
    event = document_event("page 1", subject="page 1")
    answer = await client.call("POST", "/v1/events", json=event, headers=STRUCTURED)
    assert answer.status_code == 202
    [result] = answer.json()["results"]
    assert {name: result[name] for name in ("index", "source", "id", "status", "error")} == {
        "index": 0,
        "source": event["source"],
        "id": event["id"],
        "status": "accepted",
        "error": None,
    }
    assert answer.headers["location"] == f"/v1/events/{result['event_id']}"
    told = (await client.call("GET", answer.headers["location"])).json()
    assert {name: told[name] for name in ("event_id", "source", "id", "type", "subject", "status")} == {
        "event_id": result["event_id"],
        "source": event["source"],
        "id": event["id"],
        "type": "document.added",
        "subject": "page 1",
        "status": "accepted",
    }
    assert told["attempts"] == 0
    assert told["error"] is None
    assert told["finished_at"] is None
    assert told["caused"] == []
    assert [line["what"] for line in told["story"]] == ["accepted"]
    assert "Water flows" not in str(told)


async def test_the_ledger_and_the_queue_have_what_was_accepted(
    client: Client, owner_database: Database, redis_client: redis.asyncio.Redis
) -> None:
    """After a 202 the row is in the ledger under the key's tenant, and its id alone is on the queue of its type."""
    [document, example] = await client.publish(document_event(), example_event())
    async with owner_database.connection() as connection:
        rows = await connection.fetch(
            "SELECT event_id, tenant_id FROM events WHERE event_id = ANY ($1::uuid[])",
            [document["event_id"], example["event_id"]],
        )
    assert {row["tenant_id"] for row in rows} == {client.tenant}
    assert await redis_client.zrange(INGEST, 0, -1) == [document["event_id"].encode()]
    assert await redis_client.zrange(TRAIN, 0, -1) == [example["event_id"].encode()]
    assert b"Water" not in await redis_client.get(f"arq:job:{document['event_id']}")


async def test_a_repetition_is_a_duplicate_and_other_data_is_refused(client: Client) -> None:
    """The same (source, id) with the same data gives the first event's id; with other data it is `id_reused`."""
    event = document_event()
    [first] = await client.publish(event)
    [again] = await client.publish(event)
    assert (again["status"], again["event_id"]) == ("duplicate", first["event_id"])
    changed = {**event, "data": {**event["data"], "content": "Something else."}}
    [refused] = await client.publish(changed)
    assert (refused["status"], refused["event_id"]) == ("rejected", None)
    assert refused["error"]["code"] == "id_reused"
    alone = await client.call("POST", "/v1/events", json=changed, headers=STRUCTURED)
    assert (alone.status_code, alone.json()["code"]) == (409, "id_reused")
    assert alone.json()["results"] == [refused]


async def test_a_batch_says_of_each_item_what_became_of_it(client: Client) -> None:
    """Good items are entered although others in the batch are bad, and each bad one names its field."""
    results = await client.publish(
        document_event("a"),
        document_event("b", specversion="2.0"),
        {"specversion": "1.0", "id": "x"},
        "not an object",  # type: ignore[arg-type]
        document_event("c", type="document.exploded"),
        cloud_event("document.added", {"collection": "books", "document_id": "d", "contents": "x"}),
        document_event("e"),
    )
    assert [one["status"] for one in results] == ["accepted", *["rejected"] * 5, "accepted"]
    assert [one["index"] for one in results] == list(range(7))
    assert [one["error"]["field"] for one in results[1:6]] == [
        "specversion",
        "type",
        "event",
        "type",
        "data.contents",
    ]
    assert results[2]["id"] == "x"


async def test_an_event_is_found_by_the_name_its_publisher_gave_it(client: Client) -> None:
    """`?source=&id=` leads to the same view as the ledger's id."""
    event = example_event(id="é/ö?&", source="urn:x:ö y")
    [result] = await client.publish(event)
    found = await client.call("GET", "/v1/events", params={"source": event["source"], "id": event["id"]})
    assert found.status_code == 200
    assert found.json()["event_id"] == result["event_id"]
    missing = await client.call("GET", "/v1/events", params={"source": event["source"], "id": "nobody"})
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
    half = await client.call("GET", "/v1/events", params={"source": event["source"]})
    assert (half.status_code, half.json()["field"]) == (400, "id")


async def test_events_are_listed_newest_first_and_in_pages(client: Client) -> None:
    """Pages follow each other by their cursor without gap or repetition, and filters narrow them."""
    results = await client.publish(*[example_event(f"Question {number}") for number in range(7)])
    # Ids follow time to the millisecond; within one their order is arbitrary, but the same for everybody.
    wanted = sorted((one["event_id"] for one in results), reverse=True)
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await client.call("GET", "/v1/events", params={"limit": 3, **cursor})).json()
        seen += [one["event_id"] for one in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert seen == wanted
    narrowed: list[tuple[dict[str, str], int]] = [
        ({"type": "example.recorded", "status": "accepted"}, 7),
        ({"type": "document.added"}, 0),
        ({"status": "dead"}, 0),
        ({"status": "done"}, 0),
    ]
    for params, count in narrowed:
        page = (await client.call("GET", "/v1/events", params=params)).json()
        assert (params, len(page["items"])) == (params, count)
    for wrong in ("status=asleep", "limit=0", "limit=5000", "stauts=dead"):
        refused = await client.call("GET", f"/v1/events?{wrong}")
        assert (wrong, refused.status_code) == (wrong, 422)
    refused = await client.call("GET", "/v1/events", params={"cursor": "WzFd"})
    assert (refused.status_code, refused.json()["field"]) == (400, "cursor")


async def test_what_an_event_led_to_is_part_of_its_story(client: Client, owner_database: Database) -> None:
    """`caused` names the events that a worker said next, in order; the worker's notes stand in the story."""
    [result] = await client.publish(document_event())
    event_id = UUID(result["event_id"])
    async with owner_database.connection() as connection:
        await connection.execute(
            "UPDATE events SET status = 'done', started_at = now(), finished_at = now(), attempts = 1,"
            " story = $2 WHERE event_id = $1",
            event_id,
            [{"at": "2000-01-01T00:00:00+00:00", "what": "failed", "error": "unavailable"}],
        )
        follow = await connection.fetchval(
            "INSERT INTO events (tenant_id, event_id, source, id, type, data, caused_by, status, finished_at)"
            " VALUES ($1, gen_random_uuid(), 'penstock', 'f', 'document.indexed', '{}', $2, 'done', now())"
            " RETURNING event_id",
            client.tenant,
            event_id,
        )
    told = (await client.call("GET", f"/v1/events/{event_id}")).json()
    assert told["caused"] == [str(follow)]
    assert [line["what"] for line in told["story"]] == ["failed", "accepted", "running", "done"]
    assert (told["status"], told["attempts"]) == ("done", 1)
    assert [1] == [line["attempt"] for line in told["story"] if line["what"] == "running"]
    assert told["finished_at"] is not None


async def test_another_tenants_event_and_no_event_answer_alike(client: Client, new_client: NewClient) -> None:
    """Nobody learns whether somebody else's id exists (P6)."""
    [result] = await client.publish(event := document_event())
    stranger = await new_client()
    other = await stranger.call("GET", f"/v1/events/{result['event_id']}")
    none = await stranger.call("GET", "/v1/events/01890000-0000-7000-8000-000000000000")
    named = await stranger.call("GET", "/v1/events", params={"source": event["source"], "id": event["id"]})
    assert [other.status_code, none.status_code, named.status_code] == [404, 404, 404]
    without_id = [{**one.json(), "request_id": ""} for one in (other, none)]
    assert without_id[0] == without_id[1]
    [own] = await stranger.publish(event)
    assert own["status"] == "accepted"


async def test_many_at_once_are_all_entered(client: Client, owner_database: Database) -> None:
    """Concurrent single events share transactions, and each gets its own result."""
    answers = await asyncio.gather(
        *(
            client.call("POST", "/v1/events", json=example_event(f"Number {n}"), headers=STRUCTURED)
            for n in range(60)
        )
    )
    ids = {answer.json()["results"][0]["event_id"] for answer in answers}
    assert len(ids) == 60
    async with owner_database.connection() as connection:
        count = await connection.fetchval(
            "SELECT count(*) FROM events WHERE tenant_id = $1 AND status = 'accepted'", client.tenant
        )
    assert count == 60


async def test_an_error_is_shown_without_its_trace(client: Client, owner_database: Database) -> None:
    """A trace names the operator's files: it is kept for the operator, and shown to no tenant."""
    [result] = await client.publish(example_event())
    error = {"code": "unreadable", "message": "cannot be read", "trace": ["/srv/secret.py:1 handle"]}
    async with owner_database.connection() as connection:
        await connection.execute(
            "UPDATE events SET error = $2 WHERE event_id = $1::uuid", result["event_id"], error
        )
    shown = await client.call("GET", f"/v1/events/{result['event_id']}")
    listed = await client.call("GET", "/v1/events")
    assert "unreadable" == shown.json()["error"]["code"]
    assert ("secret.py" in shown.text, "secret.py" in listed.text) == (False, False)
