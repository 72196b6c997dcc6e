from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from infra.signing_secrets import new_secret, parse_secret
from tests.drive import Drive
from tests.workers.deliver.conftest import Endpoint, Register, Say
from workers.deliver.sign import signed_headers

PAGE = Path(__file__).parents[3] / "docs" / "webhooks.md"
LANGUAGES = [
    pytest.param("python", id="python"),
    pytest.param(
        "javascript",
        id="javascript",
        marks=pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed"),
    ),
]


@dataclass(slots=True)
class Receiver:
    """An example receiver in a process of its own."""

    port: int
    process: asyncio.subprocess.Process

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}/hook"

    async def line(self) -> dict[str, object]:
        """The next thing that it prints."""
        assert self.process.stdout is not None
        async with asyncio.timeout(20):
            return dict(json.loads(await self.process.stdout.readline()))


@asynccontextmanager
async def example(language: str, secret: str, folder: Path, port: int = 0) -> AsyncIterator[Receiver]:
    """Run the example of the documentation as it stands there."""
    [code] = re.findall(rf"```{language} receiver\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    path = folder / f"receiver.{'py' if language == 'python' else 'cjs'}"
    path.write_text(code, encoding="utf-8")
    program = sys.executable if language == "python" else str(shutil.which("node"))
    process = await asyncio.create_subprocess_exec(
        program,
        str(path),
        stdout=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "PORT": str(port), "WEBHOOK_SECRET": secret},
    )
    receiver = Receiver(0, process)
    try:
        receiver.port = int(str((await receiver.line())["listening"]))
        yield receiver
    finally:
        process.kill()
        await process.wait()


def post(url: str, body: bytes, headers: dict[str, str]) -> int:
    """Send one request and return the status."""
    request = Request(url, body, {"content-type": "application/json", **headers})  # noqa: S310 - loopback
    try:
        with urlopen(request, timeout=20) as response:  # noqa: S310 - loopback
            return int(response.status)
    except OSError as error:
        return int(getattr(error, "code", 0))


@pytest.mark.parametrize("language", LANGUAGES)
async def test_example_receives_what_the_pool_sends(
    language: str, drive: Drive, tenant: str, register: Register, say: Say, tmp_path: Path
) -> None:
    """The documentation's receiver, in a process of its own, verifies and prints each message once."""
    await drive.use("deliver")
    secret = new_secret()
    async with example(language, secret, tmp_path) as receiver:
        endpoint: Endpoint = await register(receiver.url, secret=secret)
        for number in range(3):
            await say(document_id=f"d{number}")
        await drive.settle(tenant)
        printed = [await receiver.line() for _ in range(3)]
    rows = await drive.rows(
        "SELECT message_id, endpoint_id, status FROM deliveries WHERE tenant_id = $1", tenant
    )
    assert {"delivered"} == {row["status"] for row in rows}
    assert {endpoint.id} == {row["endpoint_id"] for row in rows}
    assert sorted(row["message_id"] for row in rows) == sorted(str(one["id"]) for one in printed)
    assert {"document.purged"} == {one["type"] for one in printed}


@pytest.mark.parametrize("language", LANGUAGES)
async def test_example_refuses_what_is_not_ours(language: str, tmp_path: Path) -> None:
    """The documentation's receiver refuses forged, changed, old and unsigned messages, and takes rotated secrets."""
    secret, other = new_secret(), new_secret()
    key, wrong = parse_secret(secret), parse_secret(other)
    body = json.dumps({"type": "document.purged", "id": "msg_1", "data": {"title": "ü"}}).encode()
    now = int(time.time())
    good = signed_headers([key], "msg_1", now, body)
    cases = [
        (204, body, good),
        (204, body, good),
        (204, body, signed_headers([wrong, key], "msg_1", now, body)),
        (400, body, signed_headers([wrong], "msg_1", now, body)),
        (400, body + b" ", good),
        (400, body, {**good, "webhook-id": "msg_2"}),
        (400, body, {**good, "webhook-timestamp": "soon"}),
        (400, body, signed_headers([key], "msg_1", now - 3600, body)),
        (400, body, {**good, "webhook-signature": "v1"}),
        (400, body, {}),
    ]
    async with example(language, secret, tmp_path) as receiver:
        statuses = [await asyncio.to_thread(post, receiver.url, sent, headers) for _, sent, headers in cases]
        assert {"type": "document.purged", "id": "msg_1"} == await receiver.line()
    assert [status for status, _, _ in cases] == statuses


async def test_a_receiver_that_was_away_gets_what_waited(
    drive: Drive, tenant: str, register: Register, say: Say, tmp_path: Path
) -> None:
    """Messages to a receiver that was not running arrive when it is back, under the ids that they had from the start."""
    await drive.use("deliver")
    secret = new_secret()
    async with example("python", secret, tmp_path) as receiver:
        port = receiver.port
        await register(receiver.url, secret=secret)
    await say(document_id="d1")
    await drive.step(tenant)
    [before] = await drive.rows(
        "SELECT message_id, status, error FROM deliveries WHERE tenant_id = $1", tenant
    )
    assert ("retrying", "connect") == (before["status"], before["error"]["code"])
    async with example("python", secret, tmp_path, port) as receiver:
        await drive.settle(tenant)
        assert {"type": "document.purged", "id": before["message_id"]} == await receiver.line()
