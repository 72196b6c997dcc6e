"""What became of a version passes through here as the event that says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from schemas.errors import PenstockError, Unreadable
from schemas.inbound import DocumentAdded, DocumentDeleted
from schemas.states import DocumentState
from schemas.work import Publication, Work
from workers.ingest.store import Key
from workers.ingest.version import Known


@dataclass(frozen=True, slots=True)
class Version:
    """One version of one document, as an event named it.

    Attributes:
        sequence: the caller's number, otherwise the ledger's.
        explicit: whether it is the caller's.
        accept_no: where it stands among all that was accepted.
    """

    key: Key
    sequence: int
    explicit: bool
    accept_no: int
    event_id: UUID


@dataclass(frozen=True, slots=True)
class Row:
    """What a version makes of its document's row.

    Attributes:
        status: indexed or purged.
        tokens: estimated tokens of all chunks.
    """

    status: DocumentState
    content_sha256: bytes | None = None
    recipe_sha256: bytes | None = None
    title: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    media_type: str | None = None
    uri: str | None = None
    chunks: int = 0
    tokens: int = 0


def version_of(work: Work, data: DocumentAdded | DocumentDeleted) -> Version:
    """The version that an event is about."""
    return Version(
        key=Key(work.tenant_id, data.collection, data.document_id),
        sequence=work.accept_no if work.sequence is None else work.sequence,
        explicit=work.sequence is not None,
        accept_no=work.accept_no,
        event_id=work.event_id,
    )


def indexed(version: Version, found: Row | Known, embedded: int) -> Publication:
    """The version is searchable."""
    return _say(version, "document.indexed", chunks=found.chunks, embedded=embedded, tokens=found.tokens)


def superseded(version: Version, known: Known) -> Publication:
    """A newer version is there already."""
    return overtaken(version, known.settled)


def overtaken(version: Version, by_sequence: int) -> Publication:
    """A newer version was there first, or is written at the same time; or the collection was dropped since."""
    return _say(version, "document.superseded", by_sequence=by_sequence)


def purged(version: Version) -> Publication:
    """The document is gone."""
    return _say(version, "document.purged")


def failed(version: Version, error: PenstockError) -> Publication:
    """The version cannot be indexed."""
    page = error.page if isinstance(error, Unreadable) else None
    return _say(version, "document.failed", error=error.as_dict(), page=page)


def _say(version: Version, kind: str, **more: object) -> Publication:
    data = {
        "collection": version.key.collection,
        "document_id": version.key.document_id,
        "sequence": version.sequence,
        **more,
    }
    return Publication(kind, data, subject=version.key.document_id)
