"""Other people's receivers judge what our pool sends: standardwebhooks, svix, openai, and npm's standardwebhooks."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import openai
import pytest
import standardwebhooks

from infra.secretbox import SecretBox
from infra.settings import Settings
from infra.signing_secrets import new_secret, parse_secret, rotate, seal_secret
from tests.drive import Drive
from tests.infra.raw_server import Exchange, raw_server
from tests.workers.deliver.conftest import Register, Say
from workers.deliver.sign import signed_headers

NPM = Path(__file__).parents[3] / ".peers" / "npm" / "node_modules" / "standardwebhooks"
JUDGE = """
const { Webhook } = require(process.argv[1]);
const cases = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
console.log(JSON.stringify(cases.map(([secret, body, headers]) => {
  try { new Webhook(secret).verify(Buffer.from(body, "base64").toString("utf8"), headers); return true; }
  catch { return false; }
})));
"""
Verify = Callable[[str, bytes, Mapping[str, str]], bool]


def by_standardwebhooks(secret: str, body: bytes, headers: Mapping[str, str]) -> bool:
    """The reference library."""
    try:
        standardwebhooks.Webhook(secret).verify(body, dict(headers))
    except standardwebhooks.WebhookVerificationError:
        return False
    return True


def by_svix(secret: str, body: bytes, headers: Mapping[str, str]) -> bool:
    """Svix's library, which reads the standard's header names too."""
    svix = pytest.importorskip("svix.webhooks", reason="svix is not installed")
    try:
        svix.Webhook(secret).verify(body, dict(headers))
    except svix.WebhookVerificationError:
        return False
    return True


def by_openai(secret: str, body: bytes, headers: Mapping[str, str]) -> bool:
    """The receiver in OpenAI's client."""
    client = openai.OpenAI(api_key="none")
    try:
        client.webhooks.verify_signature(body, headers, secret=secret)
    except openai.InvalidWebhookSignatureError:
        return False
    finally:
        client.close()
    return True


def by_npm(secret: str, body: bytes, headers: Mapping[str, str]) -> bool:
    """The reference library for JavaScript, in Node."""
    node = shutil.which("node")
    if node is None or not NPM.exists():
        pytest.skip("Node or npm's standardwebhooks is missing: `make peers` installs the latter")
    cases = json.dumps([[secret, base64.b64encode(body).decode(), dict(headers)]])
    done = subprocess.run(
        [node, "-e", JUDGE, str(NPM)], input=cases, capture_output=True, text=True, check=True
    )
    [verdict] = json.loads(done.stdout)
    return bool(verdict)


ORACLES = [by_standardwebhooks, by_svix, by_openai, by_npm]


@pytest.mark.parametrize("verify", ORACLES)
async def test_what_the_pool_sends_is_believed(
    verify: Verify, drive: Drive, tenant: str, register: Register, say: Say, settings: Settings
) -> None:
    """A message with letters of all kinds, sent while the secret rotates, verifies with either secret and no other."""
    await drive.use("deliver")
    box = SecretBox.from_keys(settings.need("PENSTOCK_SECRET_KEYS"))

    async def ok(exchange: Exchange) -> None:
        await exchange.reply(204)

    async with raw_server(ok) as server:
        endpoint = await register(f"http://127.0.0.1:{server.port}/")
        fresh = new_secret()
        [row] = await drive.rows("SELECT secrets FROM webhook_endpoints WHERE endpoint_id = $1", endpoint.id)
        sealed = seal_secret(box, fresh, tenant=tenant, endpoint=str(endpoint.id))
        await drive.rows(
            "UPDATE webhook_endpoints SET secrets = $2 WHERE endpoint_id = $1 RETURNING 1",
            endpoint.id,
            rotate(row["secrets"], sealed, datetime.now(UTC) + timedelta(hours=1)),
        )
        await say(document_id='Grüße, 世界 🌍 "\\ \u2028')
        await drive.settle(tenant)
    lines = server.heads[0].strip().split("\r\n")[1:]
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    body = server.bodies[0]
    assert 2 == len(headers["webhook-signature"].split())
    assert [True, True, False] == [
        verify(one, body, headers) for one in (endpoint.secret, fresh, new_secret())
    ]
    assert not verify(fresh, body.replace(b"document", b"dokument", 1), headers)


@pytest.mark.parametrize("verify", ORACLES)
def test_what_is_old_is_not_believed(verify: Verify) -> None:
    """Every receiver refuses a timestamp that is too far off, so ours must be each attempt's own."""
    secret, body, now = new_secret(), b'{"a": 1}', int(time.time())
    times = (now, now - 3600, now + 3600)
    sent = [signed_headers([parse_secret(secret)], "msg_1", at, body) for at in times]
    assert [True, False, False] == [verify(secret, body, headers) for headers in sent]
