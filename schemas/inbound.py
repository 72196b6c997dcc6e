"""The data of every event that comes in: read strictly at the gate, then tolerantly by a worker."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from schemas.values import (
    Json,
    Message,
    Metadata,
    Name,
    NonEmpty,
    Shape,
    Text,
    ThingId,
    Turn,
)

MEDIA_TYPE = r"^[a-zA-Z0-9!#$&^_.+-]+/[a-zA-Z0-9!#$&^_.+-]+( *;.*)?$"
MAX_TOP_K = 100
MAX_QUESTION = 32_000
MAX_HISTORY = 50


class DocumentAdded(Shape):
    """A document was added or changed. Exactly one of ``content`` and ``uri`` is given.

    ``content`` is text, or base64 when the media type is a binary one (PDF, Office).
    """

    collection: Name
    document_id: ThingId
    content: Text | None = None
    uri: Annotated[Text, Field(max_length=2048, pattern=r"^https?://")] | None = None
    media_type: Annotated[Text, Field(max_length=255, pattern=MEDIA_TYPE)] | None = None
    title: Annotated[Text, Field(max_length=1000)] | None = None
    metadata: Metadata = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.content is None) == (self.uri is None):
            raise ValueError("give exactly one of content and uri")
        return self


class DocumentDeleted(Shape):
    """A document was deleted. A delete is a version like any other."""

    collection: Name
    document_id: ThingId


class QueryReceived(Shape):
    """A question, to be answered from collections."""

    collections: Annotated[list[Name], Field(min_length=1, max_length=16)]
    question: Annotated[NonEmpty, Field(max_length=MAX_QUESTION)]
    history: Annotated[list[Turn], Field(max_length=MAX_HISTORY)] = Field(default_factory=list)
    filter: Json = None
    top_k: Annotated[int, Field(ge=1, le=MAX_TOP_K)] = 8
    template: Name | None = None
    model: Name | None = None
    response_schema: Json = None
    callback_url: Annotated[Text, Field(max_length=2048, pattern=r"^https?://")] | None = None
    stream: bool = False


class FeedbackReceived(Shape):
    """A rating of an answer, or a corrected one; it makes a pending example."""

    query_id: ThingId
    rating: Literal[-1, 1] | None = None
    corrected: Annotated[NonEmpty, Field(max_length=100_000)] | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.rating is None and self.corrected is None:
            raise ValueError("give a rating, a corrected text, or both")
        return self


class ExampleRecorded(Shape):
    """One training example in the shape of OpenAI's chat JSONL."""

    dataset: Name
    messages: Annotated[list[Message], Field(min_length=2, max_length=256)]
    weight: Annotated[float, Field(gt=0, le=100)] = 1.0
    source: Annotated[Text, Field(max_length=512)] | None = None


class BatchExample(Shape):
    """One example that came inside `training.batch_ready`."""

    messages: Annotated[list[Message], Field(min_length=2, max_length=256)]
    weight: Annotated[float, Field(gt=0, le=100)] = 1.0


class TrainingBatchReady(Shape):
    """A dataset should be trained on now. Examples that are given are recorded first."""

    dataset: Name
    examples: Annotated[list[BatchExample], Field(max_length=1000)] | None = None
    uri: Annotated[Text, Field(max_length=2048, pattern=r"^https?://")] | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    example_ids: Annotated[list[ThingId], Field(max_length=50_000)] | None = None
    base_model: Annotated[Text, Field(max_length=255)] | None = None
    reason: Annotated[Text, Field(max_length=1000)] | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if sum(source is not None for source in (self.examples, self.uri, self.example_ids)) > 1:
            raise ValueError("give at most one of examples, uri and example_ids")
        if (self.uri is None) != (self.sha256 is None):
            raise ValueError("uri and sha256 belong together")
        return self
