"""The data of every event that goes out: what webhooks receive and `GET /v1/events` shows."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from schemas.values import Shape


class Problem(Shape):
    """Why something failed; see `schemas.errors`."""

    code: str
    message: str
    field: str | None = None
    fix: str | None = None


class DocumentIndexed(Shape):
    """A version of a document is searchable."""

    collection: str
    document_id: str
    sequence: int
    chunks: int
    embedded: int
    tokens: int


class DocumentSuperseded(Shape):
    """A version of a document arrived after a newer one and was not indexed."""

    collection: str
    document_id: str
    sequence: int
    by_sequence: int


class DocumentPurged(Shape):
    """A document and all its chunks and vectors are gone; a tombstone keeps its sequence."""

    collection: str
    document_id: str
    sequence: int


class DocumentFailed(Shape):
    """A version of a document cannot be indexed; an older one, if any, is still served."""

    collection: str
    document_id: str
    sequence: int
    error: Problem
    page: int | None = None


class Citation(Shape):
    """A claim's support: a span of a passage that was supplied to the model."""

    document_id: str
    chunk_id: str
    quote: str
    heading: str | None = None
    page: int | None = None
    score: float | None = None


class QueryAnswered(Shape):
    """A question was answered, or nothing relevant was found (``status`` is ``abstained``)."""

    query_id: str
    status: str
    question: str
    answer: str | None
    citations: list[Citation]
    model: str | None
    usage: dict[str, Any]
    timings_ms: dict[str, float]
    structured: Any = None
    passages: list[dict[str, Any]] = Field(default_factory=list)
    report: dict[str, Any] = Field(default_factory=dict)


class QueryFailed(Shape):
    """No answer could be made."""

    query_id: str
    error: Problem


class TrainingStarted(Shape):
    """A run was triggered and its examples are reserved."""

    run_id: str
    dataset: str
    base_model: str
    examples: int
    reason: str


class TrainingProgressed(Shape):
    """The provider reported progress."""

    run_id: str
    dataset: str
    state: str
    step: int | None = None
    total_steps: int | None = None
    train_loss: float | None = None
    valid_loss: float | None = None
    estimated_finish: str | None = None


class TrainingSucceeded(Shape):
    """The provider delivered a tuned model."""

    run_id: str
    dataset: str
    model: str
    trained_tokens: int | None = None


class TrainingFailed(Shape):
    """A run ended without a model; its examples are free again."""

    run_id: str | None
    dataset: str
    error: Problem
    have: int | None = None
    need: int | None = None


class TrainingUnavailable(Shape):
    """The provider does not train for us; the examples are free again."""

    run_id: str
    dataset: str
    error: Problem


class ModelEvaluated(Shape):
    """Base, serving and tuned model were compared on the same held-out examples."""

    run_id: str
    dataset: str
    model: str
    table: list[dict[str, Any]]
    promote: bool
    reason: str


class ModelPromoted(Shape):
    """An alias points to a tuned model now."""

    run_id: str | None
    alias: str
    model: str
    previous: str


class ModelRejected(Shape):
    """A tuned model was not better, and the alias stays."""

    run_id: str
    dataset: str
    model: str
    reason: str


class ModelRolledBack(Shape):
    """An alias points to its previous model again."""

    alias: str
    model: str
    previous: str
    reason: str


class ModelEnding(Shape):
    """A model that serves, or the one that it was tuned from, ends soon at its provider."""

    alias: str
    model: str
    ends_on: str
    days: int


class EndpointDisabled(Shape):
    """A webhook endpoint was disabled."""

    endpoint_id: str
    reason: str


class EventDead(Shape):
    """An event was given up."""

    event_id: str
    type: str
    error: Problem
