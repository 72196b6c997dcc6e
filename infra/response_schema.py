"""A caller's JSON schema passes through here: refused outside the subset at the gate, and held against a model's JSON.

The subset has no patterns and no references but `#/$defs/…`, which are put in place; what is left is a tree of bounded
size, so that a value is checked in time bounded by the sizes of both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from schemas.errors import BadInput

MAX_BYTES = 16 * 1024
MAX_DEPTH = 8
MAX_NODES = 500
"""Schemas within a schema, once references are in place."""
FIELD = "data.response_schema"
_REFERENCE = "#/$defs/"

_TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}
_BOUNDS: Mapping[str, tuple[str, Callable[[Any, Any], bool], str]] = {
    "minimum": ("number", lambda value, bound: value >= bound, "is less than"),
    "maximum": ("number", lambda value, bound: value <= bound, "is more than"),
    "exclusiveMinimum": ("number", lambda value, bound: value > bound, "is not more than"),
    "exclusiveMaximum": ("number", lambda value, bound: value < bound, "is not less than"),
    "minLength": ("string", lambda value, bound: len(value) >= bound, "is shorter than"),
    "maxLength": ("string", lambda value, bound: len(value) <= bound, "is longer than"),
    "minItems": ("array", lambda value, bound: len(value) >= bound, "has fewer items than"),
    "maxItems": ("array", lambda value, bound: len(value) <= bound, "has more items than"),
}
_PLAIN = frozenset({"type", "required", "enum", "const", "title", "description", "default", *_BOUNDS})
_KEYWORDS = _PLAIN | {"properties", "additionalProperties", "items", "anyOf", "$ref"}


def check_schema(schema: Any) -> Mapping[str, Any]:
    """Refuse a schema outside the subset.

    Returns:
        The schema with its references in place.

    Raises:
        BadInput: names the keyword at fault and where it stands.
    """
    if not isinstance(schema, Mapping):
        raise BadInput("response_schema must be an object", field=FIELD)
    if len(orjson.dumps(schema)) > MAX_BYTES:
        raise BadInput(f"response_schema is larger than {MAX_BYTES} bytes", field=FIELD)
    definitions = schema.get("$defs", {})
    if not isinstance(definitions, Mapping):
        raise BadInput("$defs must be an object", field=f"{FIELD}.$defs")
    return _Reader(definitions).read({name: schema[name] for name in schema if name != "$defs"}, FIELD, 0)


class _Reader:
    """Counts schemas while it puts references in place."""

    def __init__(self, definitions: Mapping[str, Any]) -> None:
        self._definitions = definitions
        self._nodes = 0

    def read(self, schema: Any, where: str, depth: int) -> dict[str, Any]:
        self._nodes += 1
        if not isinstance(schema, Mapping):
            raise BadInput(f"{where} must be an object", field=where)
        if depth > MAX_DEPTH or self._nodes > MAX_NODES:
            raise BadInput(
                f"response_schema is nested deeper than {MAX_DEPTH} levels, or refers to itself, or has more than "
                f"{MAX_NODES} parts",
                field=where,
            )
        if "$ref" in schema:
            return self._referred(schema, where, depth)
        for keyword in schema:
            if keyword not in _KEYWORDS:
                raise BadInput(f"the keyword {str(keyword)[:40]!r} is not supported", field=where)
        _check_plain(schema, where)
        return {name: schema[name] for name in schema if name in _PLAIN} | self._inner(
            schema, where, depth + 1
        )

    def _referred(self, schema: Mapping[str, Any], where: str, depth: int) -> dict[str, Any]:
        reference = schema["$ref"]
        name = reference.removeprefix(_REFERENCE) if isinstance(reference, str) else ""
        if (
            not isinstance(reference, str)
            or not reference.startswith(_REFERENCE)
            or name not in self._definitions
        ):
            raise BadInput(
                "$ref must name one of $defs", field=f"{where}.$ref", fix=f"write {_REFERENCE}NAME"
            )
        if schema.keys() - {"$ref", "title", "description", "default"}:
            raise BadInput("beside $ref only title and description are supported", field=where)
        return self.read(self._definitions[name], f"{FIELD}.$defs.{name[:40]}", depth + 1)

    def _inner(self, schema: Mapping[str, Any], where: str, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if "properties" in schema:
            properties = schema["properties"]
            if not isinstance(properties, Mapping):
                raise BadInput(f"{where}.properties must be an object", field=f"{where}.properties")
            found["properties"] = {
                name: self.read(one, f"{where}.properties.{str(name)[:40]}", depth)
                for name, one in properties.items()
            }
        if "anyOf" in schema:
            found["anyOf"] = [
                self.read(one, f"{where}.anyOf[{index}]", depth) for index, one in enumerate(schema["anyOf"])
            ]
        for name in ("items", "additionalProperties"):
            extra = schema.get(name)
            if isinstance(extra, bool) and name == "additionalProperties":
                found[name] = extra
            elif name in schema:
                found[name] = self.read(extra, f"{where}.{name}", depth)
        return found


def _check_plain(schema: Mapping[str, Any], where: str) -> None:
    kinds = schema.get("type", [])
    for kind in kinds if isinstance(kinds, list) else [kinds]:
        if not isinstance(kind, str) or kind not in _TYPES:
            raise BadInput(f"{where}.type is not a JSON type", field=f"{where}.type")
    for name in ("enum", "anyOf", "required"):
        if name in schema and (not isinstance(schema[name], list) or not schema[name]):
            raise BadInput(f"{where}.{name} must be a list that is not empty", field=f"{where}.{name}")
    for name in _BOUNDS.keys() & schema.keys():
        if isinstance(schema[name], bool) or not isinstance(schema[name], int | float):
            raise BadInput(f"{where}.{name} must be a number", field=f"{where}.{name}")


def find_fault(value: Any, schema: Mapping[str, Any], path: str = "answer") -> str | None:
    """Where and why a value does not satisfy a schema that was checked; None when it does."""
    if "anyOf" in schema and all(find_fault(value, one, path) for one in schema["anyOf"]):
        return f"{path}: fits none of anyOf"
    if "const" in schema and not _same(value, schema["const"]):
        return f"{path}: is not the constant"
    if "enum" in schema and not any(_same(value, one) for one in schema["enum"]):
        return f"{path}: is not one of enum"
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(_is(value, kind) for kind in kinds):
        return f"{path}: is not of type {' or '.join(kinds)}"
    for name in _BOUNDS.keys() & schema.keys():
        kind, holds, words = _BOUNDS[name]
        if _is(value, kind) and not holds(value, schema[name]):
            return f"{path}: {words} {schema[name]}"
    if isinstance(value, dict):
        return _object_fault(value, schema, path)
    if isinstance(value, list) and "items" in schema:
        faults = (find_fault(item, schema["items"], f"{path}[{index}]") for index, item in enumerate(value))
        return next(filter(None, faults), None)
    return None


def _object_fault(value: dict[str, Any], schema: Mapping[str, Any], path: str) -> str | None:
    properties, extra = schema.get("properties", {}), schema.get("additionalProperties", True)
    for name in schema.get("required", []):
        if name not in value:
            return f"{path}: lacks {name}"
    for name, item in value.items():
        fault = None
        if name in properties:
            fault = find_fault(item, properties[name], f"{path}.{name}")
        elif extra is False:
            fault = f"{path}: has an unknown property"
        elif isinstance(extra, Mapping):
            fault = find_fault(item, extra, f"{path}.*")
        if fault is not None:
            return fault
    return None


def _same(value: Any, other: Any) -> bool:
    """Equality as JSON knows it: true is not 1."""
    return orjson.dumps(_numbers(value), option=orjson.OPT_SORT_KEYS) == orjson.dumps(
        _numbers(other), option=orjson.OPT_SORT_KEYS
    )


def _numbers(value: Any) -> Any:
    """A value in which 1.0 is written as 1."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    if isinstance(value, dict):
        return {name: _numbers(item) for name, item in value.items()}
    return value


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES[kind])
