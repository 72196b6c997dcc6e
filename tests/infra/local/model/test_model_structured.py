from __future__ import annotations

from typing import Any

import pytest

from infra.local.model.answer import Answer, Claim
from infra.local.model.errors import ApiError
from infra.local.model.fields import Fields
from infra.local.model.structured import check, fill, read_schema

KNOWN = Answer(
    (Claim("It runs at 4.5 bar.", "1", "It runs\nat 4.5 bar."), Claim("It is green.", "2", "It is green."))
)
STRING = {"type": "string"}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (
            {"type": "object", "properties": {"answer": STRING}},
            {"answer": "It runs at 4.5 bar. It is green."},
        ),
        ({"type": "object", "properties": {"unit": STRING, "colour": STRING}}, {"unit": "", "colour": ""}),
        ({"type": "object", "properties": {"finding": STRING}}, {"finding": KNOWN.plain}),
        ({"type": "object", "properties": {"pressure": {"type": "number"}}}, {"pressure": 4.5}),
        ({"type": "object", "properties": {"pressure": {"type": "integer"}}}, {"pressure": 4}),
        ({"type": "object", "properties": {"answered": {"type": "boolean"}}}, {"answered": True}),
        ({"type": "object", "properties": {"abstained": {"type": "boolean"}}}, {"abstained": False}),
        ({"type": "object", "properties": {"colour": {"enum": ["red", "green"]}}}, {"colour": "green"}),
        ({"type": "object", "properties": {"kind": {"const": "a"}}}, {"kind": "a"}),
        ({"type": "object", "properties": {"answer": {"type": ["string", "null"]}}}, {"answer": KNOWN.plain}),
        ({"type": "object", "properties": {"note": {"anyOf": [{"type": "null"}, STRING]}}}, {"note": None}),
        (
            {"type": "object", "properties": {"points": {"type": "array", "items": STRING}}},
            {"points": [c.text for c in KNOWN.claims]},
        ),
        (
            {
                "type": "object",
                "properties": {
                    "sources": {
                        "type": "array",
                        "items": {"type": "object", "properties": {"passage": STRING, "quote": STRING}},
                    }
                },
            },
            {
                "sources": [
                    {"passage": "1", "quote": "It runs\nat 4.5 bar."},
                    {"passage": "2", "quote": "It is green."},
                ]
            },
        ),
        (STRING, KNOWN.plain),
    ],
)
def test_a_supported_schema_is_satisfied(schema: dict[str, Any], value: object) -> None:
    """Known names get their meaning, others the plainest valid value."""
    check(schema, "schema", 0)
    assert value == fill(schema, KNOWN)


def test_an_unknown_answer_is_said_in_json_too() -> None:
    """The sentence stays, the citations are empty, flags say so."""
    properties = {
        "answer": STRING,
        "citations": {"type": "array", "items": STRING},
        "abstained": {"type": "boolean"},
    }
    filled = fill({"type": "object", "properties": properties}, Answer())
    assert {"answer": "I don't know.", "citations": [], "abstained": True} == filled


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/definitions/a"},
        {"type": "string", "pattern": "^a"},
        {"type": "object", "properties": {"a": {"allOf": []}}},
        {"type": "object", "required": ["missing"]},
        {"type": "thing"},
        {"enum": []},
        {"type": "array", "items": 5},
        {"anyOf": []},
    ],
)
def test_a_schema_outside_the_subset_is_refused(schema: dict[str, Any]) -> None:
    """With OpenAI's code for a bad schema."""
    wanted = {"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}}
    with pytest.raises(ApiError) as caught:
        read_schema(Fields(wanted))
    assert (400, "invalid_json_schema") == (caught.value.status, caught.value.code)
