from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from standardwebhooks import Webhook

from infra.secretbox import SecretBox
from infra.signing_secrets import new_secret, seal_secret
from schemas.states import DeliveryState
from tests.drive import Drive
from tests.infra.raw_server import Exchange, RawServer, raw_server
from tests.workers.deliver.conftest import Register, Say
from workers.deliver.gates import MOST
from workers.deliver.schedule import MAX_ATTEMPTS
from workers.engine.types import GiveBack

ATTEMPTS = "SELECT a.* FROM delivery_attempts a WHERE a.tenant_id = $1 ORDER BY a.attempt_id"
DELIVERIES = "SELECT * FROM deliveries WHERE tenant_id = $1 ORDER BY delivery_id"
DUE_EVENTS = "SELECT * FROM events WHERE tenant_id = $1 AND type = 'delivery.due' ORDER BY accept_no"
ENDPOINTS = "SELECT * FROM webhook_endpoints WHERE tenant_id = $1 ORDER BY url"


def answers(*statuses: int, **headers: str) -> Callable[[Exchange], Awaitable[None]]:
    """Answer with these statuses in turn, the last one for ever."""
    left = list(statuses)

    async def script(exchange: Exchange) -> None:
        status = left.pop(0) if len(left) > 1 else left[0]
        await exchange.reply(status, b"said\x00\x1b[31m", **headers)

    return script


def url(server: RawServer, path: str = "/hook?key=canary") -> str:
    """The receiver's address."""
    return f"http://127.0.0.1:{server.port}{path}"


def headers(head: str) -> dict[str, str]:
    """A request's headers."""
    return dict(line.split(": ", 1) for line in head.strip().split("\r\n")[1:])


async def test_delivered_at_once(drive: Drive, tenant: str, register: Register, say: Say) -> None:
    """A receiver that answers 2xx gets the signed message once, and the log keeps status, time and the reply's head."""
    await drive.use("deliver")
    async with raw_server(answers(200)) as server:
        endpoint = await register(url(server), headers={"X-Own": "1", "Webhook-Id": "forged"})
        await say()
        await drive.settle(tenant)
    sent = headers(server.heads[0])
    body = Webhook(endpoint.secret).verify(server.bodies[0], sent)
    assert ("document.purged", {"collection": "c", "document_id": "d1", "sequence": 1}) == (
        body["type"],
        body["data"],
    )
    assert sent["webhook-id"] == body["id"] != "forged"
    assert ("application/json", "1") == (sent["content-type"], sent["X-Own"])
    [delivery] = await drive.rows(DELIVERIES, tenant)
    assert (DeliveryState.DELIVERED, 1, None) == (delivery["status"], delivery["attempts"], delivery["error"])
    assert delivery["body"] == server.bodies[0]
    [attempt] = await drive.rows(ATTEMPTS, tenant)
    assert (200, 1, None) == (attempt["status_code"], attempt["attempt"], attempt["error"])
    assert "said\ufffd\ufffd[31m" == attempt["response_head"]
    assert attempt["elapsed_ms"] > 0


async def test_same_bytes_and_id_new_signature(
    drive: Drive, tenant: str, register: Register, say: Say
) -> None:
    """Each attempt sends the same bytes under the same id, freshly signed, until one succeeds."""
    await drive.use("deliver")
    async with raw_server(answers(500, 302, 404, 204)) as server:
        endpoint = await register(url(server))
        await say()
        await drive.settle(tenant)
    assert 4 == len(server.bodies)
    assert 1 == len(set(server.bodies))
    assert 1 == len({headers(head)["webhook-id"] for head in server.heads})
    for head in server.heads:
        Webhook(endpoint.secret).verify(server.bodies[0], headers(head))
    rows = await drive.rows(ATTEMPTS, tenant)
    assert [(1, 500, "status"), (2, 302, "status"), (3, 404, "status"), (4, 204, None)] == [
        (row["attempt"], row["status_code"], row["error"]) for row in rows
    ]
    [delivery] = await drive.rows(DELIVERIES, tenant)
    assert ("delivered", 4, None) == (delivery["status"], delivery["attempts"], delivery["error"])
    [hook] = await drive.rows(ENDPOINTS, tenant)
    assert ("active", None) == (hook["status"], hook["failing_since"])


