"""A caller's JSON schema passes through here on its way to the model: its value is asked for beside its citations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


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
