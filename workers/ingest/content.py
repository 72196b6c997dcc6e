"""An event's document passes through here to the readers: its content as it was sent, or fetched from its address."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

import orjson

from infra.egress import Egress, public_url
from schemas.errors import Unreadable
from schemas.inbound import DocumentAdded
from workers.ingest.chunk import Chunking
from workers.ingest.media import DEFAULT, Family, understand
from workers.ingest.parsed import MAX_INPUT

READERS = 1
"""Raise it when readers or chunker change what they make of the same document."""
_UNCERTAIN = frozenset({"application/octet-stream", "binary/octet-stream"})
"""What servers say of files that they do not know."""


@dataclass(frozen=True, slots=True)
class Content:
    """A document's content, not read yet.

    Attributes:
        body: bytes as downloaded, or the event's string.
        media_type: what it will be read as.
        uri: where it came from, without what must not be shown.
    """

    body: bytes | str
    media_type: str
    uri: str | None = None

    def digest(self) -> bytes:
        """What tells two contents apart: sha256 of the bytes, or of the string in UTF-8."""
        body = self.body.encode(errors="surrogatepass") if isinstance(self.body, str) else self.body
        return sha256(body).digest()

    def recipe(self, chunking: Chunking, title: str | None) -> bytes:
        """All besides the content that decides chunks and title: with the same digest and recipe nothing is read again.

        A given title is taken as it is; without one it is read from the document, which is another recipe.
        """
        parts = [READERS, self.media_type, chunking.strategy, chunking.size, chunking.overlap, title is None]
        return sha256(orjson.dumps(parts)).digest()


async def content_of(data: DocumentAdded, egress: Egress) -> Content:
    """The content of an event, fetched where the event only says where it is.

    Raises:
        BadInput: nobody reads the media type.
        Unreadable: the server gave no document, or one of another kind than the event says.
        TooLarge, BlockedTarget, CallFailed, Unavailable: see `infra.egress`.
    """
    if data.content is not None:
        media_type = data.media_type or DEFAULT
        understand(media_type)
        return Content(data.content, media_type)
    assert data.uri is not None
    document = await egress.fetch(data.uri, max_bytes=MAX_INPUT)
    served = document.media_type
    if document.charset is not None:
        served = f"{served}; charset={document.charset}"
    return Content(document.body, _agreed(data.media_type, served), public_url(data.uri))


def _agreed(said: str | None, served: str) -> str:
    """The media type that event and server agree on.

    Raises:
        Unreadable: they do not, or neither knows.
    """
    found = None if served.partition(";")[0].strip() in _UNCERTAIN else understand(served).family
    if said is None:
        if found is None:
            raise Unreadable(
                "the server does not say what the document is",
                field="data.media_type",
                fix="say it in the event",
            )
        return served
    wanted = understand(said)
    # A server that says text may only not know the kind of text.
    if found not in {None, Family.TEXT, wanted.family}:
        raise Unreadable(
            f"the event says {wanted.family}, but the server sent {found}",
            field="data.media_type",
            fix="an error page may have been sent instead of the document",
        )
    return served if found is wanted.family and wanted.charset is None else said
