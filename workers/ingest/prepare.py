"""A document comes in as it was sent, and its chunks go out to be compared and embedded.

Small plain text is read here: it takes a few milliseconds. What could hold up the event loop or attack its parser is
read in the sandbox.
"""

from __future__ import annotations

from dataclasses import dataclass

from workers.ingest.chunk import Chunk, Chunking, chunk
from workers.ingest.media import Source, source
from workers.ingest.read import read
from workers.ingest.sandbox import Sandbox

INLINE = 32_000
"""Bytes of text that are read in the event loop's thread: about 30 chunks, 3 ms."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A document, ready to be embedded."""

    title: str | None
    chunks: tuple[Chunk, ...]

    @property
    def tokens(self) -> int:
        """Estimated tokens of all chunks."""
        return sum(chunk.tokens for chunk in self.chunks)


def prepare_here(origin: Source, chunking: Chunking) -> Prepared:
    """Read and cut a document in this thread.

    Raises:
        Unreadable, BadInput, Misconfigured: see `workers.ingest.read.read`.
    """
    parsed = read(origin)
    return Prepared(parsed.title, tuple(chunk(parsed.blocks, chunking)))


async def prepare(
    content: bytes | str, media_type: str | None, chunking: Chunking, sandbox: Sandbox
) -> Prepared:
    """Read and cut a document wherever it is safe.

    Args:
        content: bytes as downloaded, or the event's string (base64 for a binary type).
        media_type: as the event or the server said; plain text when nobody said.
        chunking: the collection's.
        sandbox: where hostile and large documents are read.

    Raises:
        BadInput, TooLarge: the input breaks a rule.
        Unreadable: the document cannot be read, with the reason and the page.
        Misconfigured: it needs an extra that is not installed.
        Unavailable: the sandbox was killed from outside, or got no time on the processor.
    """
    origin = source(content, media_type)
    if origin.media.family.hostile or len(origin.raw) > INLINE:
        title, chunks = await sandbox.read(origin, chunking)
        return Prepared(title, chunks)
    return prepare_here(origin, chunking)
