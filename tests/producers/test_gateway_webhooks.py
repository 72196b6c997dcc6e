from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from infra.database import Database
from tests.drive import Drive
from tests.producers.clients import Client, NewClient, cloud_event

HOOK = {"url": "http://127.0.0.1:9/hooks", "types": ["document.*"], "description": "CRM"}


class Receiver:
    """A webhook receiver that keeps what it gets."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take one message and say that it is fine."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = [line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line]
        headers = {name.lower(): value for name, value in lines}
        self.got.append((headers, await reader.readexactly(int(headers["content-length"]))))
        writer.write(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()


@pytest.fixture
async def receiver() -> Any:
    """A receiver on a free port."""
    one = Receiver()
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0)
    one.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hooks"
    async with server:
        yield one


async def test_an_endpoint_is_made_changed_and_removed(client: Client) -> None:
    """The secret is shown once; what is changed changes and the rest stays; removed, it is gone."""
    made = await client.call("POST", "/v1/webhooks", json={**HOOK, "headers": {"X-Token": "hidden"}})
    assert made.status_code == 201
    one = made.json()
    assert one["secret"].startswith("whsec_")
    path = f"/v1/webhooks/{one['id']}"
    assert made.headers["location"] == path
    shown = await client.call("GET", path)
    assert "secret" not in shown.json()
    assert one["secret"].removeprefix("whsec_") not in shown.text
    assert "hidden" not in shown.text
    assert {name: shown.json()[name] for name in ("url", "types", "payload", "status", "description")} == {
        **HOOK,
        "payload": "auto",
        "status": "active",
    }
    changed = await client.call("PATCH", path, json={"types": ["query.answered"], "status": "disabled"})
    assert (changed.json()["types"], changed.json()["status"], changed.json()["description"]) == (
        ["query.answered"],
        "disabled",
        "CRM",
    )
    assert changed.json()["status_reason"] == "disabled by its owner"
    listed = (await client.call("GET", "/v1/webhooks")).json()
    assert ([hook["id"] for hook in listed["items"]], listed["next_cursor"]) == ([one["id"]], None)
    assert (await client.call("DELETE", path)).status_code == 204
    assert (await client.call("GET", path)).status_code == 404


async def test_secrets_are_sealed_at_rest(client: Client, owner_database: Database) -> None:
    """Neither a secret nor the value of a header stands in the database in the clear; what a change leaves out stays."""
    given = "whsec_" + "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVowMTIzNDU="
    token = {"headers": {"Authorization": "Bearer canary"}}
    made = await client.call("POST", "/v1/webhooks", json={**HOOK, "secret": given, **token})
    assert made.json()["secret"] == given
    path = f"/v1/webhooks/{made.json()['id']}"
    for change in ({"description": "ERP"}, {"headers": {"X-Next": "canary"}}, {"timeout_seconds": 3}):
        assert "canary" not in (await client.call("PATCH", path, json=change)).text
    assert (await client.call("GET", path)).json()["headers"] == {"X-Next": "…"}
    async with owner_database.connection() as connection:
        row = await connection.fetchval(
            "SELECT w::text FROM webhook_endpoints w WHERE endpoint_id = $1", UUID(made.json()["id"])
        )
    assert given.removeprefix("whsec_") not in row
    assert "ABCDEFGHIJKLMNOPQRSTUVWXYZ" not in row
    assert "X-Next" in row
    assert "canary" not in row


@pytest.mark.parametrize(
    ("body", "status", "code", "field"),
    [
        ({"url": "ftp://a.example"}, 400, "bad_input", "url"),
        ({"url": "http://169.254.169.254/latest"}, 422, "blocked_target", "url"),
        ({"url": "http://10.0.0.1/"}, 422, "blocked_target", "url"),
        ({"url": "https://user:pw@a.example/"}, 422, "blocked_target", "url"),
        ({"url": "https://a.example", "types": ["document.exploded"]}, 400, "bad_input", "types"),
        ({"url": "https://a.example", "types": []}, 400, "bad_input", "types"),
        ({"url": "https://a.example", "payload": "huge"}, 400, "bad_input", "payload"),
        ({"url": "https://a.example", "secret": "hunter2"}, 400, "bad_input", "secret"),
        ({"url": "https://a.example", "headers": {"webhook-id": "x"}}, 400, "bad_input", "headers"),
        ({"url": "https://a.example", "headers": {"X": "a\r\nb"}}, 400, "bad_input", "headers"),
        ({"url": "https://a.example", "filter": {"a": {"$x": 1}}}, 400, "bad_input", "filter.a.$x"),
        ({"types": ["*"]}, 400, "bad_input", "url"),
    ],
)
async def test_what_could_never_work_is_refused(
    client: Client, body: dict[str, Any], status: int, code: str, field: str
) -> None:
    """An endpoint with a bad URL, type, secret or header is refused when it is registered, by name."""
    refused = await client.call("POST", "/v1/webhooks", json=body)
    assert (refused.status_code, refused.json()["code"], refused.json()["field"]) == (status, code, field)
    assert "hunter2" not in refused.text


async def test_a_test_message_arrives_signed_and_can_be_replayed(
    client: Client, drive: Drive, receiver: Receiver
) -> None:
    """A test message verifies with the standard library, is listed with its attempt, and a replay keeps its id."""
    await drive.use("deliver")
    hook = {"url": receiver.url, "headers": {"Authorization": "Bearer t"}}
    made = (await client.call("POST", "/v1/webhooks", json=hook)).json()
    sent = await client.call("POST", f"/v1/webhooks/{made['id']}/test")
    assert sent.status_code == 202
    await drive.settle(client.tenant)
    [(headers, body)] = receiver.got
    assert Webhook(made["secret"]).verify(body, headers)["type"] == "webhook.test"
    assert headers["authorization"] == "Bearer t"
    listed = (await client.call("GET", f"/v1/webhooks/{made['id']}/deliveries")).json()["items"]
    assert [(one["id"], one["status"], one["message_id"]) for one in listed] == [
        (sent.json()["delivery_id"], "delivered", headers["webhook-id"])
    ]
    assert [attempt["status_code"] for attempt in listed[0]["tried"]] == [204]
    replayed = await client.call("POST", f"/v1/deliveries/{sent.json()['delivery_id']}/replay")
    assert replayed.status_code == 202
    early = await client.call("POST", f"/v1/deliveries/{sent.json()['delivery_id']}/replay")
    assert (early.status_code, early.json()["code"]) == (409, "conflict")
    await drive.settle(client.tenant)
    assert [got[0]["webhook-id"] for got in receiver.got] == [headers["webhook-id"]] * 2
    assert receiver.got[1][1] == body


async def test_a_rotated_secret_signs_beside_the_one_before(
    client: Client, drive: Drive, receiver: Receiver
) -> None:
    """Within the overlap a receiver with either secret accepts; after a rotation without one only the new fits."""
    await drive.use("deliver")
    made = (await client.call("POST", "/v1/webhooks", json={"url": receiver.url})).json()
    rotated = (await client.call("POST", f"/v1/webhooks/{made['id']}/rotate", json={})).json()
    assert rotated["secret"] not in {made["secret"], None}
    assert len(rotated["secrets"]) == 2
    await client.call("POST", f"/v1/webhooks/{made['id']}/test")
    await drive.settle(client.tenant)
    headers, body = receiver.got[0]
    for secret in (made["secret"], rotated["secret"]):
        assert Webhook(secret).verify(body, headers)["type"] == "webhook.test"
    last = await client.call("POST", f"/v1/webhooks/{made['id']}/rotate", json={"overlap_seconds": 0})
    await client.call("POST", f"/v1/webhooks/{made['id']}/test")
    await drive.settle(client.tenant)
    headers, body = receiver.got[1]
    assert Webhook(last.json()["secret"]).verify(body, headers)["type"] == "webhook.test"
    for ended in (made["secret"], rotated["secret"]):
        with pytest.raises(WebhookVerificationError):
            Webhook(ended).verify(body, headers)
    for _ in range(4):
        await client.call("POST", f"/v1/webhooks/{made['id']}/rotate", json={})
    refused = await client.call("POST", f"/v1/webhooks/{made['id']}/rotate", json={})
    assert (refused.status_code, refused.json()["field"]) == (409, "overlap_seconds")


async def test_another_tenants_endpoints_do_not_exist(client: Client, new_client: NewClient) -> None:
    """Every door to another tenant's endpoint answers 404."""
    made = (await client.call("POST", "/v1/webhooks", json=HOOK)).json()
    stranger = await new_client()
    path = f"/v1/webhooks/{made['id']}"
    for method, address, body in (
        ("GET", path, None),
        ("PATCH", path, {"status": "disabled"}),
        ("DELETE", path, None),
        ("POST", f"{path}/rotate", {}),
        ("POST", f"{path}/test", None),
        ("GET", f"{path}/deliveries", None),
        ("POST", f"/v1/deliveries/{made['id']}/replay", None),
    ):
        answer = await stranger.call(method, address, json=body)
        assert (method, address, answer.status_code) == (method, address, 404)
    assert (await client.call("GET", path)).json()["status"] == "active"


async def test_a_callback_needs_a_registered_prefix(client: Client) -> None:
    """A question may be called back only under a prefix that its owner has registered, however it is published."""
    data = {"collections": ["books"], "question": "Why?", "callback_url": "https://app.example/answers/7"}
    [refused] = await client.publish(cloud_event("query.received", data))
    assert (refused["status"], refused["error"]["code"]) == ("rejected", "blocked_target")
    assert "--callback-prefix" in refused["error"]["fix"]
    await client.call("PUT", "/v1/collections/books", json={})
    asked = await client.call(
        "POST",
        "/v1/collections/books/queries",
        json={"question": "Why?", "callback_url": data["callback_url"]},
    )
    assert (asked.status_code, asked.json()["code"]) == (422, "blocked_target")
    assert "penstock webhooks add --callback-prefix" in asked.json()["fix"]
    prefix = {"url": "https://app.example/answers", "callback_prefix": True}
    await client.call("POST", "/v1/webhooks", json=prefix)
    evil = {**data, "callback_url": "https://app.example.evil.example/answers/7"}
    results = await client.publish(cloud_event("query.received", data), cloud_event("query.received", evil))
    assert [one["status"] for one in results] == ["accepted", "rejected"]
