from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from infra import outbox
from infra.database import Database
from infra.outbox import Said
from schemas.work import Publication
from tests.drive import Drive
from tests.infra.raw_server import Exchange, raw_server
from tests.producers.clients import Client, NewClient

AUDIT = "SELECT actor, details FROM audit_log WHERE tenant_id = $1 AND action = 'webhook.replay' ORDER BY at"


class Hook:
    """A receiver whose answer a test sets, and what it got."""

    def __init__(self) -> None:
        self.status = 404
        self.got: list[dict[str, Any]] = []

    async def __call__(self, exchange: Exchange) -> None:
        """Answer."""
        self.got.append(json.loads(exchange.body))
        await exchange.reply(self.status)

    def documents(self) -> list[str]:
        """The documents that it heard of, in order of their names."""
        return sorted(one["data"]["document_id"] for one in self.got)


async def say(
    database: Database, drive: Drive, tenant: str, *names: str, kind: str = "document.purged"
) -> None:
    """Out events as a wing would say them."""
    said = [
        Said(tenant, Publication(kind, {"collection": "c", "document_id": name, "sequence": 1}, subject=name))
        for name in names
    ]
    async with database.transaction(tenant) as connection:
        pushables = await outbox.write(connection, said)
    await drive.resources.bus.push(pushables)


async def replay(client: Client, hook: str, **body: Any) -> dict[str, Any]:
    """Ask for a replay, which must be accepted."""
    answer = await client.call("POST", f"/v1/webhooks/{hook}/replay", json=body)
    assert answer.status_code == 202, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_what_died_is_sent_again_once(client: Client, drive: Drive, worker_database: Database) -> None:
    """A dry run changes nothing; a replay sends the same bytes again, spread out; its nonce works once; it is audited."""
    await drive.use("deliver")
    hook = Hook()
    async with raw_server(hook) as server:
        made = (
            await client.call("POST", "/v1/webhooks", json={"url": f"http://127.0.0.1:{server.port}/"})
        ).json()
        await say(worker_database, drive, client.tenant, "a", "b", "c")
        await drive.settle(client.tenant)
        first, hook.got, hook.status = hook.got, [], 204
        await say(worker_database, drive, client.tenant, "d")
        await drive.settle(client.tenant)
        hook.got = []

        dry = await replay(client, made["id"], dry_run=True, nonce="n")
        assert (3, {"document.purged": 3}, True) == (dry["messages"], dry["by_type"], dry["dry_run"])
        assert [] == await drive.settle(client.tenant)

        done = await replay(client, made["id"], nonce="n", per_second=0.5)
        again = await replay(client, made["id"], nonce="n", per_second=0.5)
        assert (3, 4.0, False, None) == tuple(
            done[name] for name in ("messages", "seconds", "repeated", "next_cursor")
        )
        assert (3, True, done["replay_id"]) == (again["messages"], again["repeated"], again["replay_id"])
        waits = await drive.rows(
            "SELECT round(extract(epoch FROM due_at - accepted_at))::int AS wait FROM events WHERE tenant_id = $1"
            " AND attributes ->> 'correlationid' = $2 ORDER BY 1",
            client.tenant,
            f"replay:{done['replay_id']}",
        )
        assert [2, 4, None] == [row["wait"] for row in waits]
        await drive.settle(client.tenant)
    assert ["a", "b", "c"] == hook.documents()
    assert {json.dumps(one) for one in first} == {json.dumps(one) for one in hook.got}
    [line] = await drive.rows(AUDIT, client.tenant)
    assert ("n", 3, done["replay_id"]) == tuple(
        line["details"][name] for name in ("nonce", "messages", "replay_id")
    )
    assert (await client.call("GET", f"/v1/webhooks/{made['id']}/deliveries?status=dead")).json()[
        "items"
    ] == []


async def test_a_replay_selects(client: Client, drive: Drive, worker_database: Database) -> None:
    """By how messages ended, type, contents, error and time; page by page."""
    await drive.use("deliver")
    hook = Hook()
    async with raw_server(hook) as server:
        made = (
            await client.call("POST", "/v1/webhooks", json={"url": f"http://127.0.0.1:{server.port}/"})
        ).json()
        await say(worker_database, drive, client.tenant, "a", "b")
        await say(worker_database, drive, client.tenant, "f", kind="document.failed")
        await drive.settle(client.tenant)
        hook.status = 204
        await say(worker_database, drive, client.tenant, "c")
        await drive.settle(client.tenant)
    now = datetime.now(UTC)
    hour = timedelta(hours=1)
    for body, expected in (
        ({}, 3),
        ({"status": ["delivered"]}, 1),
        ({"status": ["dead", "delivered"]}, 4),
        ({"types": ["document.failed"]}, 1),
        ({"types": ["query.*"]}, 0),
        ({"filter": {"document_id": {"$in": ["a", "f"]}}}, 2),
        ({"error": "status"}, 3),
        ({"error": "timeout"}, 0),
        ({"since": (now - hour).isoformat(), "until": now.isoformat()}, 3),
        ({"since": now.isoformat()}, 0),
        ({"until": (now - hour).isoformat()}, 0),
    ):
        assert (body, expected) == (
            body,
            (await replay(client, made["id"], **body, dry_run=True))["messages"],
        )


