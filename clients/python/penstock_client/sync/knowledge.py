"""Documents are put, looked at, deleted and searched here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from penstock_client import wire
from penstock_client.models import Accepted, Collection, Document, Passage
from penstock_client.sync.transport import Transport


class Knowledge(Transport):
    """Documents and collections."""

    def put_document(
        self,
        collection: str,
        document_id: str,
        content: str | None = None,
        *,
        uri: str | None = None,
        media_type: str | None = None,
        title: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        sequence: int | None = None,
    ) -> Accepted:
        """Add a document or replace it; give its content, or a uri to fetch it from.

        Returns:
            The event to follow: `wait_for` says when it is searchable.
        """
        body = wire.present(
            content=content, uri=uri, media_type=media_type, title=title, metadata=metadata, sequence=sequence
        )
        path = wire.path("collections", collection, "documents", document_id)
        return Accepted.model_validate(self.request("PUT", path, body))

    def delete_document(self, collection: str, document_id: str, *, sequence: int | None = None) -> Accepted:
        """Delete a document; a delete is a version like any other."""
        path = wire.path("collections", collection, "documents", document_id)
        return Accepted.model_validate(self.request("DELETE", path, params={"sequence": sequence}))

    def document(self, collection: str, document_id: str) -> Document:
        """A document as it is served."""
        path = wire.path("collections", collection, "documents", document_id)
        return Document.model_validate(self.request("GET", path))

    def documents(self, collection: str, *, status: str | None = None) -> Iterator[Document]:
        """The documents of a collection, by id."""
        for item in self.pages(wire.path("collections", collection, "documents"), status=status):
            yield Document.model_validate(item)

    def collection(self, name: str) -> Collection:
        """A collection and what it holds."""
        return Collection.model_validate(self.request("GET", wire.path("collections", name)))

    def collections(self) -> Iterator[Collection]:
        """The collections, by name."""
        for item in self.pages(wire.path("collections")):
            yield Collection.model_validate(item)

    def set_collection(self, name: str, **settings: Any) -> Collection:
        """Make a collection, or change settings of it: language, chunking, min_similarity, min_coverage."""
        return Collection.model_validate(self.request("PUT", wire.path("collections", name), settings))

    def search(
        self,
        collection: str,
        question: str,
        *,
        filter: Mapping[str, Any] | None = None,
        top_k: int = 8,
        mode: str = "hybrid",
    ) -> list[Passage]:
        """Find passages without a paid answer; mode is hybrid, vector or text."""
        body = wire.present(question=question, filter=filter, top_k=top_k, mode=mode)
        found = self.request("POST", wire.path("collections", collection, "search"), body)
        return [Passage.model_validate(one) for one in found["results"]]
