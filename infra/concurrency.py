"""The operator's limits on concurrency come in as one line of text and leave as what the claim script holds to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from schemas.ids import TENANT_PATTERN

_ENTRY: Final = re.compile(r"^(?P<kind>type|tenant) (?P<name>\S+) ?= ?(?P<most>[0-9]{1,6})$")


def parse_limits(text: str) -> Mapping[str, int]:
    """Read ``type document.added=8, tenant acme=4, tenant *=16``.

    Returns:
        Group → how many of its jobs the whole fleet runs at once. ``tenant *`` is for each tenant that is not named.

    Raises:
        ValueError: says which entry is wrong, and how one looks.
    """
    limits: dict[str, int] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        found = _ENTRY.match(entry)
        if found is None or int(found["most"]) < 1 or not _is_name(found["kind"], found["name"]):
            raise ValueError(f"{entry[:80]!r} is no limit; write `type T=N`, `tenant T=N` or `tenant *=N`")
        limits[f"{found['kind']} {found['name']}"] = int(found["most"])
    return limits


def _is_name(kind: str, name: str) -> bool:
    return kind == "type" or name == "*" or re.match(TENANT_PATTERN, name) is not None
