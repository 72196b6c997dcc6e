"""One call per event that may come in: its arguments become the event's data, and whoever publishes takes it from there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from infra.ledger import Accepted


class Calls(ABC):
    """Every method returns what became of the event, accepted or duplicate, and raises when it was rejected."""

    @abstractmethod
    async def publish_one(
        self, kind: str, data: dict[str, Any], attributes: Mapping[str, Any], subject: str | None = None
    ) -> Accepted:
        """Publish one event or raise why not; values that are None are left out."""

    async def document_added(
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
        **attributes: Any,
    ) -> Accepted:
        """Add a document or replace it.

        Args:
            collection: made by its first document.
            document_id: any characters, at most 512.
            content: the text, or base64 where the media type is a binary one.
            uri: where to fetch it instead.
            media_type: such as ``text/markdown``; found out unless given.
            title: shown with citations.
            metadata: what filters ask about.
            sequence: the version; with it, publishing the same again is safe across crashes.
            attributes: further CloudEvents attributes: id, source, time, subjectref, correlationid …

        Raises:
            BadInput: names the field.
            IdReused: the id was given and stands for other data.
        """
        data = {
            "collection": collection,
            "document_id": document_id,
            "content": content,
            "uri": uri,
            "media_type": media_type,
            "title": title,
            "metadata": None if metadata is None else dict(metadata),
        }
        return await self.publish_one(
            "document.added", data, {"sequence": sequence, **attributes}, document_id
        )

    async def document_deleted(
        self, collection: str, document_id: str, *, sequence: int | None = None, **attributes: Any
    ) -> Accepted:
        """Delete a document; a delete is a version like any other."""
        data = {"collection": collection, "document_id": document_id}
        return await self.publish_one(
            "document.deleted", data, {"sequence": sequence, **attributes}, document_id
        )

    async def query_received(
        self,
        question: str,
        collections: Sequence[str],
        *,
        history: Sequence[Mapping[str, str]] | None = None,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - the field's name on the wire
        top_k: int | None = None,
        template: str | None = None,
        model: str | None = None,
        response_schema: Mapping[str, Any] | None = None,
        callback_url: str | None = None,
        stream: bool | None = None,
        **attributes: Any,
    ) -> Accepted:
        """Ask a question; its answer goes to webhooks, and the result's ``event_id`` is the query's id."""
        data = {
            "collections": list(collections),
            "question": question,
            "history": None if history is None else [dict(turn) for turn in history],
            "filter": None if filter is None else dict(filter),
            "top_k": top_k,
            "template": template,
            "model": model,
            "response_schema": None if response_schema is None else dict(response_schema),
            "callback_url": callback_url,
            "stream": stream,
        }
        return await self.publish_one("query.received", data, attributes)

    async def example_recorded(
        self,
        dataset: str,
        messages: Sequence[Mapping[str, Any]],
        *,
        weight: float | None = None,
        source: str | None = None,
        **attributes: Any,
    ) -> Accepted:
        """Record a training example; the same one again is a duplicate.

        Args:
            dataset: counts towards its threshold.
            messages: in the shape of OpenAI's chat JSONL; the last one is the assistant's.
            weight: how much it counts, 1 unless given.
            source: where the example comes from, kept with it; not the event's ``source``.
            attributes: further CloudEvents attributes.
        """
        data = {
            "dataset": dataset,
            "messages": [dict(message) for message in messages],
            "weight": weight,
            "source": source,
        }
        return await self.publish_one("example.recorded", data, attributes, dataset)

    async def training_batch_ready(
        self,
        dataset: str,
        *,
        examples: Sequence[Mapping[str, Any]] | None = None,
        uri: str | None = None,
        sha256: str | None = None,
        example_ids: Sequence[str] | None = None,
        base_model: str | None = None,
        reason: str | None = None,
        **attributes: Any,
    ) -> Accepted:
        """Ask for a training run now; examples that are given are recorded first."""
        data = {
            "dataset": dataset,
            "examples": None if examples is None else [dict(example) for example in examples],
            "uri": uri,
            "sha256": sha256,
            "example_ids": None if example_ids is None else list(example_ids),
            "base_model": base_model,
            "reason": reason,
        }
        return await self.publish_one("training.batch_ready", data, attributes, dataset)

    async def feedback_received(
        self, query_id: str, *, rating: int | None = None, corrected: str | None = None, **attributes: Any
    ) -> Accepted:
        """Rate an answer (-1 or 1), correct it, or both."""
        data = {"query_id": query_id, "rating": rating, "corrected": corrected}
        return await self.publish_one("feedback.received", data, attributes, query_id)
