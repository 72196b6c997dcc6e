"""`document.deleted` comes in and leaves as an effect: chunks and vectors are gone, a tombstone keeps the version."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from infra.database import Connection
from schemas.errors import Uncharged
from schemas.inbound import DocumentDeleted
from schemas.registry import read_data
from schemas.states import DocumentState
from schemas.work import Publication, Work
from workers.handling import Done, Outcome
from workers.ingest.news import Version, purged, superseded, version_of
from workers.ingest.store import Row, Store, purge_chunks, settle
from workers.ingest.version import Place, Standing, standing


class Deleter:
    """Handles `document.deleted`."""

    def __init__(self, store: Store) -> None:
        """Use what the pool opened."""
        self._store = store

    async def handle(self, work: Work) -> Outcome:
        """Delete a document as one more version of it; one that never arrived leaves a tombstone too.

        Raises:
            SequenceMode: the document's versions are numbered the other way.
        """
        data = read_data(work.type, work.major, work.data)
        assert isinstance(data, DocumentDeleted)
        version = version_of(work, data)
        place = await self._store.place(version.key)
        stands = standing(place.known, version.sequence, explicit=version.explicit)
        if stands is Standing.COUNTS:
            return Done(effect=partial(_write, version, place))
        assert place.known is not None
        if stands is Standing.REPEATED and place.known.served is None:
            return Done(publications=[purged(version)])
        return Done(publications=[superseded(version, place.known)])


async def _write(version: Version, place: Place, connection: Connection) -> Sequence[Publication]:
    row = Row(DocumentState.PURGED, version.sequence, version.explicit, version.event_id)
    if not await settle(connection, version.key, place, row):
        raise Uncharged("another version of the document was written meanwhile", retry_after=0.0)
    await purge_chunks(connection, version.key, place)
    return [purged(version)]
