"""Examples, datasets, runs and models as the API takes and shows them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field

from producers.gateway.shapes.base import ErrorView, View
from schemas.values import Message, NonEmpty, Shape, Text


class ExampleBody(Shape):
    """One training example in the shape of OpenAI's chat JSONL."""

    messages: Annotated[list[Message], Field(min_length=2, max_length=256)]
    weight: Annotated[float, Field(gt=0, le=100)] = 1.0
    source: Annotated[Text, Field(max_length=512)] | None = None


class ExamplesBody(Shape):
    """Several examples at once."""

    examples: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=1000)]


class ReviewBody(Shape):
    """What is decided about examples."""

    verdict: Literal["approve", "quarantine", "withdraw"]
    example_ids: Annotated[list[NonEmpty], Field(min_length=1, max_length=1000)]


class RollbackBody(Shape):
    """Why an alias goes back."""

    reason: Annotated[NonEmpty, Field(max_length=1000)] = "by hand"


class DatasetView(View):
    """A dataset with its settings, and its examples by state and split."""

    dataset: str
    alias: str
    base_model: str
    threshold: int
    approval: str
    examples: dict[str, dict[str, int]]


class DatasetPage(View):
    """The datasets, by name."""

    items: list[DatasetView]
    next_cursor: str | None


class ExampleView(View):
    """A training example."""

    example_id: UUID
    status: str
    split: str
    messages: list[dict[str, Any]]
    weight: float
    reason: str | None


class ExamplePage(View):
    """A page of examples, oldest first."""

    items: list[ExampleView]
    next_cursor: str | None


class ReviewView(View):
    """Which examples changed their state; the others' did not allow it."""

    changed: list[UUID]


class RunView(View):
    """A training run."""

    run_id: UUID
    dataset: str
    alias: str
    base_model: str
    reason: str
    status: str
    model: str | None
    evaluation: dict[str, Any] | None
    error: ErrorView | None
    started_at: datetime
    ended_at: datetime | None


class RunStoryView(RunView):
    """A training run with its losses and its history."""

    losses: list[tuple[int, float | None, float | None]]
    history: list[dict[str, Any]]


class RunPage(View):
    """A page of runs, newest first."""

    items: list[RunView]
    next_cursor: str | None


class AliasView(View):
    """What an alias means."""

    alias: str
    model: str
    previous: str | None


class ModelsView(View):
    """A page of tuned models, by name, and what aliases mean."""

    items: list[dict[str, Any]]
    next_cursor: str | None
    aliases: list[AliasView]
