"""Every event type leaves from here as an AsyncAPI 3 document: what may be published, and what webhooks receive.

Made from `schemas.registry`, so that a type cannot be forgotten; the envelope of what comes in is the one that the OpenAPI
document shows, and the message that goes out is the one that `infra.outbox.body_of` writes.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from producers.gateway.openapi import EVENT_BODY, EVENT_SCHEMA, REFERENCE, add_schemas
from schemas.registry import Direction, EventType, types_of

VERSION = "3.1.0"
PUBLICATION = "application/cloudevents+json"
_SIGNATURE: dict[str, Any] = {
    "type": "object",
    "required": ["webhook-id", "webhook-timestamp", "webhook-signature"],
    "properties": {
        "webhook-id": {"type": "string", "description": "The same at every attempt; equal to the body's `id`."},
        "webhook-timestamp": {"type": "string", "description": "Seconds since 1970 of this attempt."},
        "webhook-signature": {"type": "string", "description": "Standard Webhooks: one `v1,…` per valid secret."},
        "traceparent": {"type": "string", "description": "The trace of the event that caused it, if it had one."},
    },
}  # fmt: skip


@cache
def document(version: str) -> dict[str, Any]:
    """The document; `version` is the API's."""
    incoming, outgoing = types_of(Direction.IN), types_of(Direction.OUT)
    made: dict[str, Any] = {
        "asyncapi": VERSION,
        "info": {
            "title": "Penstock",
            "version": version,
            "description": "Events come in as CloudEvents 1.0 over HTTP; results go out as signed webhooks (Standard Webhooks).",
        },
        "defaultContentType": "application/json",
        "channels": {
            "events": {
                "address": "/v1/events",
                "title": "What upstream systems publish",
                "messages": {one.name: _reference("messages", one.name) for one in incoming},
                "bindings": {"http": {}},
            },
            "webhooks": {
                "address": None,
                "title": "What a registered endpoint receives",
                "description": "The address is the `url` of POST /v1/webhooks. Delivered at least once, in no promised order.",
                "messages": {one.name: _reference("messages", one.name) for one in outgoing},
                "bindings": {"http": {}},
            },
        },
        "operations": {
            "publish": _operation("receive", "events", "An event is accepted once it is in the ledger."),
            "deliver": _operation(
                "send", "webhooks", "An answer of 2xx ends a delivery; others are tried again."
            ),
        },
        "components": {
            "messages": {
                **{one.name: _publication(one) for one in incoming},
                **{one.name: _delivery(one) for one in outgoing},
            },
            "schemas": {},
        },
    }
    add_schemas(made, [])
    add_schemas(made, [one.model for one in outgoing], strict=False)
    return made


def _reference(kind: str, name: str) -> dict[str, str]:
    return {"$ref": f"#/components/{kind}/{name}"}


def _operation(action: str, channel: str, summary: str) -> dict[str, Any]:
    return {"action": action, "channel": {"$ref": f"#/channels/{channel}"}, "summary": summary}


def _sentence(one: EventType) -> str:
    return (one.model.__doc__ or one.name).strip().split("\n", 1)[0]


def _publication(one: EventType) -> dict[str, Any]:
    envelope = {name: value for name, value in EVENT_SCHEMA.items() if name != "oneOf"}
    data = {"$ref": REFERENCE.format(model=one.model.__name__)}
    message: dict[str, Any] = {
        "name": one.name,
        "summary": _sentence(one),
        "contentType": PUBLICATION,
        "payload": {
            **envelope,
            "properties": {**envelope["properties"], "type": {"const": one.name}, "data": data},
        },
    }
    example = EVENT_BODY["requestBody"]["content"][PUBLICATION]["example"]
    if example["type"] == one.name:
        message["examples"] = [{"payload": example}]
    return message


def _delivery(one: EventType) -> dict[str, Any]:
    payload = {
        "type": "object",
        "required": ["type", "timestamp", "data", "id", "sequence"],
        "properties": {
            "type": {"const": one.name},
            "timestamp": {"type": "string", "format": "date-time"},
            "data": {"$ref": REFERENCE.format(model=one.model.__name__)},
            "id": {"type": "string", "description": "Equal to the header `webhook-id`."},
            "sequence": {"type": "integer", "description": "Rises from message to message: keep the newest."},
        },
    }
    return {"name": one.name, "summary": _sentence(one), "headers": _SIGNATURE, "payload": payload}
