"""The body of a multipart upload passes through here and goes on as its fields and its file."""

from __future__ import annotations

import re
from dataclasses import dataclass

from infra.local.model.errors import ApiError

_BOUNDARY = re.compile(r"boundary=(?:\"([^\"]+)\"|([^;\s]+))", re.IGNORECASE)
_NAME = re.compile(r";\s*name=\"((?:[^\"\\]|\\.)*)\"", re.IGNORECASE)
_FILENAME = re.compile(r";\s*filename=\"((?:[^\"\\]|\\.)*)\"", re.IGNORECASE)
_HEADER_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a form: its name, its content, and the file name if it is a file."""

    name: str
    data: bytes
    filename: str | None


def read_form(content_type: str, body: bytes) -> dict[str, Part]:
    """The parts of a `multipart/form-data` body by name (RFC 7578).

    Raises:
        ApiError: the body is not such a form, or breaks off.
    """
    boundary = _BOUNDARY.search(content_type)
    if not content_type.lower().startswith("multipart/form-data") or boundary is None:
        raise ApiError(400, "Expected a multipart/form-data body with a boundary.", code="invalid_multipart")
    border = b"--" + (boundary.group(1) or boundary.group(2)).encode("latin-1")
    # A border stands at the start of a line; the first line has none before it.
    pieces = (b"\r\n" + body).split(b"\r\n" + border)
    if len(pieces) < 3 or not pieces[-1].startswith(b"--"):
        raise ApiError(400, "The multipart body breaks off.", code="invalid_multipart")
    parts = [_part(piece) for piece in pieces[1:-1]]
    return {part.name: part for part in parts}


def _part(piece: bytes) -> Part:
    head, found, data = piece.partition(_HEADER_END)
    headers = head.decode("utf-8", "replace")
    name = _NAME.search(headers)
    if not found or name is None:
        raise ApiError(400, "A part of the multipart body has no name.", code="invalid_multipart")
    filename = _FILENAME.search(headers)
    return Part(name=name.group(1), data=data, filename=filename.group(1) if filename else None)
