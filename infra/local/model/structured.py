"""An answer passes through here when JSON was asked for, and goes on as a value that satisfies the schema.

Known names get their meaning: `answer` the sentences, `citations` the quoted passages. Anything else of the
supported subset gets the plainest value that is valid. What is outside the subset is refused, never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from infra.local.model.answer import Answer, Claim
from infra.local.model.errors import ApiError, invalid
from infra.local.model.fields import Fields

MOST_DEPTH = 8
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_SUPPORTED = frozenset(
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
        "$schema",
    }
)
_TYPES = frozenset({"object", "array", "string", "number", "integer", "boolean", "null"})
_ANSWER_NAMES = frozenset({"answer", "text", "response", "reply", "content", "summary"})
_KNOWS_NAMES = frozenset({"known", "answered", "answerable", "found", "sufficient"})
_UNKNOWN_NAMES = frozenset({"unknown", "abstained", "abstain", "insufficient"})
_PASSAGE_NAMES = frozenset({"passage", "passage_id", "id", "source", "index"})

DEFAULT_SCHEMA: Mapping[str, object] = {
    "type": "object",
    "properties": {
        "answer": {"type": "string"},
        "citations": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"passage": {"type": "string"}, "quote": {"type": "string"}},
            },
        },
    },
}
"""What `json_object` gets, which names no schema."""


def read_schema(fields: Fields) -> Mapping[str, object] | None:
    """The schema that `response_format` asks for, or None for plain text.

    Raises:
        ApiError: the format is unknown or its schema is outside the supported subset.
    """
    if not fields.has("response_format"):
        return None
    wanted = fields.inner("response_format")
    kind = wanted.choice("type", ("text", "json_object", "json_schema"))
    if kind == "text":
        return None
    if kind == "json_object":
        return DEFAULT_SCHEMA
    described = wanted.inner("json_schema")
    described.text("name", longest=64)
    schema = described.inner("schema").values
    check(schema, "schema", 0)
    return schema


def check(schema: object, path: str, depth: int) -> None:
    """Refuse a schema that `fill` could not satisfy."""
    if not isinstance(schema, dict) or depth > MOST_DEPTH:
        raise _refused(path, "is not an object" if depth <= MOST_DEPTH else "is nested too deeply")
    for name in schema:
        if name not in _SUPPORTED:
            raise _refused(path, f"uses '{name}', which the local model does not support")
    kinds = schema.get("type")
    for kind in kinds if isinstance(kinds, list) else [kinds]:
        if kind is not None and kind not in _TYPES:
            raise _refused(path, "names an unknown type")
    properties = schema.get("properties", {})
    required = schema.get("required", [])
    if not isinstance(properties, dict) or not isinstance(required, list) or set(required) - set(properties):
        raise _refused(path, "requires properties that it does not describe")
    for name, inner in properties.items():
        check(inner, f"{path}.{name}", depth + 1)
    if "items" in schema:
        check(schema["items"], f"{path}[]", depth + 1)
    if "anyOf" in schema:
        if not isinstance(schema["anyOf"], list) or not schema["anyOf"]:
            raise _refused(path, "allows no value")
        for inner in schema["anyOf"]:
            check(inner, f"{path}|", depth + 1)
    if schema.get("enum", [0]) == []:
        raise _refused(path, "allows no value")


def _refused(path: str, why: str) -> ApiError:
    return invalid(
        f"Invalid schema for response_format: {path} {why}.", "response_format", "invalid_json_schema"
    )


def fill(schema: Mapping[str, object], answer: Answer) -> object:
    """A value that satisfies the schema and says what the answer says."""
    return _value(schema, "answer" if _kind(schema) == "string" else "", answer, None)


def _value(schema: object, name: str, answer: Answer, claim: Claim | None) -> object:
    assert isinstance(schema, dict)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return _option(schema["enum"], answer)
    if "anyOf" in schema:
        return _value(schema["anyOf"][0], name, answer, claim)
    match _kind(schema):
        case "object":
            return _object(schema.get("properties", {}), answer, claim)
        case "array":
            cited = [c for c in answer.claims if c.passage is not None]
            return [_value(schema.get("items", {}), name, answer, c) for c in cited] if claim is None else []
        case "string":
            return _text(name, answer, claim)
        case "integer":
            return int(_number(name, answer, claim))
        case "number":
            return _number(name, answer, claim)
        case "boolean":
            return name.lower() in _KNOWS_NAMES if answer.claims else name.lower() in _UNKNOWN_NAMES
        case _:
            return None


def _object(properties: Mapping[str, object], answer: Answer, claim: Claim | None) -> dict[str, object]:
    """Its properties; the only string among them is taken for the answer, whatever it is called."""
    strings = [key for key, inner in properties.items() if isinstance(inner, dict) and _is_free_text(inner)]
    alone = strings[0] if claim is None and len(strings) == 1 else None
    return {
        key: _value(inner, "answer" if key == alone else key, answer, claim)
        for key, inner in properties.items()
    }


def _is_free_text(schema: Mapping[str, object]) -> bool:
    return _kind(schema) == "string" and not {"const", "enum", "anyOf"} & set(schema)


def _kind(schema: Mapping[str, object]) -> object:
    kinds = schema.get("type")
    if isinstance(kinds, list):
        return kinds[0] if kinds else None
    return kinds if kinds is not None else "object" if "properties" in schema else "string"


def _text(name: str, answer: Answer, claim: Claim | None) -> str:
    if claim is None:
        return answer.plain if name.lower() in _ANSWER_NAMES else ""
    if name.lower() in _PASSAGE_NAMES:
        return claim.passage or ""
    return (claim.quote if name.lower() == "quote" else claim.text) or ""


def _number(name: str, answer: Answer, claim: Claim | None) -> float:
    source = (
        answer.plain
        if claim is None
        else (claim.passage or "")
        if name.lower() in _PASSAGE_NAMES
        else claim.text
    )
    found = _NUMBER.search(source)
    return float(found.group()) if found else 0.0


def _option(options: object, answer: Answer) -> object:
    """The first allowed value that the answer mentions, else the first."""
    assert isinstance(options, list)
    said = answer.plain.lower()
    return next((o for o in options if isinstance(o, str) and o.lower() in said), options[0])
