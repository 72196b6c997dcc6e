"""A request becomes offered CloudEvents here, in one of the three modes of the HTTP binding; `schemas.envelope` reads them.

The Content-Type's prefix chooses the mode (CloudEvents HTTP binding 1.0.2, §3): ``application/cloudevents-batch``,
``application/cloudevents``, and for anything else the binary mode, where attributes are ``ce-`` headers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from starlette.requests import Request

from producers.gateway.body import (
    MAX_BATCH,
    MAX_BODY,
    MAX_DOCUMENT,
    MAX_ITEMS,
    media_type,
    read_bytes,
)
from producers.gateway.problems import UnsupportedMediaType
from schemas.envelope import Event, parse_event
from schemas.errors import BadInput, PenstockError, TooLarge
from schemas.strict_json import parse_json

STRUCTURED = "application/cloudevents"
BATCH = "application/cloudevents-batch"
DOCUMENT = "document.added"
_JSON = re.compile(r"^application/([a-z0-9.+-]+\+)?json$")
_ESCAPE = re.compile(r"\\(.)")
_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True)
class Refused:
    """An item of a batch that is no event: what is known of it, and why."""

    source: str
    id: str
    error: PenstockError


@dataclass(frozen=True, slots=True)
class Offer:
    """What a request wants to publish; `batch` tells whether one bad item spoils the request."""

    items: list[Event | Refused]
    batch: bool


@dataclass(frozen=True, slots=True)
class Sent:
    """A request's events as they were sent, not yet looked at: attributes and data in structured form."""

    raw: list[Any]
    batch: bool


async def read_offer(request: Request) -> Offer:
    """Read the events of a request.

    Raises:
        BadInput: the request as a whole cannot be read, or its only event cannot.
    """
    sent = await read_sent(request)
    if sent.batch:
        return Offer([_item(raw) for raw in sent.raw], batch=True)
    return Offer([parse_event(raw) for raw in sent.raw], batch=False)


async def read_sent(request: Request) -> Sent:
    """Undo the HTTP binding: whatever the mode, what comes out has the structured form.

    Raises:
        BadInput: the request is in none of the three modes, or its body cannot be read.
    """
    kind = media_type(request)
    if kind.startswith(BATCH):
        _only_json(kind, BATCH)
        return Sent(_batch(parse_json(await read_bytes(request, MAX_BATCH))), batch=True)
    if kind.startswith(STRUCTURED):
        _only_json(kind, STRUCTURED)
        return Sent([parse_json(await _single(request))], batch=False)
    return Sent([await _binary(request, kind)], batch=False)


def _only_json(kind: str, mode: str) -> None:
    if kind not in {mode, f"{mode}+json"}:
        raise UnsupportedMediaType(
            "only the JSON format is read", field="Content-Type", fix=f"send Content-Type: {mode}+json"
        )


async def _single(request: Request) -> bytes:
    """The body of one event: a document may be large, anything else may not."""
    raw = await read_bytes(request, MAX_DOCUMENT)
    if len(raw) > MAX_BODY and f'"{DOCUMENT}"'.encode() not in raw:
        raise TooLarge("the body is larger than 1 MiB", field="body")
    return raw


def _batch(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise BadInput("a batch must be a JSON array of events", field="body")
    if len(value) > MAX_ITEMS:
        raise TooLarge(f"a batch holds at most {MAX_ITEMS:,} events", field="body")
    return value


def _item(raw: Any) -> Event | Refused:
    try:
        return parse_event(raw)
    except PenstockError as error:
        return Refused(_named(raw, "source"), _named(raw, "id"), error)


def _named(raw: Any, name: str) -> str:
    """What an unreadable item calls itself, so that its sender can find it."""
    value = raw.get(name) if isinstance(raw, dict) else None
    return value[:1024].encode("utf-8", "replace").decode() if isinstance(value, str) else ""


async def _binary(request: Request, kind: str) -> dict[str, Any]:
    attributes = _headers(request)
    if not attributes:
        raise BadInput(
            "the request carries neither a structured CloudEvent nor ce- headers",
            field="Content-Type",
            fix="send Content-Type: application/cloudevents+json",
        )
    if kind and not _JSON.match(kind):
        raise UnsupportedMediaType(
            "the data of an event must be JSON",
            field="Content-Type",
            fix="send Content-Type: application/json",
        )
    limit = MAX_DOCUMENT if attributes.get("type") == DOCUMENT else MAX_BODY
    raw = await read_bytes(request, limit)
    event: dict[str, Any] = dict(attributes)
    if kind:
        event["datacontenttype"] = request.headers["content-type"]
    if raw:
        event["data"] = parse_json(raw)
    return event


def _headers(request: Request) -> dict[str, str]:
    found: dict[str, str] = {}
    for raw_name, raw_value in request.headers.raw:
        name = raw_name.decode("latin-1").lower()
        if not name.startswith("ce-"):
            continue
        name = name[3:]
        if name in found:
            raise BadInput(f"the header ce-{name[:40]} is sent twice", field=f"ce-{name[:40]}")
        if name in {"data", "datacontenttype"}:
            raise BadInput(f"ce-{name} is not a header of the binary mode", field=f"ce-{name}")
        found[name] = _decode(raw_value, name)
    return found


def _decode(raw: bytes, name: str) -> str:
    """A header's value as an attribute: unquoted, percent-decoded once, as UTF-8 (HTTP binding §3.1.3.2)."""
    field = f"ce-{name[:40]}"
    try:
        text = raw.decode("ascii")
    except UnicodeDecodeError:
        raise BadInput(f"{field} holds bytes outside ASCII", field=field, fix="percent-encode them") from None
    if len(text) >= 2 and text[0] == text[-1] == '"':
        text = _ESCAPE.sub(r"\1", text[1:-1])
    if _PERCENT.search(text):
        raise BadInput(f"{field} holds a % that begins no escape", field=field, fix="write %25")
    try:
        return unquote_to_bytes(text).decode("utf-8")
    except UnicodeDecodeError:
        raise BadInput(f"{field} is not percent-encoded UTF-8", field=field) from None
