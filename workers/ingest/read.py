"""A document of any kind comes in, the reader of its kind reads it, and its blocks go on to the chunker.

Pure and synchronous: `prepare` decides whether this runs here or in the sandbox.
"""

from __future__ import annotations

from schemas.errors import Unreadable
from workers.ingest.media import Family, Source, bytes_of, text_of
from workers.ingest.parsed import Parsed
from workers.ingest.readers.marked import read_markdown
from workers.ingest.readers.plain import read_plain
from workers.ingest.readers.records import read_json, read_json_lines
from workers.ingest.readers.sheet import read_csv
from workers.ingest.readers.web import read_html

_TEXT_READERS = {
    Family.TEXT: read_plain,
    Family.MARKDOWN: read_markdown,
    Family.HTML: read_html,
    Family.JSON: read_json,
    Family.JSON_LINES: read_json_lines,
    Family.CSV: read_csv,
}


def read(origin: Source) -> Parsed:
    """Read a document.

    Raises:
        BadInput: a binary document was not sent as base64.
        Unreadable: it cannot be read, with the reason and, for a PDF, the page.
        Misconfigured: its kind needs an extra that is not installed.
    """
    if not origin.raw.strip():
        raise Unreadable("the document is empty")
    family = origin.media.family
    if family is Family.PDF:
        from workers.ingest.readers.pages import read_pdf  # noqa: PLC0415 - pypdf takes 0.2 s to import

        return read_pdf(bytes_of(origin))
    if family.binary:
        from workers.ingest.readers.office import read_office  # noqa: PLC0415 - only in the sandbox

        return read_office(bytes_of(origin), family)
    return _TEXT_READERS[family](text_of(origin))
