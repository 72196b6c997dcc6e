from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from infra.database import Database
from infra.filters import MAX_LIST, MAX_NODES, OPERATORS, compile_filter
from schemas.errors import BadInput

SHELF: dict[str, dict[str, Any]] = {
    "a": {"lang": "de", "year": 2024, "tags": ["x", "y"], "owner": {"team": "north"}, "draft": False},
    "b": {"lang": "en", "year": 2020, "tags": [], "owner": {"team": "south"}, "draft": True},
    "c": {"lang": "en", "year": 2022.5, "tags": ["xy"], "note": "it says 'x' & \"y\""},
    "d": {"lang": None, "year": "2024", "day": "2024-05-01", "title": "axe"},
    "e": {},
}


async def matching(database: Database, condition: Any) -> set[str]:
    """The documents that pass a filter, as PostgreSQL judges."""
    compiled = compile_filter(condition)
    async with database.connection() as connection:
        rows = await connection.fetch(
            "SELECT name FROM unnest($1::text[], $2::jsonb[]) AS d (name, metadata)"
            " WHERE $3::text IS NULL OR d.metadata @@ $3::text::jsonpath",
            list(SHELF),
            list(SHELF.values()),
            compiled,
        )
    return {row["name"] for row in rows}


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (None, "abcde"),
        ({}, "abcde"),
        ({"lang": "de"}, "a"),
        ({"lang": {"$eq": "en"}}, "bc"),
        ({"lang": {"$ne": "en"}}, "ade"),
        ({"lang": None}, "d"),
        ({"lang": {"$in": ["de", None]}}, "ad"),
        ({"lang": {"$nin": ["de", "en"]}}, "de"),
        ({"year": {"$gt": 2020}}, "ac"),
        ({"year": {"$gte": 2020, "$lt": 2024}}, "bc"),
        ({"year": {"$lte": "2024"}}, "d"),
        ({"year": 2024}, "a"),
        ({"day": {"$gte": "2024-01-01"}}, "d"),
        ({"draft": False}, "a"),
        ({"draft": {"$exists": True}}, "ab"),
        ({"draft": {"$exists": False}}, "cde"),
        ({"lang": {"$exists": True}}, "abcd"),
        ({"owner.team": "north"}, "a"),
        ({"owner.team": {"$exists": True}}, "ab"),
        ({"tags": "x"}, "a"),
        ({"tags": {"$contains": "x"}}, "a"),
        ({"title": {"$contains": "x"}}, "d"),
        ({"note": {"$contains": "'x' & \"y\""}}, "c"),
        ({"note": {"$contains": "x.*y"}}, ""),
        ({"tags": {"$not": {"$contains": "x"}}}, "bcde"),
        ({"$and": [{"lang": "en"}, {"draft": True}]}, "b"),
        ({"$or": [{"lang": "de"}, {"draft": True}]}, "ab"),
        ({"$not": {"lang": "en"}}, "ade"),
        ({"$not": {"$or": [{"lang": "en"}, {"year": {"$exists": True}}]}}, "e"),
        ({"lang": "en", "$or": [{"year": 2020}, {"tags": {"$contains": "xy"}}]}, "bc"),
        ({'a"b\\c': 1}, ""),
        ({"year": {"$gt": -5}}, "abc"),
        ({"year": {"$lt": 1e300}}, "abc"),
    ],
    ids=json.dumps,
)
async def test_a_filter_selects(worker_database: Database, condition: Any, expected: str) -> None:
    """Each operator, alone and combined; a missing field fails every test except $ne, $nin and $exists."""
    assert set(expected) == await matching(worker_database, condition)


@pytest.mark.parametrize(
    ("condition", "field", "words"),
    [
        ("lang", "filter", "must be an object"),
        ({"lang": {"$like": "x"}}, "filter.lang.$like", "$like is not an operator"),
        ({"$xor": []}, "filter.$xor", "$xor is not an operator"),
        ({"$gt": 5}, "filter.$gt", "belongs under a field"),
        ({"$and": {"a": 1}}, "filter.$and", "list of filters"),
        ({"$or": []}, "filter.$or", "list of filters"),
        ({"$or": [{"a": 1}, {"b": {"$bad": 1}}]}, "filter.$or[1].b.$bad", "$bad is not an operator"),
        ({"a..b": 1}, "filter.a..b", "joined by dots"),
        ({"": 1}, "filter.", "joined by dots"),
        ({"a": [1]}, "filter.a", "a text, number"),
        ({"a": {"$in": "x"}}, "filter.a.$in", "list of values"),
        ({"a": {"$in": [[1]]}}, "filter.a.$in[0]", "a text, number"),
        ({"a": {"$in": [1] * (MAX_LIST + 1)}}, "filter.a.$in", "more than"),
        ({"a": {"$gt": None}}, "filter.a.$gt", "an order needs"),
        ({"a": {"$gt": True}}, "filter.a.$gt", "an order needs"),
        ({"a": {"$exists": 1}}, "filter.a.$exists", "true or false"),
        ({"a": {"$not": 1}}, "filter.a.$not", "object of operators"),
        ({"a": {}}, "filter.a", "no operator"),
        ({"$not": {}}, "filter.$not", "is empty"),
        ({"a": "\x00"}, "filter.a", "cannot be stored"),
        ({"a": "\ud800"}, "filter.a", "cannot be stored"),
        ({"a": float("nan")}, "filter.a", "NaN"),
        ({"a": 2**60}, "filter.a", "2**53"),
        ({"a": "x" * 5000}, "filter.a", "longer than"),
        ({f"k{n}": n for n in range(MAX_NODES + 1)}, f"filter.k{MAX_NODES}", "more than"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_bad_filter_is_named(condition: Any, field: str, words: str) -> None:
    """The error says which operator or path is wrong, and where it stands."""
    with pytest.raises(BadInput) as caught:
        compile_filter(condition)
    assert field == caught.value.field
    assert words in caught.value.message


def test_a_filter_cannot_be_nested_without_end() -> None:
    """A filter that would exhaust the stack is refused, not followed."""
    condition: dict[str, Any] = {"a": 1}
    for _ in range(5000):
        condition = {"$not": condition}
    with pytest.raises(BadInput):
        compile_filter(condition)


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)
NAMES = TEXTS.filter(
    lambda name: name and not name.startswith("$") and all(name.split(".")) and name.count(".") < 5
)


@hypothesis_settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(name=NAMES, value=SCALARS | TEXTS, operator=st.sampled_from(OPERATORS))
async def test_whatever_a_filter_holds_it_is_a_jsonpath(
    worker_database: Database, name: str, value: Any, operator: str
) -> None:
    """Any path and value compiles to something that PostgreSQL accepts, or is refused by us: never by PostgreSQL."""
    for condition in ({name: value}, {name: {operator: value}}, {name: {operator: [value]}}):
        try:
            compile_filter(condition)
        except BadInput:
            continue
        await matching(worker_database, condition)


@hypothesis_settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(name=NAMES.filter(lambda name: "." not in name), value=TEXTS)
async def test_a_text_finds_itself(worker_database: Database, name: str, value: str) -> None:
    """Quotes, backslashes, control characters: a value that was stored is found by itself and by what it contains."""
    compiled = [compile_filter({name: value}), compile_filter({name: {"$contains": value}})]
    async with worker_database.connection() as connection:
        found = await connection.fetchval(
            "SELECT bool_and($1::jsonb @@ p::jsonpath) FROM unnest($2::text[]) p", {name: value}, compiled
        )
    assert found is True
