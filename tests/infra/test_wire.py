"""What goes over the wire comes back as it was, and nothing that comes back can run code."""

from __future__ import annotations

import asyncio
import pickle
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from arq.jobs import deserialize_result, serialize_result
from arq.worker import JobExecutionFailed
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from infra import wire
from schemas.errors import BadInput, PenstockError, RateLimited

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"]), max_size=3)
            | st.sampled_from(["!", "!t", "!d"]),
            inner,
        )
    ),
    max_leaves=12,
)


class Colour(StrEnum):
    """An enum of text."""

    RED = "red"


class Model(BaseModel):
    """A model."""

    when: date


@dataclass
class Point:
    """A dataclass."""

    x: int


@given(PLAIN)
def test_plain_data_comes_back_equal(value: Any) -> None:
    """Any JSON value survives, also one whose keys look like our tags."""
    assert value == wire.loads(wire.dumps(value))


@pytest.mark.parametrize(
    "value",
    [
        datetime(2026, 11, 23, 13, 5, 1, 5, tzinfo=UTC),
        date(2026, 11, 23),
        time(13, 5),
        timedelta(days=-1, microseconds=3),
        UUID("12345678-1234-5678-1234-567812345678"),
        b"\x00\xff",
        Decimal("1.10"),
        {1, 2},
        {"nested": [datetime(2026, 1, 1, tzinfo=UTC)]},
    ],
)
def test_types_without_json_form_come_back_equal(value: object) -> None:
    """Tagged types are restored with their type."""
    back = wire.loads(wire.dumps(value))
    assert (type(value), value) == (type(back), back)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ((1, (2,)), [1, [2]]),
        (Colour.RED, "red"),
        (Model(when=date(2026, 1, 2)), {"when": date(2026, 1, 2)}),
        (Point(3), {"x": 3}),
        (np.float32(0.5), 0.5),
        (np.int64(7), 7),
    ],
)
def test_values_with_a_plain_form_come_back_in_it(value: object, expected: object) -> None:
    """Tuples, enums, models, dataclasses and numpy scalars become plain data."""
    assert expected == wire.loads(wire.dumps(value))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**64, "\ud800"])
def test_values_that_json_readers_disagree_on_are_refused(value: object) -> None:
    """They raise ValueError instead of arriving changed."""
    with pytest.raises(ValueError, match=r"."):
        wire.dumps({"a": [value]})


@pytest.mark.parametrize("value", [object(), {1: "a"}, lambda: None])
def test_values_without_form_are_refused(value: object) -> None:
    """They raise TypeError."""
    with pytest.raises(TypeError):
        wire.dumps(value)


def test_endless_nesting_is_refused() -> None:
    """A value that contains itself raises instead of exhausting the stack."""
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(ValueError, match="nested"):
        wire.dumps(loop)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no"),
        KeyError("k"),
        JobExecutionFailed("gone"),
        RateLimited("wait"),
        BadInput("bad"),
        TimeoutError(),
    ],
)
def test_allowed_exceptions_come_back_as_themselves(error: Exception) -> None:
    """Their class and message survive."""
    back = wire.loads(wire.dumps(error))
    assert (type(error), str(error)) == (type(back), str(back))


def test_a_cancellation_comes_back() -> None:
    """`Job.abort()` needs it: it waits for a CancelledError as the result."""
    assert isinstance(wire.loads(wire.dumps(asyncio.CancelledError())), asyncio.CancelledError)


def test_foreign_exceptions_come_back_by_name_only() -> None:
    """A class outside the allow-list is never looked up, let alone called."""

    class Odd(Exception):
        pass

    back = wire.loads(wire.dumps(Odd("text")))
    assert (wire.RemoteError, "Odd: text") == (type(back), str(back))
    back = wire.loads(b'{"!": "os.system", "message": "true"}')
    assert (wire.RemoteError, "os.system: true") == (type(back), str(back))


def test_every_error_of_the_tree_is_allowed() -> None:
    """A new class in schemas.errors needs no second registration."""
    pending: list[type[PenstockError]] = [PenstockError]
    seen: set[str] = set()
    while pending:
        kind = pending.pop()
        if kind.__module__ == PenstockError.__module__:
            seen.add(kind.__name__)
        pending += kind.__subclasses__()
    assert set() == seen - set(wire.ALLOWED)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not json",
        b'{"!t": "rm", "v": 1}',
        b'{"!t": "uuid", "v": 5}',
        b'{"!t": "bytes", "v": "*"}',
        b'{"!t": ["a"], "v": 1}',
        b'{"!t": "datetime", "v": null}',
        b'{"!t": "timedelta", "v": 3}',
        b'{"!t": "set", "v": [[]]}',
        b'{"!d": 3}',
        b'{"!": 3}',
        pickle.dumps({"a": 1}),
    ],
)
def test_malformed_bytes_are_a_value_error(data: bytes) -> None:
    """Whoever can write to Redis can make a job fail to decode, and nothing more."""
    with pytest.raises(ValueError, match=r"."):
        wire.loads(data)


def test_arq_results_pass_through() -> None:
    """The pair fits where arq wants a serializer and a deserializer."""
    args = ("f", (1,), {"k": 2}, 1, 5, False, ValueError("x"), 6, 7, "ref", "q", "id")
    data = serialize_result(*args, serializer=wire.dumps)
    assert data is not None
    result = deserialize_result(data, deserializer=wire.loads)
    assert "ValueError('x')" == repr(result.result)
    assert [1] == list(result.args)
    assert {"k": 2} == result.kwargs
