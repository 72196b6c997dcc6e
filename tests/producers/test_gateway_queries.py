from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis.asyncio

from producers.gateway.routes.queries import preferred_wait
from tests.drive import Drive
from tests.producers.clients import Client, NewClient

SSE = {"accept": "text/event-stream"}
QUESTIONS = "/v1/collections/rivers/queries"
RHINE = "The Rhine rises in the Swiss Alps and flows north into the North Sea."


@pytest.fixture
async def rivers(client: Client, drive: Drive) -> Client:
    """A tenant whose collection holds one document."""
    await drive.use("ingest", "answer")
    await client.call("PUT", "/v1/collections/rivers/documents/rhine", json={"content": RHINE})
    await drive.settle(client.tenant)
    return client


@asynccontextmanager
async def working(drive: Drive, tenant: str) -> AsyncIterator[None]:
    """What a worker does: handle whatever comes, while the block runs."""

    async def work() -> None:
        while not ended.is_set():
            await drive.settle(tenant)
            await asyncio.sleep(0.05)

    ended = asyncio.Event()
    task = asyncio.create_task(work())
    yield
    ended.set()
    await task


def events_of(text: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Server-sent events as (id, event, data)."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line and line[0] != ":")
        if "event" in fields:
            found.append((fields["id"], fields["event"], json.loads(fields["data"])))
    return found


async def test_a_question_is_accepted_and_answered_later(rivers: Client, drive: Drive) -> None:
    """202 at once with the id that is the event's; the answer is fetched under it, cited."""
    asked = await rivers.call("POST", QUESTIONS, json={"question": "Where does the Rhine rise?"})
    assert asked.status_code == 202
    query_id = asked.json()["id"]
    assert asked.json() == {"id": query_id, "event_id": query_id}
    assert asked.headers["location"] == f"/v1/queries/{query_id}"
    pending = (await rivers.call("GET", f"/v1/queries/{query_id}")).json()
    assert (pending["id"], pending["status"], pending["question"], pending["answer"]) == (
        query_id,
        "pending",
        "Where does the Rhine rise?",
        None,
    )
    await drive.settle(rivers.tenant)
    answered = (await rivers.call("GET", f"/v1/queries/{query_id}")).json()
    assert answered["status"] == "answered"
    assert "Swiss Alps" in answered["answer"]
    assert {one["document_id"] for one in answered["citations"]} == {"rhine"}
    assert {"document_id", "chunk_id", "quote", "heading", "page", "score"} <= answered["citations"][0].keys()
    assert answered["model"]
    assert {"usage", "timings_ms"} <= answered.keys()


async def test_who_prefers_to_wait_gets_the_answer(rivers: Client, drive: Drive) -> None:
    """`Prefer: wait=N` gives 200 with the answer in time, and 202 when it does not come."""
    body = {"question": "Where does the Rhine rise?"}
    late = await rivers.call("POST", QUESTIONS, json=body, headers={"prefer": "wait=0"})
    assert (late.status_code, late.headers["preference-applied"]) == (202, "wait=0")
    async with working(drive, rivers.tenant):
        prefer = {"prefer": "respond-async, wait=30"}
        in_time = await rivers.call("POST", QUESTIONS, json=body, headers=prefer)
    assert in_time.status_code == 200
    assert (in_time.json()["status"], in_time.json()["question"]) == ("answered", body["question"])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], None),
        (["wait=5"], 5.0),
        (["respond-async, wait=10"], 10.0),
        (["respond-async", 'Wait="7"'], 7.0),
        (["wait=999"], 60.0),
        (["wait=soon"], None),
        (["nowait=5"], None),
    ],
)
def test_preferences_are_read(values: list[str], expected: float | None) -> None:
    """RFC 7240: tokens in any order, over several headers; more than a minute is a minute."""
    assert preferred_wait(values) == expected


async def test_an_answer_is_streamed_and_resumed(rivers: Client, drive: Drive) -> None:
    """Events come as they are written, end with the whole answer, and can be taken up after any of them."""
    body = {"question": "Where does the Rhine rise?"}
    async with working(drive, rivers.tenant):
        answer = await rivers.call("POST", QUESTIONS, json=body, headers=SSE)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = events_of(answer.text)
    names = [event for _, event, _ in events]
    assert names[0] == "retrieved"
    assert names[-1] == "done"
    assert "token" in names
    assert "citation" in names
    whole = events[-1][2]
    assert (whole["status"], answer.headers["location"]) == ("answered", f"/v1/queries/{whole['id']}")
    after = events[1][0]
    rest = await rivers.call("GET", answer.headers["location"], headers={**SSE, "last-event-id": after})
    assert events_of(rest.text) == events[2:]
    again = await rivers.call("GET", answer.headers["location"], headers=SSE)
    assert events_of(again.text) == events


