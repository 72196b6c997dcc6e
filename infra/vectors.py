"""Embeddings pass through here on their way to PostgreSQL: float32 rows in, pgvector's halfvec wire bytes out.

`infra.llm` hands over a matrix; a parameter of a statement is the bytes of one row. No Python list of floats exists on
the way: 2,048 vectors of 1,536 dimensions would be three million objects.
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from schemas.errors import CallFailed

_HEADER = struct.Struct(">HH")
"""pgvector's halfvec_send: dimensions, then 16 unused bits, then the elements as big-endian float16."""
UNIT_TOLERANCE = 1e-2
"""How far the length of a stored vector may be from 1; half precision alone accounts for 1e-3."""
MAX_DIMENSIONS = 4_000
"""The most that pgvector indexes as halfvec."""


def to_wire(vectors: NDArray[np.float32]) -> list[bytes]:
    """Rows of float32[n, dim], unit length, as the wire bytes of n halfvecs.

    Raises:
        CallFailed: a row holds NaN or an infinity, or is not of unit length, so that search by inner product would
            rank it wrongly.
    """
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    # NaN compares false, so this refuses it too.
    bad = np.flatnonzero(~(np.abs(lengths - 1.0) <= UNIT_TOLERANCE))
    if bad.size:
        raise CallFailed(
            f"embedding {int(bad[0])} is not a vector of unit length ({bad.size} of {len(vectors)})"
        )
    header = _HEADER.pack(vectors.shape[1], 0)
    body = vectors.astype(">f2").tobytes()
    width = 2 * vectors.shape[1]
    return [header + body[at : at + width] for at in range(0, len(body), width)]


def from_wire(wire: bytes) -> NDArray[np.float16]:
    """A halfvec's wire bytes as float16[dim].

    Raises:
        ValueError: the bytes are not a halfvec.
    """
    if len(wire) < _HEADER.size:
        raise ValueError("not a halfvec: shorter than its header")
    dimensions, _ = _HEADER.unpack_from(wire)
    if len(wire) != _HEADER.size + 2 * dimensions:
        raise ValueError("not a halfvec: its length does not fit its header")
    return np.frombuffer(wire, dtype=">f2", offset=_HEADER.size).astype(np.float16)


def dimensions(wire: bytes) -> int:
    """How many elements a halfvec's wire bytes hold."""
    return int(_HEADER.unpack_from(wire)[0])
