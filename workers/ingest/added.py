"""`document.added` comes in and leaves as an effect: a version of a document that is searchable, or was superseded.

Everything that takes time (fetching, reading, cutting, embedding) is done first and from a snapshot; the effect writes
it in one transaction, unless the document has changed meanwhile. So a reader sees one version or the other, never half
of one, and an older version that was slow to embed cannot come after a newer one.
"""

from __future__ import annotations

from infra.budget_book import Home
from infra.egress import Egress
from schemas.inbound import DocumentAdded
from schemas.registry import read_data
from schemas.states import DocumentState
from schemas.work import Publication, Work
from workers.handling import Done, Outcome, Shared
from workers.ingest.chunk import Chunking
from workers.ingest.content import Content, content_of
from workers.ingest.diff import compare
from workers.ingest.embed import Embedded, Embedder
from workers.ingest.news import Row, Version, indexed, overtaken, superseded, version_of
from workers.ingest.prepare import prepare
from workers.ingest.sandbox import Sandbox
from workers.ingest.store import Store
from workers.ingest.version import Dropped, Known, Place, Standing, standing
from workers.ingest.write import UNCHANGED, Plan, write


class Adder:
    """Handles `document.added`."""

    def __init__(self, store: Store, embedder: Embedder, egress: Egress, sandbox: Sandbox) -> None:
        """Use what the pool opened."""
        self._store = store
        self._embedder = embedder
        self._egress = egress
        self._sandbox = sandbox

    async def handle(self, work: Work) -> Outcome:
        """Index one version of a document.

        Raises:
            BadInput, Unreadable, Refused …: the version can never be indexed.
            Retryable: it may be later; see `schemas.errors`.
        """
        data = read_data(work.type, work.major, work.data)
        assert isinstance(data, DocumentAdded)
        version = version_of(work, data)
        place = await self._store.place(version.key, version.accept_no)
        if isinstance(place, Dropped):
            return Done(publications=[overtaken(version, place.accept_no)])
        stands = standing(place.known, version.sequence, explicit=version.explicit)
        if stands is Standing.SUPERSEDED:
            assert place.known is not None
            return Done(publications=[superseded(version, place.known)])
        content = await content_of(data, self._egress)
        if stands is Standing.REPEATED:
            assert place.known is not None
            return Done(publications=[_repeated(version, place.known, content, data)])
        return Done(effect=Shared(write, await self._plan(version, place, content, data)))

    async def _plan(self, version: Version, place: Place, content: Content, data: DocumentAdded) -> Plan:
        """Read, cut, compare and embed what is new."""
        chunking = Chunking.of(place.settings)
        digest, recipe = content.digest(), content.recipe(chunking, data.title)
        home = Home(version.key.tenant_id, place.collection_id, version.key.document_id)
        known = place.known
        served = known if known is not None and known.served is not None else None
        embedded, diff = Embedded({}, 0), UNCHANGED
        if served is not None and (served.content_sha256, served.recipe_sha256) == (digest, recipe):
            title, chunks, tokens = data.title or served.title, served.chunks, served.tokens
        else:
            prepared = await prepare(content.body, content.media_type, chunking, self._sandbox)
            stored = await self._store.chunks(version.key, place) if served is not None else []
            diff = compare(stored, prepared.chunks)
            embedded = await self._embedder.embed(home, place.space, diff.added)
            title, chunks, tokens = data.title or prepared.title, len(prepared.chunks), prepared.tokens
        row = Row(
            status=DocumentState.INDEXED,
            content_sha256=digest,
            recipe_sha256=recipe,
            title=title,
            metadata=data.metadata,
            media_type=content.media_type,
            uri=content.uri,
            chunks=chunks,
            tokens=tokens,
        )
        return Plan(version, place, row, diff, embedded.wires, embedded.called)


def _repeated(version: Version, known: Known, content: Content, data: DocumentAdded) -> Publication:
    """The same number again: the same version is announced again, another one came too late."""
    same = (
        known.served == version.sequence
        and known.content_sha256 == content.digest()
        and known.metadata == data.metadata
        and data.title in {None, known.title}
    )
    return indexed(version, known, 0) if same else superseded(version, known)
