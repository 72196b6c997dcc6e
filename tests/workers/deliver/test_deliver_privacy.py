from __future__ import annotations

import json

import structlog

from tests.drive import Drive
from tests.infra.raw_server import Exchange, raw_server
from tests.workers.deliver.conftest import Register, Say

CANARY = "canary5f1d"


async def test_logs_carry_no_content(drive: Drive, tenant: str, register: Register, say: Say) -> None:
    """No log line of success, failure or a blocked target holds the message, the URL's query, a header or the secret."""
    await drive.use("deliver")
    statuses = [500, 200]

    async def script(exchange: Exchange) -> None:
        await exchange.reply(statuses.pop(0), CANARY.encode())

    async with raw_server(script) as server:
        good = await register(
            f"http://127.0.0.1:{server.port}/{CANARY}?{CANARY}", headers={"Authorization": CANARY}
        )
        bad = await register(f"http://169.254.169.254/?{CANARY}")
        with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as lines:
            await say(document_id=CANARY)
            await drive.settle(tenant)
    shown = json.dumps(lines, default=str)
    assert {"RetryAt", "Delivered", "Dead"} == {
        line["decision"] for line in lines if line["event"] == "runtime.attempt"
    }
    for secret in (CANARY, good.secret.removeprefix("whsec_"), bad.secret.removeprefix("whsec_")):
        assert secret not in shown


async def test_errors_show_no_query(drive: Drive, tenant: str, register: Register, say: Say) -> None:
    """What is stored about a failure shows neither the URL's query nor the owner's headers."""
    await drive.use("deliver")
    await register(f"http://10.0.0.1/?{CANARY}", headers={"Authorization": CANARY})
    await register(f"http://127.0.0.1:1/?{CANARY}", headers={"Authorization": CANARY})
    await say()
    await drive.step(tenant)
    rows = await drive.rows("SELECT error FROM deliveries WHERE tenant_id = $1", tenant)
    rows += await drive.rows(
        "SELECT error, response_head FROM delivery_attempts WHERE tenant_id = $1", tenant
    )
    rows += await drive.rows("SELECT error, story FROM events WHERE tenant_id = $1", tenant)
    assert CANARY not in json.dumps(rows, default=str)


async def test_callback_goes_to_its_own_url(drive: Drive, tenant: str, register: Register, say: Say) -> None:
    """A callback goes to the URL that the question gave, signed with the secret of the endpoint that allows it."""
    await drive.use("deliver")
    seen: list[str] = []

    async def script(exchange: Exchange) -> None:
        seen.append(exchange.head.split(" ")[1])
        await exchange.reply(200)

    async with raw_server(script) as server:
        prefix = f"http://127.0.0.1:{server.port}/callbacks/"
        await register(prefix, callback_prefix=True)
        await say(callback_url=f"{prefix}42?q=1")
        await say(document_id="d2")
        await drive.settle(tenant)
    assert ["/callbacks/42?q=1"] == seen
