"""`document.deleted` comes in and leaves as an effect: chunks and vectors are gone, a tombstone keeps the version."""

from __future__ import annotations

from schemas.inbound import DocumentDeleted
from schemas.registry import read_data
from schemas.states import DocumentState
from schemas.work import Work
from workers.handling import Done, Outcome, Shared
from workers.ingest.news import Row, overtaken, purged, superseded, version_of
from workers.ingest.store import Store
from workers.ingest.version import Dropped, Standing, standing
from workers.ingest.write import Plan, write


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
        place = await self._store.place(version.key, version.accept_no)
        if isinstance(place, Dropped):
            return Done(publications=[overtaken(version, place.accept_no)])
        stands = standing(place.known, version.sequence, explicit=version.explicit)
        if stands is Standing.COUNTS:
            return Done(effect=Shared(write, Plan(version, place, Row(DocumentState.PURGED))))
        assert place.known is not None
        if stands is Standing.REPEATED and place.known.served is None:
            return Done(publications=[purged(version)])
        return Done(publications=[superseded(version, place.known)])
