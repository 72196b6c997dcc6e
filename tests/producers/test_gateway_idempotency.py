from __future__ import annotations

import asyncio

import pytest

from infra.database import Database
from infra.replies import Busy, Claim, Replies, Reply, Reused
from producers.gateway.idempotency import is_final
from tests.producers.clients import Client, NewClient

DOCUMENT = "/v1/collections/books/documents/river"
HOOK = {"url": "http://127.0.0.1:9/hooks"}


@pytest.mark.parametrize(
    ("path", "method", "body", "other"),
    [
        (DOCUMENT, "PUT", {"content": "The Rhine flows north."}, {"content": "The Rhône flows south."}),
        ("/v1/webhooks", "POST", HOOK, {**HOOK, "description": "another"}),
        (
            "/v1/datasets/rivers/examples/review",
            "POST",
            {"verdict": "approve", "example_ids": ["0192f3e1-0000-7000-8000-000000000000"]},
            {"verdict": "withdraw", "example_ids": ["0192f3e1-0000-7000-8000-000000000000"]},
        ),
    ],
)
async def test_a_repeated_request_is_done_once(
    client: Client, path: str, method: str, body: dict[str, object], other: dict[str, object]
) -> None:
    """The same key and request are answered as the first time; the same key with another request is 422."""
    await client.call("PUT", "/v1/datasets/rivers", json={"threshold": 50})
    headers = {"idempotency-key": '"8e03978e-40d5-43dd-bc93-6894a57f9324"'}
    first = await client.call(method, path, json=body, headers=headers)
    again = await client.call(method, path, json=body, headers=headers)
    bare = await client.call(
        method, path, json=body, headers={"idempotency-key": headers["idempotency-key"][1:-1]}
    )
    assert (first.status_code, first.json()) == (again.status_code, again.json())
    assert bare.json() == first.json()
    assert first.headers.get("location") == again.headers.get("location")
    clash = await client.call(method, path, json=other, headers=headers)
    assert (clash.status_code, clash.json()["code"]) == (422, "idempotency_key_reused")
    free = await client.call(method, path, json=other, headers={"idempotency-key": "another"})
    assert free.status_code == first.status_code


async def test_a_repeated_creation_makes_one_endpoint(client: Client) -> None:
    """Sent five times at once, there is one endpoint; whoever comes while it is made is told to wait."""
    headers = {"idempotency-key": "make-one"}
    answers = await asyncio.gather(
        *(client.call("POST", "/v1/webhooks", json=HOOK, headers=headers) for _ in range(5))
    )
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert all(int(one.headers["retry-after"]) > 0 for one in answers if one.status_code == 409)
    last = await client.call("POST", "/v1/webhooks", json=HOOK, headers=headers)
    assert (last.status_code, last.headers["idempotent-replayed"]) == (201, "true")
    made = {answer.json()["secret"] for answer in (*answers, last) if answer.status_code == 201}
    assert len(made) == 1
    assert len((await client.call("GET", "/v1/webhooks")).json()["items"]) == 1


async def test_a_question_and_its_rating_are_said_once(client: Client) -> None:
    """A repeated question has the first one's id, and is not asked twice."""
    await client.call("PUT", "/v1/collections/books", json={})
    headers = {"idempotency-key": "q-1"}
    asked = [
        await client.call(
            "POST", "/v1/collections/books/queries", json={"question": "Where?"}, headers=headers
        )
        for _ in range(2)
    ]
    assert [202, 202] == [one.status_code for one in asked]
    assert asked[0].json() == asked[1].json()
    other = await client.call(
        "POST", "/v1/collections/books/queries", json={"question": "When?"}, headers=headers
    )
    assert other.status_code == 422
    path = f"/v1/queries/{asked[0].json()['id']}/feedback"
    rated = [await client.call("POST", path, json={"rating": 1}, headers=headers) for _ in range(2)]
    assert rated[0].json() == rated[1].json()


@pytest.mark.parametrize("key", ["", '""', "two words", '"open', "x" * 256, '"' + "x" * 256 + '"', "ü"])
async def test_a_malformed_key_is_refused(client: Client, key: str) -> None:
    """A key that could be read in two ways is none."""
    for method, path, body in (("POST", "/v1/webhooks", HOOK), ("PUT", DOCUMENT, {"content": "a"})):
        answer = await client.call(method, path, json=body, headers={"idempotency-key": key.encode()})
        assert (answer.status_code, answer.json()["field"]) == (400, "Idempotency-Key")


async def test_a_refusal_is_remembered_and_an_outage_is_not(client: Client, new_client: NewClient) -> None:
    """What would be refused again is answered from memory; what depends on the key's scopes is not."""
    headers = {"idempotency-key": "bad"}
    bad = {"url": "ftp://example.org"}
    first = await client.call("POST", "/v1/webhooks", json=bad, headers=headers)
    again = await client.call("POST", "/v1/webhooks", json=bad, headers=headers)
    assert first.status_code == again.status_code
    assert again.headers["idempotent-replayed"] == "true"
    weak = await new_client(["ops"], tenant=client.tenant)
    headers = {"idempotency-key": "weak"}
    assert (await weak.call("POST", "/v1/webhooks", json=HOOK, headers=headers)).status_code == 403
    assert (await client.call("POST", "/v1/webhooks", json=HOOK, headers=headers)).status_code == 201


@pytest.mark.parametrize(
    ("status", "final"),
    [
        (200, True),
        (201, True),
        (404, True),
        (409, True),
        (401, False),
        (403, False),
        (429, False),
        (503, False),
    ],
)
def test_what_is_remembered(status: int, final: bool) -> None:
    """Answers that another moment or key would change are not."""
    assert final == is_final(status)


async def test_a_request_that_nobody_ended_is_taken_over(
    gateway_database: Database, owner_database: Database, tenant: str
) -> None:
    """While somebody works the key is busy; when its time is over the next one may work, and ends it."""
    replies = Replies(gateway_database, None)
    first = await replies.claim(tenant, "k", b"a")
    assert isinstance(first, Claim)
    assert Busy() == await replies.claim(tenant, "k", b"a")
    assert Reused() == await replies.claim(tenant, "k", b"b")
    async with owner_database.connection() as connection:
        await connection.execute(
            "UPDATE request_replies SET claimed_until = now() WHERE tenant_id = $1", tenant
        )
    assert first == await replies.claim(tenant, "k", b"a")
    await replies.release(tenant, first)
    assert first == await replies.claim(tenant, "k", b"a")
    reply = Reply(201, {"location": "/x"}, b"{}")
    await replies.keep(tenant, first, reply)
    assert reply == await replies.claim(tenant, "k", b"a")
