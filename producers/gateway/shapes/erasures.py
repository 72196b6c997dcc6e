"""Requests to forget something, and what became of them."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from producers.gateway.shapes.base import View
from schemas.values import Name, NonEmpty, Shape, ThingId

FIELDS = {
    "document": {"collection", "document_id"},
    "query": {"query_id"},
    "subject": {"subjectref"},
    "tenant": {"tenant"},
}
"""What names a thing of each kind."""


class ErasureBody(Shape):
    """What is to be forgotten: a document, a question, a person, or all that the key's own tenant has."""

    kind: Literal["document", "query", "subject", "tenant"]
    collection: Name | None = None
    document_id: ThingId | None = None
    query_id: Annotated[NonEmpty, Field(max_length=64)] | None = None
    subjectref: Annotated[NonEmpty, Field(max_length=1024)] | None = None
    tenant: Annotated[NonEmpty, Field(max_length=63)] | None = None
    dry_run: bool = False

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        given = {name for names in FIELDS.values() for name in names if getattr(self, name) is not None}
        if given != FIELDS[self.kind]:
            raise ValueError(
                f"a {self.kind} is named by {' and '.join(sorted(FIELDS[self.kind]))}, and nothing else"
            )
        return self


class ErasureView(View):
    """What was taken out, or with `dry_run` would be: rows per kind of thing, and training runs that are tainted."""

    kind: str
    dry_run: bool
    counts: dict[str, int]
    tainted_runs: list[str]
