"""Plain text passes through here unchanged; the chunker finds its paragraphs and sentences."""

from __future__ import annotations

from workers.ingest.parsed import Builder, Parsed


def read_plain(text: str) -> Parsed:
    """Read plain text as one block."""
    builder = Builder()
    builder.prose(text)
    return builder.parsed()
