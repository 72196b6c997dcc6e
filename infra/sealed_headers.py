"""An endpoint's own headers pass through here between their owner and its row: names in the clear, values sealed.

They carry bearer tokens of the receiver's. The form in `webhook_endpoints.headers` is ``{name: {"box": base64}}``; a
value that is a plain string was written by an earlier version, and is sealed by the next round of `penstock maintain`.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TypeAlias

from infra.secretbox import SecretBox

Kept: TypeAlias = Mapping[str, Mapping[str, str] | str]
"""Headers as they stand in the row."""
_LATIN = "latin-1"


def seal_headers(
    box: SecretBox, headers: Mapping[str, str], *, tenant: str, endpoint: str
) -> dict[str, dict[str, str]]:
    """Seal each value to its tenant, endpoint and name."""
    return {
        name: {"box": base64.b64encode(box.seal(value.encode(_LATIN), tenant, _row(endpoint, name))).decode()}
        for name, value in headers.items()
    }


def open_headers(box: SecretBox, kept: Kept, *, tenant: str, endpoint: str) -> dict[str, str]:
    """The headers as they are sent.

    Raises:
        Misconfigured: the key that sealed one is not set any more.
        Permanent: a value is damaged or belongs to another row or header.
    """
    return {
        name: value
        if isinstance(value, str)
        else box.open(base64.b64decode(value["box"]), tenant, _row(endpoint, name)).decode(_LATIN)
        for name, value in kept.items()
    }


def all_sealed(box: SecretBox, kept: Kept) -> bool:
    """Whether the first key sealed every value."""
    return all(
        not isinstance(value, str) and box.is_current(base64.b64decode(value["box"]))
        for value in kept.values()
    )


def _row(endpoint: str, name: str) -> str:
    return f"{endpoint} header {name}"
