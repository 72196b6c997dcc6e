"""Documents as the API takes and shows them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field, model_validator

from producers.gateway.shapes.base import ErrorView, View
from schemas import inbound
from schemas.values import Metadata, Sequence, Shape, Text

DEFAULT_SIZE, DEFAULT_OVERLAP = 256, 32
"""Tokens of a chunk, and those that it shares with the one before, where nothing is set."""


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


class ChunkingBody(Shape):
    """How documents are cut; sizes in estimated tokens."""

    strategy: Literal["structure", "flat"] | None = None
    size: Annotated[int, Field(ge=32, le=2048)] | None = None
    overlap: Annotated[int, Field(ge=0, le=512)] | None = None

    @model_validator(mode="after")
    def _small_overlap(self) -> ChunkingBody:
        size = DEFAULT_SIZE if self.size is None else self.size
        overlap = DEFAULT_OVERLAP if self.overlap is None else self.overlap
        if overlap > size // 4:
            raise ValueError(f"the overlap, {overlap}, is more than a quarter of the size, {size}")
        return self


class CollectionBody(Shape):
    """A collection's settings; what is left out stays, null brings the default back."""

    language: Annotated[str, Field(pattern=r"^[a-z_]{1,63}$")] | None = None
    chunking: ChunkingBody | None = None
    min_similarity: Annotated[float, Field(ge=-1, le=1)] | None = None
    min_coverage: Annotated[float, Field(ge=0, le=1)] | None = None


class CollectionView(View):
    """A collection, how it embeds and cuts, and what it holds."""

    name: str
    model: str
    dimensions: int
    language: str
    settings: dict[str, Any]
    documents: dict[str, int]
    chunks: int


class CollectionPage(View):
    """A page of collections, by name."""

    items: list[CollectionView]
    next_cursor: str | None
