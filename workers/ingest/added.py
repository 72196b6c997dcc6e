"""`document.added` comes in and leaves as an effect: a version of a document that is searchable, or was superseded.

Everything that takes time (fetching, reading, cutting, embedding) is done first and from a snapshot; the effect writes
it in one transaction, unless the document has changed meanwhile. So a reader sees one version or the other, never half
of one, and an older version that was slow to embed cannot come after a newer one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import structlog

from infra.database import Connection
from infra.egress import Egress
from schemas.errors import Uncharged
from schemas.inbound import DocumentAdded
from schemas.registry import read_data
from schemas.states import DocumentState
from schemas.work import Publication, Work
from workers.handling import Done, Outcome
from workers.ingest.chunk import Chunking
from workers.ingest.content import Content, content_of
from workers.ingest.diff import Diff, compare
from workers.ingest.embed import Embedded, Embedder
from workers.ingest.news import Version, indexed, superseded, version_of
from workers.ingest.prepare import prepare
from workers.ingest.sandbox import Sandbox
from workers.ingest.store import Row, Store, settle, write_chunks
from workers.ingest.version import Known, Place, Standing, standing

_log = structlog.get_logger("penstock.ingest")
UNCHANGED = Diff(kept=0, moved=(), added=(), removed=())


@dataclass(frozen=True, slots=True)
class Plan:
    """All that an effect needs: nothing is computed in a transaction."""

    version: Version
    place: Place
    row: Row
    diff: Diff
    embedded: Embedded


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
        place = await self._store.place(version.key)
        stands = standing(place.known, version.sequence, explicit=version.explicit)
        if stands is Standing.SUPERSEDED:
            assert place.known is not None
            return Done(publications=[superseded(version, place.known)])
        content = await content_of(data, self._egress)
        if stands is Standing.REPEATED:
            assert place.known is not None
            return Done(publications=[_repeated(version, place.known, content, data)])
        plan = await self._plan(version, place, content, data)
        return Done(effect=partial(_write, plan))

    async def _plan(self, version: Version, place: Place, content: Content, data: DocumentAdded) -> Plan:
        """Read, cut, compare and embed what is new."""
        chunking = Chunking.of(place.settings)
        digest, recipe = content.digest(), content.recipe(chunking, data.title)
        known = place.known
        served = known if known is not None and known.served is not None else None
        embedded, diff = Embedded({}, 0), UNCHANGED
        if served is not None and (served.content_sha256, served.recipe_sha256) == (digest, recipe):
            title, chunks, tokens = data.title or served.title, served.chunks, served.tokens
        else:
            prepared = await prepare(content.body, content.media_type, chunking, self._sandbox)
            stored = await self._store.chunks(version.key, place) if served is not None else []
            diff = compare(stored, prepared.chunks)
            embedded = await self._embedder.embed(version.key.tenant_id, place.space, diff.added)
            title, chunks, tokens = data.title or prepared.title, len(prepared.chunks), prepared.tokens
        row = Row(
            status=DocumentState.INDEXED,
            sequence=version.sequence,
            explicit=version.explicit,
            event_id=version.event_id,
            content_sha256=digest,
            recipe_sha256=recipe,
            title=title,
            metadata=data.metadata,
            media_type=content.media_type,
            uri=content.uri,
            chunks=chunks,
            tokens=tokens,
        )
        return Plan(version, place, row, diff, embedded)


async def _write(plan: Plan, connection: Connection) -> Sequence[Publication]:
    """The effect: the version becomes the one that is served."""
    if not await settle(connection, plan.version.key, plan.place, plan.row):
        raise Uncharged("another version of the document was written meanwhile", retry_after=0.0)
    await write_chunks(connection, plan.version.key, plan.place, plan.diff, plan.embedded.wires)
    _log.debug(
        "ingest.document_written",
        chunks=plan.row.chunks,
        added=len(plan.diff.added),
        removed=len(plan.diff.removed),
        embedded=plan.embedded.called,
    )
    return [indexed(plan.version, plan.row, plan.embedded.called)]


def _repeated(version: Version, known: Known, content: Content, data: DocumentAdded) -> Publication:
    """The same number again: the same version is announced again, another one came too late."""
    same = (
        known.served == version.sequence
        and known.content_sha256 == content.digest()
        and known.metadata == data.metadata
        and data.title in {None, known.title}
    )
    return indexed(version, known, 0) if same else superseded(version, known)
