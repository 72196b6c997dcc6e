"""The stored bytes of a message come in, and the three headers that let its receiver trust them go out.

Standard Webhooks 1.0: HMAC-SHA256 over ``id.timestamp.body`` with the raw bytes of the body. While a secret rotates
there is one signature per secret, and a receiver accepts any that fits.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence


def signature(key: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """One signature of scheme ``v1``.

    Args:
        key: the bytes inside the ``whsec_`` secret.
        message_id: the same at every attempt.
        timestamp: Unix seconds of this attempt.
        body: the bytes as they are sent.
    """
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode("ascii")


def signed_headers(keys: Sequence[bytes], message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers of one attempt, with one signature per key, the current key's first.

    Raises:
        ValueError: there is no key; nothing may leave unsigned.
    """
    if not keys:
        raise ValueError("no key to sign with")
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(signature(key, message_id, timestamp, body) for key in keys),
    }
