from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.database import Database
from infra.vectors import dimensions, from_wire, to_wire
from schemas.errors import CallFailed


def unit(count: int, width: int, seed: int = 1) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Random rows of unit length."""
    rows = np.random.default_rng(seed).normal(size=(count, width))
    scaled: np.ndarray[tuple[int, int], np.dtype[np.float32]] = (
        rows / np.linalg.norm(rows, axis=1, keepdims=True)
    ).astype(np.float32)
    return scaled


@given(st.integers(1, 5), st.integers(1, 64), st.integers(0, 1000))
def test_a_vector_survives_the_wire_in_half_precision(count: int, width: int, seed: int) -> None:
    """What comes back is the float16 of what went in, row by row."""
    rows = unit(count, width, seed)
    wires = to_wire(rows)
    assert [width] * count == [dimensions(wire) for wire in wires]
    np.testing.assert_array_equal(rows.astype(np.float16), np.stack([from_wire(wire) for wire in wires]))


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, 3.0])
def test_what_search_could_not_rank_is_refused(value: float) -> None:
    """NaN, infinities and vectors that are not of unit length never reach the database."""
    rows = unit(3, 8)
    rows[1] = value
    with pytest.raises(CallFailed, match="embedding 1"):
        to_wire(rows)


@pytest.mark.parametrize("wire", [b"", b"\0", struct.pack(">HH", 2, 0) + b"\0\0"])
def test_bytes_that_are_no_vector_are_refused(wire: bytes) -> None:
    """A length that does not fit the header is an error, not a short vector."""
    with pytest.raises(ValueError, match="not a halfvec"):
        from_wire(wire)


async def test_postgresql_reads_and_writes_the_same_bytes(worker_database: Database) -> None:
    """The codec carries single vectors and arrays of them; pgvector agrees on every element."""
    rows = unit(4, 16)
    wires = to_wire(rows)
    async with worker_database.connection() as connection:
        assert await connection.fetchval("SELECT $1::halfvec", wires[0]) == wires[0]
        back = await connection.fetch(
            "SELECT v FROM unnest($1::halfvec[]) WITH ORDINALITY AS t (v, n) ORDER BY n", wires
        )
        assert [row["v"] for row in back] == wires
        text = await connection.fetchval("SELECT ($1::halfvec)::text", wires[1])
        np.testing.assert_allclose(np.array(text.strip("[]").split(","), dtype=float), rows[1], atol=1e-3)
