from __future__ import annotations

import pytest

from infra.response_schema import check_schema, find_fault
from schemas.errors import BadInput

SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer"}, "to": {"enum": ["a", None]}},
    "required": ["n"],
}


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ({"n": 1}, None),
        ({"n": 1.0, "to": None, "more": [1]}, None),
        ({"n": "1"}, "answer.n: is not of type integer"),
        ({"n": True}, "answer.n: is not of type integer"),
        ({}, "answer: lacks n"),
        ({"n": 1, "to": "b"}, "answer.to: is not one of enum"),
        ([], "answer: is not of type object"),
    ],
)
def test_a_value_is_held_against_its_schema(value: object, fault: str | None) -> None:
    """The first fault is named with its path."""
    assert fault == find_fault(value, SCHEMA)


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ("string", "must be an object"),
        ({"type": "text"}, "not a JSON type"),
        ({"pattern": "(a+)+"}, "'pattern' is not supported"),
        ({"properties": {"a": {"$ref": "http://x"}}}, "must name one of $defs"),
        ({"$ref": "#/$defs/b", "$defs": {"a": {}}}, "must name one of $defs"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"pattern": "x"}}}, "'pattern' is not supported"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"items": {"$ref": "#/$defs/a"}}}}, "refers to itself"),
        ({"$ref": "#/$defs/a", "minLength": 1, "$defs": {"a": {}}}, "beside $ref"),
        ({"$defs": []}, "must be an object"),
        ({"minimum": "1"}, "must be a number"),
        ({"type": ["string", 1]}, "not a JSON type"),
        ({"enum": []}, "not empty"),
        ({"description": "x" * 20_000}, "larger than"),
        ({"items": "x"}, "must be an object"),
    ],
)
def test_a_schema_outside_the_subset_is_refused(schema: object, words: str) -> None:
    """Patterns, references and oversized schemas are named."""
    with pytest.raises(BadInput) as caught:
        check_schema(schema)
    assert words in caught.value.message


PERSON = {
    "$defs": {
        "age": {"type": "integer", "minimum": 0, "exclusiveMaximum": 150},
        "person": {
            "properties": {"name": {"type": "string", "minLength": 1}, "age": {"$ref": "#/$defs/age"}}
        },
    },
    "type": "array",
    "items": {"$ref": "#/$defs/person", "description": "somebody"},
    "maxItems": 2,
}


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ([{"name": "a", "age": 0}, {}], None),
        ([{"age": -1}], "answer[0].age: is less than 0"),
        ([{"age": 150}], "answer[0].age: is not less than 150"),
        ([{"name": ""}], "answer[0].name: is shorter than 1"),
        ([{}, {}, {}], "answer: has more items than 2"),
    ],
)
def test_references_and_bounds_hold(value: object, fault: str | None) -> None:
    """What pydantic writes for a model of models can be asked for."""
    assert fault == find_fault(value, check_schema(PERSON))


def test_references_cannot_make_a_schema_large() -> None:
    """Definitions that double at each level are refused, not unfolded."""
    doubling = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 12} for n in range(4)} | {"d4": {}}
    with pytest.raises(BadInput):
        check_schema({"$ref": "#/$defs/d0", "$defs": doubling})


@pytest.mark.parametrize(
    ("schema", "value", "fits"),
    [
        ({"const": 1}, True, False),
        ({"const": 1}, 1.0, True),
        ({"enum": [False, "a"]}, 0, False),
        ({"enum": [{"a": [1]}]}, {"a": [1.0]}, True),
    ],
)
def test_true_is_not_one(schema: dict[str, object], value: object, fits: bool) -> None:
    """Constants are compared as JSON compares."""
    assert fits == (find_fault(value, check_schema(schema)) is None)
