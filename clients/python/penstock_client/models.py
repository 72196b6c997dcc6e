"""What the gateway answers, as models; fields that a newer gateway adds are kept and do no harm."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Model(BaseModel):
    """An answer's shape."""

    model_config = ConfigDict(extra="allow", hide_input_in_errors=True)


class Problem(Model):
    """Why something failed."""

    code: str
    message: str
    field: str | None = None
    fix: str | None = None


class PublishResult(Model):
    """What became of one event: accepted, duplicate or rejected."""

    index: int
    event_id: str | None
    source: str
    id: str
    status: str
    error: Problem | None = None


class EventStatus(Model):
    """Where an event is; with its whole story when it was asked for by its id."""

    event_id: str
    source: str
    id: str
    type: str
    subject: str | None = None
    status: str
    attempts: int
    error: Problem | None = None
    accepted_at: datetime
    finished_at: datetime | None = None
    caused: list[str] = Field(default_factory=list)
    story: list[dict[str, Any]] = Field(default_factory=list)

    @property
    def ended(self) -> bool:
        """Whether nothing more happens to it by itself."""
        return self.status in {"done", "dead"}


class Accepted(Model):
    """The ledger has it."""

    event_id: str


class Document(Model):
    """A document as it is served."""

    id: str
    collection: str
    status: str
    sequence: int | None = None
    chunks: int = 0
    tokens: int = 0
    title: str | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)
    error: Problem | None = None
    indexed_at: datetime | None = None


class Collection(Model):
    """A collection and what it holds."""

    name: str
    model: str
    dimensions: int
    language: str
    settings: dict[str, Any] = Field(default_factory=dict)
    documents: dict[str, int] = Field(default_factory=dict)
    chunks: int = 0


class Passage(Model):
    """A passage that was found."""

    document_id: str
    chunk_id: str
    text: str
    heading: str | None = None
    page: int | None = None
    score: float
    metadata: dict[str, Any] = Field(default_factory=dict)


class Citation(Model):
    """Where an answer has something from, word for word."""

    document_id: str
    chunk_id: str | None = None
    quote: str = ""
    heading: str | None = None
    page: int | None = None
    score: float | None = None


class Answer(Model):
    """A question and, when there is one, its answer."""

    id: str
    status: str
    question: str = ""
    answer: str | None = None
    structured: Any = None
    citations: list[Citation] = Field(default_factory=list)
    model: str | None = None
    usage: dict[str, Any] = Field(default_factory=dict)
    timings_ms: dict[str, float] = Field(default_factory=dict)
    error: Problem | None = None

    @property
    def ended(self) -> bool:
        """Whether it is answered, abstained or failed."""
        return self.status in {"answered", "abstained", "failed"}


class StreamEvent(Model):
    """One thing that is said while an answer is written: retrieved, token, citation, restart, done or error."""

    id: str
    event: str
    data: dict[str, Any]

    @property
    def answer(self) -> Answer:
        """The finished answer that `done` and `error` carry."""
        return Answer.model_validate(self.data)


class Run(Model):
    """A training run; with its losses and history when it was asked for by its id."""

    run_id: str
    dataset: str
    alias: str
    base_model: str
    reason: str
    status: str
    model: str | None = None
    evaluation: dict[str, Any] | None = None
    error: Problem | None = None
    started_at: datetime
    ended_at: datetime | None = None
    losses: list[tuple[int, float | None, float | None]] = Field(default_factory=list)
    history: list[dict[str, Any]] = Field(default_factory=list)


class Dataset(Model):
    """A dataset with its settings, and its examples by state and split."""

    dataset: str
    alias: str
    base_model: str
    threshold: int
    approval: str
    examples: dict[str, dict[str, int]] = Field(default_factory=dict)


class Alias(Model):
    """What a model alias means."""

    alias: str
    model: str
    previous: str | None = None


class Endpoint(Model):
    """A webhook endpoint; `secret` only when it has just been made."""

    id: str
    url: str
    types: list[str]
    payload: str
    status: str
    description: str = ""
    secret: str | None = None


class Delivery(Model):
    """A message to an endpoint, and how its attempts went."""

    id: str
    endpoint_id: str
    message_id: str
    event_id: str
    type: str
    status: str
    attempts: int
    tried: list[dict[str, Any]] = Field(default_factory=list)


class Erasure(Model):
    """What was forgotten, or would be."""

    kind: str
    dry_run: bool
    counts: dict[str, int]
    tainted_runs: list[str]
