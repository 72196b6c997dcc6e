"""A caller's JSON schema passes through here on its way to the model, and the model's JSON on its way back.

The schema is a subset without patterns and references: it can be checked in time that is bounded by its size. The
model is asked for the caller's value beside the citations that support it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from schemas.errors import BadInput

MAX_BYTES = 16 * 1024
MAX_DEPTH = 8
FIELD = "data.response_schema"

_TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}
_KEYWORDS = frozenset(
    {
        "type",
        "properties",
        "required",
        "additionalProperties",
        "items",
        "enum",
        "const",
        "anyOf",
        "title",
        "description",
    }
)


def check_schema(schema: Any) -> Mapping[str, Any]:
    """Refuse a schema outside the subset.

    Raises:
        BadInput: names the keyword at fault and where it stands.
    """
    if not isinstance(schema, Mapping):
        raise BadInput("response_schema must be an object", field=FIELD)
    if len(orjson.dumps(schema)) > MAX_BYTES:
        raise BadInput(f"response_schema is larger than {MAX_BYTES} bytes", field=FIELD)
    _check(schema, FIELD, 0)
    return schema


def response_format(schema: Mapping[str, Any]) -> dict[str, Any]:
    """What the model is asked for: whether it knows, the caller's value, and the passages quoted for it."""
    citation = {
        "type": "object",
        "properties": {"passage": {"type": "string"}, "quote": {"type": "string"}},
        "required": ["passage", "quote"],
        "additionalProperties": False,
    }
    wrapped = {
        "type": "object",
        "properties": {
            "known": {"type": "boolean"},
            "answer": schema,
            "citations": {"type": "array", "items": citation},
        },
        "required": ["known", "answer", "citations"],
        "additionalProperties": False,
    }
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": wrapped}}


def find_fault(value: Any, schema: Mapping[str, Any], path: str = "answer") -> str | None:
    """Where and why a value does not satisfy a schema of the subset; None when it does."""
    if "anyOf" in schema and all(find_fault(value, one, path) for one in schema["anyOf"]):
        return f"{path}: fits none of anyOf"
    if "const" in schema and value != schema["const"]:
        return f"{path}: is not the constant"
    if "enum" in schema and value not in schema["enum"]:
        return f"{path}: is not one of enum"
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(_is(value, kind) for kind in kinds):
        return f"{path}: is not of type {' or '.join(kinds)}"
    if isinstance(value, dict):
        return _object_fault(value, schema, path)
    if isinstance(value, list) and "items" in schema:
        faults = (find_fault(item, schema["items"], f"{path}[{index}]") for index, item in enumerate(value))
        return next(filter(None, faults), None)
    return None


def _object_fault(value: dict[str, Any], schema: Mapping[str, Any], path: str) -> str | None:
    properties = schema.get("properties", {})
    for name in schema.get("required", []):
        if name not in value:
            return f"{path}: lacks {name}"
    for name, item in value.items():
        if name in properties:
            fault = find_fault(item, properties[name], f"{path}.{name}")
        elif schema.get("additionalProperties") is False:
            fault = f"{path}: has an unknown property"
        elif isinstance(schema.get("additionalProperties"), Mapping):
            fault = find_fault(item, schema["additionalProperties"], f"{path}.*")
        else:
            fault = None
        if fault is not None:
            return fault
    return None


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES[kind])


def _check(schema: Any, where: str, depth: int) -> None:
    if not isinstance(schema, Mapping):
        raise BadInput(f"{where} must be an object", field=where)
    if depth > MAX_DEPTH:
        raise BadInput(f"response_schema is nested deeper than {MAX_DEPTH} levels", field=where)
    for keyword in schema:
        if keyword not in _KEYWORDS:
            raise BadInput(f"the keyword {str(keyword)[:40]!r} is not supported", field=where)
    kinds = schema.get("type", [])
    for kind in [kinds] if isinstance(kinds, str) else kinds:
        if kind not in _TYPES:
            raise BadInput(f"{where}.type is not a JSON type", field=f"{where}.type")
    for name in ("enum", "anyOf", "required"):
        if name in schema and (not isinstance(schema[name], list) or not schema[name]):
            raise BadInput(f"{where}.{name} must be a list that is not empty", field=f"{where}.{name}")
    properties = schema.get("properties", {})
    if not isinstance(properties, Mapping):
        raise BadInput(f"{where}.properties must be an object", field=f"{where}.properties")
    inner = [(f"properties.{str(name)[:40]}", one) for name, one in properties.items()]
    inner += [(f"anyOf[{index}]", one) for index, one in enumerate(schema.get("anyOf", []))]
    inner += [("items", schema["items"])] if "items" in schema else []
    extra = schema.get("additionalProperties", False)
    inner += [] if isinstance(extra, bool) else [("additionalProperties", extra)]
    for name, one in inner:
        _check(one, f"{where}.{name}", depth + 1)