async def test_retry_has_its_time_in_the_ledger(
    drive: Drive, tenant: str, register: Register, say: Say
) -> None:
    """After a failure the event waits in the ledger, uncharged, until the receiver's Retry-After has passed."""
    await drive.use("deliver")
    async with raw_server(answers(503, retry_after="7200")) as server:
        await register(url(server))
        await say()
        await drive.step(tenant)
    [event] = await drive.rows(DUE_EVENTS.replace("*", "*, due_at - now() AS wait", 1), tenant)
    [delivery] = await drive.rows(
        "SELECT *, next_at - now() AS wait FROM deliveries WHERE tenant_id = $1", tenant
    )
    assert ("accepted", 0) == (event["status"], event["attempts"])
    assert 7100 < event["wait"].total_seconds() < 7200 * 1.2
    assert 7100 < delivery["wait"].total_seconds() < 7200 * 1.2
    assert ("retrying", 1, "status") == (delivery["status"], delivery["attempts"], delivery["error"]["code"])
    [hook] = await drive.rows(ENDPOINTS, tenant)
    assert hook["failing_since"] is not None


async def test_dead_with_its_reason(drive: Drive, tenant: str, register: Register, say: Say) -> None:
    """A receiver that never succeeds is tried ten times; then delivery and event are dead, and no event.dead is said."""
    await drive.use("deliver")
    async with raw_server(answers(404)) as server:
        await register(url(server))
        await say()
        await drive.settle(tenant)
    assert MAX_ATTEMPTS == len(server.bodies) == len(await drive.rows(ATTEMPTS, tenant))
    [delivery] = await drive.rows(DELIVERIES, tenant)
    [event] = await drive.rows(DUE_EVENTS, tenant)
    assert ("dead", MAX_ATTEMPTS, None) == (delivery["status"], delivery["attempts"], delivery["next_at"])
    assert ("dead", "undeliverable") == (event["status"], event["error"]["code"])
    for error in (delivery["error"], event["error"]):
        assert "given up after 10 attempts; at last: the receiver answered 404" == error["message"]
    assert [] == await drive.said(tenant, "event.dead")


async def test_gone_disables(drive: Drive, tenant: str, register: Register, say: Say) -> None:
    """After 410 the endpoint is disabled, what waits for it dies unsent, and other endpoints are told once."""
    await drive.use("deliver")
    async with raw_server(answers(410)) as gone, raw_server(answers(200)) as other:
        closed = await register(url(gone, "/a"), types=("document.*",))
        await register(url(other, "/b"), types=("endpoint.disabled",))
        for number in range(3):
            await say(document_id=f"d{number}")
        await drive.settle(tenant)
    told = [json.loads(body) for body in other.bodies]
    assert ["endpoint.disabled"] == [message["type"] for message in told]
    assert {"endpoint_id": str(closed.id), "reason": "the receiver answered 410 Gone"} == told[0]["data"]
    hooks = {row["endpoint_id"]: row for row in await drive.rows(ENDPOINTS, tenant)}
    assert ("disabled", "the receiver answered 410 Gone") == (
        hooks[closed.id]["status"],
        hooks[closed.id]["status_reason"],
    )
    await say(document_id="later")
    rows = [row for row in await drive.rows(DELIVERIES, tenant) if row["endpoint_id"] == closed.id]
    assert ["dead"] * 3 == [row["status"] for row in rows]


async def test_disabled_endpoint_gets_nothing(
    drive: Drive, tenant: str, register: Register, say: Say
) -> None:
    """What was waiting when an endpoint was disabled is not sent any more, and says so."""
    await drive.use("deliver")
    async with raw_server(answers(200)) as server:
        endpoint = await register(url(server))
        await say()
        await drive.rows(
            "UPDATE webhook_endpoints SET status = 'disabled' WHERE endpoint_id = $1 RETURNING 1", endpoint.id
        )
        await drive.settle(tenant)
    assert [] == server.heads
    [delivery] = await drive.rows(DELIVERIES, tenant)
    assert ("dead", 0, {"code": "not_sent", "message": "the endpoint is disabled"}) == (
        delivery["status"],
        delivery["attempts"],
        delivery["error"],
    )


@pytest.mark.parametrize(
    "target", ["http://169.254.169.254/latest/meta-data/", "http://10.0.0.1/", "file:///etc/passwd"]
)
async def test_blocked_target(drive: Drive, tenant: str, register: Register, say: Say, target: str) -> None:
    """A forbidden target is never tried again, and nothing of it is stored."""
    await drive.use("deliver")
    await register(target)
    await say()
    await drive.settle(tenant)
    [delivery] = await drive.rows(DELIVERIES, tenant)
    [attempt] = await drive.rows(ATTEMPTS, tenant)
    assert ("dead", 1) == (delivery["status"], delivery["attempts"])
    assert (None, None) == (attempt["status_code"], attempt["response_head"])
    assert attempt["error"] in {"blocked_target", "url"}


