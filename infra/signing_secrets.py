"""The signing secrets of a webhook endpoint pass through here: shown once to their owner, sealed in the endpoint's row.

The gateway makes, reads and rotates them; the deliver pool opens them to sign. Format: Standard Webhooks 1.0,
``whsec_`` and base64 of 24 to 64 bytes. The prefix is always given, because receivers disagree without it.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TypedDict

from infra.secretbox import SecretBox
from schemas.errors import BadInput, Misconfigured
from schemas.ids import uuid7

PREFIX = "whsec_"
NEW_BYTES = 32
_BYTES = range(24, 65)


class SealedSecret(TypedDict):
    """One entry of ``webhook_endpoints.secrets``, newest first.

    Attributes:
        id: names the secret to its owner.
        box: base64 of the sealed bytes.
        until: when the secret stops signing (ISO 8601), None for the current one.
    """

    id: str
    box: str
    until: str | None


def new_secret() -> str:
    """A new random secret, as its owner gets to see it once."""
    return PREFIX + base64.b64encode(os.urandom(NEW_BYTES)).decode("ascii")


def parse_secret(text: str) -> bytes:
    """The key inside a ``whsec_`` secret.

    Raises:
        BadInput: not such a secret; the message does not show it.
    """
    if not text.startswith(PREFIX):
        raise _bad()
    try:
        key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise _bad() from None
    if len(key) not in _BYTES:
        raise _bad()
    return key


def seal_secret(box: SecretBox, secret: str, *, tenant: str, endpoint: str) -> SealedSecret:
    """Seal a secret for one endpoint's row.

    Raises:
        BadInput: not a ``whsec_`` secret.
    """
    blob = box.seal(parse_secret(secret), tenant, endpoint)
    return SealedSecret(id=str(uuid7()), box=base64.b64encode(blob).decode("ascii"), until=None)


def rotate(
    entries: Sequence[Mapping[str, object]], fresh: SealedSecret, until: datetime
) -> list[SealedSecret]:
    """The endpoint's entries with a new current secret; the ones before go on signing until then at the latest."""
    kept = []
    for entry in entries:
        ends = until if entry["until"] is None else min(until, datetime.fromisoformat(str(entry["until"])))
        kept.append(SealedSecret(id=str(entry["id"]), box=str(entry["box"]), until=ends.isoformat()))
    return [fresh, *kept]


def open_secrets(
    box: SecretBox, entries: Sequence[Mapping[str, object]], *, tenant: str, endpoint: str, now: datetime
) -> list[bytes]:
    """The keys that sign at the moment, the current one first.

    Raises:
        Misconfigured: the endpoint has none, or the key that sealed one is not set any more.
        Permanent: an entry is damaged or belongs to another row.
    """
    keys = [
        box.open(base64.b64decode(str(entry["box"])), tenant, endpoint)
        for entry in entries
        if entry["until"] is None or datetime.fromisoformat(str(entry["until"])) > now
    ]
    if not keys:
        raise Misconfigured("the endpoint has no secret to sign with", field="secrets")
    return keys


def _bad() -> BadInput:
    return BadInput(
        "the secret is not whsec_ followed by base64 of 24 to 64 bytes",
        field="secret",
        fix="leave it out, and one is made",
    )