async def test_a_stream_survives_an_emptied_redis(
    rivers: Client, drive: Drive, redis_client: redis.asyncio.Redis
) -> None:
    """Tokens may be lost with Redis, the answer is not: the stream ends with it all the same."""
    asked = await rivers.call("POST", QUESTIONS, json={"question": "Where does the Rhine rise?"})
    await drive.settle(rivers.tenant)
    await redis_client.flushall()
    answer = await rivers.call("GET", asked.headers["location"], headers=SSE)
    [(_, event, data)] = events_of(answer.text)
    assert (event, data["status"]) == ("done", "answered")


async def test_a_withdrawn_question_is_never_answered(rivers: Client, drive: Drive) -> None:
    """DELETE before the end makes it failed (`cancelled`) for everybody; after the end it is a conflict."""
    asked = await rivers.call("POST", QUESTIONS, json={"question": "Where does the Rhine rise?"})
    path = asked.headers["location"]
    withdrawn = await rivers.call("DELETE", path)
    assert (withdrawn.status_code, withdrawn.json()["status"]) == (200, "failed")
    assert withdrawn.json()["error"]["code"] == "cancelled"
    await drive.settle(rivers.tenant)
    assert (await rivers.call("GET", path)).json()["status"] == "failed"
    [(_, event, _)] = events_of((await rivers.call("GET", path, headers=SSE)).text)
    assert event == "error"
    other = await rivers.call("POST", QUESTIONS, json={"question": "Where does the Rhine flow?"})
    await drive.settle(rivers.tenant)
    late = await rivers.call("DELETE", other.headers["location"])
    assert (late.status_code, late.json()["code"]) == (409, "conflict")


async def test_feedback_becomes_an_event(rivers: Client, drive: Drive) -> None:
    """A rating or a correction of an answer is accepted as an event; nonsense names its field."""
    asked = await rivers.call("POST", QUESTIONS, json={"question": "Where does the Rhine rise?"})
    await drive.settle(rivers.tenant)
    path = asked.headers["location"] + "/feedback"
    given = await rivers.call("POST", path, json={"rating": 1, "corrected": "In the Swiss Alps."})
    assert given.status_code == 202
    event = (await rivers.call("GET", f"/v1/events/{given.json()['event_id']}")).json()
    assert (event["type"], event["subject"]) == ("feedback.received", asked.json()["id"])
    for body in ({}, {"rating": 0}, {"rating": "good"}, {"stars": 5}):
        refused = await rivers.call("POST", path, json=body)
        assert (body, refused.status_code) == (body, 400)


async def test_what_cannot_be_asked_is_refused(rivers: Client, new_client: NewClient) -> None:
    """Unknown collections and questions are a 404, also when they are another tenant's; bad bodies name the field."""
    unknown = await rivers.call("POST", "/v1/collections/none/queries", json={"question": "Why?"})
    assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")
    asked = await rivers.call("POST", QUESTIONS, json={"question": "Where does the Rhine rise?"})
    stranger = await new_client()
    path = asked.headers["location"]
    for method, address, body in (
        ("POST", QUESTIONS, {"question": "Why?"}),
        ("GET", path, None),
        ("DELETE", path, None),
        ("POST", f"{path}/feedback", {"rating": 1}),
    ):
        answer = await stranger.call(method, address, json=body)
        assert (method, address, answer.status_code) == (method, address, 404)
    streamed = await stranger.call("GET", path, headers=SSE)
    assert streamed.status_code == 404
    wrong: list[tuple[dict[str, Any], str]] = [
        ({}, "question"),
        ({"question": ""}, "question"),
        ({"question": "x", "top_k": 101}, "top_k"),
        ({"question": "x", "history": [{"role": "system", "content": "x"}]}, "history.0.role"),
        ({"question": "x", "collections": ["b"]}, "collections"),
    ]
    for body, field in wrong:
        refused = await rivers.call("POST", QUESTIONS, json=body)
        assert (body, refused.status_code, refused.json()["field"]) == (body, 400, field)