async def test_our_fault_uses_up_no_attempt(drive: Drive, tenant: str, register: Register, say: Say) -> None:
    """A secret that our keys do not open is our fault: the message waits, uncharged and unsent, for an operator."""
    await drive.use("deliver")
    strange = SecretBox.from_keys(SecretBox.new_key())
    async with raw_server(answers(200)) as server:
        await register(url(server), sealed=[seal_secret(strange, new_secret(), tenant=tenant, endpoint="x")])
        await say()
        for _ in range(3):
            await drive.step(tenant)
    assert [] == server.heads
    [delivery] = await drive.rows(DELIVERIES, tenant)
    assert ("retrying", 0, "ours:PENSTOCK_SECRET_KEYS") == (
        delivery["status"],
        delivery["attempts"],
        delivery["error"]["code"],
    )
    assert [1, 1, 1] == [row["attempt"] for row in await drive.rows(ATTEMPTS, tenant)]
    [hook] = await drive.rows(ENDPOINTS, tenant)
    assert hook["failing_since"] is None


async def test_a_lost_worker_says_nothing_of_its_messages(
    drive: Drive, tenant: str, register: Register, say: Say
) -> None:
    """A message whose workers died five times rests, uncharged and seen by its owner, and then arrives; it is not buried."""
    await drive.use("deliver")
    async with raw_server(answers(200)) as server:
        await register(url(server))
        await say()
        [event] = await drive.rows(DUE_EVENTS, tenant)
        [verdict] = await drive.run([(event["event_id"], event["type"], event["queue"])], losses=5)
        assert isinstance(verdict, GiveBack)
        assert (True, True) == (verdict.forgiven, 20 < verdict.delay < 40)
        [delivery] = await drive.rows(DELIVERIES, tenant)
        assert ("retrying", 0, "ours:worker_lost") == (
            delivery["status"], delivery["attempts"], delivery["error"]["code"],
        )  # fmt: skip
        assert [] == server.heads
        await drive.settle(tenant)
    assert 1 == len(server.heads)
    [delivery] = await drive.rows(DELIVERIES, tenant)
    assert ("delivered", 1) == (delivery["status"], delivery["attempts"])
    assert ["ours:worker_lost", None] == [row["error"] for row in await drive.rows(ATTEMPTS, tenant)]


async def test_bound_on_concurrency(drive: Drive, tenant: str, register: Register, say: Say) -> None:
    """One endpoint never has more than its share of attempts under way, and all of its messages arrive."""
    await drive.use("deliver")
    under_way, most = 0, 0

    async def slow(exchange: Exchange) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.05)
        under_way -= 1
        await exchange.reply(200)

    async with raw_server(slow) as server:
        await register(url(server))
        for number in range(3 * int(MOST)):
            await say(document_id=f"d{number}")
        await drive.settle(tenant)
    assert 1 < most <= MOST
    assert {"delivered"} == {row["status"] for row in await drive.rows(DELIVERIES, tenant)}
    assert 3 * MOST == len({json.loads(body)["id"] for body in server.bodies})


async def test_a_repeated_event_sends_nothing(
    drive: Drive, tenant: str, register: Register, say: Say
) -> None:
    """An event that comes again after its message arrived sends nothing."""
    await drive.use("deliver")
    async with raw_server(answers(200)) as server:
        await register(url(server))
        await say()
        await drive.settle(tenant)
        await drive.rows(
            "UPDATE events SET status = 'accepted', finished_at = NULL WHERE tenant_id = $1 AND type = 'delivery.due'"
            " RETURNING 1",
            tenant,
        )
        await drive.settle(tenant)
    assert 1 == len(server.heads)


async def test_tenants_do_not_mix(
    drive: Drive, tenant: str, register: Register, say: Say, new_tenant: Callable[[], Awaitable[str]]
) -> None:
    """An event that names another tenant's delivery is given up, and the delivery is not touched."""
    await drive.use("deliver")
    async with raw_server(answers(200)) as server:
        await register(url(server))
        await say()
        stranger = await new_tenant()
        [event] = await drive.rows(DUE_EVENTS, tenant)
        await drive.rows(
            "UPDATE events SET tenant_id = $2 WHERE event_id = $1 RETURNING 1", event["event_id"], stranger
        )
        await drive.settle(stranger)
    assert [] == server.heads
    [delivery] = await drive.rows(DELIVERIES, tenant)
    assert ("pending", 0) == (delivery["status"], delivery["attempts"])
    found: dict[str, Any] = await drive.event(event["event_id"])
    assert ("dead", "not_found") == (found["status"], found["error"]["code"])
