"""An event that was given up passes through here: its version is marked failed, what was served before still is."""

from __future__ import annotations

from collections.abc import Sequence

from infra.database import Connection, queries
from schemas.errors import BadInput, NewerThanWorker, PenstockError, Unreadable
from schemas.inbound import DocumentAdded, DocumentDeleted
from schemas.registry import read_data
from schemas.work import Publication, Work
from workers.ingest.news import failed, version_of


async def on_dead(connection: Connection, work: Work, error: PenstockError) -> Sequence[Publication]:
    """Mark the document failed with the reason, unless a newer version decided it; say that it failed."""
    try:
        data = read_data(work.type, work.major, work.data)
    except (BadInput, NewerThanWorker):
        # It names no document; `event.dead` says what is wrong with it.
        return []
    assert isinstance(data, DocumentAdded | DocumentDeleted)
    version = version_of(work, data)
    reason: dict[str, object] = dict(error.as_dict())
    if isinstance(error, Unreadable) and error.page is not None:
        reason["page"] = error.page
    await connection.execute(
        queries("ingest").fail_document,
        *(version.key.tenant_id, version.key.collection, version.key.document_id),
        *(version.sequence, version.explicit, reason, version.event_id),
        *(data.media_type if isinstance(data, DocumentAdded) else None, version.accept_no),
    )
    return [failed(version, error)]
