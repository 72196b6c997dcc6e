"""What is said gets its stable id here, so that saying it again after a lost reply or a crash changes nothing.

An id is derived from what is said wherever saying it twice means it once: an example, a numbered version of a
document, a file that has not changed. A question asked twice is two questions, and a document without a number may
go back to an earlier text: these get a random id, which a caller who wants to retry across crashes gives itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

DIGEST = 32
"""Hexadecimal characters of a SHA-256 that are kept: 128 bits."""


def digest(*parts: Any) -> str:
    """A short stable name of plain values; also of values that the gate is about to refuse."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST]


def event_name(kind: str, data: Mapping[str, Any], sequence: int | None) -> str:
    """The id of an event that its publisher did not name."""
    numbered = kind.startswith("document.") and sequence is not None
    if numbered or kind == "example.recorded":
        return f"{kind}-{digest(kind, data, sequence)}"
    return f"{kind}-{uuid4()}"


def raw_event(
    kind: str, data: Mapping[str, Any], attributes: Mapping[str, Any], subject: str | None = None
) -> dict[str, Any]:
    """An event as a mapping; what is None is left out, and a subject among the attributes wins."""
    raw: dict[str, Any] = {"type": kind, "data": _present(data), **_present(attributes)}
    if subject is not None:
        raw.setdefault("subject", subject)
    return raw


def _present(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
