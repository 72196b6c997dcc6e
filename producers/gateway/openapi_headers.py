"""Headers that requests may carry and answers do are described here, once; the OpenAPI document refers to them by name."""

from __future__ import annotations

from typing import Any

from producers.gateway.exchange import REQUEST_ID
from producers.gateway.idempotency import BARE, HEADER, QUOTED

_TAG = r'(?:W/)?"[\x21\x23-\x7e]*"'
_TAGS = {"type": "string", "pattern": rf"^(?:\*|{_TAG}(?: *, *{_TAG})*)$"}

ANSWERED: dict[str, dict[str, Any]] = {
    "X-Request-Id": {"description": "The caller's, or ours; the log has it.", "schema": {"type": "string"}},
    "RateLimit-Policy": {"description": "Requests (q) in so many seconds (w).", "schema": {"type": "string"}},
    "RateLimit": {"description": "Requests left (r), for so many seconds (t).", "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds to wait.", "required": True, "schema": {"type": "integer", "minimum": 1}},
    "Location": {"description": "Where what was made can be looked at.", "schema": {"type": "string"}},
    "Content-Location": {"description": "The document's own address.", "schema": {"type": "string"}},
    "ETag": {"description": "The version of what is shown.", "required": True, "schema": {"type": "string"}},
    "Preference-Applied": {"description": "How long was waited, when `Prefer` asked for it.", "schema": {"type": "string"}},
    "Idempotent-Replayed": {"description": "`true` when a request with the same key was answered before.", "schema": {"const": "true"}},
    "WWW-Authenticate": {"description": "How to say who calls.", "required": True, "schema": {"type": "string"}},
}  # fmt: skip
"""Of answers, by name."""

_ASKED: dict[str, tuple[str, str, dict[str, Any], str | None]] = {
    "IdempotencyKey": (
        HEADER,
        "The same request with the same key is done once and answered alike (kept for two days; the id of an event for ever).",
        {"type": "string", "pattern": f"^(?:{BARE}|{QUOTED})$"},
        "8e03978e-40d5-43dd-bc93-6894a57f9324",
    ),
    "RequestId": (
        "X-Request-Id",
        f"A name for this request in logs and in its answer; what does not match `{REQUEST_ID}` is replaced by ours.",
        {"type": "string"},
        "checkout-7",
    ),
    "Traceparent": (
        "traceparent",
        "The W3C trace context of events that carry none of their own; it goes through to the webhook. A malformed one is ignored.",
        {"type": "string"},
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ),
    "Prefer": (
        "Prefer",
        "`wait=20` waits for the answer up to 20 seconds; at most 60 (RFC 7240).",
        {"type": "string"},
        None,  # whoever tries examples by the thousand would wait for each
    ),
    "LastEventId": (
        "Last-Event-ID",
        "With `Accept: text/event-stream`: what came after this event, `attempt-n`. Anything else means from the beginning.",
        {"type": "string"},
        "1-17",
    ),
    "IfMatch": (
        "If-Match",
        "Only if the document is as one of these entity tags says, or `*`: only if it is there; else 412.",
        _TAGS,
        None,
    ),
    "IfNoneMatch": (
        "If-None-Match",
        "Only if the document is as none of these entity tags says, or `*`: only if it is not there.",
        _TAGS,
        None,
    ),
    "CeId": (
        "ce-id",
        "Binary mode only: the event's id, percent-encoded, at most 1,024 characters.",
        {"type": "string"},
        None,
    ),
    "CeSource": ("ce-source", "Binary mode only: the event's source.", {"type": "string"}, None),
    "CeType": ("ce-type", "Binary mode only: the event's type.", {"type": "string"}, None),
    "CeSpecversion": (
        "ce-specversion",
        "Binary mode only: always 1.0. Every other attribute has a header ce-… of its own too.",
        {"type": "string"},
        None,
    ),
}
BINARY_MODE = ("CeId", "CeSource", "CeType", "CeSpecversion")


def parameters() -> dict[str, dict[str, Any]]:
    """Of requests, by the name that operations refer to."""
    return {name: _parameter(*told) for name, told in _ASKED.items()}


def asked(*names: str) -> dict[str, Any]:
    """The headers that a route looks at, for its `openapi_extra`."""
    return {"parameters": [reference(name) for name in names]}


def reference(name: str) -> dict[str, str]:
    """A header of requests."""
    assert name in _ASKED
    return {"$ref": f"#/components/parameters/{name}"}


def _parameter(header: str, sentence: str, schema: dict[str, Any], example: str | None) -> dict[str, Any]:
    made = {"name": header, "in": "header", "required": False, "description": sentence, "schema": schema}
    return made if example is None else {**made, "example": example}
