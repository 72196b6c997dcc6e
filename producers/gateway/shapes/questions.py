"""Searches, questions and feedback as the API takes them, passages and answers as it shows them."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field, model_validator

from producers.gateway.shapes.base import View
from schemas import inbound
from schemas.values import Json, NonEmpty, Shape, Turn


class SearchBody(Shape):
    """A search for passages."""

    question: Annotated[NonEmpty, Field(max_length=inbound.MAX_QUESTION)]
    filter: Json = None
    top_k: Annotated[int, Field(ge=1, le=inbound.MAX_TOP_K)] = 8
    mode: Literal["hybrid", "vector", "text"] = "hybrid"


class PassageView(View):
    """A passage that was found."""

    document_id: str
    chunk_id: str
    text: str
    heading: str | None
    page: int | None
    score: float
    metadata: dict[str, Any]


class SearchView(View):
    """Passages, best first."""

    results: list[PassageView]


class QueryBody(Shape):
    """A question to a collection."""

    question: Annotated[NonEmpty, Field(max_length=inbound.MAX_QUESTION)]
    filter: Json = None
    top_k: Annotated[int, Field(ge=1, le=inbound.MAX_TOP_K)] = 8
    history: Annotated[list[Turn], Field(max_length=inbound.MAX_HISTORY)] = Field(default_factory=list)
    template: NonEmpty | None = None
    model: NonEmpty | None = None
    response_schema: Json = None
    callback_url: Annotated[str, Field(max_length=2048, pattern=r"^https?://")] | None = None
    stream: bool = False


class QueryAccepted(View):
    """The question is in the ledger; its id is the event's."""

    id: UUID
    event_id: UUID


class QueryView(View):
    """A question and, when there is one, its answer."""

    id: UUID
    status: str
    question: str
    answer: str | None
    citations: list[dict[str, Any]]
    model: str | None
    usage: dict[str, Any]
    timings_ms: dict[str, float]


class FeedbackBody(Shape):
    """A rating of an answer, a corrected answer, or both."""

    rating: Literal[-1, 1] | None = None
    corrected: Annotated[NonEmpty, Field(max_length=100_000)] | None = None

    @model_validator(mode="after")
    def _something(self) -> FeedbackBody:
        if self.rating is None and self.corrected is None:
            raise ValueError("give a rating, a corrected text, or both")
        return self


class TemplateView(View):
    """A version of a prompt template."""

    name: str
    version: int
    body: dict[str, Any]


class TemplatePage(View):
    """A page of templates, by name."""

    items: list[TemplateView]
    next_cursor: str | None
