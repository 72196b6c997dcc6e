"""Token ids pass through here and go on as unit vectors, to embedding replies, answers and the trained heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from infra.local.model.tokens import Tokenizer
from infra.local.model.weights import Table, find_weights, load_table

Vectors = NDArray[np.float32]
"""float32[n, dimensions], every row of length one."""

DIMENSIONS = 256


class Encoder:
    """Text to unit vectors: the normalised mean of the rows of the text's tokens."""

    def __init__(self, tokenizer: Tokenizer, table: Table) -> None:
        self.tokenizer = tokenizer
        self._table = table
        self._ones = np.ones(8192, dtype=np.float32)

    @classmethod
    def load(cls) -> Self:
        """Read the weights of the installed wheel: about 0.1 s."""
        files = find_weights()
        return cls(Tokenizer(files.tokenizer), load_table(files.table))

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One unit vector per text; the zero vector for a text without tokens."""
        return self.embed_ids(self.tokenizer.encode(texts))

    def embed_ids(self, rows: Sequence[Sequence[int]]) -> Vectors:
        """One unit vector per row of token ids.

        A sum has the direction of the mean, and a product with ones sums faster than `sum` does.
        """
        out = np.zeros((len(rows), DIMENSIONS), dtype=np.float32)
        for n, ids in enumerate(rows):
            if len(ids) > len(self._ones):
                out[n] = self._table.take(ids, axis=0).sum(axis=0)
            elif ids:
                np.dot(self._ones[: len(ids)], self._table.take(ids, axis=0), out=out[n])
        return unit(out)

    def strength(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """How much each text says: the length of the sum of its rows, small for words like "the"."""
        rows = self.tokenizer.encode(texts)
        sums = [self._table.take(ids, axis=0).sum(axis=0) for ids in rows]
        lengths = np.linalg.norm(np.array(sums, dtype=np.float32).reshape(len(rows), DIMENSIONS), axis=1)
        return np.asarray(lengths, dtype=np.float32)


def unit(vectors: Vectors) -> Vectors:
    """Scale each row to length one; a zero row stays zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    out = np.zeros_like(vectors)
    np.divide(vectors, lengths, out=out, where=lengths > 0)
    return out


def shorten(vectors: Vectors, dimensions: int) -> Vectors:
    """The first dimensions, scaled to length one again (Matryoshka: trained for 64, 128 and 256)."""
    return vectors if dimensions == vectors.shape[1] else unit(np.ascontiguousarray(vectors[:, :dimensions]))
