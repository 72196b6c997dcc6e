"""What an answer looks like leaves from here into the OpenAPI document, by the name of its shape; a test holds each against it."""

from __future__ import annotations

from typing import Any

_ID = "019a7c1e-5b7e-7c40-b3a1-2f6a1e1d0c55"
_AT = "2026-11-01T12:00:00Z"
_EVENT: dict[str, Any] = {
    "event_id": _ID,
    "source": "https://wiki.example",
    "id": "handbook-7",
    "type": "document.added",
    "subject": "page-7",
    "status": "done",
    "attempts": 1,
    "error": None,
    "accepted_at": _AT,
    "finished_at": _AT,
}
_DOCUMENT: dict[str, Any] = {
    "id": "page-7",
    "collection": "handbook",
    "status": "indexed",
    "sequence": 7,
    "chunks": 1,
    "tokens": 9,
    "title": "Holidays",
    "metadata": {"lang": "en"},
    "error": None,
    "indexed_at": _AT,
}
_WEBHOOK: dict[str, Any] = {
    "id": _ID,
    "url": "https://app.example/hooks",
    "types": ["document.*"],
    "payload": "full",
    "status": "active",
    "status_reason": None,
    "failing_since": None,
    "throttled_until": None,
    "timeout_seconds": 15.0,
    "rate_limit": None,
    "description": "",
}
_COLLECTION: dict[str, Any] = {
    "name": "handbook",
    "model": "text-embedding-3-small",
    "dimensions": 1536,
    "language": "english",
    "settings": {},
    "documents": {"indexed": 12},
    "chunks": 40,
}
_TEMPLATE = {"name": "short", "version": 2, "body": {"system": "Answer in one sentence."}}
_ACCEPTED = {
    "index": 0,
    "event_id": _ID,
    "source": "https://wiki.example",
    "id": "a",
    "status": "accepted",
    "error": None,
}
_REFUSED: dict[str, Any] = {
    "index": 1,
    "event_id": None,
    "source": "https://wiki.example",
    "id": "b",
    "status": "rejected",
    "error": {"code": "bad_input", "message": "data.collection: Field required", "field": "data.collection"},
}
EXAMPLES: dict[str, dict[str, Any]] = {
    "PublishResults": {"results": [_ACCEPTED, _REFUSED]},
    "EventAccepted": {"event_id": _ID},
    "EventView": {
        **_EVENT,
        "caused": [_ID],
        "story": [{"at": _AT, "what": "accepted"}, {"at": _AT, "what": "done"}],
    },
    "EventPage": {"items": [_EVENT], "next_cursor": None},
    "DocumentAccepted": {"event_id": _ID, "document_id": "page-7"},
    "DocumentView": _DOCUMENT,
    "DocumentPage": {"items": [_DOCUMENT], "next_cursor": "WyJwYWdlLTciXQ"},
    "CollectionView": _COLLECTION,
    "CollectionPage": {"items": [_COLLECTION], "next_cursor": None},
    "SearchView": {
        "results": [
            {
                "document_id": "page-7",
                "chunk_id": _ID,
                "text": "Thirty days a year.",
                "heading": "Holidays",
                "page": None,
                "score": 0.71,
                "metadata": {},
            }
        ]
    },
    "QueryAccepted": {"id": _ID, "event_id": _ID},
    "QueryView": {
        "id": _ID,
        "status": "answered",
        "question": "How many days of holiday are there?",
        "answer": "Thirty days a year [1].",
        "citations": [{"document_id": "page-7", "chunk_id": _ID, "quote": "Thirty days a year."}],
        "model": "chat",
        "usage": {"tokens_in": 310, "tokens_out": 12},
        "timings_ms": {"total": 412.0},
    },
    "TemplateView": _TEMPLATE,
    "TemplatePage": {"items": [_TEMPLATE], "next_cursor": None},
    "ReviewView": {"changed": [_ID]},
    "AliasView": {"alias": "chat", "model": "ft:gpt-4.1-mini:acme::a1", "previous": "gpt-6-luna"},
    "WebhookView": _WEBHOOK,
    "WebhookCreated": {**_WEBHOOK, "secret": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"},
    "WebhookPage": {"items": [_WEBHOOK], "next_cursor": None},
    "DeliveryAccepted": {"delivery_id": _ID},
}


def show(document: dict[str, Any]) -> None:
    """Put an example beside each shape that has one."""
    for name, example in EXAMPLES.items():
        document["components"]["schemas"][name]["examples"] = [example]
