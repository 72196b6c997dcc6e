"""What the OpenAPI document says of bodies and errors, which the routes read and make themselves, leaves from here."""

from __future__ import annotations

from collections.abc import Sequence
from types import UnionType
from typing import Any

from pydantic import BaseModel

from producers.gateway.body import MAX_ITEMS
from producers.gateway.openapi_headers import BINARY_MODE, asked
from producers.gateway.problems import MEDIA_TYPE
from producers.gateway.shapes.base import Problem
from schemas.envelope import MAX_ATTRIBUTE, TEXT_EXTENSIONS
from schemas.registry import Direction, types_of
from schemas.values import MAX_SEQUENCE

REFERENCE = "#/components/schemas/{model}"
_ATTRIBUTE: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": MAX_ATTRIBUTE}
_MOMENT: dict[str, Any] = {"type": "string", "format": "date-time"}

EVENT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["specversion", "id", "source", "type", "data"],
    "properties": {
        "specversion": {"const": "1.0"},
        "id": _ATTRIBUTE,
        "source": _ATTRIBUTE,
        "type": {"enum": [one.name for one in types_of(Direction.IN)]},
        "subject": _ATTRIBUTE,
        "time": _MOMENT,
        "expirytime": _MOMENT,
        "datacontenttype": {"const": "application/json"},
        "dataschema": {"type": "string", "pattern": r"^penstock:[a-z_.]+:[1-9][0-9]{0,3}$"},
        "sequence": {
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": MAX_SEQUENCE},
                {"type": "string", "pattern": "^[0-9]{1,18}$"},
            ]
        },
        "traceparent": {"type": "string", "pattern": "^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"},
        **dict.fromkeys(sorted(TEXT_EXTENSIONS), _ATTRIBUTE),
        "data": {"type": "object"},
    },
    "patternProperties": {"^[a-z0-9]{1,20}$": {}},
    "additionalProperties": False,
    "oneOf": [
        {
            "properties": {
                "type": {"const": one.name},
                "data": {"$ref": REFERENCE.format(model=one.model.__name__)},
            }
        }
        for one in types_of(Direction.IN)
    ],
}
_EXAMPLE = {
    "specversion": "1.0",
    "id": "handbook-7",
    "source": "https://wiki.example",
    "type": "document.added",
    "data": {
        "collection": "handbook",
        "document_id": "page-7",
        "content": "# Holidays\n\nThirty days a year.",
    },
}

_ANYTHING = {
    "description": "What is no event is rejected by itself: its result says why, and the others go on."
}

EVENT_BODY: dict[str, Any] = {
    **asked(*BINARY_MODE, "Traceparent"),
    "requestBody": {
        "required": True,
        "description": "One CloudEvent, a batch of at most 1,000 in 16 MiB, or the data of one whose attributes are ce- headers.",
        "content": {
            "application/cloudevents+json": {"schema": EVENT_SCHEMA, "example": _EXAMPLE},
            "application/cloudevents-batch+json": {
                "schema": {
                    "type": "array",
                    "items": {"anyOf": [EVENT_SCHEMA, _ANYTHING]},
                    "maxItems": MAX_ITEMS,
                },
                "example": [_EXAMPLE],
            },
            "application/json": {
                "schema": {
                    "oneOf": [
                        {"$ref": REFERENCE.format(model=one.model.__name__)} for one in types_of(Direction.IN)
                    ]
                },
                "example": _EXAMPLE["data"],
            },
        },
    },
}


def answers(
    model: type[BaseModel] | UnionType | None, status: int = 200, *also: int
) -> dict[int | str, dict[str, Any]]:
    """The answers of a route: its own, under one or more statuses, and a problem document for anything else."""
    own: dict[str, Any] = {"description": "Done"} if model is None else {"model": model}
    problem = {
        "description": "What went wrong (RFC 9457)",
        "content": {MEDIA_TYPE: {"schema": {"$ref": REFERENCE.format(model=Problem.__name__)}}},
    }
    return {**dict.fromkeys((status, *also), own), "default": problem}


def streams(model: type[BaseModel], status: int = 200) -> dict[int | str, dict[str, Any]]:
    """The answer of a route that may also be asked for server-sent events."""
    frames = {
        "schema": {
            "type": "string",
            "description": "retrieved, token, citation, restart; then done or error.",
        },
        "example": 'id: 1-1\nevent: token\ndata: {"text": "Thirty"}\n\n',
    }
    return {status: {"model": model, "content": {"text/event-stream": frames}}}


def takes(model: type[BaseModel], example: dict[str, Any] | None = None) -> dict[str, Any]:
    """The JSON body that a route reads itself."""
    content: dict[str, Any] = {"schema": {"$ref": REFERENCE.format(model=model.__name__)}}
    if example is not None:
        content["example"] = example
    return {"requestBody": {"required": True, "content": {"application/json": content}}}


def add_schemas(document: dict[str, Any], models: Sequence[type[BaseModel]], *, strict: bool = True) -> None:
    """Put models and the data of events that come in among the document's components.

    Strict is how the gate reads: no further fields. What goes out may have some in later versions.
    """
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for model in (*models, *(one.model for one in types_of(Direction.IN) if strict)):
        schema = model.model_json_schema(ref_template=REFERENCE)
        found = {**schema.pop("$defs", {}), model.__name__: schema}
        for name, one in found.items():
            if strict and one.get("type") == "object" and name != Problem.__name__:
                one.setdefault("additionalProperties", False)
            schemas[name] = one
