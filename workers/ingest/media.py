"""A document's media type and its raw form pass through here; out come the reader's family, and text or bytes."""

from __future__ import annotations

import binascii
import codecs
from base64 import b64decode
from dataclasses import dataclass
from enum import StrEnum

from schemas.errors import BadInput, TooLarge, Unreadable
from workers.ingest.parsed import MAX_INPUT

DEFAULT = "text/plain"


class Family(StrEnum):
    """A reader, and the media types that it reads."""

    TEXT = "text"
    MARKDOWN = "markdown"
    HTML = "html"
    JSON = "json"
    JSON_LINES = "json_lines"
    CSV = "csv"
    PDF = "pdf"
    DOCX = "docx"
    PPTX = "pptx"
    XLSX = "xlsx"

    @property
    def binary(self) -> bool:
        """Whether the raw form is bytes, which an event carries as base64."""
        return self in BINARY

    @property
    def hostile(self) -> bool:
        """Whether the format is rich enough to attack its parser, so that only a sandbox reads it."""
        return self is Family.HTML or self in BINARY


OFFICE = frozenset({Family.DOCX, Family.PPTX, Family.XLSX})
BINARY = OFFICE | {Family.PDF}

_OFFICE = "application/vnd.openxmlformats-officedocument."
FAMILIES = {
    "text/markdown": Family.MARKDOWN,
    "text/x-markdown": Family.MARKDOWN,
    "text/html": Family.HTML,
    "application/xhtml+xml": Family.HTML,
    "application/json": Family.JSON,
    "application/x-ndjson": Family.JSON_LINES,
    "application/jsonl": Family.JSON_LINES,
    "text/csv": Family.CSV,
    "text/tab-separated-values": Family.CSV,
    "application/pdf": Family.PDF,
    _OFFICE + "wordprocessingml.document": Family.DOCX,
    _OFFICE + "presentationml.presentation": Family.PPTX,
    _OFFICE + "spreadsheetml.sheet": Family.XLSX,
}

# Python knows codecs that are no character sets (zip, idna, punycode …): only these are taken from a stranger.
CHARSETS = frozenset(
    codecs.lookup(name).name
    for name in (
        *("ascii", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "koi8-r", "koi8-u"),
        *(f"iso8859-{part}" for part in range(1, 17) if part != 12),
        *(f"cp{page}" for page in range(1250, 1259)),
        *(
            "shift_jis",
            "cp932",
            "euc_jp",
            "iso2022_jp",
            "gb2312",
            "gbk",
            "gb18030",
            "big5",
            "euc_kr",
            "cp949",
        ),
    )
)


@dataclass(frozen=True, slots=True)
class Media:
    """A media type, understood."""

    family: Family
    charset: str | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """A document before it is read: its bytes and what they claim to be."""

    raw: bytes
    media: Media
    base64: bool = False
    """The bytes are still as the event carried them; the reader decodes them, where it blocks nobody."""


def understand(media_type: str | None) -> Media:
    """Say who reads a media type; `text/plain` where none is given.

    Raises:
        BadInput: nobody reads it, or its charset is unknown.
    """
    essence, _, parameters = (media_type or DEFAULT).partition(";")
    essence = essence.strip().lower()
    family = FAMILIES.get(essence)
    if family is None and essence.endswith("+json"):
        family = Family.JSON
    if family is None and essence.startswith("text/") and essence != "text/xml":
        family = Family.TEXT
    if family is None:
        raise BadInput(
            f"documents of type {essence!r} cannot be read",
            field="data.media_type",
            fix="send text/*, JSON, CSV, HTML, PDF, or an Office file (docx, pptx, xlsx)",
        )
    return Media(family, _charset(parameters))


def _charset(parameters: str) -> str | None:
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            return known_charset(value.strip().strip('"'))
    return None


def known_charset(name: str) -> str:
    """Python's name of a character set.

    Raises:
        BadInput: it is none that we know.
    """
    try:
        known = codecs.lookup(name.encode("ascii", "replace").decode()).name
    except (LookupError, ValueError):
        known = ""
    if known not in CHARSETS:
        raise BadInput("the charset is unknown", field="data.media_type", fix="send UTF-8")
    return known


def source(content: bytes | str, media_type: str | None) -> Source:
    """Take a document's content, without looking into it yet.

    Args:
        content: bytes as they were downloaded, or the event's string: text, or base64 for a binary type.
        media_type: as the event or the server said.

    Raises:
        BadInput: nobody reads the media type, or the text is not Unicode.
        TooLarge: it is beyond `MAX_INPUT`.
    """
    media = understand(media_type)
    base64 = isinstance(content, str) and media.family.binary
    if isinstance(content, str):
        media = Media(media.family, "utf-8")
        try:
            content = content.encode()
        except UnicodeEncodeError as error:
            raise BadInput("the text holds half of a surrogate pair", field="data.content") from error
    if len(content) > (MAX_INPUT * 4 // 3 if base64 else MAX_INPUT):
        raise TooLarge(f"the document is larger than {MAX_INPUT // 1_000_000} MB", field="data.content")
    return Source(content, media, base64)


def bytes_of(origin: Source) -> bytes:
    """The bytes of a binary document.

    Raises:
        BadInput: the event's base64 is none.
    """
    if not origin.base64:
        return origin.raw
    try:
        return b64decode(origin.raw.translate(None, b" \t\r\n"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadInput(
            "a document of a binary type must be sent as base64",
            field="data.content",
            fix="encode it as base64",
        ) from error


def text_of(origin: Source) -> str:
    """Decode a text document strictly, with plain line feeds and without a byte order mark.

    Raises:
        Unreadable: it is not what its charset says, holds NUL bytes, or is a binary file in disguise.
    """
    raw, charset = origin.raw, origin.media.charset or "utf-8"
    _refuse_disguise(raw)
    try:
        text = raw.decode(charset)
    except UnicodeDecodeError as error:
        raise Unreadable(
            f"byte {error.start} is not valid {charset}",
            fix="send UTF-8, or name the charset in the media type",
        ) from error
    if "\x00" in text:
        raise Unreadable(f"character {text.index(chr(0))} is NUL; this is not text")
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def _refuse_disguise(raw: bytes) -> None:
    for magic, name in ((b"%PDF-", "a PDF"), (b"PK\x03\x04", "a ZIP archive or Office file")):
        if raw.startswith(magic):
            raise Unreadable(f"this is {name}, but its media type says text", fix="correct data.media_type")
