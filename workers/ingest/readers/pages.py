"""A PDF comes in as bytes and leaves as prose, page by page, under the headings of its outline.

Runs only inside the sandbox. pypdf is pure Python: a hostile file can at worst use up time and memory, which the
sandbox limits; its own limits are set so that most hostile files fail earlier and with a reason.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pypdf
from pypdf.errors import FileNotDecryptedError, LimitReachedError

from schemas.errors import Unreadable
from workers.ingest.parsed import MAX_DEPTH, MAX_PAGES, Builder, Parsed, inflated_limit

_MAX_OUTLINE = 10_000
Headings = dict[int, list[tuple[int, str]]]
"""Page number from 1 -> (level from 1, title) of what the outline says begins there."""


def read_pdf(raw: bytes) -> Parsed:
    """Read a PDF.

    Raises:
        Unreadable: with the page where reading stopped, if it got that far.
    """
    if b"%PDF-" not in raw[:1024]:
        raise Unreadable("this is not a PDF: it does not begin with %PDF-")
    limit = inflated_limit(len(raw))
    with pypdf.apply_configuration(
        zlib_maximum_output_length=limit,
        lzw_maximum_output_length=limit,
        run_length_maximum_output_length=limit,
        array_based_stream_maximum_output_length=limit,
        brotli_maximum_output_length=limit,
        jbig2_maximum_output_length=limit,
        maximum_declared_stream_length=limit,
        jbig2dec_binary=None,
    ):
        reader, count = _open(raw)
        return _pages(reader, count, limit)


def _open(raw: bytes) -> tuple[pypdf.PdfReader, int]:
    try:
        reader = pypdf.PdfReader(io.BytesIO(raw))
        # Many PDFs are encrypted with the empty password, only to forbid editing.
        locked = reader.is_encrypted and not reader.decrypt("")
        count = 0 if locked else len(reader.pages)
    except Exception as error:
        # pypdf raises whatever its arithmetic on a broken file happens to raise.
        raise _unreadable(error, None) from error
    if locked:
        raise Unreadable("the PDF needs a password")
    if count > MAX_PAGES:
        raise Unreadable(f"the PDF has {count} pages; {MAX_PAGES} are allowed")
    return reader, count


def _pages(reader: pypdf.PdfReader, count: int, room: int) -> Parsed:
    headings = _headings(reader)
    builder = Builder()
    for number in range(1, count + 1):
        try:
            text = reader.pages[number - 1].extract_text()
        except Exception as error:
            raise _unreadable(error, number) from error
        room -= len(text)
        if room < 0:
            raise Unreadable(f"the text of the PDF is larger than allowed, at page {number}", page=number)
        builder.turn_to(number)
        for level, title in headings.get(number, ()):
            builder.enter(level, title)
        builder.prose(_storable(text))
    try:
        return builder.parsed(_title(reader))
    except Unreadable as error:
        raise Unreadable(
            f"no text on any of {count} pages", fix="run text recognition on a scan first"
        ) from error


def _unreadable(error: Exception, page: int | None) -> Unreadable:
    """A reason without the vendor's message, which may quote the document."""
    where = f"page {page}" if page else "the PDF"
    if isinstance(error, (MemoryError, LimitReachedError)):
        reason = "grows larger than allowed when it is unpacked"
    elif isinstance(error, RecursionError):
        reason = "is nested too deeply"
    elif isinstance(error, FileNotDecryptedError):
        reason = "needs a password"
    else:
        reason = f"is damaged ({type(error).__name__})"
    return Unreadable(f"{where} {reason}", page=page)


def _storable(text: str) -> str:
    """Text without NULs and lone surrogates, which broken fonts produce and PostgreSQL refuses."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode()


def _title(reader: pypdf.PdfReader) -> str | None:
    try:
        title = reader.metadata.title if reader.metadata else None
    except Exception:  # noqa: BLE001 - a broken title must not cost the document
        return None
    return " ".join(_storable(title).split())[:1000] or None if isinstance(title, str) else None


def _headings(reader: pypdf.PdfReader) -> Headings:
    """The outline by page; empty when it is broken, since the text does not depend on it."""
    found: Headings = defaultdict(list)
    try:
        for level, entry in _walk(reader.outline):
            page = reader.get_destination_page_number(entry)
            title = " ".join(_storable(str(entry.title)).split())
            if page is not None and title:
                found[page + 1].append((level, title))
    except Exception:  # noqa: BLE001 - as above
        return {}
    return found


def _walk(outline: list[Any]) -> Iterator[tuple[int, Any]]:
    """Outline entries with their level: pypdf nests children as a list behind their parent."""
    waiting = [iter(outline)]
    for _ in range(_MAX_OUTLINE):
        if not waiting or len(waiting) > MAX_DEPTH:
            return
        entry = next(waiting[-1], None)
        if entry is None:
            waiting.pop()
        elif isinstance(entry, list):
            waiting.append(iter(entry))
        else:
            yield len(waiting), entry
