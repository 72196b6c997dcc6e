"""Requests are made and judged here, without I/O: paths, batches, what to try again and when."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from penstock_client.errors import PenstockError

BATCH_ITEMS = 500
BATCH_BYTES = 4 * 1024 * 1024
SINGLE = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
LATER = frozenset({429, 502, 503, 504})
FIRST_PAUSE, LONGEST_PAUSE, LONGEST_RETRY_AFTER = 0.2, 10.0, 60.0
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def configured(url: str | None, key: str | None) -> tuple[str, str]:
    """Address and key: what is given, else ``PENSTOCK_URL`` and ``PENSTOCK_API_KEY``.

    Raises:
        PenstockError: names what is missing.
    """
    address = url or os.environ.get("PENSTOCK_URL")
    secret = key or os.environ.get("PENSTOCK_API_KEY")
    if not address or not secret:
        raise PenstockError(f"{'PENSTOCK_API_KEY' if address else 'PENSTOCK_URL'} is not set")
    return address, secret


def uses_proxy(url: str) -> bool:
    """Whether the environment's proxy may be used: never for the same machine."""
    return urlsplit(url).hostname not in LOOPBACK


def path(*parts: str) -> str:
    """A path under ``/v1`` of parts that may hold any character."""
    return "/v1/" + "/".join(_part(part) for part in parts)


def _part(text: str) -> str:
    encoded = quote(text, safe="")
    return encoded.replace(".", "%2E") if encoded in {".", ".."} else encoded


def present(**values: Any) -> dict[str, Any]:
    """What is not None."""
    return {name: value for name, value in values.items() if value is not None}


def pause(attempt: int, attempts: int, status: int | None, retry_after: float | None) -> float | None:
    """Seconds until a request is tried again; None when that would be of no use.

    Args:
        attempt: how often it was tried, from 1.
        attempts: how often it may be tried.
        status: of the answer; None when there was none.
        retry_after: what the gateway asked for.
    """
    if attempt >= attempts or (status is not None and status not in LATER):
        return None
    if retry_after is not None:
        return retry_after if retry_after <= LONGEST_RETRY_AFTER else None
    longest: float = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (attempt - 1))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - not cryptography


def seconds(value: str | None) -> float | None:
    """A Retry-After header in seconds; a date or nonsense is None."""
    return float(value) if value is not None and value.isascii() and value.isdigit() else None


def problem(content: bytes) -> dict[str, Any]:
    """The problem document of an answer; empty when it is none."""
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def batches(events: Iterable[Mapping[str, Any]]) -> Iterator[list[bytes]]:
    """Events as JSON, in groups that the gateway takes; one that is larger than a group comes alone."""
    group: list[bytes] = []
    size = 0
    for one in events:
        body = json.dumps(one, separators=(",", ":")).encode()
        if group and (len(group) >= BATCH_ITEMS or size + len(body) > BATCH_BYTES):
            yield group
            group, size = [], 0
        group.append(body)
        size += len(body)
    if group:
        yield group
