"""Documents are put, looked at, deleted and searched here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from penstock_client import wire
from penstock_client.aio.transport import AsyncTransport
from penstock_client.models import Accepted, Collection, Document, Passage


class AsyncKnowledge(AsyncTransport):
    """Documents and collections."""

    async def put_document(
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
        return Accepted.model_validate(await self.request("PUT", path, body))

    async def delete_document(
        self, collection: str, document_id: str, *, sequence: int | None = None
    ) -> Accepted:
        """Delete a document; a delete is a version like any other."""
        path = wire.path("collections", collection, "documents", document_id)
        return Accepted.model_validate(await self.request("DELETE", path, params={"sequence": sequence}))

    async def document(self, collection: str, document_id: str) -> Document:
        """A document as it is served."""
        path = wire.path("collections", collection, "documents", document_id)
        return Document.model_validate(await self.request("GET", path))

    async def documents(self, collection: str, *, status: str | None = None) -> AsyncIterator[Document]:
        """The documents of a collection, by id."""
        async for item in self.pages(wire.path("collections", collection, "documents"), status=status):
            yield Document.model_validate(item)

    async def collection(self, name: str) -> Collection:
        """A collection and what it holds."""
        return Collection.model_validate(await self.request("GET", wire.path("collections", name)))

    async def collections(self) -> AsyncIterator[Collection]:
        """The collections, by name."""
        async for item in self.pages(wire.path("collections")):
            yield Collection.model_validate(item)

    async def set_collection(self, name: str, **settings: Any) -> Collection:
        """Make a collection, or change settings of it: language, chunking, min_similarity, min_coverage."""
        return Collection.model_validate(await self.request("PUT", wire.path("collections", name), settings))

    async def search(
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
        found = await self.request("POST", wire.path("collections", collection, "search"), body)
        return [Passage.model_validate(one) for one in found["results"]]
