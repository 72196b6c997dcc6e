"""What became of a question: made by the steps of the wing, kept by `cache`, written down by `record`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from infra.retrieval import Passage
from schemas.states import AnswerState


@dataclass(frozen=True, slots=True)
class Result:
    """A finished answer.

    Attributes:
        standalone: the question as it was searched for, when it had a history.
        report: what was left out, cut out or replaced on the way, for whoever wants to know why.
        error: why there is none, when it failed.
        keep_as: under which key the same question may be answered from it.
    """

    status: AnswerState
    answer: str | None = None
    structured: Any = None
    citations: Sequence[Mapping[str, Any]] = ()
    passages: Sequence[Mapping[str, Any]] = ()
    standalone: str | None = None
    alias: str | None = None
    model: str | None = None
    usage: Mapping[str, Any] = field(default_factory=dict)
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)
    error: Mapping[str, str] | None = None
    keep_as: bytes | None = None


def failed(error: Mapping[str, str], **known: Any) -> Result:
    """An answer that could not be made."""
    return Result(AnswerState.FAILED, error=error, **known)


def refer(passages: Sequence[Passage]) -> list[dict[str, Any]]:
    """Supplied passages without their text: what the row and the stream say of them."""
    return [_refer(marker, one) for marker, one in enumerate(passages, 1)]


def _refer(marker: int, passage: Passage) -> dict[str, Any]:
    return {
        "marker": marker,
        "document_id": passage.document_id,
        "chunk_id": str(passage.chunk_id),
        "collection": passage.collection,
        "title": passage.title,
        "heading": passage.heading,
        "page": passage.page,
        "score": round(passage.score, 6),
        "similarity": None if passage.similarity is None else round(passage.similarity, 4),
        "coverage": round(passage.coverage, 4),
        **({"chunks": [str(span.part.chunk_id) for span in passage.spans]} if passage.spans else {}),
    }
