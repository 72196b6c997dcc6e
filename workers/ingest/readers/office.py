"""A Word, PowerPoint or Excel file comes in as bytes and leaves as Markdown's blocks, by markitdown.

Runs only inside the sandbox, and only after the archive was unpacked once, to nowhere, with everything counted: what
an archive declares about itself is not believed. A DTD in any part is refused: Office writes none, and entities that
grow ("billion laughs") or point to files need one.
"""

from __future__ import annotations

import importlib
import io
import re
import zipfile
import zlib
from dataclasses import replace
from typing import Any

from schemas.errors import Misconfigured, Unreadable
from workers.ingest.media import Family
from workers.ingest.parsed import Block, Parsed, inflated_limit
from workers.ingest.readers.marked import read_markdown

_MAX_PARTS = 10_000
_STEP = 1 << 16
_SLIDE = re.compile(r"<!-- Slide number: (\d{1,6}) -->")
_TOO_LARGE = "the file grows larger than allowed when it is unpacked"
_CONVERTERS = {Family.DOCX: "DocxConverter", Family.PPTX: "PptxConverter", Family.XLSX: "XlsxConverter"}
_DTD = tuple(
    word.encode(encoding)
    for word in ("<!DOCTYPE", "<!ENTITY")
    for encoding in ("utf-8", "utf-16-le", "utf-16-be")
)


def read_office(raw: bytes, family: Family) -> Parsed:
    """Read an Office file.

    Raises:
        Unreadable: it is damaged, grows beyond what is allowed, or holds a DTD.
        Misconfigured: the extra is not installed.
    """
    check_archive(raw)
    converter, stream_info = _markitdown(family)
    try:
        markdown = converter.convert(io.BytesIO(raw), stream_info(extension=f".{family}")).markdown
    except MemoryError as error:
        raise Unreadable("the file needs more memory than allowed") from error
    except Exception as error:
        # Five libraries below raise whatever a damaged file makes them raise.
        raise Unreadable(f"the file is damaged ({type(error).__name__})") from error
    return _by_slide(markdown.replace("\x00", "").encode("utf-8", "replace").decode())


def _by_slide(markdown: str) -> Parsed:
    """Read Markdown, with the slide as the page where markitdown's marks say so."""
    before, *slides = _SLIDE.split(markdown)
    if not slides:
        return read_markdown(before)
    title, blocks = None, list[Block]()
    for number, text in zip(slides[::2], slides[1::2], strict=True):
        if text.strip():
            slide = read_markdown(text)
            title = title or slide.title
            blocks += (replace(block, page=int(number)) for block in slide.blocks)
    if not blocks:
        raise Unreadable("the document holds no text")
    return Parsed(tuple(blocks), title)


def check_archive(raw: bytes) -> None:
    """Unpack every part of a ZIP archive to nowhere, counting.

    Raises:
        Unreadable: it is no archive, is damaged, encrypted, or grows beyond what is allowed.
    """
    room = inflated_limit(len(raw))
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            parts = archive.infolist()
            if len(parts) > _MAX_PARTS:
                raise Unreadable(f"the file has {len(parts)} parts; {_MAX_PARTS} are allowed")
            if sum(part.file_size for part in parts) > room:
                raise Unreadable(_TOO_LARGE)
            for part in parts:
                room = _check_part(archive, part, room)
    except (
        zipfile.BadZipFile,
        zlib.error,
        NotImplementedError,
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
    ) as error:
        raise Unreadable("this is not an Office file, or it is damaged or encrypted") from error


def _check_part(archive: zipfile.ZipFile, part: zipfile.ZipInfo, room: int) -> int:
    before = b""
    with archive.open(part) as stream:
        while step := stream.read(_STEP):
            room -= len(step)
            if room < 0:
                raise Unreadable(_TOO_LARGE)
            if any(word in before + step for word in _DTD) and part.filename.endswith(
                (".xml", ".rels", ".vml")
            ):
                raise Unreadable("the file holds an XML document type, which Office files do not have")
            before = step[-32:]
    return room


def _markitdown(family: Family) -> tuple[Any, Any]:
    """The converter of a family, and the class that describes its input; imported here, since it takes seconds."""
    try:
        module = importlib.import_module("markitdown")
        converters = importlib.import_module("markitdown.converters")
    except ImportError as error:
        raise Misconfigured(
            "Office files need the extra `office`",
            field="data.media_type",
            fix="pip install 'penstock[office]'",
        ) from error
    return getattr(converters, _CONVERTERS[family])(), module.StreamInfo
