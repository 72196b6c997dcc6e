"""Webhooks of the model provider pass through here: what is signed and new makes the run's next look due, and no more.

Polling stays the source of truth: a webhook that is lost, late or forged costs or gains at most one poll interval.
Signed by the Standard Webhooks spec 1.0 with a ``whsec_`` secret.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import redis.asyncio
import structlog
from redis.exceptions import RedisError

from infra import queue_keys
from infra.database import Database, queries
from infra.signing_secrets import parse_secret
from schemas.errors import Unauthorized

TOLERANCE = 300.0
"""Seconds by which a webhook's time may differ from ours."""
LONGEST_ID = 200
ABOUT_JOBS = "fine_tuning.job."
_log = structlog.get_logger("penstock.hooks")


def check_signature(secret: str, headers: Mapping[str, str], body: bytes, now: float) -> str:
    """Hold a webhook against its signature.

    Args:
        secret: ``whsec_…``.
        headers: with lower-case names.
        body: as it came, byte for byte.
        now: Unix seconds.

    Returns:
        The webhook's id, the same for every repetition.

    Raises:
        Unauthorized: a header is missing, the time is off, or no signature fits.
        BadInput: the secret of the settings is none.
    """
    webhook_id, sent_at = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not 0 < len(webhook_id) <= LONGEST_ID or not (sent_at.isascii() and sent_at.isdigit()):
        raise Unauthorized("the webhook has no id or no time", field="webhook-id")
    if len(sent_at) > 12 or abs(now - int(sent_at)) > TOLERANCE:
        raise Unauthorized("the webhook's time is too far from ours", field="webhook-timestamp")
    signed = f"{webhook_id}.{sent_at}.".encode() + body
    wanted = b"v1," + base64.b64encode(hmac.new(parse_secret(secret), signed, hashlib.sha256).digest())
    given = headers.get("webhook-signature", "").encode("utf-8", "replace").split()
    if not any(hmac.compare_digest(wanted, one) for one in given):
        raise Unauthorized("the webhook's signature is not valid", field="webhook-signature")
    return webhook_id


def job_of(event: Any) -> str | None:
    """The fine-tuning job that an event is about, or None."""
    if not isinstance(event, dict) or not str(event.get("type", "")).startswith(ABOUT_JOBS):
        return None
    data = event.get("data")
    job_id = data.get("id") if isinstance(data, dict) else None
    return job_id if isinstance(job_id, str) and 0 < len(job_id) <= LONGEST_ID else None


async def wake(database: Database, client: redis.asyncio.Redis, webhook_id: str, job_id: str) -> bool:
    """Make the next look at a job due now, once for each webhook.

    Args:
        database: acts as ``penstock_gateway``.
        client: of the queues; its absence is left to the sweeper.
        webhook_id: tells a repetition.
        job_id: the provider's.

    Returns:
        Whether a run was waiting.
    """
    async with database.connection() as connection:
        rows = await connection.fetch(queries("hooks").wake, webhook_id, job_id)
    script = client.register_script(_forward())
    for row in rows:
        keys = [row["queue"], queue_keys.bell(row["queue"])]
        try:
            await script(keys=keys, args=[str(row["event_id"])])
        except (RedisError, OSError) as error:
            _log.warning(
                "hooks.redis_away", error=type(error).__name__, next_step="the look comes at its time"
            )
    return bool(rows)


@cache
def _forward() -> str:
    return (Path(__file__).parent / "scripts" / "forward.lua").read_text(encoding="utf-8")
