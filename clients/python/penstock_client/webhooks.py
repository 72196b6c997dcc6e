"""A message that you received is held against its signature here, by the Standard Webhooks specification."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from penstock_client.errors import PenstockError
from penstock_client.models import Model

TOLERANCE = 300.0
"""Seconds by which a message may be older or newer than the receiver's clock."""


class SignatureInvalid(PenstockError):
    """The message is not from Penstock, was changed, or is too old."""


class Message(Model):
    """What a webhook tells; `id` is the same at every attempt."""

    id: str
    type: str
    timestamp: str
    data: dict[str, object]
    sequence: int | None = None


def verify_webhook(
    body: bytes,
    headers: Mapping[str, str],
    secret: str | Sequence[str],
    *,
    tolerance: float = TOLERANCE,
    now: float | None = None,
) -> Message:
    """Read a message, if it is genuine.

    Args:
        body: the bytes as they came; not parsed and written anew.
        headers: the request's, in any spelling.
        secret: ``whsec_…``, or several while one is being replaced.
        tolerance: seconds by which its time may be off.
        now: the receiver's time; the clock's unless given.

    Raises:
        SignatureInvalid: do not trust it; answer 400.
    """
    given = {name.lower(): value for name, value in headers.items()}
    try:
        name, stamp, signatures = (given[f"webhook-{part}"] for part in ("id", "timestamp", "signature"))
        sent_at = int(stamp)
    except (KeyError, ValueError):
        raise SignatureInvalid("a webhook header is missing or malformed") from None
    if abs((time.time() if now is None else now) - sent_at) > tolerance:
        raise SignatureInvalid("the message is too old or from the future")
    signed = f"{name}.{stamp}.".encode() + body
    wanted = [
        b"v1," + base64.b64encode(hmac.digest(_key(one), signed, hashlib.sha256))
        for one in ([secret] if isinstance(secret, str) else secret)
    ]
    came = [one.encode() for one in signatures.split()]
    if not any(hmac.compare_digest(one, other) for one in wanted for other in came):
        raise SignatureInvalid("no signature fits")
    try:
        return Message.model_validate_json(body)
    except ValidationError:
        raise SignatureInvalid("the message is genuine and cannot be read") from None


def _key(secret: str) -> bytes:
    try:
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error:
        raise SignatureInvalid("the secret is not whsec_ and base64") from None
