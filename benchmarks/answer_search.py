"""Questions pass through the search function here, and what it finds is held against the truth."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.answer_corpus import KnownItem
from benchmarks.answer_shelf import COLLECTION, TENANT, Shelf
from benchmarks.bars import Bar
from infra.database import Database, queries
from infra.filters import compile_filter
from infra.retrieval import MODES
from infra.vectors import to_wire

TOP = 10
SELECTIVITIES: Sequence[tuple[str, str | None]] = (
    ("100 %", None), ("50 %", "half"), ("10 %", "tenth"), ("1 %", "hundredth"), ("0.1 %", "thousandth"),
)  # fmt: skip
HELD = frozenset({"100 %", "10 %", "1 %", "0.1 %"})
"""Those that have a bar."""


async def find(
    database: Database, wire: bytes, question: str, mode: str, condition: str | None
) -> tuple[list[Any], float]:
    """Search as a worker does; the rows and the milliseconds of the search itself."""
    began = time.perf_counter()
    statement = queries("retrieval").search
    rows = await database.read(TENANT, statement, [COLLECTION], 1, wire, question, mode, TOP, condition, 1)
    return rows, (time.perf_counter() - began) * 1000


async def measure_recall(database: Database, shelf: Shelf, items: Sequence[KnownItem]) -> list[Bar]:
    """Recall@10 of the vector search against reading every vector, and how long the whole search takes."""
    asked, wires = ask(shelf, items)
    index = {chunk_id: at for at, chunk_id in enumerate(shelf.ids)}
    bars: list[Bar] = []
    for share, flag in SELECTIVITIES:
        allowed = np.array(
            [flag is None or shelf.corpus.metadata[piece.document][flag] for piece in shelf.corpus.pieces]
        )
        condition = compile_filter(None if flag is None else {flag: True})
        recalls: list[float] = []
        times: list[float] = []
        for item, vector, wire in zip(items, asked, wires, strict=True):
            truth = np.where(allowed, shelf.vectors @ vector, -2.0)
            last = np.partition(truth, -TOP)[-TOP] - 1e-6
            rows, _ = await find(database, wire, item.question, "vector", condition)
            recalls.append(sum(truth[index[row["chunk_id"]]] >= last for row in rows) / TOP)
            _, took = await find(database, wire, item.question, "hybrid", condition)
            times.append(took)
        cuts = statistics.quantiles(times, n=100)
        recall = statistics.fmean(recalls)
        print(
            f"filter passes {share} ({allowed.sum():,} chunks): recall@10 {recall:.4f}, "
            f"hybrid search p50 {cuts[49]:.1f} p99 {cuts[98]:.1f} ms",
            flush=True,
        )
        if share in HELD:
            bars.append(Bar(f"recall@10 where a filter passes {share}", recall, 0.98))
    return bars


async def measure_quality(database: Database, shelf: Shelf, items: Sequence[KnownItem]) -> list[Bar]:
    """nDCG@10 of the three ways of searching; one document is right for each question."""
    _, wires = ask(shelf, items)
    scores: dict[str, float] = {}
    for mode in MODES:
        gains: list[float] = []
        for item, wire in zip(items, wires, strict=True):
            rows, _ = await find(database, wire, item.question, mode, None)
            documents = list(dict.fromkeys(row["document_id"] for row in rows))
            found = item.document in documents
            gains.append(1 / math.log2(2 + documents.index(item.document)) if found else 0.0)
        scores[mode] = statistics.fmean(gains)
        found_share = sum(gain > 0 for gain in gains) / len(gains)
        print(f"{mode}: nDCG@10 {scores[mode]:.4f}, found {found_share:.3f}, of {len(items)}", flush=True)
    return [
        Bar(f"nDCG@10 of hybrid, times {mode} alone", scores["hybrid"] / scores[mode], 1.0)
        for mode in ("vector", "text")
    ]


def ask(shelf: Shelf, items: Sequence[KnownItem]) -> tuple[NDArray[np.float32], list[bytes]]:
    """The questions' vectors, rounded as they are sent, and their wire bytes."""
    vectors = shelf.encoder.embed([item.question for item in items])
    return vectors.astype(np.float16).astype(np.float32), to_wire(vectors)


def askable(shelf: Shelf, items: Sequence[KnownItem], floor: float = 0.45) -> list[str]:
    """Questions, each once, that the evidence gate lets through for certain."""
    by_question = {item.question: item for item in items}
    kept = list(by_question.values())
    vectors, _ = ask(shelf, kept)
    near = np.concatenate(
        [(vectors[at : at + 500] @ shelf.vectors.T).max(axis=1) for at in range(0, len(kept), 500)]
    )
    return [item.question for item, best in zip(kept, near, strict=True) if best >= floor]