async def test_pages_follow_each_other(
    client: Client, drive: Drive, worker_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long replay comes in pages, each with a nonce of its own, and no message twice."""
    await drive.use("deliver")
    hook = Hook()
    async with raw_server(hook) as server:
        made = (
            await client.call("POST", "/v1/webhooks", json={"url": f"http://127.0.0.1:{server.port}/"})
        ).json()
        hook.status = 204
        await say(worker_database, drive, client.tenant, *"abcde")
        await drive.settle(client.tenant)
        hook.got = []
        monkeypatch.setattr("producers.gateway.routes.webhooks.MOST", 2)
        cursor, counts = None, []
        for number in range(4):
            page = await replay(client, made["id"], status=["delivered"], nonce=f"p{number}", cursor=cursor)
            counts.append(page["messages"])
            await drive.settle(client.tenant)
            if (cursor := page["next_cursor"]) is None:
                break
        first = await replay(client, made["id"], status=["delivered"], nonce="p0")
        assert (2, True) == (first["messages"], first["repeated"])
        second = await replay(
            client, made["id"], status=["delivered"], nonce="p1", cursor=first["next_cursor"]
        )
        assert (2, True) == (second["messages"], second["repeated"])
    assert [2, 2, 1] == counts
    assert list("abcde") == hook.documents()


async def test_what_was_never_sent_is_sent(client: Client, drive: Drive, worker_database: Database) -> None:
    """Events from before an endpoint existed, or while it was disabled, are sent to it: those that it subscribed to."""
    await drive.use("deliver")
    hook = Hook()
    hook.status = 204
    async with raw_server(hook) as server:
        body = {
            "url": f"http://127.0.0.1:{server.port}/",
            "types": ["document.purged"],
            "filter": {"document_id": {"$ne": "x"}},
        }
        await say(worker_database, drive, client.tenant, "a", "x")
        await say(worker_database, drive, client.tenant, "f", kind="document.failed")
        made = (await client.call("POST", "/v1/webhooks", json=body)).json()
        path = f"/v1/webhooks/{made['id']}"
        await say(worker_database, drive, client.tenant, "b")
        await drive.settle(client.tenant)
        await say(worker_database, drive, client.tenant, "waits")
        await client.call("PATCH", path, json={"status": "disabled"})
        await say(worker_database, drive, client.tenant, "off")
        await drive.settle(client.tenant)
        refused = await client.call("POST", f"{path}/replay", json={})
        assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
        assert "enable" in refused.json()["fix"]
        await client.call("PATCH", path, json={"status": "active"})
        assert ["b"] == hook.documents()
        hook.got = []
        since = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
        done = await replay(client, made["id"], missing=True, since=since)
        await drive.settle(client.tenant)
        nothing = await replay(client, made["id"], missing=True, since=since)
    assert (3, 0) == (done["messages"], nothing["messages"])
    assert ["a", "off", "waits"] == hook.documents()
    numbers = {one["data"]["document_id"]: one["sequence"] for one in hook.got}
    assert numbers["a"] < numbers["waits"] < numbers["off"]


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"types": ["document.exploded"]}, 400, "types"),
        ({"missing": True}, 400, "since"),
        ({"missing": True, "since": "2026-01-01T00:00:00Z", "error": "dns"}, 400, "error"),
        ({"since": "yesterday"}, 400, "since"),
        ({"since": "2026-01-01T00:00:00"}, 400, "since"),
        ({"status": ["pending"]}, 400, "status.0"),
        ({"filter": {"a": {"$x": 1}}}, 400, "filter.a.$x"),
        ({"per_second": 0}, 400, "per_second"),
        ({"cursor": "x"}, 400, "cursor"),
    ],
)
async def test_a_replay_that_makes_no_sense(
    client: Client, body: dict[str, Any], status: int, field: str
) -> None:
    """What could select nothing, or everything by mistake, is refused by name."""
    made = (await client.call("POST", "/v1/webhooks", json={"url": "http://127.0.0.1:9/"})).json()
    refused = await client.call("POST", f"/v1/webhooks/{made['id']}/replay", json=body)
    assert (status, field) == (refused.status_code, refused.json()["field"]), refused.text


async def test_a_nonce_is_for_one_replay(client: Client) -> None:
    """The same nonce with another selection is refused; a dry run takes none."""
    made = (await client.call("POST", "/v1/webhooks", json={"url": "http://127.0.0.1:9/"})).json()
    await replay(client, made["id"], nonce="n")
    other = await client.call(
        "POST", f"/v1/webhooks/{made['id']}/replay", json={"nonce": "n", "status": ["delivered"]}
    )
    assert (409, "nonce") == (other.status_code, other.json()["field"])


async def test_nobody_replays_for_another_tenant(client: Client, new_client: NewClient) -> None:
    """Another tenant's endpoint and delivery do not exist."""
    made = (await client.call("POST", "/v1/webhooks", json={"url": "http://127.0.0.1:9/"})).json()
    sent = (await client.call("POST", f"/v1/webhooks/{made['id']}/test")).json()
    stranger = await new_client()
    for method, path in (
        ("POST", f"/v1/webhooks/{made['id']}/replay"),
        ("GET", f"/v1/deliveries/{sent['delivery_id']}"),
    ):
        answer = await stranger.call(method, path, json={} if method == "POST" else None)
        assert (path, 404) == (path, answer.status_code)
    assert "pending" == (await client.call("GET", f"/v1/deliveries/{sent['delivery_id']}")).json()["status"]
