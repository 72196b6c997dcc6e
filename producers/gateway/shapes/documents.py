"""Documents as the API takes and shows them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import Field, model_validator

from producers.gateway.shapes.base import ErrorView, View
from schemas import inbound
from schemas.values import Metadata, Sequence, Shape, Text


class DocumentBody(Shape):
    """What a document is to be. Exactly one of ``content`` and ``uri`` is given."""

    content: Text | None = None
    uri: Annotated[str, Field(max_length=2048, pattern=r"^https?://")] | None = None
    media_type: Annotated[str, Field(max_length=255, pattern=inbound.MEDIA_TYPE)] | None = None
    title: Annotated[Text, Field(max_length=1000)] | None = None
    metadata: Metadata = Field(default_factory=dict)
    sequence: Sequence | None = None

    @model_validator(mode="after")
    def _one_source(self) -> DocumentBody:
        if (self.content is None) == (self.uri is None):
            raise ValueError("give exactly one of content and uri")
        return self


class DocumentAccepted(View):
    """The ledger has the new version; the event tells when it is searchable."""

    event_id: UUID
    document_id: str


class DocumentView(View):
    """A document as it is served."""

    id: str
    collection: str
    status: str
    sequence: int | None
    chunks: int
    tokens: int
    title: str | None
    metadata: dict[str, Any]
    error: ErrorView | None
    indexed_at: datetime | None


class DocumentPage(View):
    """A page of documents, by id."""

    items: list[DocumentView]
    next_cursor: str | None
