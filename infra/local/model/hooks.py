"""The end of a fine-tuning job passes through here and goes on as a signed webhook, as OpenAI sends it.

Signed by the Standard Webhooks spec: HMAC-SHA256 over `id.timestamp.body`, the secret is `whsec_` and base64.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import http.client
import secrets
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

import orjson
import structlog

from infra.local.model.errors import wrong_value
from infra.local.model.fields import Fields

PREFIX = "whsec_"
HOSTS = frozenset({"127.0.0.1", "localhost"})
TIMEOUT = 5.0
WAITS = (0.2, 1.0, 5.0, 30.0)
"""Seconds between attempts; OpenAI goes on for three days."""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Hook:
    """Where to send, with which key to sign, and how many times each: receivers have to cope with repetition."""

    url: str
    key: bytes
    copies: int


class Hooks:
    """Sends one event for each job that ends, while a receiver is set."""

    def __init__(self) -> None:
        self._hook: Hook | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def put(self, fields: Fields) -> None:
        """Set the receiver; only one on this machine is accepted.

        Raises:
            ApiError: the address or the secret cannot be used.
        """
        fields.only(("url", "secret", "copies"))
        url = fields.text("url")
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.hostname not in HOSTS:
            raise wrong_value("url", "expected an http address on the loopback interface")
        secret = fields.text("secret")
        try:
            key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
        except binascii.Error as error:
            raise wrong_value("secret", "expected base64 after 'whsec_'") from error
        self._hook = Hook(url, key, fields.whole("copies", 1, low=1, high=10))

    def clear(self) -> None:
        """Send nothing from now on."""
        self._hook = None

    def job_ended(self, job_id: str, status: str) -> None:
        """Send `fine_tuning.job.{status}`; the payload names the job and says nothing else."""
        hook = self._hook
        if hook is None:
            return
        event = {
            "object": "event",
            "id": f"evt_{secrets.token_hex(12)}",
            "type": f"fine_tuning.job.{status}",
            "created_at": int(time.time()),
            "data": {"id": job_id},
        }
        webhook_id = f"wh_{secrets.token_hex(12)}"
        for _ in range(hook.copies):
            task = asyncio.create_task(self._deliver(hook, webhook_id, orjson.dumps(event)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Give up what is still being sent."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _deliver(self, hook: Hook, webhook_id: str, body: bytes) -> None:
        for wait in (*WAITS, None):
            if await asyncio.to_thread(_post, hook, webhook_id, body):
                return
            if wait is not None:
                await asyncio.sleep(wait)
        _log.warning("model.webhook_given_up", webhook_id=webhook_id)


def sign(key: bytes, webhook_id: str, timestamp: int, body: bytes) -> str:
    """The `webhook-signature` header."""
    signed = f"{webhook_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode("ascii")


def _post(hook: Hook, webhook_id: str, body: bytes) -> bool:
    """One attempt; whether the receiver took it."""
    parts = urlsplit(hook.url)
    timestamp = int(time.time())
    headers = {
        "content-type": "application/json",
        "webhook-id": webhook_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(hook.key, webhook_id, timestamp, body),
    }
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT)
    try:
        connection.request("POST", parts.path or "/", body=body, headers=headers)
        return connection.getresponse().status // 100 == 2
    except (OSError, http.client.HTTPException):
        # Away, or not speaking HTTP: the next attempt may find it better.
        return False
    finally:
        connection.close()
