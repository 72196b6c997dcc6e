"""What the OpenAPI document says of bodies and errors, which the routes read and make themselves, leaves from here."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from producers.gateway.problems import MEDIA_TYPE
from producers.gateway.shapes.base import Problem

REFERENCE = "#/components/schemas/{model}"

_EVENT: dict[str, Any] = {
    "type": "object",
    "required": ["specversion", "id", "source", "type", "data"],
    "properties": {
        "specversion": {"const": "1.0"},
        "id": {"type": "string", "minLength": 1, "maxLength": 1024},
        "source": {"type": "string", "minLength": 1, "maxLength": 1024},
        "type": {"type": "string"},
        "subject": {"type": "string"},
        "time": {"type": "string", "format": "date-time"},
        "sequence": {
            "anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^[0-9]{1,19}$"}]
        },
        "data": {"type": "object"},
    },
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

EVENT_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "One CloudEvent, a batch of at most 1,000 in 16 MiB, or the data of one whose attributes are ce- headers.",
        "content": {
            "application/cloudevents+json": {"schema": _EVENT, "example": _EXAMPLE},
            "application/cloudevents-batch+json": {
                "schema": {"type": "array", "items": _EVENT, "maxItems": 1000},
                "example": [_EXAMPLE],
            },
            "application/json": {"schema": {"type": "object"}, "example": _EXAMPLE["data"]},
        },
    }
}


def answers(model: type[BaseModel] | None, status: int = 200, *also: int) -> dict[int | str, dict[str, Any]]:
    """The answers of a route: its own, under one or more statuses, and a problem document for anything else."""
    own: dict[str, Any] = {"description": "Done"} if model is None else {"model": model}
    problem = {
        "description": "What went wrong (RFC 9457)",
        "content": {MEDIA_TYPE: {"schema": {"$ref": REFERENCE.format(model=Problem.__name__)}}},
    }
    return {**dict.fromkeys((status, *also), own), "default": problem}


def takes(model: type[BaseModel], example: dict[str, Any] | None = None) -> dict[str, Any]:
    """The JSON body that a route reads itself."""
    content: dict[str, Any] = {"schema": {"$ref": REFERENCE.format(model=model.__name__)}}
    if example is not None:
        content["example"] = example
    return {"requestBody": {"required": True, "content": {"application/json": content}}}


def add_schemas(document: dict[str, Any], models: list[type[BaseModel]]) -> None:
    """Put the models that only routes of ours know among the document's components."""
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for model in models:
        schema = model.model_json_schema(ref_template=REFERENCE)
        schemas.update(schema.pop("$defs", {}))
        schemas[model.__name__] = schema
