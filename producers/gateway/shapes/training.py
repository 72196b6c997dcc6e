"""Examples and datasets as the API takes them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from schemas.values import Message, Shape, Text


class ExampleBody(Shape):
    """One training example in the shape of OpenAI's chat JSONL."""

    messages: Annotated[list[Message], Field(min_length=2, max_length=256)]
    weight: Annotated[float, Field(gt=0, le=100)] = 1.0
    source: Annotated[Text, Field(max_length=512)] | None = None


class ExamplesBody(Shape):
    """Several examples at once."""

    examples: Annotated[list[ExampleBody], Field(min_length=1, max_length=1000)]


class DatasetBody(Shape):
    """A dataset's settings; what is left out stays as it is."""

    threshold: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    base_model: Annotated[Text, Field(min_length=1, max_length=255)] | None = None
    approval: Literal["manual", "automatic"] | None = None
    max_age_hours: Annotated[float, Field(gt=0)] | None = None
    cooldown_seconds: Annotated[float, Field(ge=0)] | None = None
